"""Real render processes: order, contexts, death, urgency, the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from posthouse.errors import Unavailable
from posthouse.outbound.spec import AttachmentRef
from posthouse.rendering import pool as pools
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Context, Failure, Renderer, Request, Setup, SignWith, Task
from posthouse.storage.blobs.factory import open_blobs
from posthouse.templates.model import Compiled

PEM = Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SLOW = Compiled(
    "s", None, "{% for i in range(3000) %}{{ i }}{% endfor %}", variables=("n",), metered=True, fuel=100_000
)


def context(name: str, subject: str = "Hello", compiled: Compiled | None = None, **more: object) -> Context:
    plain = Context(
        name,
        ("Ann", "ann@a.example"),
        (),
        (("X-Fixed", "1"),),
        (("Bob", "bob@b.example"),),
        (),
        (SignWith("a.example", "s1", "ed25519-sha256", PEM),),
        ("tpl_1", 1) if compiled else None,
        compiled,
        subject,
        None,
        "text of " + name,
        (),
        b"{}",
    )
    return msgspec.structs.replace(plain, **more)


def task(number: int, name: str) -> Task:
    return Task(name, f"msg_{number:032x}", 1_800_000_000, None, None)


def number_of(data: bytes | Failure) -> int:
    assert isinstance(data, bytes), data
    return int(data.partition(b"Message-ID: <")[2].partition(b"@")[0], 16)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup({"url": f"file://{tmp_path / 'blobs'}"})


@pytest.fixture
async def start(setup: Setup) -> AsyncIterator[Callable[[int], RenderPool]]:
    made: list[RenderPool] = []

    def make(processes: int) -> RenderPool:
        made.append(RenderPool(setup, processes))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_results_come_in_the_order_of_the_tasks(start: Callable[[int], RenderPool]) -> None:
    pool = start(2)
    contexts = {name: context(name) for name in ("a", "b", "c")}
    tasks = [task(n, "abc"[n % 3]) for n in range(200)]
    results = await pool.render(1, tasks, contexts)
    assert [number_of(result) for result in results] == list(range(200))
    for n in (0, 1, 199):
        data = results[n]
        assert isinstance(data, bytes)
        assert f"text of {'abc'[n % 3]}".encode() in data
        assert data.startswith(b"DKIM-Signature:")
    assert await pool.render(1, tasks, contexts) == results, "rendered again, the bytes are the same"


async def test_contexts_are_dropped_and_sent_again(start: Callable[[int], RenderPool]) -> None:
    pool = start(1)
    contexts = {str(n): context(str(n)) for n in range(700)}
    tasks = [task(n, str(n)) for n in range(700)]
    first = await pool.render(2, tasks, contexts)
    assert all(f"text of {n}".encode() in data for n, data in enumerate(first) if isinstance(data, bytes))
    assert [number_of(result) for result in first] == list(range(700))
    assert await pool.render(2, tasks[:40], contexts) == first[:40]


async def test_one_that_cannot_be_rendered_fails_alone(start: Callable[[int], RenderPool]) -> None:
    gone = AttachmentRef("a.txt", "text/plain", None, "0" * 64, 3)
    contexts = {
        "fine": context("fine"),
        "gone": context("gone", attachments=(gone,)),
        "undefined": context("undefined", compiled=Compiled("s", None, "{{ missing }}")),
    }
    results = await start(1).render(0, [task(1, "gone"), task(2, "fine"), task(3, "undefined")], contexts)
    assert isinstance(results[0], Failure)
    assert number_of(results[1]) == 2
    assert isinstance(results[2], Failure)
    assert not results[2].temporary
    assert "missing" in results[2].text


async def test_attachments_are_read_from_the_blobs(start: Callable[[int], RenderPool], setup: Setup) -> None:
    blobs = await open_blobs(**setup.blobs)
    key = await blobs.put(b"the content")
    await blobs.close()
    held = context("a", attachments=(AttachmentRef("a.txt", "text/plain", None, key, 11),))
    [data] = await start(1).render(0, [task(1, "a")], {"a": held})
    assert isinstance(data, bytes)
    assert b"dGhlIGNvbnRlbnQ=" in data


async def test_a_process_killed_in_mid_batch_costs_nothing(start: Callable[[int], RenderPool]) -> None:
    pool = start(2)
    contexts = {"slow": context("slow", compiled=SLOW)}
    await pool.render(1, [task(0, "slow")], contexts)
    await until(lambda: len(pool.pids) == 2)
    rendering = asyncio.ensure_future(pool.render(1, [task(n, "slow") for n in range(300)], contexts))
    await asyncio.sleep(0.02)
    victim = pool.pids[0]
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(30):
        assert [number_of(result) for result in await rendering] == list(range(300))
    await until(lambda: len(pool.pids) == 2 and victim not in pool.pids)


class Poisoned(RenderPool):
    """Kills the process that is given a task of one of these numbers, once it works on it."""

    def poison(self, *numbers: int) -> None:
        self.bad = {f"msg_{number:032x}" for number in numbers}
        for process in self._processes:
            self._watch_over(process)

    async def _launch(self) -> None:
        await super()._launch()
        if hasattr(self, "bad"):
            self._watch_over(self._processes[-1])

    def _watch_over(self, process: pools._Process) -> None:
        write = process.write

        def deadly(frame: bytes) -> None:
            request = msgspec.msgpack.decode(frame, type=Request) if process.ready else None
            if request is not None and any(one.message_id in self.bad for one in request.tasks):
                frame = b"\xc1"  # not msgpack: the process ends when it comes to it
            write(frame)

        process.write = deadly  # type: ignore[method-assign]


async def test_a_task_that_kills_two_processes_fails_alone(setup: Setup) -> None:
    """Two bad ones, with innocent ones waiting behind each: none of those may pay."""
    pool = Poisoned(setup, 1)
    contexts = {"a": context("a")}
    try:
        await pool.render(1, [task(1000, "a")], contexts)
        pool.poison(3, 5)
        async with asyncio.timeout(60):
            results = await pool.render(1, [task(n, "a") for n in range(8)], contexts)
        failed = [n for n, result in enumerate(results) if isinstance(result, Failure)]
        assert failed == [3, 5]
        assert {result.code for result in results if isinstance(result, Failure)} == {"render_crashed"}
    finally:
        await pool.close()


async def test_a_process_that_cannot_start_is_not_held_against_a_message(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = pools._CHILD
    monkeypatch.setattr(pools, "_CHILD", "import sys; sys.exit(1)")
    pool = RenderPool(setup, 1)
    try:
        rendering = asyncio.ensure_future(pool.render(1, [task(1, "a")], {"a": context("a")}))
        await asyncio.sleep(0.5)
        monkeypatch.setattr(pools, "_CHILD", child)
        async with asyncio.timeout(30):
            [result] = await rendering
        assert number_of(result) == 1
    finally:
        await pool.close()


async def test_when_no_process_can_be_made_it_is_tried_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RenderPool(setup, 1)
    popen, refused = pools.subprocess.Popen, 0

    def no_room(*args: object, **options: object) -> object:
        nonlocal refused
        refused += 1
        if refused < 3:
            raise BlockingIOError("Resource temporarily unavailable")
        return popen(*args, **options)  # type: ignore[call-overload]

    try:
        await pool.render(1, [task(0, "a")], {"a": context("a")})
        monkeypatch.setattr(pools.subprocess, "Popen", no_room)
        os.kill(pool.pids[0], signal.SIGKILL)
        async with asyncio.timeout(20):
            [result] = await pool.render(1, [task(1, "a")], {"a": context("a")})
        assert number_of(result) == 1
        assert refused == 3
    finally:
        await pool.close()


async def test_the_urgent_lane_goes_first(start: Callable[[int], RenderPool]) -> None:
    pool = start(1)
    contexts = {"slow": context("slow", compiled=SLOW), "a": context("a")}
    await pool.render(2, [task(0, "slow")], contexts)
    done: list[str] = []

    async def render(lane: int, tasks: Sequence[Task], name: str) -> None:
        await pool.render(lane, tasks, contexts)
        done.append(name)

    async with asyncio.timeout(30):
        bulk = [asyncio.ensure_future(render(2, [task(n, "slow")] * 32, f"bulk {n}")) for n in range(6)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        urgent = asyncio.ensure_future(render(0, [task(99, "a")], "urgent"))
        await asyncio.gather(urgent, *bulk)
    assert done.index("urgent") <= 2, "only the batches that the process had already go before"


async def test_those_who_left_are_not_rendered_for(start: Callable[[int], RenderPool]) -> None:
    pool = start(1)
    contexts = {"slow": context("slow", compiled=SLOW)}
    await pool.render(1, [task(0, "slow")], contexts)
    leaving = asyncio.ensure_future(pool.render(1, [task(n, "slow") for n in range(320)], contexts))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.wait([leaving])
    os.kill(pool.pids[0], signal.SIGKILL)
    async with asyncio.timeout(20):
        [result] = await pool.render(1, [task(7, "slow")], contexts)
    assert number_of(result) == 7


async def test_close_ends_the_processes_and_what_waits(setup: Setup) -> None:
    pool = RenderPool(setup, 2)
    contexts = {"slow": context("slow", compiled=SLOW)}
    await pool.render(1, [task(0, "slow")], contexts)
    pids = pool.pids
    waiting = asyncio.ensure_future(pool.render(1, [task(n, "slow") for n in range(3000)], contexts))
    await asyncio.sleep(0.01)
    await pool.close()
    with pytest.raises(Unavailable):
        await waiting
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(Unavailable):
        await pool.render(1, [task(1, "slow")], contexts)


def test_the_child_ends_with_its_socket(setup: Setup) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = pools.subprocess.Popen(
            [sys.executable, "-c", pools._CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
        )
        theirs.close()
        ours.close()
        assert child.wait(timeout=20) == 0


def test_the_same_task_gives_the_same_bytes_in_another_process(setup: Setup) -> None:
    """A crash between two attempts changes nothing: same Message-ID, date, boundaries, signature."""
    held = context("a", html="<p>Grüße</p>", text=None)
    request = Request(1, [], [held], [task(n, "a") for n in range(3)])
    assert Renderer(setup).answer(request) == Renderer(setup).answer(request)


async def test_what_a_process_keeps_is_bounded_in_octets(
    start: Callable[[int], RenderPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_CONTEXT_OCTETS", 100_000)
    pool = start(1)
    contexts = {str(n): context(str(n), text="x" * 9_000) for n in range(100)}
    tasks = [task(n, str(n)) for n in range(100)]
    first = await pool.render(2, tasks, contexts)
    [process] = pool._processes
    assert len(process._known) <= max(pools.TASKS_IN_BATCH, 11)
    assert process._kept == sum(process._known.values())
    assert await pool.render(2, tasks[:20], contexts) == first[:20]
