"""`/healthz`, `/readyz` and `/metrics`: for whoever runs the server; no key is needed."""

from __future__ import annotations

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from posthouse import errors
from posthouse.api.answers import encode, ok
from posthouse.api.http import Call, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.ports import Check
from posthouse.api.views import HealthView

CHECK_SECONDS = 2.0


async def healthz(context: Context, call: Call) -> Reply:
    return ok(HealthView("ok"))


async def readyz(context: Context, call: Call) -> Reply:
    checks = context.services.checks
    results = await asyncio.gather(*(_check(check) for check in checks.values()))
    found = dict(zip(checks, results, strict=True))
    if all(result == "ok" for result in results):
        return ok(HealthView("ready", found))
    return Reply(503, encode(HealthView("unready", found)), headers=((b"retry-after", b"2"),))


async def metrics(context: Context, call: Call) -> Reply:
    return Reply(200, await asyncio.to_thread(generate_latest), CONTENT_TYPE_LATEST.encode())


async def _check(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except errors.Error as error:
        return error.public
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Exception:
        return "failed"
    return "ok"


OPERATIONS = (
    Operation(
        id="get_health",
        method="GET",
        path="/healthz",
        summary="The process answers",
        handler=healthz,
        tag="House",
        scopes=None,
        answer=HealthView,
        answer_example={"status": "ok"},
    ),
    Operation(
        id="get_readiness",
        method="GET",
        path="/readyz",
        summary="Everything it needs answers",
        handler=readyz,
        tag="House",
        scopes=None,
        description="503 with the same body when something does not.",
        answer=HealthView,
        answer_example={"status": "ready", "checks": {"records": "ok"}},
        problems=(503,),
    ),
    Operation(
        id="get_metrics",
        method="GET",
        path="/metrics",
        summary="Figures for Prometheus",
        handler=metrics,
        tag="House",
        scopes=None,
        media="text/plain",
    ),
)
