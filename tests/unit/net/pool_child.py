"""A child that does what each item says, for the tests of the pool.

`dies` ends the process, `garbles` answers what cannot be read, `sleeps N` takes N seconds, and
anything else is answered by itself and the number of the process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import msgspec

from posthouse.net.child import serve

DIES = "dies"
GARBLES = "garbles"
SLEEPS = "sleeps "
DECODER = msgspec.msgpack.Decoder(list[str])
encode = msgspec.msgpack.Encoder().encode


def main(descriptor: int) -> None:
    serve(descriptor, _begin)


def _begin(setup: bytearray) -> Callable[[bytearray], bytes]:
    greeting = setup.decode()
    return lambda frame: _answer(greeting, DECODER.decode(frame))


def _answer(greeting: str, items: list[str]) -> bytes:
    for item in items:
        if item.startswith(DIES):
            os.kill(os.getpid(), signal.SIGKILL)
        if item.startswith(SLEEPS):
            time.sleep(float(item.removeprefix(SLEEPS)))
    garbled = any(item.startswith(GARBLES) for item in items)
    return b"\xc1" if garbled else encode([greeting + item for item in items])
