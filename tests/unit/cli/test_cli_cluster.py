"""`posthouse cluster`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stub_app import Run, StubApp

_AT = "2026-11-22T12:00:00.000000Z"


def answer(*stuck: str) -> dict[str, Any]:
    lane = {"stage": "render", "lane": "bulk", "held": 5, "finished": 81, "progressed_at": _AT}
    process = {
        "id": "prc_1", "host": "worker-1\x1b[2J", "pid": 7, "roles": ["render", "send"], "version": "0.1.0",
        "started_at": _AT, "seen_at": _AT, "status": "here", "late": 0.0, "lanes": [lane, lane],
    }  # fmt: skip
    depth = {"stage": "render", "lane": "bulk", "ready": 12, "delayed": 0, "buried": 0, "oldest_due_at": _AT}
    lease = {"name": "schedule", "holder": "worker-2/7", "fence": 3, "until": _AT, "held": True}
    return {"processes": [process], "depths": [depth], "leases": [lease], "stuck": list(stuck)}


def test_all_is_shown_and_nothing_is_stuck(run: Run, app: StubApp, data: Path) -> None:
    app.answers["GET /v1/cluster"] = (200, answer())
    ran = run("cluster")
    assert ran.code == 0, ran.err
    for word in ("prc_1", "render, send", "10", "162", "schedule", "worker-2/7", "Nothing is stuck."):
        assert word in ran.out
    assert "\x1b[2J" not in ran.out


def test_what_is_stuck_is_the_exit_code(run: Run, app: StubApp, data: Path) -> None:
    app.answers["GET /v1/cluster"] = (200, answer("3 jobs wait before store."))
    ran = run("cluster")
    assert (ran.code, "3 jobs wait before store." in ran.out) == (1, True)
    ran = run("cluster", "--json")
    assert (ran.code, json.loads(ran.out)["stuck"]) == (1, ["3 jobs wait before store."])
