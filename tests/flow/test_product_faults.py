"""What is broken around it: no room, locked or damaged databases, PostgreSQL away, bad input, a stop."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from house import DOMAIN, house, sink
from tests.conftest import Service
from tests.product import Server, Town, routes, wait_until

MESSAGE = {"from": f"Ann <ann@{DOMAIN}>", "to": ["bob@there.example"], "subject": "Hi", "text": "Hi\n"}


def _send(server: Server, key: str, size: int = 10) -> Any:
    return server.post("/v1/messages", {**MESSAGE, "text": "x" * size}, Idempotency_Key=key)


def _refused_for_now(answer: Any) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "storage_unavailable"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.timeout(90)
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk without room."""
    with Town(tmp_path) as town:
        peer = town.sink("--no-tls", "--mix", "slow=100%", "--slow", "0.3")
        server = town.server(routes(peer.port))
        kept = [_send(server, f"before-{n}").json()["id"] for n in range(20)]
        size = max(path.stat().st_size for path in server.data.glob("posthouse.db*"))
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        answers = [_send(server, f"full-{n}", 200_000) for n in range(8)]
        refused = [n for n, answer in enumerate(answers) if answer.status_code != 202]
        assert refused
        for n in refused:
            _refused_for_now(answers[n])
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        answers = [_send(server, f"full-{n}", 200_000) for n in range(8)]
        assert [answer.status_code for answer in answers] == [202] * 8
        kept += [answer.json()["id"] for answer in answers]
        wait_until(lambda: server.waiting() == 0, "every message is final", 60)
        assert {row["id"]: row["status"] for row in server.ledger()} == dict.fromkeys(kept, "delivered")
        assert server.stop() == 0


