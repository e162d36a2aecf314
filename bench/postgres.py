"""A PostgreSQL of its own for the benchmarks, that syncs (`fsync = on`), and a new database
in it for each run."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from bench import material

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "services" / "postgres.sh"


@contextmanager
def cluster() -> Generator[str, None, None]:
    """Its address; stopped and removed afterwards.

    :raises subprocess.CalledProcessError: it cannot be installed or started here.
    """
    services = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    services.chmod(0o755)  # the server runs as another user than root
    variables = {
        **os.environ,
        "SERVICES_DIR": str(services),
        "POSTGRES_FSYNC": "on",
        "POSTGRES_PORT": str(material.free_port()),
    }
    try:
        started = subprocess.run(
            [_SCRIPT, "start"], env=variables, stdout=subprocess.PIPE, check=True, timeout=300, text=True
        )
        yield started.stdout.split()[-1]
    finally:
        subprocess.run([_SCRIPT, "stop"], env=variables, check=False, timeout=60, capture_output=True)
        shutil.rmtree(services, ignore_errors=True)


@contextmanager
def database(address: str) -> Generator[str, None, None]:
    """A new database in the server at `postgresql://…/NAME`; dropped afterwards."""
    name = f"bench_{os.getpid()}_{os.urandom(4).hex()}"
    asyncio.run(_run(address, f"CREATE DATABASE {name}"))
    try:
        yield f"{address.rpartition('/')[0]}/{name}"
    finally:
        asyncio.run(_run(address, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


async def _run(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
