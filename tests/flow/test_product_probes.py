"""Processes without the API, as a container platform sees them."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
from tests.product import Town, wait_until


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_process_without_the_api_is_watched_where_probes_say(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        data = str(tmp_path / "data")
        town.run("init", "--data-dir", data)
        assert "0" in town.run("migrate", "--data-dir", data)
        port = free_port()
        own = ("--data-dir", data, "--set", f"http.health_port={port}", "--set", "roles=schedule,store,mx")
        # Nothing runs yet.
        pid, out, _ = town.fork("ready", *own)
        assert town.wait(pid) == 1
        assert "away" in out.read_text()

        server, _, log = town.fork("serve", *own)
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, log.read_text())
        assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
        assert json.loads(town.run("ready", *own, "--json"))["checks"]["records"] == "ok"
        roles = {name: role["status"] for name, role in httpx.get(f"{url}/readyz").json()["roles"].items()}
        assert roles == {"schedule": "idle", "store": "idle", "mx": "idle"}
        wait_until(lambda: "posthouse_queue_looked_at_seconds 1." in httpx.get(f"{url}/metrics").text, "a first look")
        # Of the API there is nothing, not even to say that a key is needed.
        assert httpx.get(f"{url}/v1/queue").status_code == 404
        assert httpx.get(f"{url}/openapi.json").status_code == 404
        assert town.end(server, signal.SIGTERM) == 0


def test_no_place_to_listen_is_said(tmp_path: Path) -> None:
    with Town(tmp_path) as town, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        data = str(tmp_path / "data")
        town.run("init", "--data-dir", data)
        place = f"http.health_port={taken.getsockname()[1]}"
        pid, _, err = town.fork("serve", "--data-dir", data, "--set", "roles=schedule", "--set", place)
        assert town.wait(pid) == 2
        assert "http.health_port" in err.read_text()
        pid, _, err = town.fork("ready", "--data-dir", data, "--set", "roles=schedule")
        assert town.wait(pid) == 2
        assert "http.health_port" in err.read_text()


def test_metrics_can_be_off(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        data, port = str(tmp_path / "data"), free_port()
        town.run("init", "--data-dir", data)
        words = (
            "--set",
            f"http.health_port={port}",
            "--set",
            "roles=schedule",
            "--set",
            "metrics.enabled=false",
        )
        server, _, _ = town.fork("serve", "--data-dir", data, *words)

        def found(path: str) -> int:
            try:
                return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code
            except httpx.HTTPError:
                return 0

        wait_until(lambda: found("/healthz") == 200, "healthy")
        assert found("/metrics") == 404
        assert town.end(server, signal.SIGTERM) == 0
