"""The floor: fill a compiled template, build, sign RSA-2048, send over pipelined SMTP to the
sink. No API, no storage, no queue: what the same work costs with nothing else around it.

Each process does all of it for its part of the messages; the number of processes that is
fastest on this machine counts.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import uvloop

from bench import material
from bench.report import Report, main
from posthouse.mailauth.dkim import Signer, generate_key, load_private_key, sign
from posthouse.net.smtp import connect
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.smtp.outcome import Envelope

CONNECTIONS = 16


def _send_part(port: int, pem: bytes, start: float, numbers: range, cpu: Connection, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    cpu.send(uvloop.run(_send(port, pem, start, numbers)))


async def _send(port: int, pem: bytes, start: float, numbers: range) -> float:
    """Seconds of CPU that the messages took."""
    build = material.Builder()
    signers = [Signer("example.com", "bench", load_private_key(pem))]
    todo = iter(numbers)

    def render(number: int) -> tuple[str, bytes]:
        address, message = build(number)
        return address, sign(message, signers, int(time.time())) + message

    async def serve() -> None:
        connection = await connect(
            "127.0.0.1", port, name="bench.example.com", ip="127.0.0.1", tls=TlsPolicy(TlsMode.NONE)
        )
        for number in todo:
            address, data = render(number)
            delivery = await connection.deliver(Envelope("shop@example.com", (address,)), data, canonical=True)
            assert delivery.replies[0].ok, delivery
        await connection.quit()

    await asyncio.sleep(max(0.0, start - time.time()))
    began = time.process_time()
    await asyncio.gather(*(serve() for _ in range(CONNECTIONS)))
    return time.process_time() - began


def run(count: int, processes: int, cores: Sequence[int | None] = ()) -> tuple[float, float]:
    """Messages a second, and µs of CPU a message without the sink's.

    :param cores: on which the processes are held, one each; the sink runs where this process may.
    """
    cores = cores or [None] * processes
    pem, _ = generate_key("rsa-sha256")
    with material.sink() as sink:
        start = time.time() + 1.5
        step = count // processes
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(processes)]
        parts = [
            multiprocessing.get_context("spawn").Process(
                target=_send_part, args=(sink.port, pem, start, range(n * step, (n + 1) * step), pipes[n][1], cores[n])
            )
            for n in range(processes)
        ]
        for part in parts:
            part.start()
        last = sink.wait_for(step * processes, 120)
        cpu = sum(pipe.recv() for pipe, _ in pipes)
        for part in parts:
            part.join(10)
    return step * processes / (last - start), cpu / (step * processes) * 1e6


def measure(arguments: argparse.Namespace) -> Report:
    """Messages a second without Posthouse around them."""
    runs = {n: run(arguments.messages, n) for n in (2, 3)}
    best = max(runs, key=lambda n: runs[n])
    figures: dict[str, float | str] = {f"per_second_{n}_processes": rate for n, (rate, _) in runs.items()}
    return Report("floor", {"per_second": runs[best][0], "cpu_us": runs[best][1], "processes": best, **figures})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=30000)


if __name__ == "__main__":
    main(measure, options)
