"""Real render processes: order, contexts, urgency, and a message that ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from posthouse.net.child import code
from posthouse.outbound.spec import AttachmentRef
from posthouse.rendering import pool as pools
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Context, Failure, Renderer, Request, Setup, SignWith, Task
from posthouse.storage.blobs.factory import open_blobs
from posthouse.templates.model import Compiled
from tests.unit.rendering.fragile_renderer import KILLS

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


async def test_a_message_that_processes_die_at_is_tried_later(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_CHILD", code("tests.unit.rendering.fragile_renderer"))
    pool = RenderPool(setup, 1)
    contexts = {"a": context("a"), KILLS: context(KILLS)}
    try:
        async with asyncio.timeout(60):
            results = await pool.render(1, [task(1, "a"), task(2, KILLS), task(3, "a")], contexts)
    finally:
        await pool.close()
    assert [number_of(results[0]), number_of(results[2])] == [1, 3]
    assert isinstance(results[1], Failure)
    assert (results[1].code, results[1].temporary) == ("render_crashed", True)


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


def test_the_same_task_gives_the_same_bytes_in_another_process(setup: Setup) -> None:
    """A crash between two attempts changes nothing: same Message-ID, date, boundaries, signature."""
    held = context("a", html="<p>Grüße</p>", text=None)
    request = Request([], [held], [task(n, "a") for n in range(3)])
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
    codec = process._codec
    assert isinstance(codec, pools._Codec)
    assert len(codec._known) <= max(pools.TASKS_IN_BATCH, 11)
    assert codec._kept == sum(codec._known.values())
    assert await pool.render(2, tasks[:20], contexts) == first[:20]
