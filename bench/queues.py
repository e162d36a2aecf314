"""Jobs put, claimed and done in batches of 256 by one process, on each queue: the rate, the CPU
of the client for each job, and the engines' own CPU beside it.

Jobs are due at once and are put without a transaction; `done` is a transaction of its own, as
durable as the engine makes it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench import material
from bench.postgres import cluster, database
from bench.report import Report, main
from posthouse import clock
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.base import Job, Lane, Queue
from posthouse.storage.queue.factory import open_queue
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate

BATCH = 256
_SCRIPTS = Path(__file__).resolve().parent.parent / "scripts" / "services"
_PAYLOAD = "x" * 200


def cpu_of(pids: list[int]) -> float:
    """Seconds, their children's included."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(one) for one in fields[11:15]) / ticks
    return total


def engine(name: str, directory: Path) -> list[int]:
    """The pids of a service that `scripts/services` started, with those it forked."""
    first = int((directory / name / "run" / f"{name}.pid").read_text())
    children = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True, check=False).stdout
    return [first, *(int(one) for one in children.split())]


@contextmanager
def kafka(jars: Path | None = None) -> Generator[tuple[str, Path], None, None]:
    """A broker of its own: `HOST:PORT`, and the directory of the services."""
    services = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    variables = {**os.environ, "SERVICES_DIR": str(services), "KAFKA_PORT": str(material.free_port())}
    if jars is not None:
        (services / "kafka").mkdir()
        (services / "kafka" / "lib").symlink_to(jars)
    script = _SCRIPTS / "kafka.sh"
    try:
        started = subprocess.run(
            [script, "start"], env=variables, stdout=subprocess.PIPE, check=True, timeout=300, text=True
        )
        yield started.stdout.split()[-1], services
    finally:
        subprocess.run([script, "stop"], env=variables, check=False, timeout=60, capture_output=True)
        shutil.rmtree(services, ignore_errors=True)


async def through(queue: Queue, count: int) -> dict[str, float]:
    """Put `count`, then claim and end them."""
    await _round(queue, 2 * BATCH, "warm")
    return await _round(queue, count, "job")


async def _round(queue: Queue, count: int, name: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    begun, spent = time.perf_counter(), _own()
    for at in range(0, count, 4 * BATCH):
        parts = [
            [_job(f"{name}-{n:08}") for n in range(start, min(start + BATCH, count))]
            for start in range(at, min(at + 4 * BATCH, count), BATCH)
        ]
        await asyncio.gather(*(queue.put(part) for part in parts))
    figures |= _figures("put", count, begun, spent)
    begun, spent = time.perf_counter(), _own()
    done = 0
    while done < count:
        jobs = await queue.claim("bench", Lane.BULK, BATCH, lease=60)
        done += await queue.done(jobs)
    return figures | _figures("work", count, begun, spent)


def _job(name: str) -> Job:
    return Job("bench", Lane.BULK, f"ten_{hash(name) % 20}", clock.now(), name, payload=_PAYLOAD)


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _figures(what: str, count: int, begun: float, spent: float) -> dict[str, float]:
    return {
        f"{what}_per_second": count / (time.perf_counter() - begun),
        f"{what}_cpu_us": (_own() - spent) / count * 1e6,
    }


async def run(records_url: str, queue_url: str, count: int) -> dict[str, float]:
    """On migrated records."""
    await migrate(records_url)
    directory = tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK)
    records = await open_records(records_url)
    blobs = await open_blobs(f"file://{directory}")
    queue = await open_queue(queue_url, records, blobs, clock=clock.now)
    try:
        return await through(queue, count)
    finally:
        await queue.close()
        await records.close()
        await blobs.close()
        shutil.rmtree(directory, ignore_errors=True)


def on_records(count: int, postgresql: str | None) -> Report:
    """`sql_queue`: SQLite, and PostgreSQL where there is one."""
    with tempfile.TemporaryDirectory(dir=material.DISK) as directory:
        figures = _named("sqlite", asyncio.run(run(f"sqlite:///{directory}/bench.db", "records:", count)))
    if postgresql is not None:
        with database(postgresql) as url:
            figures |= _named("postgresql", asyncio.run(run(url, "records:", count)))
    return Report("sql_queue", figures)


def on_kafka(count: int, postgresql: str, jars: Path | None = None) -> Report:
    """`kafka_queue`, with the broker's own CPU for each job."""
    with kafka(jars) as (address, services), database(postgresql) as url:
        pids = engine("kafka", services)
        before = cpu_of(pids)
        figures = asyncio.run(run(url, f"kafka://{address}?partitions=4", count))
        figures["broker_cpu_us"] = (cpu_of(pids) - before) / (count + 2 * BATCH) * 1e6
    return Report("kafka_queue", figures)


def _named(name: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{key}_{name}": value for key, value in figures.items()}


def measure(arguments: argparse.Namespace) -> Report:
    """Both, the figures of Kafka under names of their own."""
    if arguments.postgresql is None:
        with cluster() as address:
            return _both(arguments, address)
    return _both(arguments, arguments.postgresql)


def _both(arguments: argparse.Namespace, postgresql: str) -> Report:
    sql = on_records(arguments.jobs, postgresql)
    log = on_kafka(arguments.jobs, postgresql, arguments.jars)
    figures = {f"sql_queue.{name}": value for name, value in sql.figures.items()}
    return Report("queues", figures | {f"kafka_queue.{name}": value for name, value in log.figures.items()})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--postgresql", help="postgresql://… of a server (fsync on)")
    parser.add_argument("--jars", type=Path, help="a directory with the broker's jars, so that they are not fetched")


if __name__ == "__main__":
    main(measure, options)
