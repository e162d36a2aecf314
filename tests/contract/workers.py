"""Programs that tests start as processes of their own, to kill them or to run two at once.

python -m tests.contract.workers write URL     rows in many concurrent writes; prints each acknowledged
python -m tests.contract.workers claim URL     jobs until there are none; prints each id it was given
python -m tests.contract.workers blobs DIR     blobs; prints each key acknowledged
python -m tests.contract.workers hold URL      writes under a lease of a second; prints each row, and `lost`
python -m tests.contract.workers skewed URL SECONDS    holds a job for 30 s under a clock so far off; prints its id
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time

from posthouse.errors import Unavailable
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.base import Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.lease import Fenced, Lease
from posthouse.storage.records.server_clock import cluster_clock


def say(line: str) -> None:
    """In one write, so that a kill leaves whole lines."""
    os.write(1, f"{line}\n".encode())


async def write(url: str) -> None:
    records = await open_records(url)
    numbers = itertools.count()

    async def one(records: Records) -> None:
        while True:
            n = next(numbers)

            async def work(tx: Tx, n: int = n) -> None:
                await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ($1, $2, $3)", "a", n, n)
                await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ($1, $2, $3)", "b", n, n)

            await records.write(work)
            say(str(n))

    await asyncio.gather(*(one(records) for _ in range(16)))


async def claim(url: str) -> None:
    records = await open_records(url)
    queue = RecordsQueue(records)
    idle = 0
    while idle < 5:
        jobs = await queue.claim("send", Lane.BULK, 20, lease=60)
        idle = 0 if jobs else idle + 1
        for job in jobs:
            say(job.id)
        assert await queue.done(jobs) == len(jobs)
    await records.close()


async def blobs(url: str) -> None:
    store = await open_blobs(url)
    for n in itertools.count():
        say(await store.put(f"{n} ".encode() * 5000))


async def hold(url: str) -> None:
    records = await open_records(url)
    lease = Lease(records, "test", ttl=1.0)
    fenced = Fenced(records, lease)
    n = 0
    while True:
        try:
            if n % 5 == 0 and not await lease.take():
                say("lost")
            n += 1

            async def work(tx: Tx, n: int = n) -> None:
                await tx.run("INSERT INTO usage (tenant_id, day, messages) VALUES ('held', $1, $2)", n, lease.fence)

            await fenced.write(work)
            say(str(n))
        except Unavailable:
            say("lost")
        await asyncio.sleep(0.02)


async def skewed(url: str, seconds: str) -> None:
    real = time.time_ns
    time.time_ns = lambda: real() + int(seconds) * 10**9
    records = await open_records(url)
    clock, _ = await cluster_clock(records)
    jobs = await RecordsQueue(records, clock=clock).claim("send", Lane.BULK, 1, lease=30)
    say(jobs[0].id)
    await records.close()


if __name__ == "__main__":
    programs = {"write": write, "claim": claim, "blobs": blobs, "hold": hold, "skewed": skewed}
    asyncio.run(programs[sys.argv[1]](*sys.argv[2:]))
