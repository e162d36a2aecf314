"""Work on the whole store: proofs that stay quick on a large account, mending, one task at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from posthouse.errors import Conflict, NotFound, StorageUnavailable
from posthouse.inbound.upkeep import Task, Upkeep
from posthouse.mailbox.check import Check
from posthouse.mailbox.mend import Mend
from posthouse.storage.queue.records import RecordsQueue
from tests.mailboxes import House, letter


def upkeep(house: House, reindex: Any = None) -> Upkeep:
    async def nothing(_account: int | None) -> int:
        return 0

    check = Check(house.records, house.blobs)
    mend = Mend(house.records, house.contents, house.blobs, RecordsQueue(house.records), clock=house.clock)
    return Upkeep(check, mend, reindex or nothing, house.clock)


async def ended(work: Upkeep, task: Task) -> Task:
    async with asyncio.timeout(100):
        while (found := work.get(task.id)).state == "running":
            await asyncio.sleep(0.01)
    return found


async def test_a_check_finds_and_mends(house: House) -> None:
    await house.account()
    await house.append(letter(1), letter(2))
    work = upkeep(house)
    assert (await ended(work, work.start("check", deep=True))).found == 0
    await house.execute("UPDATE mailbox SET total = 9 WHERE id = 1")
    told = await ended(work, work.start("check"))
    assert [one.code for one in told.findings] == ["mailbox_counts"]
    mended = await ended(work, work.start("check", mend=True))
    assert (mended.found, len(mended.mended)) == (0, 1)
    await house.execute("UPDATE mailbox SET total = 9 WHERE id = 1")
    assert (await ended(work, work.start("check", mend=True, account=1))).found == 0


async def test_an_account_of_many_threads_is_proved_in_one_pass(house: House) -> None:
    """Asking for each thread by walking the mailbox took 23 s here, and the square of that soon."""
    await house.account()
    for start in range(0, 3000, 300):
        await house.append(*(letter(n, subject=f"Subject {n}") for n in range(start, start + 300)))
    work = upkeep(house)
    started = time.process_time()
    assert (await ended(work, work.start("check"))).found == 0
    assert time.process_time() - started < 10


async def test_one_task_at_a_time_and_the_last_is_known(house: House) -> None:
    held = asyncio.Event()

    async def wait(account: int | None) -> int:
        await held.wait()
        return account or 0

    work = upkeep(house, wait)
    first = work.start("reindex", account=7)
    with pytest.raises(Conflict) as refused:
        work.start("check")
    assert refused.value.code == "task_running"
    held.set()
    assert (await ended(work, first)).queued == 7
    second = work.start("reindex")
    with pytest.raises(NotFound):
        work.get(first.id)
    await ended(work, second)
    held.clear()
    third = work.start("reindex")
    await asyncio.sleep(0)
    await work.close()
    assert work.get(third.id).ended_at is not None


@pytest.mark.parametrize("error", [StorageUnavailable("away"), RuntimeError("secret")])
async def test_what_fails_is_told(house: House, error: Exception) -> None:
    async def fail(_account: int | None) -> int:
        raise error

    work = upkeep(house, fail)
    told = await ended(work, work.start("reindex"))
    assert told.state == "failed"
    assert told.error
    assert "secret" not in told.error


async def test_keywords_and_mailboxes_change_together_or_not_at_all(house: House) -> None:
    await house.account()
    (one, two) = await house.append(letter(1), letter(2))
    assert one is not None
    assert two is not None
    boxes = await house.boxes()
    done = await house.mailboxes.update(
        1, [one.email, 99], words=(["$Seen"], ["x"]), into=["archive"], out_of=["inbox"]
    )
    assert done.missing == (99,)
    (email,) = await house.reading.emails(1, [one.email])
    assert email.keywords == ("$seen",)
    assert [number for number, _ in email.mailboxes] == [boxes["archive"].id]
    with pytest.raises(NotFound):
        await house.mailboxes.update(1, [two.email], words=(["y"], []), into=[77])
    (email,) = await house.reading.emails(1, [two.email])
    assert email.keywords == ()
    await house.mailboxes.update(1, [two.email], into=["trash"], out_of=None)
    assert await house.lines(boxes["trash"].id) == [two.email]
    assert await house.wrong() == []
