"""API keys as text: `ph_`, the key's id, 256 random bits, a checksum. Pure.

    ph_ 0198c1…32 hex… 43 base62 characters 6 base62 characters
        id             random               CRC-32 of all before

The checksum refuses a truncated or mistyped key, and a scanner's false find, without a
look-up. A 256-bit random secret cannot be guessed from its hash, so one SHA-256 is enough
where a password needs a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass

PREFIX = "ph_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 43  # 62**43 > 2**256
_CHECK = 6  # 62**6 > 2**32
_ID = 32
LENGTH = len(PREFIX) + _ID + _RANDOM + _CHECK


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A new key: `text` is shown once, `hash` and `hint` are stored."""

    text: str
    hash: str
    hint: str


def generate(key_id: str) -> Secret:
    """A secret for the key `key_…`."""
    body = PREFIX + key_id.removeprefix("key_") + _base62(secrets.randbits(256), _RANDOM)
    text = body + _checksum(body)
    return Secret(text, hash_of(text), text[-4:])


def id_of(text: str) -> str | None:
    """The id of the key that `text` claims to be, or None when it cannot be a key."""
    if len(text) != LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    if _checksum(text[:-_CHECK]) != text[-_CHECK:]:
        return None
    return "key_" + text[len(PREFIX) : len(PREFIX) + _ID]


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def matches(text: str, stored_hash: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(hash_of(text), stored_hash)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK)


def _base62(number: int, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
