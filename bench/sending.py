"""The sending flow on the engines: PostgreSQL, Kafka, Redis and S3, with as many processes as asked."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import material
from bench.cluster import Cluster, Engine, engines
from bench.server import UNLIMITED, batch, set_up, waiting

NAMES = ("postgres", "kafka", "redis", "s3")
PER_BATCH = 1000
_HOST = 'hostname = "bench.example.com"\n'


def layout(workers: int) -> dict[str, str]:
    """An API process, which keeps the schedule too, and workers."""
    return {"api": "api,schedule", **{f"worker{n}": "render,send" for n in range(1, workers + 1)}}


@contextmanager
def running_engines() -> Generator[tuple[Path, dict[str, Engine]], None, None]:
    """On the disk that is measured, with a directory for clusters beside them."""
    directory = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    directory.chmod(0o755)  # PostgreSQL runs as another user than root
    try:
        with engines(directory / "services", NAMES) as found:
            yield directory, found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def cluster(
    directory: Path,
    found: Mapping[str, Engine],
    sink: material.SinkProcess,
    *,
    workers: int,
    connections: int = 100,
    cores: Mapping[str, str] | None = None,
) -> Generator[Cluster, None, None]:
    """Ready, with the domain and the template, on a database and topics of its own.

    :param connections: of each worker to the sink.
    """
    place = directory / f"cluster{len(list(directory.glob('cluster*')))}"
    place.mkdir()
    base = _HOST + material.route(sink.port, connections)
    with ExitStack() as stack:
        made = Cluster(place, found, base, layout(workers), variables=UNLIMITED, cores=cores or {})
        made.set_up()
        stack.callback(made.stop)
        made.start()
        set_up(made)
        yield made


def submit(made: Cluster, count: int, stream: str = "broadcast") -> None:
    """Batches of the template, one after the other."""
    for start in range(0, count, PER_BATCH):
        answer = made.call("POST", "/v1/messages/batch", batch(start, min(PER_BATCH, count - start), stream))
        assert answer["accepted"] == min(PER_BATCH, count - start), answer


def wait_until_empty(made: Cluster, seconds: float = 300.0) -> None:
    """Every outcome is recorded. :raises TimeoutError:"""
    end = time.monotonic() + seconds
    while waiting(made):
        if time.monotonic() > end:
            raise TimeoutError(f"{waiting(made)} jobs are left after {seconds:g} s")
        time.sleep(0.1)


def warm(made: Cluster, sink: material.SinkProcess, count: int = 1000) -> None:
    """Messages that no figure counts. The engines may take their time with the first: it is
    repeated as a client would, under its key."""
    for left in reversed(range(10)):
        try:
            made.call("POST", "/v1/messages/batch", batch(0, count), again="warm")
            break
        except OSError:
            if not left:
                raise
            time.sleep(1)
    sink.wait_for(count, 120)
    wait_until_empty(made)
    sink.reset()


def hold(pids: list[int], cores: set[int]) -> None:
    """Every thread of these processes, and what they start from now on."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