@pytest.mark.timeout(90)
def test_a_locked_database_refuses_until_it_is_free(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        peer = town.sink("--no-tls")
        server = town.server(routes(peer.port))
        other = sqlite3.connect(server.data / "posthouse.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        _refused_for_now(_send(server, "one"))
        other.execute("ROLLBACK")
        other.close()
        name = _send(server, "one").json()["id"]
        wait_until(lambda: server.waiting() == 0, "every message is final")
        assert [(row["id"], row["status"]) for row in server.ledger()] == [(name, "delivered")]


@pytest.mark.timeout(90)
def test_a_damaged_database_takes_nothing_it_cannot_keep(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        peer = town.sink("--no-tls")
        server = town.server(routes(peer.port))
        for n in range(30):
            _send(server, f"before-{n}", 2000)
        server.stop()
        path = server.data / "posthouse.db"
        with path.open("r+b") as file:
            for page in range(3, path.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(os.urandom(4096))
        server.launch()
        started = time.monotonic()
        while time.monotonic() - started < 15 and not server.ready():
            if Path(f"/proc/{server.pid}/stat").read_text().split()[2] == "Z":
                break
            time.sleep(0.05)
        else:
            assert _send(server, "after").status_code >= 500
        assert "Traceback" not in server.errors.read_text()


@pytest.mark.timeout(240)
def test_postgresql_stopped_and_started(tmp_path: Path, postgres_server: str) -> None:
    """:param postgres_server: only to know that it can be had; this test has one of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Service("postgres", tmp_path / "services", {"POSTGRES_PORT": str(port)})
    url = service.start()
    try:
        with Town(tmp_path) as town:
            peer = town.sink("--no-tls", "--mix", "slow-final-0.1=50%")
            server = town.server(routes(peer.port, extra=f'[records]\nurl = "{url}"\n[worker]\nlease = 5\n'))
            recipients = [{"to": f"u{n}@there.example"} for n in range(300)]
            body = {"from": MESSAGE["from"], "subject": "s", "text": "t\n", "recipients": recipients}
            kept = [one["id"] for one in server.post("/v1/messages/batch", body).json()["results"]]
            wait_until(lambda: peer.counts()["accepted"] > 20, "it sends")
            service.stop()
            _refused_for_now(_send(server, "away"))
            assert server.get("/readyz").status_code == 503
            service.start()
            wait_until(lambda: _send(server, "away").status_code == 202, "it takes mail again")
            kept.append(_send(server, "away").json()["id"])
            wait_until(lambda: server.waiting() == 0, "every message is final")
            assert {row["id"]: row["status"] for row in server.ledger()} == dict.fromkeys(kept, "delivered")
            peer.stop()
            arrived = [entry.message_id for entry in peer.entries() if entry.outcome.startswith("250")]
            assert len(arrived) == len(set(arrived)) == len(kept)
    finally:
        service.stop()


@pytest.mark.timeout(60)
def test_a_stop_finishes_what_is_in_flight(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        peer = town.sink("--no-tls", "--mix", "slow-final-0.3=100%")
        server = town.server(routes(peer.port))
        recipients = [{"to": f"u{n}@there.example"} for n in range(60)]
        body = {"from": MESSAGE["from"], "subject": "s", "text": "t\n", "recipients": recipients}
        kept = [one["id"] for one in server.post("/v1/messages/batch", body).json()["results"]]
        wait_until(lambda: peer.counts()["accepted"] > 5, "it sends")
        assert server.stop() == 0
        assert server.errors.read_text().count("error") == 0
        server.start()
        wait_until(lambda: server.waiting() == 0, "every message is final")
        assert {row["id"]: row["status"] for row in server.ledger()} == dict.fromkeys(kept, "delivered")
        peer.stop()
        arrived = [entry.message_id for entry in peer.entries() if entry.outcome.startswith("250")]
        assert len(arrived) == len(set(arrived)) == len(kept)


@pytest.mark.timeout(120)
async def test_a_backlog_of_bulk_does_not_hold_up_what_is_critical(tmp_path: Path) -> None:
    async with sink(tls=False, latency=0.02) as peer, house(tmp_path, sink=peer) as post:
        for start in (0, 10_000):
            recipients = [{"to": f"u{n}@there.example"} for n in range(start, start + 10_000)]
            body = {
                "from": f"a@{DOMAIN}",
                "subject": "s",
                "text": "t\n",
                "stream": "broadcast",
                "recipients": recipients,
            }
            assert (await post.post("/v1/messages/batch", body, 202))["accepted"] == 10_000
        waits: list[float] = []
        for n in range(5):
            began = time.monotonic()
            await post.until(await post.send(f"urgent{n}@there.example", stream="critical"), "delivered")
            waits.append(time.monotonic() - began)
        assert sorted(waits)[2] < 5
        assert peer.counts.accepted < 15_000


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"to": ["bob"]}, 422, "/to/0"),
    ({"to": ["bob@there.example\r\nBcc: eve@there.example"]}, 422, "/to/0"),
    ({"to": []}, 422, "/to"),
    ({"to": [f"u{n}@there.example" for n in range(10_000)]}, 422, "/to"),
    ({"subject": "one\r\nBcc: eve@there.example"}, 422, "/subject"),
    ({"subject": "nul\0"}, 422, "/subject"),
    ({"text": "nul\0"}, 422, "/text"),
    ({"headers": {"X-A\r\nBcc": "eve@there.example"}}, 422, "/headers"),
    ({"headers": {"X-A": "one\r\nBcc: eve@there.example"}}, 422, "/headers"),
    ({"headers": {"From": "eve@there.example"}}, 422, "/headers/From"),
    ({"attachments": [{"filename": "a", "content": "not base64!"}]}, 422, "/attachments/0/content"),
    ({"attachments": [{"filename": "a\r\nb", "content": ""}]}, 422, "/attachments/0/filename"),
    ({"from": "eve@not-ours.example"}, 422, "/from"),
    ({"reply_to": ["a@b\r\n.example"]}, 422, "/reply_to/0"),
    ({"unknown": 1}, 422, "/unknown"),
    ({"template": "none"}, 422, ""),
    ({"stream": "none"}, 422, "/stream"),
    ({"tags": ["a\r\nb"]}, 422, "/tags"),
    ({"metadata": {"a": "\0"}}, 422, "/metadata"),
    ({"send_at": "tomorrow"}, 422, "/send_at"),
    ({"variables": {"deep": [[[[1]]]]}, "text": 7}, 422, "/text"),
]


async def test_bad_input_is_a_clear_problem_with_a_pointer(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        wrong: list[str] = []
        for change, status, pointer in BAD:
            answer = await post.http.post("/v1/messages", json={**MESSAGE, **change})
            problem = answer.json()
            pointers = [error["pointer"] for error in problem.get("errors", [])]
            fits = any(found.startswith(pointer) for found in pointers) if pointer else True
            kind = answer.headers["content-type"]
            if (
                answer.status_code not in (status, 400, 403)
                or not fits
                or not kind.startswith("application/problem+json")
            ):
                wrong.append(f"{change if len(str(change)) < 99 else pointer}: {answer.status_code} {problem}"[:400])
        assert wrong == []
        raw = await post.http.post("/v1/messages", content=b"{not json", headers={"Content-Type": "application/json"})
        assert (raw.status_code, raw.json()["code"]) == (400, "malformed_json")
        large = await post.http.post(
            "/v1/messages", content=b"x" * 41_000_000, headers={"Content-Type": "application/json"}
        )
        assert large.status_code == 413
        assert peer.counts.connections == 0
        assert (await post.get("/v1/messages"))["data"] == []


async def test_a_template_that_never_ends_fails_its_message_only(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        loop = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}"
        made = await post.http.post("/v1/templates", json={"name": "loop", "subject": "s", "text": loop})
        assert made.status_code < 300, made.text
        await post.post("/v1/templates", {"name": "strict", "subject": "Hi {{ nmae }}", "text": "t\n"})
        name = await post.send("a@there.example", template="loop")
        good = await post.send("b@there.example")
        await post.until(good, "delivered")
        assert (await post.until(name))["status"] == "failed"
        undefined = await post.send("c@there.example", template="strict")
        assert (await post.until(undefined))["status"] == "failed"
        assert "nmae" in await post.story(undefined)
        assert peer.counts.accepted == 1
