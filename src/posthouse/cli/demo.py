"""`posthouse demo`: ten thousand signed mails through a server that is killed half-way."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from posthouse.cli import demo_check, demo_report
from posthouse.cli.demo_processes import DOMAIN, Failed, Server, Sink
from posthouse.cli.demo_report import Run
from posthouse.cli.output import Output

_BATCH = 500
_SAMPLE = 100
_MIX = "bounce=2%,defer=5%"
_PATIENCE = 90.0
"""Seconds without any progress after which the demo gives up."""
_URGENT = 20
"""Password mails of the stream `critical`, while the orders are being sent."""
_URGENT_EVERY = 0.2
Flag = typer.Option

_SUBJECT = "Your order {{ order }} is on its way, {{ name }}"
_HTML = """\
<!DOCTYPE html>
<html><head><title>Your order</title><style>
  body { font-family: sans-serif; color: #222 } td { padding: 4px 12px 4px 0; border-bottom: 1px solid #ddd }
</style></head><body>
<p>Dear {{ name }},</p>
<p>your parcel with order <b>{{ order }}</b> has left our house and should be with you on {{ day }}.</p>
<table>{% for item in items %}<tr><td>{{ item.what }}</td><td>{{ item.price }}</td></tr>{% endfor %}</table>
<p><a href="https://shop.example/orders/{{ order }}">Follow your parcel</a></p>
<p>Warm regards<br>The Shop</p>
</body></html>
"""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_NAMES = ("Ada", "Bjørn", "Chloé", "Dmitrij", "Eleni", "Fatma", "Günther", "Hanako", "Íris", "José")


def command(
    *,
    messages: Annotated[int, Flag(min=1, max=1_000_000, help="How many mails.")] = 10_000,
    kill: Annotated[bool, Flag("--kill/--no-kill", help="Kill the server half-way.")] = True,
    json: Annotated[bool, Flag("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Send signed mails through a server that is killed half-way, and count what arrived.

    Everything runs on a temporary directory and loopback, and is gone afterwards.
    """
    out = Output(as_json=json)
    try:
        with _interruptible(), tempfile.TemporaryDirectory(prefix="posthouse-demo-") as directory:
            good = _demo(out, Path(directory), messages, kill)
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


def _demo(out: Output, directory: Path, messages: int, kill: bool) -> bool:
    started = time.monotonic()
    sink = Sink(directory, max(1, messages // _SAMPLE), _MIX)
    server = Server(directory)
    try:
        out.hint("Setting up: a sink that plays the internet, a server, a tenant, a signed domain, a template …")
        sink.start()
        server.set_up(sink.port)
        server.start()
        run = Run(messages, _URGENT)
        with _api(server) as http:
            body = {"name": "order", "subject": _SUBJECT, "html": _HTML}
            http.post("/v1/templates", json=body).raise_for_status()
        _send_all(out, server, sink, run, kill)
        with _api(server) as http:
            ledger = _ledger(http)
            sink.stop()
            log = demo_check.read_log(sink.log)
            found = demo_check.tally(run.ids, ledger, log)
            told = http.get(f"/v1/messages/{found.story}/explain").json() if found.story else None
    finally:
        server.stop()
        sink.stop()
    sample = [path.read_bytes() for path in sorted(sink.kept.glob("*.eml"))]
    verified = demo_check.count_verified(sample, demo_check.public_keys(server.domain))
    figures = demo_report.figures(run, found, log, verified, time.monotonic() - started)
    demo_report.show(out, figures, told)
    return figures.agrees


def _api(server: Server, key: str = "") -> httpx.Client:
    headers = {"Authorization": f"Bearer {key or server.key}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False)


# Sending.


def _send_all(out: Output, server: Server, sink: Sink, run: Run, kill: bool) -> None:
    """Until every message is final. The submitter has a thread of its own, and meets the kill
    as any client would: no answer, so the same request with the same Idempotency-Key again."""
    over = threading.Event()
    submitter = threading.Thread(target=_submit_all, args=(server, run, over), daemon=True)
    columns = (TextColumn("{task.description:<10}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out.errors, disable=out.as_json) as progress:
        submitter.start()
        try:
            _watch(_Bars(progress, run.wanted), server, sink, run, kill_at=run.orders // 2 if kill else None)
        finally:
            over.set()
            submitter.join(10)


class _Bars:
    """Moved when something happened; knows how long nothing did."""

    def __init__(self, progress: Progress, wanted: int) -> None:
        self._progress = progress
        self._bars = [progress.add_task(name, total=wanted) for name in ("accepted", "at the sink")]
        self._last: tuple[int, ...] = ()
        self._moved = time.monotonic()

    def show(self, *counts: int) -> None:
        """:raises Failed: nothing moves."""
        if counts != self._last:
            self._last, self._moved = counts, time.monotonic()
            for bar, count in zip(self._bars, counts, strict=True):
                self._progress.update(bar, completed=count)
        elif time.monotonic() - self._moved > _PATIENCE:
            raise Failed(f"nothing moved for {_PATIENCE:.0f} s: {counts[0]} accepted, {counts[1]} at the sink")

    def say(self, text: str, style: str) -> None:
        self._progress.console.print(Text(text, style=style))


def _watch(bars: _Bars, server: Server, sink: Sink, run: Run, *, kill_at: int | None) -> None:
    while not (run.submitted and _waiting(server) == 0):
        accepted = sink.accepted()
        bars.show(len(run.ids), accepted)
        if kill_at is not None and run.killed_after is None and accepted >= kill_at:
            _kill(bars, server, run, accepted)
        if run.failure is not None:
            raise Failed(str(run.failure))
        time.sleep(0.1)
    bars.show(len(run.ids), sink.accepted())


def _kill(bars: _Bars, server: Server, run: Run, accepted: int) -> None:
    run.killed_after = accepted
    down = time.monotonic()
    server.kill()
    bars.say(f"kill -9 after {accepted:,} deliveries; starting it again …", "bold red")
    server.start()
    run.down_seconds = time.monotonic() - down
    bars.say(f"it is back after {run.down_seconds:.1f} s and goes on where it stood", "bold green")


def _waiting(server: Server) -> int:
    """Jobs in the queue; what is in flight counts."""
    with _api(server, server.operator_key) as http:
        depths = http.get("/v1/queue").raise_for_status().json()["depths"]
    return sum(depth["ready"] + depth["delayed"] for depth in depths)


def _submit_all(server: Server, run: Run, over: threading.Event) -> None:
    """Batches, and now and then a password mail that must not wait for them."""
    began = time.monotonic()
    try:
        for start in range(0, run.orders, _BATCH):
            answer = _post(server, "/v1/messages/batch", _batch(start, run.orders), f"batch-{start}", over)
            run.ids.extend(result["id"] for result in answer["results"])
        run.submit_seconds = time.monotonic() - began
        for number in range(run.urgent):
            answer = _post(server, "/v1/messages", _urgent(number), f"urgent-{number}", over)
            run.ids.append(answer["id"])
            over.wait(_URGENT_EVERY)
    except (httpx.HTTPError, KeyError) as error:
        run.failure = error
    run.submitted = True


def _post(server: Server, path: str, body: object, key: str, over: threading.Event) -> Any:
    """Repeated until there is an answer; the key makes that safe."""
    while not over.is_set():
        try:
            with _api(server) as http:
                answer = http.post(path, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 503:
            time.sleep(0.1)
            continue
        return answer.raise_for_status().json()
    raise httpx.RequestError("stopped")


def _batch(start: int, wanted: int) -> dict[str, Any]:
    return {
        "from": f"The Shop <orders@{DOMAIN}>",
        "template": "order",
        "stream": "broadcast",
        "recipients": [_recipient(number) for number in range(start, min(start + _BATCH, wanted))],
    }


def _urgent(number: int) -> dict[str, Any]:
    return {
        "from": f"The Shop <security@{DOMAIN}>",
        "to": [f"urgent{number}@mail.example"],
        "subject": "Your sign-in code",
        "text": f"Your code is {number * 7919 % 1_000_000:06d}.\n",
        "stream": "critical",
    }


def _recipient(number: int) -> dict[str, Any]:
    name = _NAMES[number % len(_NAMES)]
    items = [{"what": f"Thing no. {number + n}", "price": f"{(number * 7 + n) % 90 + 9}.90 €"} for n in range(1, 6)]
    variables = {"name": name, "order": f"A-{number:06d}", "day": _DAYS[number % 5], "items": items}
    return {"to": {"email": f"customer{number}@mail.example", "name": name}, "variables": variables}


def _ledger(http: httpx.Client) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query: dict[str, str | int] = {"limit": 200} if cursor is None else {"limit": 200, "cursor": cursor}
        page = http.get("/v1/messages", params=query).raise_for_status().json()
        rows.extend(page["data"])
        cursor = page["next"]
        if cursor is None:
            return rows
