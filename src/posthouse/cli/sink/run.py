"""The sink of `posthouse sink`, until a signal or its number of messages."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from posthouse.smtpd.sink import Counts, Options, Sink
from posthouse.smtpd.sink.processes import Group
from posthouse.smtpd.sink.stats import StatsServer

_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Running:
    """A sink or a group of them."""

    port: int
    counts: Callable[[], Awaitable[Counts]]
    reset: Callable[[], Awaitable[None]]


async def run(options: Options, processes: int, stop_after: int, stats_port: int | None, json: bool) -> None:
    over = asyncio.Event()
    async with _sink(options, processes) as running:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
        said: set[asyncio.Task[None]] = set()

        def say() -> None:
            task = loop.create_task(_print(running))
            said.add(task)
            task.add_done_callback(said.discard)

        loop.add_signal_handler(signal.SIGUSR1, say)
        stats = StatsServer(running.counts, running.reset)
        if stats_port is not None:
            await stats.start(options.host, stats_port)
        typer.echo(_where(options, running.port, stats.port), err=json)
        await _watch(running, over, stop_after, live=not json and sys.stdout.isatty())
        await stats.stop()
        if json or not sys.stdout.isatty():
            await _print(running)


@asynccontextmanager
async def _sink(options: Options, processes: int) -> AsyncGenerator[Running]:
    if processes > 1:
        async with Group(options, processes) as group:
            yield Running(group.port, group.counts, group.reset)
        return
    async with Sink(options) as sink:

        async def counts() -> Counts:
            return sink.counts

        async def reset() -> None:
            sink.counts.reset()

        yield Running(sink.port, counts, reset)


async def _watch(running: Running, over: asyncio.Event, stop_after: int, *, live: bool) -> None:
    """Until a signal, or the number of messages; the line is redrawn ten times a second."""
    started = time.monotonic()
    with Live(console=Console(), transient=False, auto_refresh=False) as display:
        while not over.is_set():
            counts = await running.counts()
            if live:
                display.update(_line(counts, time.monotonic() - started), refresh=True)
            if stop_after and counts.accepted >= stop_after:
                return
            try:
                async with asyncio.timeout(_TICK):
                    await over.wait()
            except TimeoutError:
                continue


async def _print(running: Running) -> None:
    typer.echo(msgspec.json.encode((await running.counts()).report()).decode())


def _where(options: Options, port: int, stats: int) -> str:
    at = f"[{options.host}]" if ":" in options.host else options.host
    counts = f", counts on http://{at}:{stats}/" if stats else ""
    return f"The sink listens on {at}:{port}{counts}"


def _line(counts: Counts, seconds: float) -> Text:
    refused = ", ".join(f"{number:,} × {code}" for code, number in counts.refused.most_common(6))
    return Text.assemble(
        (f"{counts.accepted:,} accepted", "green"),
        f"  {counts.per_second:,.0f}/s  ",
        (f"{counts.refused.total():,} refused", "yellow" if counts.refused else "dim"),
        f" {refused}" if refused else "",
        f"  {counts.dropped:,} dropped  {counts.open:,} of {counts.connections:,} connections open",
        (f"  {seconds:,.0f} s", "dim"),
    )
