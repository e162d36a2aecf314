"""Finds targets, mutates their inputs, and keeps what fails."""

from __future__ import annotations

import importlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LARGEST = 65_536  # octets of an input
SLOWEST = 2.0  # seconds of this process's CPU that one input may take
_ENDLESS = 10.0  # seconds of CPU after which an input is given up
_WORDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xc3",
    b" ",
    b"\t",
    b"=",
    b"?",
    b"--",
    b'"',
    b"(",
    b"<",
    b";",
    b":",
    b"%",
    b"@",
)


class Target(NamedTuple):
    name: str
    corpus: Sequence[bytes]
    check: Callable[[bytes], None]
    slowest: float | None = None
    """In place of `SLOWEST`."""


class Failure(Exception):
    """What an input did, with the input."""

    def __init__(self, target: str, data: bytes, reason: BaseException | str) -> None:
        super().__init__(f"{target}: {reason!r}")
        self.data = data


def targets() -> dict[str, Target]:
    """By name; each module `target_NAME.py` beside this one is one."""
    found: dict[str, Target] = {}
    for path in sorted(Path(__file__).parent.glob("target_*.py")):
        name = path.stem.removeprefix("target_")
        module = importlib.import_module(f"{__package__}.{path.stem}")
        found[name] = Target(name, module.CORPUS, module.check, getattr(module, "SLOWEST", None))
    return found


class _Endless(BaseException):
    """No `except Exception` of the tested code may catch it."""


def fuzz(target: Target, seconds: float, seed: int) -> int:
    """How many inputs were tried; the corpus first, as it is. In the main thread only.

    :raises Failure: one raised, or took longer than `SLOWEST`.
    """
    with _clocked():
        return _fuzz(target, seconds, seed)


def _fuzz(target: Target, seconds: float, seed: int) -> int:
    dice = random.Random(seed)
    pool = list(target.corpus)
    for data in pool:
        _try(target, data)
    tried = len(pool)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            data = mutated(dice, pool)
            _try(target, data)
            if dice.random() < 0.02:  # mutations of mutations
                if len(pool) < 4 * len(target.corpus) + 64:
                    pool.append(data)
                else:
                    pool[dice.randrange(len(target.corpus), len(pool))] = data
        tried += 20
    return tried


def mutated(dice: random.Random, pool: Sequence[bytes]) -> bytes:
    """One of the pool, changed in one to eight ways."""
    data = bytearray(dice.choice(pool))
    for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
        dice.choice(_CHANGES)(dice, data, pool)
    return bytes(data[:LARGEST])


def _try(target: Target, data: bytes) -> None:
    signal.setitimer(signal.ITIMER_PROF, _ENDLESS)
    started = time.process_time()
    try:
        target.check(data)
    except (Exception, _Endless) as error:
        raise Failure(target.name, data, error) from error
    took = time.process_time() - started
    if took > (target.slowest or SLOWEST):
        raise Failure(target.name, data, f"took {took:.1f} s")


@contextmanager
def _clocked() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Endless(f"not done after {_ENDLESS:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _place(dice: random.Random, data: bytearray) -> tuple[int, int]:
    at = dice.randrange(len(data) + 1)
    return at, min(len(data), at + dice.choice((1, 1, 2, 4, 16, 64, 256)))


def _flip(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.randrange(256)


def _cut(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    start, end = _place(dice, data)
    del data[start:end]


def _truncate(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _repeat(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    start, end = _place(dice, data)
    data[start:start] = data[start:end] * dice.choice((1, 2, 10, 100))


def _word(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    at, _ = _place(dice, data)
    data[at:at] = dice.choice(_WORDS) * dice.choice((1, 1, 2, 50))


def _splice(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    other = dice.choice(pool)
    start = dice.randrange(len(other) + 1)
    at, end = _place(dice, data)
    data[at:end] = other[start : start + dice.choice((4, 32, 256, 4096))]


def _move(dice: random.Random, data: bytearray, pool: Sequence[bytes]) -> None:
    lines = data.split(b"\n")
    if len(lines) > 2:
        line = lines.pop(dice.randrange(len(lines)))
        lines.insert(dice.randrange(len(lines) + 1), line)
        data[:] = b"\n".join(lines)


_CHANGES = (_flip, _flip, _cut, _truncate, _repeat, _word, _splice, _move)
