"""Processes that die or stand still beside the server: renderers, and a server past its leases."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.crash.checker import FINAL, judge, judge_events
from tests.crash.load import FROM
from tests.product import Server, Sink, Town, message_id, routes, wait_until


def _send(server: Server, start: int, count: int, stream: str = "broadcast") -> list[str]:
    recipients = [{"to": f"user{n}@sink.example"} for n in range(start, start + count)]
    body = {"from": FROM, "subject": "One", "text": "Hello\n", "stream": stream, "recipients": recipients}
    answer = server.post("/v1/messages/batch", body)
    assert answer.status_code == 202, answer.text
    return [one["id"] for one in answer.json()["results"]]


def _judge(accepted: list[str], server: Server, sink: Sink) -> list[str]:
    ledger = server.ledger()
    wrong: list[str] = []
    for row in random.sample(ledger, 50):
        told = server.get(f"/v1/messages/{row['id']}/events").json()["data"]
        wrong += judge_events(row["id"], told, row["status"])
    sink.stop()
    return wrong + judge(accepted, ledger, sink.entries(), [], 8, frozenset({"delivered"})).wrong


@pytest.mark.timeout(120)
def test_killed_render_processes_cost_nothing(tmp_path: Path) -> None:
    """The server lives on: no message is lost, sent twice or failed for it."""
    with Town(tmp_path) as town:
        sink = town.sink("--no-tls")
        server = town.server(routes(sink.port))
        accepted: list[str] = []
        for kill in range(6):
            accepted += _send(server, kill * 400, 400)
            wait_until(server.renderers, "there is a render process")
            time.sleep(random.uniform(0.0, 0.9))  # while it starts, or while it works
            for pid in server.renderers():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.waiting() == 0, "every message is final")
        assert _judge(accepted, server, sink) == []
        assert "posthouse_render_process_deaths_total 0.0" not in server.get("/metrics").text


@pytest.mark.timeout(120)
def test_stopped_past_its_leases_on_sqlite(tmp_path: Path) -> None:
    """One server: its leases lapse while it stands still, and it is the one that claims again."""
    with Town(tmp_path) as town:
        sink = town.sink("--no-tls", "--mix", "slow-final-0.05=20%")
        server = town.server(routes(sink.port, 8, "[worker]\nlease = 2\n"))
        accepted = _send(server, 0, 500)
        wait_until(lambda: sink.counts()["accepted"] > 100, "it sends")
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: server.waiting() == 0, "every message is final")
        assert _judge(accepted, server, sink) == []


@pytest.mark.timeout(120)
def test_stopped_past_its_leases_beside_another(tmp_path: Path, postgres_url: str) -> None:
    """Two servers: one stands still past its leases, the other takes over; woken, the first may
    only have sent twice what was in flight when it was stopped."""
    connections = 8
    with Town(tmp_path) as town:
        sink = town.sink("--no-tls", "--mix", "slow-final-0.05=20%")
        extra = f'secret_key_file = "{tmp_path}/key"\n'
        tables = f'[records]\nurl = "{postgres_url}"\n[worker]\nlease = 6\n'
        first = town.server(routes(sink.port, connections, tables), top=extra)
        accepted = _send(first, 0, 500)
        wait_until(lambda: sink.counts()["accepted"] > 50, "it sends")
        os.kill(first.pid, signal.SIGSTOP)
        second = town.server(routes(sink.port, connections, tables), top=extra)
        second.key = first.key
        # Rows that it holds in an open transaction stay locked until PostgreSQL ends that (a minute).
        wait_until(lambda: second.waiting() <= connections, "the other has sent the rest")
        os.kill(first.pid, signal.SIGCONT)
        time.sleep(1.0)
        wait_until(lambda: first.waiting() == 0, "it has nothing left")
        ledger = second.ledger()
        assert {row["status"] for row in ledger} <= FINAL
        assert sorted(row["id"] for row in ledger) == sorted(accepted)
        first.stop()
        second.stop()
        sink.stop()
        arrived = [message_id(entry) for entry in sink.entries() if entry.outcome.startswith("250")]
        assert set(arrived) == set(accepted)
        assert len(arrived) - len(set(arrived)) <= connections
