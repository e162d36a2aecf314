"""Threads as the tables keep them: what is stored of an email to place others by, and numbers
for the names that `mail.threads` uses (its names sort by age, as ours do)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from posthouse.mail.threads import Facts, Keys, Override


class Kept(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """`email.threading`. `keys` are those of its rows in `thread_key`."""

    facts: Facts
    keys: tuple[bytes, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode
_numbers = msgspec.json.Decoder(tuple[int, ...])


def encode(keys: Keys) -> bytes:
    return _encode(Kept(keys.facts, keys.index))


def decode(stored: bytes) -> Kept:
    """:raises msgspec.MsgspecError: damaged bytes."""
    return _decode(stored)


def name(number: int) -> str:
    return f"{number:014x}"


def number(name: str) -> int:
    return int(name, 16)


def override(row: Sequence[str]) -> Override:
    """From (id, kind, data) of `thread_override`."""
    seq, kind, data = row
    return Override(int(seq, 16), kind, tuple(name(n) for n in _numbers.decode(data)))  # type: ignore[arg-type]
