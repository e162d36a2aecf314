"""Programs that tests start as processes of their own, to kill them or to run two at once.

python -m tests.contract.workers write URL     rows in many concurrent writes; prints each acknowledged
python -m tests.contract.workers claim URL     jobs until there are none; prints each id it was given
python -m tests.contract.workers blobs DIR     blobs; prints each key acknowledged
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.queue.base import Lane
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.base import Records, Tx
from posthouse.storage.records.factory import open_records


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


if __name__ == "__main__":
    asyncio.run({"write": write, "claim": claim, "blobs": blobs}[sys.argv[1]](sys.argv[2]))
