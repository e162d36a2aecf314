"""The sending flow on PostgreSQL and Kafka, as processes: shared out, killed, stopped and woken,
and with the broker restarted under it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SERVICES_DIR, Service
from tests.product import DOMAIN, Server, Sink, Town, message_id, routes, wait_until

LEASE = 3


class House:
    """Processes on one PostgreSQL and one Kafka."""

    def __init__(self, town: Town, postgres: str, kafka: str) -> None:
        self._town = town
        self._postgres = postgres
        self._queue = f"kafka://{kafka}?prefix=flow-{secrets.token_hex(5)}&partitions=4"
        self._first: Server | None = None

    def server(self, peer: Sink, connections: int = 8) -> Server:
        shared = self._town.directory
        extra = (
            f'[records]\nurl = "{self._postgres}"\n[blobs]\nurl = "file://{shared}/blobs"\n'
            f'[queue]\nurl = "{self._queue}"\n[worker]\nlease = {LEASE}\ndrain_timeout = 5\n'
        )
        server = Server(self._town, routes(peer.port, connections, extra), f'secret_key_file = "{shared}/secret.key"\n')
        if self._first is None:
            server.set_up()
            self._first = server
        server.key, server.operator_key = self._first.key, self._first.operator_key
        server.data.mkdir(exist_ok=True)
        server.start()
        return server


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as opened:
        yield opened


@pytest.fixture
def house(town: Town, postgres_url: str, kafka_server: str) -> House:
    return House(town, postgres_url, kafka_server)


def message(number: int) -> dict[str, Any]:
    return {"from": f"a@{DOMAIN}", "to": [f"r{number}@there.example"], "subject": f"Hi {number}", "text": "Hello.\n"}


def submit(server: Server, count: int, start: int = 0) -> list[str]:
    """Accepted ids; in batches of ten."""
    names: list[str] = []
    with server.client() as http:
        for at in range(start, start + count, 10):
            answer = http.post("/v1/messages/batch", json={"messages": [message(n) for n in range(at, at + 10)]})
            assert answer.status_code == 202, answer.text
            names += [one["id"] for one in answer.json()["results"]]
    return names


def delivered(peer: Sink) -> Counter[str]:
    return Counter(message_id(entry) for entry in peer.entries() if entry.outcome.startswith("250"))


def all_final(server: Server, names: list[str]) -> bool:
    rows = {row["id"]: row["status"] for row in server.ledger()}
    return all(rows.get(name) == "delivered" for name in names)


@pytest.mark.timeout(120)
def test_two_processes_share_and_a_fresh_message_is_readable(house: House, town: Town) -> None:
    peer = town.sink("--no-tls")
    one = house.server(peer)
    two = house.server(peer)
    single = one.post("/v1/messages", message(10_000)).raise_for_status().json()["id"]
    for path in (f"/v1/messages/{single}", f"/v1/messages/{single}/events", f"/v1/messages/{single}/explain"):
        assert two.get(path).status_code == 200, path
    assert two.get("/v1/messages/msg_" + "0" * 32).status_code == 404
    names = [single, *submit(one, 200), *submit(two, 200, 200)]
    wait_until(lambda: all_final(one, names), "all are delivered", 30)
    wait_until(lambda: one.waiting() == 0, "the queues are empty", 10)
    assert one.stop() == two.stop() == 0
    peer.stop()
    assert delivered(peer) == Counter(names)


@pytest.mark.timeout(120)
def test_the_jobs_of_a_killed_process_come_back(house: House, town: Town) -> None:
    peer = town.sink("--no-tls", "--mix", "slow=100%", "--slow", "0.1")
    one = house.server(peer, connections=2)
    two = house.server(peer, connections=2)
    names = submit(one, 60) + submit(two, 60, 60)
    wait_until(lambda: sum(delivered(peer).values()) >= 10, "some are delivered", 20)
    one.kill()
    wait_until(lambda: all_final(two, names), "the other has delivered them", 30)
    two.stop()
    peer.stop()
    seen = delivered(peer)
    assert seen.keys() == set(names)
    assert sum(seen.values()) <= len(names) + 2, "at most what was on the wire when it was killed"


@pytest.mark.timeout(120)
def test_a_process_stopped_past_its_leases_delivers_nothing_twice(house: House, town: Town) -> None:
    peer = town.sink("--no-tls", "--mix", "slow=100%", "--slow", "0.1")
    one = house.server(peer, connections=2)
    two = house.server(peer, connections=2)
    names = submit(two, 80)
    wait_until(lambda: sum(delivered(peer).values()) >= 10, "some are delivered", 20)
    os.kill(one.pid, signal.SIGSTOP)
    wait_until(lambda: all_final(two, names), "the other has delivered them", 30)
    before = sum(delivered(peer).values())
    os.kill(one.pid, signal.SIGCONT)
    time.sleep(2)
    more = submit(one, 20, 80)
    wait_until(lambda: all_final(two, more), "it works on", 20)
    assert one.stop() == two.stop() == 0
    peer.stop()
    seen = delivered(peer)
    assert seen.keys() == set(names + more)
    assert before <= len(names) + 2, "at most what was on the wire when it was stopped"
    # What its sockets held when it was stopped may end afterwards; nothing else of the old does.
    assert sum(seen.values()) - before <= len(more) + 2


@pytest.fixture
def own_kafka(kafka_server: str, tmp_path: Path) -> Iterator[Service]:
    """A broker that a test may restart, from the jars of the shared one."""
    service = Service("kafka", tmp_path / "services", {"KAFKA_HEAP": "256m", "KAFKA_PORT": str(_free_port())})
    (service.directory / "kafka").mkdir(parents=True)
    (service.directory / "kafka" / "lib").symlink_to(SERVICES_DIR.resolve() / "kafka" / "lib")
    service.start()
    yield service
    service.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1] % 20_000 + 20_000


@pytest.mark.timeout(180)
def test_a_broker_that_restarts_loses_nothing(own_kafka: Service, postgres_url: str, town: Town) -> None:
    peer = town.sink("--no-tls", "--mix", "slow=100%", "--slow", "0.05")
    server = House(town, postgres_url, own_kafka.start()).server(peer, connections=2)
    names = submit(server, 100)
    own_kafka.stop()
    refused = server.post("/v1/messages", message(999))
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    own_kafka.start()
    wait_until(lambda: server.post("/v1/messages", message(1000)).status_code == 202, "it accepts again", 20)
    wait_until(lambda: all_final(server, names), "all are delivered", 30)
    server.stop()
    peer.stop()
    seen = delivered(peer)
    assert all(seen[name] == 1 for name in names)
