"""`posthouse demo`: ten thousand signed mails, out and in again, through a server that is killed half-way."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from posthouse.cli.output import Output

Flag = typer.Option


def command(
    *,
    messages: Annotated[int, Flag(min=1, max=1_000_000, help="How many orders are sent.")] = 10_000,
    mailboxes: Annotated[int, Flag(min=5, max=1000, help="How many people they are for.")] = 100,
    kill: Annotated[bool, Flag("--kill/--no-kill", help="Kill the server half-way.")] = True,
    json: Annotated[bool, Flag("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Send signed mails into a hundred mailboxes of a server that is killed half-way, and count what is there.

    The mails leave by the sending flow and come back in by the receiving one. Everything runs
    on a temporary directory and loopback, and is gone afterwards.
    """
    import httpx  # noqa: PLC0415 - late: no other command should pay for it
    from rich.text import Text  # noqa: PLC0415

    from posthouse.cli.demo import run  # noqa: PLC0415
    from posthouse.cli.demo.processes import Failed, Server  # noqa: PLC0415

    out = Output(as_json=json)
    try:
        with _interruptible(), tempfile.TemporaryDirectory(prefix="posthouse-demo-") as directory:
            good = run.demo(out, Server(Path(directory)), messages, mailboxes, kill=kill)
    except (Failed, httpx.HTTPError) as error:
        out.errors.print(Text(f"The demo could not be shown: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
    if not good:
        raise typer.Exit(1)


@contextmanager
def _interruptible() -> Generator[None, None, None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: with everything stopped and removed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
