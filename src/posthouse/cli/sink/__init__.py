"""`posthouse sink`: an SMTP server for development that answers as the address tells it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from posthouse.smtp.offer import EXTENSIONS, Limits

Flag = typer.Option


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
    import uvloop  # noqa: PLC0415 - late: no other command should pay for it

    from posthouse.cli.sink.run import run  # noqa: PLC0415
    from posthouse.smtpd.sink.options import KeepAs, Options  # noqa: PLC0415

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
        uvloop.run(run(options, processes, stop_after, stats_port, json))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        why = f"port {port} is taken" if error.errno == errno.EADDRINUSE else str(error)
        typer.echo(f"The sink cannot start: {why}. Choose another --port, --log or --keep.", err=True)
        raise typer.Exit(1) from None
