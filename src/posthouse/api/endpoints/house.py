"""`/healthz`, `/readyz` and `/metrics`: for whoever runs the server; no key is needed."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from posthouse import errors
from posthouse.api.answers import encode, ok
from posthouse.api.http import Call, Query, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.ports import Check, Health
from posthouse.api.views import HealthView, RoleView

CHECK_SECONDS = 2.0


class RoleQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Annotated[str | None, msgspec.Meta(description="Of this role alone")] = None


QUERY = Query(RoleQuery)


async def healthz(context: Context, call: Call) -> Reply:
    health = context.services.health()
    view = HealthView("ok" if health.alive else "failing", roles=_roles(health), late=_short(health.late))
    return ok(view) if health.alive else _unavailable(view)


async def readyz(context: Context, call: Call) -> Reply:
    role = QUERY.read(call.query_string).role
    checks = context.services.checks
    results = await asyncio.gather(*(_check(check) for check in checks.values()))
    found = dict(zip(checks, results, strict=True))
    health = context.services.health()
    roles = _roles(health)
    if role is not None:
        roles = {role: roles.get(role, RoleView("absent"))}
    good = all(one == "ok" for one in results) and not {"stuck", "absent"} & {one.status for one in roles.values()}
    view = HealthView("ready" if good else "unready", found, roles, _short(health.late))
    return ok(view) if good else _unavailable(view)


def _roles(health: Health) -> dict[str, RoleView]:
    return {name: RoleView(one.status, one.held, _short(one.waited)) for name, one in health.roles.items()}


def _short(seconds: float) -> float:
    return round(seconds, 1)


def _unavailable(view: HealthView) -> Reply:
    return Reply(503, encode(view), headers=((b"retry-after", b"2"),))


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
        summary="The process answers, and nothing in it is beyond help",
        handler=healthz,
        tag="House",
        scopes=None,
        description="503 with the same body when its loop is seconds late or a stage finishes nothing for long:"
        " a new process helps.",
        answer=HealthView,
        answer_example={"status": "ok", "roles": {"api": {"status": "ok"}, "send": {"status": "idle"}}},
        problems=(503,),
    ),
    Operation(
        id="get_readiness",
        method="GET",
        path="/readyz",
        summary="Everything it needs answers",
        handler=readyz,
        tag="House",
        scopes=None,
        description="503 with the same body when something does not, or a stage is stuck: it holds jobs and finishes"
        " none for longer than a lease. `?role=` looks at one role, and is 503 where the process does not have it.",
        query=QUERY,
        answer=HealthView,
        answer_example={"status": "ready", "checks": {"records": "ok"}, "roles": {"api": {"status": "ok"}}},
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
