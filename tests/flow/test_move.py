"""A server on embedded storage is moved to the engines while mail comes in and goes out: the move
is killed at every phase and run again, and in the end nothing is lost, and nothing sent twice."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from bench.material import route
from mail_house import MailHouse, letters, mail_house
from search_engine import listed, searched
from tests.conftest import S3_ACCESS_KEY, S3_BUCKET, S3_SECRET_KEY, FreshDatabase
from tests.crash.receive_load import Letter
from tests.product import DOMAIN, Server, Sink, Town, message_id, wait_until
from tests.receiving import gateway

PHASES = ("Copying blobs", "Copying rows", "Comparing", "Stop `posthouse serve` now")
PAPER = b64encode(bytes(range(256)) * 200).decode()


def outward(sink: Sink) -> str:
    return f"""
[retry]
first = 2
factor = 1
cap = 3
{route(sink.port, 4, "there.example")}"""


def submit(server: Server, first: int, count: int, **more: Any) -> list[str]:
    """Accepted ids; every fifth with an attachment."""
    names: list[str] = []
    with server.client() as http:
        for n in range(first, first + count):
            body = {
                "from": f"a@{DOMAIN}",
                "to": [f"r{n}@there.example"],
                "subject": f"Hi {n}",
                "text": "Hello.\n",
                **more,
            }
            if n % 5 == 0:
                body["attachments"] = [{"filename": f"{n}.bin", "content": PAPER, "content_type": "application/x-bin"}]
            answer = http.post("/v1/messages", json=body)
            assert answer.status_code == 202, answer.text
            names.append(answer.json()["id"])
    return names


class Load:
    """Submits and brings mail until the server is gone."""

    def __init__(self, house: MailHouse, brought: list[Letter]) -> None:
        self.names: list[str] = []
        self.mails = brought
        self._house = house
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        sending = threading.Thread(target=self._send)
        sending.start()
        try:
            yield
        finally:
            self._ended.set()
            sending.join()

    def _send(self) -> None:
        n = 10_000
        while not self._ended.is_set():
            try:
                self.names += submit(self._house.server, n, 1)
            except (httpx.HTTPError, AssertionError):
                return
            n += 1
            time.sleep(0.02)

    async def bring(self) -> None:
        for letter in self.mails:
            try:
                await self._house.brought(letter)
            except (OSError, asyncio.IncompleteReadError):
                return
            await asyncio.sleep(0.1)


def waiting_mail(server: Server) -> list[str]:
    """Scheduled and deferred messages, which wait in the queue when it is moved; and what else there is."""
    with server.client() as http:
        for path, body in (
            ("/v1/templates", {"name": "news", "subject": "To {{ name }}", "text": "Dear {{ name }} ✉\n"}),
            ("/v1/templates/news/publish", {"version": 1}),
            ("/v1/suppressions", {"address": "no@there.example", "reason": "unsubscribe"}),
        ):
            answer = http.post(path, json=body)
            assert answer.status_code < 300, answer.text
    later = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    scheduled = submit(server, 1000, 20, send_at=later)
    deferred = submit(server, 2000, 5, to=["defer-4@there.example"])
    return [*scheduled, *deferred]


def run_move(town: Town, old: Path, new: Path, *flags: str) -> tuple[int, Path, Path]:
    return town.fork("move", "--config", str(old), "--to", str(new), *flags)


def killed_at(town: Town, old: Path, new: Path, phase: str, *flags: str) -> None:
    pid, _, err = run_move(town, old, new, *flags)
    wait_until(lambda: phase in err.read_text() or "Error" in err.read_text(), phase, 60, 0.002)
    assert "Error" not in err.read_text(), err.read_text()
    town.end(pid, signal.SIGKILL)


def refused(town: Town, config: Path) -> str:
    """What `serve` says that does not start."""
    pid, _, err = town.fork("serve", "--config", str(config))
    assert town.wait(pid) != 0
    return err.read_text()


class Successor:
    """The new configuration, and the server on it."""

    def __init__(self, town: Town, old: Server, port: int, sink: Sink, engines: str) -> None:
        self.server = Server(town, gateway(port, more=engines + outward(sink)))
        self.server.data.mkdir()
        self.config = self.server.settings
        self.server.key, self.server.operator_key = old.key, old.operator_key

    def take_keys(self, old: Server) -> None:
        for name in ("secret.key", "operator.key"):
            shutil.copy(old.data / name, self.server.data / name)


def engines(postgres: str, s3: str) -> str:
    return f"""
[records]
url = "{postgres}"

[blobs]
url = "s3://{S3_BUCKET}/move-{secrets.token_hex(6)}"
endpoint = "{s3}"
access_key = "{S3_ACCESS_KEY}"
secret_key = "{S3_SECRET_KEY}"

