"""What a process imports is most of what its start costs: nothing heavy that it has no use for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posthouse.app import bootstrap
from posthouse.config import load

ENGINES = {"sqlalchemy", "alembic", "mako", "asyncpg", "confluent_kafka", "redis", "opensearchpy", "aiohttp", "obstore"}
SERVER = {"posthouse.app", "posthouse.api", "uvicorn", "dns", "prometheus_client", "minijinja", "publicsuffixlist"}
CLIENT = {"httpx", "posthouse.config", "structlog", "cryptography"}
_LISTED = "import atexit, json, sys; atexit.register(lambda: sys.stderr.write(chr(10) + json.dumps([*sys.modules]))); "
_COMMAND = _LISTED + "from posthouse.cli import main; sys.exit(main(sys.argv[1:]))"
_SECONDS = 60


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As `posthouse init` leaves it, with the schema at its head."""
    directory = tmp_path / "data"
    directory.mkdir()
    secret = asyncio.run(bootstrap(load(flags={"data_dir": directory}, environ={}).settings, tenant="default"))
    (directory / "operator.key").write_text(secret)
    return directory


def imported(code: str, *arguments: str, until: Path | None = None) -> set[str]:
    """Names of modules, also of packages of them. :param until: stopped when this file is there."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        if until is not None:
            asyncio.run(_appears(until, process))
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said.decode()[-2000:]
    return set(json.loads(said.rpartition(b"\n")[2]))


async def _appears(path: Path, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not path.exists() and process.poll() is None:
            await asyncio.sleep(0.02)


def test_help_imports_no_more_than_it_prints() -> None:
    found = imported(_COMMAND, "--help")
    assert not found & (ENGINES | SERVER | CLIENT)
    assert {"posthouse.cli.tenant", "posthouse.cli.serve"} <= found, "it tells of every command"


def test_a_command_imports_no_other() -> None:
    found = imported(_COMMAND, "tenant", "--help")
    assert not found & (ENGINES | SERVER | CLIENT)
    assert {name for name in found if name.startswith("posthouse.cli.")} == {
        f"posthouse.cli.{name}" for name in ("failures", "output", "server", "session", "tenant")
    }


def test_a_command_in_this_process_imports_no_engine_and_no_listener(data: Path) -> None:
    found = imported(_COMMAND, "tenant", "list", "--data-dir", str(data))
    assert "posthouse.app.parts" in found
    assert not found & (ENGINES | {"uvicorn", "posthouse.smtpd.sink"})


def test_serve_on_embedded_storage_imports_no_engine_and_no_client(data: Path) -> None:
    found = imported(
        _COMMAND, "serve", "--data-dir", str(data), "--port", "0", "--log-level", "error", until=data / "serve.json"
    )
    assert "uvicorn" in found
    assert not found & (ENGINES | {"httpx", "posthouse.smtpd.sink"})


def test_serve_without_the_api_imports_no_web_server(data: Path) -> None:
    code = _LISTED + "\n".join(
        (
            "",
            "import asyncio",
            "from posthouse.app import running",
            "from posthouse.config import load",
            "async def once():",
            "    given = {'data_dir': sys.argv[1], 'roles': 'store,index'}",
            "    async with running(load(flags=given, environ={}).settings):",
            "        pass",
            "asyncio.run(once())",
        )
    )
    assert not imported(code, str(data)) & (ENGINES | {"httpx", "uvicorn"})


def test_a_schema_to_be_made_needs_what_makes_it(tmp_path: Path) -> None:
    """The other side of the tests above: they would see it."""
    found = imported(_COMMAND, "migrate", "--set", f"records.url=sqlite:///{tmp_path / 'new.db'}")
    assert {"sqlalchemy", "alembic"} <= found


@pytest.mark.parametrize("module", ["posthouse.rendering.process", "posthouse.inbound.examiner"])
def test_a_child_imports_what_it_works_with(module: str) -> None:
    found = imported(f"{_LISTED}import {module}")
    assert not found & (ENGINES | SERVER - {"minijinja", "publicsuffixlist"} | CLIENT - {"cryptography"} | {"rich"})
    if module == "posthouse.inbound.examiner":
        assert not found & {"cryptography", "minijinja", "posthouse.storage.records"}
