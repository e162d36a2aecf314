"""`posthouse plan`: what a workload needs, from what one mail costs."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from posthouse.capacity import EXAMPLES, Plan, Workload, plan
from posthouse.capacity.costs import Priced, priced, shipped
from posthouse.capacity.planning import Forecast
from posthouse.capacity.workload import described, workload
from posthouse.cli.output import Column, Output
from posthouse.cli.session import Session, wired
from posthouse.errors import Misconfigured

_ROLES = (
    Column("ROLE", "name"),
    Column("PROCESSES", "processes", right=True),
    Column("RENDER PROCESSES EACH", "renders", right=True),
    Column("CORES EACH", "cores", right=True),
    Column("MEMORY EACH", "memory", right=True),
    Column("CAN DO", "can", right=True),
    Column("BUSIEST HOUR", "steady", right=True),
    Column("PEAK", "peak", right=True),
)
_TOPICS = (
    Column("STAGE", "stage"),
    Column("LANE", "lane"),
    Column("PARTITIONS", "partitions", right=True),
    Column("PEAK", "rate", right=True),
)
_ENGINES = (
    Column("ENGINE", "name"),
    Column("SERVERS", "servers", right=True),
    Column("CORES", "cores", right=True),
    Column("MEMORY", "memory", right=True),
    Column("STORAGE", "storage", right=True),
    Column("", "about"),
)
_NETWORK = (Column("NETWORK AT THE PEAK", "name"), Column("", "bits", right=True))
_STAGES = (
    Column("STAGE", "name"),
    Column("SERVERS", "servers", right=True),
    Column("BUSY", "busy", right=True),
    Column("QUEUE AFTER THE BURST", "queue", right=True),
)
_WAITS = (Column("WAITS", "lane"), Column("P50", "p50", right=True), Column("P99", "p99", right=True))
_LARGEST = 1 << 20


@wired
def command(
    session: Session,
    *,
    example: Annotated[str | None, typer.Option(help=f"Begin with one of: {', '.join(EXAMPLES)}.")] = None,
    workload_file: Annotated[
        Path | None, typer.Option("--workload", metavar="FILE", help="TOML of a workload.")
    ] = None,
    costs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Costs that `python -m bench --costs` wrote.")
    ] = None,
    messages_per_day: Annotated[str | None, typer.Option(help="Mails sent a day: 2000000, 100M.")] = None,
    sustained: Annotated[str | None, typer.Option(help="Mails sent a second, lastingly.")] = None,
    burst: Annotated[str | None, typer.Option(help="Mails submitted a second in a burst.")] = None,
    burst_for: Annotated[str | None, typer.Option(metavar="TIME", help="How long a burst lasts: 10min.")] = None,
    drain_in: Annotated[
        str | None, typer.Option(metavar="TIME", help="From its beginning until all of it is delivered.")
    ] = None,
    recipients: Annotated[str | None, typer.Option(help="Recipients of a request.")] = None,
    body: Annotated[str | None, typer.Option(metavar="SIZE", help="A mail without attachments: 8KB.")] = None,
    attachments: Annotated[str | None, typer.Option(help="Share of mails with an attachment: 0.05.")] = None,
    attachment: Annotated[str | None, typer.Option(metavar="SIZE", help="Size of an attachment: 200KB.")] = None,
    received_per_day: Annotated[str | None, typer.Option(help="Mails received a day.")] = None,
    mailboxes: Annotated[str | None, typer.Option(help="Accounts that receive.")] = None,
    sockets: Annotated[str | None, typer.Option(help="Open connections that wait for news.")] = None,
    retention_days: Annotated[str | None, typer.Option(help="Days that sent mail stays in the ledger.")] = None,
    kept_days: Annotated[str | None, typer.Option(help="Days that received mail stays in its mailbox.")] = None,
) -> None:
    """Say what a workload needs: processes, partitions, cores, memory, storage and network."""
    given = {
        "messages_per_day": _count("messages-per-day", messages_per_day),
        "sustained_per_second": _count("sustained", sustained),
        "burst_per_second": _count("burst", burst),
        "burst_seconds": _time("burst-for", burst_for),
        "drain_seconds": _time("drain-in", drain_in),
        "recipients": _count("recipients", recipients),
        "body_octets": _size("body", body),
        "attachment_share": _count("attachments", attachments),
        "attachment_octets": _size("attachment", attachment),
        "received_per_day": _count("received-per-day", received_per_day),
        "mailboxes": _count("mailboxes", mailboxes),
        "sockets": _count("sockets", sockets),
        "retention_days": _count("retention-days", retention_days),
        "kept_days": _count("kept-days", kept_days),
    }
    wanted = _wanted(example, workload_file, {name: value for name, value in given.items() if value is not None})
    prices = priced(_text(costs)) if costs is not None else shipped()
    found = plan(wanted, prices)
    if session.out.as_json:
        session.out.data(document(found, prices))
    else:
        _show(session.out, found)


def _wanted(example: str | None, file: Path | None, flags: dict[str, float]) -> Workload:
    """Flags before the file before the example."""
    base = Workload()
    if example is not None:
        if example not in EXAMPLES:
            raise Misconfigured(f"--example: one of {', '.join(EXAMPLES)}", code="bad_workload")
        base = EXAMPLES[example][1]
    if file is not None:
        try:
            base = workload(tomllib.loads(_text(file)), base)
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"{file}: {error}", code="bad_workload") from error
    wanted = workload(flags, base)
    if not (wanted.daily or wanted.received_per_day or wanted.sockets):
        raise Misconfigured(
            "Say how much: --messages-per-day, --sustained, --burst, --received-per-day, or --example "
            + next(iter(EXAMPLES)),
            code="bad_workload",
        )
    return wanted


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read"
        raise Misconfigured(f"{path}: {why}", code="bad_workload") from error


_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def _count(flag: str, text: str | None) -> float | None:
    """`12,000`, `100M`, `0.05`."""
    if text is None:
        return None
    plain = text.strip().replace(",", "").replace("_", "").lower()
    number = plain.rstrip("kmgb")
    try:
        return float(number) * _SCALES[plain[len(number) :]]
    except (ValueError, KeyError):
        raise Misconfigured(f"--{flag}: write a number, such as 12000, 1.5k or 100M", code="bad_workload") from None


def _time(flag: str, text: str | None) -> float | None:
    from posthouse.config.units import seconds  # noqa: PLC0415 - with all the settings

    return _measured(flag, seconds, text)


def _size(flag: str, text: str | None) -> float | None:
    from posthouse.config.units import octets  # noqa: PLC0415

    return _measured(flag, octets, text)


def _measured(flag: str, reader: Any, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(reader(text))
    except ValueError as error:
        raise Misconfigured(f"--{flag}: {error}", code="bad_workload") from None


def document(found: Plan, prices: Priced) -> dict[str, Any]:
    """The plan as JSON: rates a second, octets, seconds and cores, unrounded."""
    shown = dataclasses.asdict(found)
    shown["cores"], shown["memory"] = found.cores, found.memory
    shown["costs"] = {
        "date": prices.date,
        "machine": prices.machine,
        "values": dataclasses.asdict(prices.costs),
        "estimated": sorted(prices.estimated),
    }
    return _finite(shown)


def _finite(value: Any) -> Any:
    """JSON has no infinity: what never ends is null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if value == float("inf") else value


