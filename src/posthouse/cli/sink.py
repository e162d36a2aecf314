"""`posthouse sink`: an SMTP server for development that answers as the address tells it."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast, get_args

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.live import Live
from rich.text import Text

from posthouse.smtp.offer import Limits
from posthouse.smtpd.sink import EXTENSIONS, Counts, Options, Sink
from posthouse.smtpd.sink.options import KeepAs
from posthouse.smtpd.sink.processes import Group
from posthouse.smtpd.sink.stats import StatsServer

_TICK = 0.1
Flag = typer.Option


@dataclass(frozen=True, slots=True)
class Running:
    """A sink or a group of them."""

    port: int
    counts: Callable[[], Awaitable[Counts]]
    reset: Callable[[], Awaitable[None]]


def command(
    *,
    host: Annotated[str, Flag(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Flag(min=0, max=65535, help="Port; 0 picks a free one and prints it.")] = 2525,
    keep: Annotated[Path | None, Flag(help="Keep messages here; without it they are forgotten.")] = None,
    keep_as: Annotated[str, Flag(help="eml, mbox or maildir.")] = "eml",
    keep_every: Annotated[int, Flag(min=1, help="Keep each N-th message only.")] = 1,
    log: Annotated[Path | None, Flag(help="Append a line of JSON for each outcome.")] = None,
    mix: Annotated[str, Flag(help='Random outcomes, like "bounce=2%,defer=5%,slow=1%".')] = "",
    seed: Annotated[int, Flag(help="Which addresses the mix picks.")] = 0,
    latency: Annotated[float, Flag(min=0, max=60_000, help="Milliseconds before each reply.")] = 0.0,
    greylist: Annotated[float, Flag(min=0, help="Seconds of greylist@.")] = 1.0,
    slow: Annotated[float, Flag(min=0, help="Seconds of slow@.")] = 2.0,
    tls: Annotated[bool, Flag("--tls/--no-tls", help="Offer STARTTLS with a certificate made at the start.")] = True,
    lmtp: Annotated[bool, Flag("--lmtp", help="Speak LMTP.")] = False,
    off: Annotated[list[str] | None, Flag("--no", help=f"Do not offer: {', '.join(EXTENSIONS)}. Repeatable.")] = None,
    no_chunking: Annotated[bool, Flag("--no-chunking", help="Short for --no chunking.")] = False,
    no_pipelining: Annotated[bool, Flag("--no-pipelining", help="Short for --no pipelining.")] = False,
    size: Annotated[int, Flag(min=1, help="Octets of the largest message.")] = Limits().size,
    check: Annotated[bool, Flag("--check/--no-check", help="Search plain messages for bare CR and LF too.")] = True,
    processes: Annotated[int, Flag(min=1, max=64, help="Processes that share the port.")] = 1,
    stop_after: Annotated[int, Flag(min=0, help="Stop after so many messages; 0 never.")] = 0,
    stats_port: Annotated[int | None, Flag(help="Counts by HTTP: GET / and POST /reset; 0 picks a port.")] = None,
    json: Annotated[bool, Flag("--json", help="Print the counts as JSON at the end, and nothing else.")] = False,
) -> None:
    """Receive mail for development; the address says what happens to it.

    bounce@ bounce-550-5.7.1@ defer@ defer-2@ full@ greylist-30@ slow-5@ slow-final-5@ spam@
    tls@ drop@ drop-data@ drop-final@ at any domain; any other address is accepted. A +suffix
    is free. SIGUSR1 prints the counts.
    """
    if keep_as not in get_args(KeepAs):
        raise typer.BadParameter("eml, mbox or maildir", param_hint="--keep-as")
    names = {*(off or ()), *(["chunking"] if no_chunking else []), *(["pipelining"] if no_pipelining else [])}
    try:
        options = Options(
            host=host,
            port=port,
            tls=tls,
            lmtp=lmtp,
            off=frozenset(names),
            mix=mix,
            seed=seed,
            latency=latency / 1000,
            check=check,
            greylist=greylist,
            slow=slow,
            keep=keep,
            keep_as=cast(KeepAs, keep_as),
            keep_every=keep_every,
            log=log,
            memory=0,
            limits=Limits(size=size, errors=100, idle=1000, refusals=10_000),
        )
        uvloop.run(_run(options, processes, stop_after, stats_port, json))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        why = f"port {port} is taken" if error.errno == errno.EADDRINUSE else str(error)
        typer.echo(f"The sink cannot start: {why}. Choose another --port, --log or --keep.", err=True)
        raise typer.Exit(1) from None


async def _run(options: Options, processes: int, stop_after: int, stats_port: int | None, json: bool) -> None:
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