[worker]
lease = 5
"""


async def ordeal(tmp_path: Path, more: str) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    before, during, after = letters(25, seed=5), letters(40, seed=6), letters(5, seed=7)
    with Town(beside) as town:
        sink = town.sink("--no-tls")
        async with mail_house(_made(tmp_path), more=outward(sink)) as house:
            old = house.server
            assert set(await house.all_brought(before)) == {"250"}
            names = submit(old, 0, 40) + waiting_mail(old)
            successor = Successor(town, old, house.port, sink, more)
            new = successor.config
            assert "move_key" in await asyncio.to_thread(_failed, town, old.settings, new)
            successor.take_keys(old)
            load = Load(house, during)
            with load.running():
                bringing = asyncio.create_task(load.bring())
                await asyncio.to_thread(_moved_with_kills, town, old.settings, new)
                await bringing
            names += load.names
            assert "was moved to" in refused(town, old.settings)
            house.server = successor.server
            await house.start()
            assert set(await house.all_brought(after)) == {"250"}
            names += submit(successor.server, 5000, 5)
            server = successor.server
            await asyncio.to_thread(wait_until, lambda: _all_final(server, names), "all mail has gone", 90, 0.3)
            await asyncio.to_thread(wait_until, lambda: searched(server) == listed(server), "all is found", 60, 0.3)
            assert server.get("/v1/templates/news").status_code == 200
            assert server.get("/v1/suppressions/no@there.example").status_code == 200
            sink.stop()
            delivered = Counter(message_id(one) for one in sink.entries() if one.outcome.startswith("250"))
            assert delivered == Counter(names)
            assert await house.judged() == []


def _made(tmp_path: Path) -> Path:
    directory = tmp_path / "house"
    directory.mkdir()
    return directory


def _moved_with_kills(town: Town, old: Path, new: Path) -> None:
    for phase in PHASES:
        killed_at(town, old, new, phase)
        assert "move_unfinished" in _code_of_serve(town, new)
    killed_at(town, old, new, "Checking the mailboxes", "--stop")
    pid, out, err = run_move(town, old, new, "--json", "--deep")
    assert town.wait(pid) == 0, err.read_text()
    said = json.loads(out.read_text())
    assert said["rows"]["message"] > 60
    assert said["rows"]["email"] > 25
    assert said["blobs"] > 1
    assert 0 < said["stop_seconds"] < 60
    assert "move_finished" in _failed(town, old, new)


def _code_of_serve(town: Town, config: Path) -> str:
    pid, _, err = town.fork("serve", "--json", "--config", str(config))
    assert town.wait(pid) != 0
    return json.loads(err.read_text().strip().splitlines()[-1])["code"]


def _failed(town: Town, old: Path, new: Path) -> str:
    code, said = _moving(town, old, new, "--json")
    assert code != 0
    return said


def _all_final(server: Server, names: list[str]) -> bool:
    rows = {row["id"]: row["status"] for row in server.ledger()}
    return all(rows.get(name) == "delivered" for name in names) and server.waiting() == 0


@pytest.mark.timeout(120)
async def test_what_the_command_says(tmp_path: Path, postgres_url: str, fresh_database: FreshDatabase) -> None:
    """A server that is stopped already; blobs stay in a directory."""
    another_url = await fresh_database()
    with Town(tmp_path) as town:
        sink = town.sink("--no-tls")
        old = town.server(outward(sink))
        names = submit(old, 0, 10)
        wait_until(lambda: _all_final(old, names), "all mail has gone")
        assert old.stop() == 0
        new = tmp_path / "engines.toml"
        new.write_text(
            f'data_dir = "{tmp_path}/new"\nsecret_key_file = "{old.data}/secret.key"\nhostname = "mail.{DOMAIN}"\n'
            f'[records]\nurl = "{postgres_url}"\n[blobs]\nurl = "file://{tmp_path}/new/blobs"\n'
        )
        assert _moving(town, old.settings, old.settings, "--json") == (2, "move_target")
        assert _moving(town, new, new, "--json") == (2, "move_source")
        code, said = _moving(town, old.settings, new, "--check")
        assert code == 0, said
        assert "It can be moved." in said
        assert "submission    10" in said
        code, said = _moving(town, old.settings, new)
        assert code == 0, said
        assert "Moved: " in said
        assert "and 1 blob." in said
        assert "The stop took " in said
        assert "Start `posthouse serve --config" in said
        assert _code_of_serve(town, old.settings) == "moved_away"
        (old.data / "posthouse.db.moved").unlink()
        old.start()
        assert _all_final(old, names), "the way back"
        (old.data / "serve.json").write_text('{"pid": 1}')
        other = tmp_path / "other.toml"
        other.write_text(new.read_text().replace(postgres_url, another_url))
        assert _moving(town, old.settings, other, "--stop", "--json") == (1, "move_no_server")
        code, said = _moving(town, old.settings, new, "--json")
        assert (code, said) == (1, "move_finished")


def _moving(town: Town, old: Path, new: Path, *flags: str) -> tuple[int, str]:
    """Its exit code, and what it said; with `--json` the error's code."""
    pid, out, err = run_move(town, old, new, *flags)
    code = town.wait(pid)
    if "--json" in flags:
        return code, json.loads(err.read_text().strip().splitlines()[-1])["code"]
    return code, out.read_text() + err.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_to_postgresql_and_s3(tmp_path: Path, postgres_url: str, s3_server: str) -> None:
    await ordeal(tmp_path, engines(postgres_url, s3_server))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_to_every_engine(
    tmp_path: Path, postgres_url: str, s3_server: str, kafka_server: str, redis_server: str, opensearch_url: str
) -> None:
    name = secrets.token_hex(5)
    more = f"""
[queue]
url = "kafka://{kafka_server}?prefix=move-{name}&partitions=2"

[bus]
url = "{redis_server}?namespace=move-{name}"

[search]
url = "{opensearch_url}"
"""
    await ordeal(tmp_path, engines(postgres_url, s3_server) + more)
