"""Durable acceptance beside Postfix: 20 connections, messages of 6 KB, the same client, the same
disk, one server after the other.

Alike: 250 is given only when the message is on disk. Postfix syncs the queue file of each
message and then discards it (the `discard` transport, no limits, no milter). Posthouse is a
whole `posthouse serve` with the role mx: recipients looked up, SPF, DKIM, DMARC and reverse
DNS asked (DNS on loopback, cached), the trace fields made, message, log and job written in
one transaction that messages which arrive together share.

`gateway_*` are of the gateway alone, in front of a house that forgets at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import material, smtp_client
from bench.receiver import receiver
from bench.report import Report, main
from bench.services import service

CONNECTIONS = 20
IDLE = 200
_WARM = 500
_BARS = {"ratio_postfix": ("≥", 5.0), "idle_mb": ("<", 10.0), "gateway_per_second": ("≥", 15_000.0)}


@contextmanager
def gateway() -> Generator[tuple[int, int], None, None]:
    """Port and process of `bench.accept_server`."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    port = material.free_port()
    command = [sys.executable, "-m", "bench.accept_server", "--port", str(port), "--directory", str(folder)]
    process = subprocess.Popen(command, env=material.environment())
    try:
        _wait_for(port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def rate(port: int, count: int, connections: int = CONNECTIONS) -> float:
    """Messages accepted a second."""
    smtp_client.send(port, min(count, _WARM), connections)
    return count / smtp_client.send(port, count, connections)


def idle_mb(port: int, pid: int, connections: int = IDLE) -> float:
    """Growth of the server's resident memory by greeted connections that say no more."""
    smtp_client.send(port, _WARM, CONNECTIONS)
    before = _resident(pid)
    with ExitStack() as stack:
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            sock.sendall(b"EHLO client.example\r\n")
            heard = b""
            while b"\r\n250 " not in heard:
                heard += sock.recv(4096)
        after = _resident(pid)
    return (after - before) / 1024 / 1024


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _wait_for(port: int, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def measure(arguments: argparse.Namespace) -> Report:
    """Durable acceptance of messages of 6 KB, beside Postfix accepting for discard."""
    count = int(arguments.messages)
    with receiver("api,mx") as found:
        idle = idle_mb(found.mx, found.server.process.pid)
        used = found.server.cpu()
        ours = count / smtp_client.send(found.mx, count, CONNECTIONS)
        ours_cpu = (found.server.cpu() - used) / count * 1e6
    with gateway() as (port, pid):
        smtp_client.send(port, _WARM, CONNECTIONS)
        used = material.cpu_seconds(pid)
        alone = count / smtp_client.send(port, count, CONNECTIONS)
        alone_cpu = (material.cpu_seconds(pid) - used) / count * 1e6
    figures: dict[str, float | str] = {
        "per_second": ours,
        "cpu_us": ours_cpu,
        "gateway_per_second": alone,
        "gateway_cpu_us": alone_cpu,
        "idle_mb": idle,
    }
    with service("postfix", POSTFIX_TRANSPORT="discard:") as url:
        port = int(url.rpartition(":")[2])
        theirs = rate(port, max(1000, count // 5))
        figures |= {"postfix_per_second": theirs, "ratio_postfix": ours / theirs}
    return Report("accept", figures, _BARS)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=20_000)


if __name__ == "__main__":
    main(measure, options)
