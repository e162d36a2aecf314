"""What all the benchmarks send, and to whom: one 8 KB personalised message, one sink."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from posthouse import ids
from posthouse.mail.address import mailbox
from posthouse.mail.build import Skeleton
from posthouse.templates.compile import compile_version
from posthouse.templates.fill import Filler

SUBJECT = "Your order {{ order }} is on its way, {{ name }}"
_PARAGRAPH = (
    '<p style="margin:0 0 12px;color:#333333">Dear {{ name }}, the parcel with order {{ order }} left our house at '
    "{{ time }} and will be with you soon. You can follow it, change the day or send it to a neighbour.</p>\n"
)
_ROW = '<tr><td style="padding:4px 8px">A thing that you ordered</td><td>1</td><td>{{ price }}</td></tr>\n'
HTML = (
    "<!DOCTYPE html>\n<html><head><title>Your order</title></head><body>\n"
    + _PARAGRAPH * 12
    + "<table>\n" + _ROW * 24 + "</table>\n"
    + "<p><a href=\"https://shop.example/orders/{{ order }}\">See the order</a></p>\n</body></html>\n"
)  # fmt: skip
TEXT = "Dear {{ name }},\n\n" + "Your order {{ order }} left our house at {{ time }} and will be with you soon.\n" * 16


DISK = Path("/var/tmp")
"""Where queues and databases lie: on a disk on every machine, where /tmp may be memory."""


QUICK = """
[retry]
first = 0.4
factor = 1.3
cap = 2

[render]
processes = 1
"""
"""Settings of a trial in which things fail: soon tried again, by few processes."""


def route(port: int, connections: int = 8, domains: str = "*") -> str:
    """Settings: mail for these domains to the sink at `port`. :param connections: of each process that sends."""
    return f"""
[[routes]]
domains = ["{domains}"]
kind = "static"
hosts = ["127.0.0.1:{port}"]
tls = "none"
connections = {connections}
"""


def variables(number: int) -> dict[str, str]:
    return {"name": f"Customer {number}", "order": f"A-{number:08d}", "time": "12:30", "price": "19.90"}


class Builder:
    """The message as Posthouse makes it, unsigned: template filled, parts encoded."""

    def __init__(self) -> None:
        self._compiled = compile_version(SUBJECT, HTML, TEXT)
        self._filler = Filler()
        self._skeleton = Skeleton(from_=mailbox("shop@example.com", "The Shop"))

    def __call__(self, number: int) -> tuple[str, bytes]:
        """The recipient, and the message's octets."""
        filled = self._filler.fill(("bench", 1), self._compiled, variables(number))
        address = f"user{number}@sink.example"
        name = ids.new("msg")
        message = self._skeleton.fill(
            to=(mailbox(address),),
            subject=filled.subject,
            date=datetime.fromtimestamp(int(time.time()), UTC),
            message_id=f"<{name}@example.com>",
            text=filled.text,
            html=filled.html,
            seed=name,
        )
        return address, message


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class SinkProcess:
    port: int
    stats_port: int
    process: subprocess.Popen[bytes]

    def counts(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.stats_port}/", timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def reset(self) -> None:
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.stats_port}/reset", method="POST"), timeout=10
        ).read()

    def wait_for(self, count: int, timeout: float) -> float:
        """Seconds since 1970 of the last message, once `count` were accepted.

        :raises TimeoutError:"""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            counts = self.counts()
            if counts["accepted"] >= count:
                return float(counts["last_at"])
            time.sleep(0.1)
        raise TimeoutError(f"the sink has {self.counts()['accepted']} of {count} messages after {timeout} s")


@contextmanager
def sink(*flags: str, port: int | None = None) -> Generator[SinkProcess, None, None]:
    """`posthouse sink` in a process of its own, without TLS: encryption is not what is measured."""
    port, stats = port or free_port(), free_port()
    command = [
        sys.executable,
        "-m",
        "posthouse",
        "sink",
        "--port",
        str(port),
        "--stats-port",
        str(stats),
        "--no-tls",
        *flags,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    try:
        found = SinkProcess(port, stats, process)
        for _ in range(200):
            try:
                found.counts()
                break
            except OSError:
                time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        process.wait(10)


def fill_in(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers in a file.

    :raises ValueError: the file lacks them.
    """
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def environment() -> dict[str, str]:
    source = str(Path(__file__).resolve().parent.parent / "src")
    return {**os.environ, "PYTHONPATH": source}


def received(pipe: Connection, seconds: float = 300.0) -> Any:
    """What another process sends.

    :raises TimeoutError: it does not."""
    if not pipe.poll(seconds):
        raise TimeoutError(f"a process of the benchmark said nothing for {seconds:g} s")
    return pipe.recv()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its ended children."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(parts[i]) for i in range(11, 15)) / os.sysconf("SC_CLK_TCK")