def _show(out: Output, found: Plan) -> None:
    asked = [
        (str(one.metadata["about"]).partition(";")[0].rstrip("."), f"{getattr(found.workload, one.name):,.12g}")
        for one in described()
        if getattr(found.workload, one.name) != one.default
    ]
    out.facts(asked)
    out.say("")
    if found.embedded:
        out.say("One `posthouse serve` on SQLite is enough.")
    out.table(_ROLES, map(_role, found.roles), empty="")
    out.say(f"Together {found.cores:,.0f} cores and {_octets(found.memory)} of memory.\n")
    if found.topics:
        rows = [dataclasses.asdict(one) | {"rate": _rate(one.per_second)} for one in found.topics]
        out.table(_TOPICS, rows, empty="")
        out.say("")
    out.table(_ENGINES, map(_engine, found.engines), empty="")
    out.say("")
    out.table(_NETWORK, [{"name": one.name, "bits": _bits(one.bits)} for one in found.network], empty="")
    out.say("")
    _show_forecast(out, found.forecast)
    for warning in found.warnings:
        out.say(warning, style="yellow")
    out.say("\nAssumed:")
    for assumption in found.assumptions:
        out.say(f"- {assumption}")


def _show_forecast(out: Output, forecast: Forecast) -> None:
    stages = [
        {"name": one.name, "servers": one.servers, "busy": f"{one.utilisation:.0%}", "queue": f"{one.queue:,.0f}"}
        for one in forecast.stages
    ]
    out.table(_STAGES, stages, empty="")
    out.say("")
    out.table(
        _WAITS, [{"lane": w.lane, "p50": _seconds(w.p50), "p99": _seconds(w.p99)} for w in forecast.waits], empty=""
    )
    if (burst := forecast.burst) is not None:
        out.say(
            f"\nA burst leaves {burst.queued:,.0f} jobs, gone {_seconds(burst.seconds)} after its end; "
            f"its mails wait {_seconds(burst.p50)} (half of them less), {_seconds(burst.p99)} at 99 %."
        )
    out.say("")


def _role(role: Any) -> dict[str, Any]:
    return {
        "name": role.name,
        "processes": role.processes,
        "renders": role.render_processes or "",
        "cores": f"{role.cores:g}",
        "memory": _octets(role.octets),
        "can": _rate(role.per_second) if role.per_second else "",
        "steady": _rate(role.steady) if role.per_second else "",
        "peak": _rate(role.peak) if role.per_second else "",
    }


def _engine(engine: Any) -> dict[str, Any]:
    return {
        "name": engine.name,
        "servers": engine.servers or "",
        "cores": f"{engine.cores:,.0f}" if engine.cores else "",
        "memory": _octets(engine.memory) if engine.memory else "",
        "storage": _octets(engine.storage) if engine.storage else "",
        "about": engine.about,
    }


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.2g}/s"


def _bits(value: float) -> str:
    return f"{value / 1e9:,.2f} Gbit/s" if value >= 1e8 else f"{value / 1e6:,.2f} Mbit/s"


def _octets(value: float) -> str:
    for scale, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= scale:
            return f"{value / scale:,.1f} {name}"
    return f"{value:,.0f} B"


def _seconds(value: float) -> str:
    if value == float("inf"):
        return "for ever"
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"
