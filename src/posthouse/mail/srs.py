"""Sender rewriting for forwarded mail: a reverse-path of ours that leads bounces back.

The scheme of Meng Weng Wong and Shevek (openspf.org, 2003-2004):

    ann@a.example               →  SRS0=hash=tt=a.example=ann@ours
    SRS0=h=t=a.example=ann@b    →  SRS1=hash=b==h=t=a.example=ann@ours   (b rewrote it before us)
    SRS1=…=b==…@c               →  SRS1=hash=b==…@ours                   (c is left out)

The hash is keyed, so that nobody makes us forward bounces to addresses of their choice; `tt` is the
day, so that an address lasts for weeks only. Hash and tag are compared without case, as relays may
change it.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from posthouse.errors import Invalid
from posthouse.mail.address import MAX_ADDRESS, MAX_LOCAL

MAX_AGE_DAYS = 21
_HASH = 8  # characters of base32: 40 bits, guessed online only
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PERIOD = 1024  # days until a stamp comes again
_DAY = 86_400_000_000

_SRS0 = re.compile(r"srs0[=+-]([^=]+)=([^=]+)=([^=]+)=(.+)", re.IGNORECASE)
_SRS1 = re.compile(r"srs1[=+-]([^=]+)=([^=]+)=([=+-].+)", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?!.{{254}}){_LABEL}(?:\.{_LABEL})*")


class Srs:
    """Rewrites for one key.

    :param key: at least 16 octets, secret; a changed key ends all addresses made with the old one,
        unless that is among `old_keys`.
    """

    __slots__ = ("_keys",)

    def __init__(self, key: bytes, old_keys: tuple[bytes, ...] = ()) -> None:
        if len(key) < 16:
            raise ValueError("an SRS key needs 16 octets")
        self._keys = (key, *old_keys)

    def forward(self, address: str, domain: str, now: int) -> str:
        """The reverse-path for a copy that leaves from `domain`; the null one stays null.

        :param now: µs since 1970.
        :raises Invalid: `srs_too_long` when it cannot fit into 64 and 254 octets (RFC 5321
            §4.5.3.1), or the address has a quoted local part or a literal for its domain. Send such
            copies with the null reverse-path.
        """
        if not address:
            return ""
        local, _, host = address.rpartition("@")
        if host.lower() == domain.lower() and not is_srs(address):
            return address
        if not local or not local.isascii() or local.startswith('"') or _HOST.fullmatch(host) is None:
            raise Invalid("The address cannot be rewritten.", code="srs_unfit")
        return _bounded(self._rewritten(local, host, now), domain)

    def reverse(self, address: str, now: int) -> str:
        """Where a notice to this address of ours goes.

        :raises Invalid: `srs_invalid`: not one of ours, altered, or from the future; `srs_expired`.
        """
        local = address.rpartition("@")[0]
        found = _SRS1.fullmatch(local)
        if found is not None:
            mark, host, rest = found.groups()
            self._check(mark, host.lower(), rest)
            return f"SRS0{rest}@{host}"
        found = _SRS0.fullmatch(local)
        if found is None:
            raise _refused()
        mark, stamp, host, user = found.groups()
        self._check(mark, stamp.lower(), host.lower(), user)
        _check_age(stamp, now)
        return f"{user}@{host}"

    def _rewritten(self, local: str, host: str, now: int) -> str:
        found = _SRS1.fullmatch(local)
        if found is not None:
            _, first, rest = found.groups()
            if _HOST.fullmatch(first) is None:
                raise Invalid("The address cannot be rewritten.", code="srs_unfit")
            return f"SRS1={self._hash(self._keys[0], first.lower(), rest)}={first}={rest}"
        if _SRS0.fullmatch(local) is not None:
            rest = local[4:]
            return f"SRS1={self._hash(self._keys[0], host.lower(), rest)}={host}={rest}"
        stamp = _stamp(now)
        return f"SRS0={self._hash(self._keys[0], stamp, host.lower(), local)}={stamp}={host}={local}"

    def _check(self, mark: str, *said: str) -> None:
        given = mark.lower().encode(errors="surrogatepass")
        if not any(hmac.compare_digest(given, self._hash(key, *said).encode()) for key in self._keys):
            raise _refused()

    @staticmethod
    def _hash(key: bytes, *said: str) -> str:
        # Without case, since a relay may have changed that of the local part.
        text = "\0".join((str(len(said)), *said)).lower()
        digest = hmac.digest(key, text.encode(errors="surrogatepass"), sha256)
        number = int.from_bytes(digest[:8], "big")
        return "".join([_ALPHABET[(number >> (5 * i)) & 31] for i in range(_HASH)])


def is_srs(address: str) -> bool:
    """Whether an address has the shape of a rewritten one; `reverse` says whether it is ours."""
    local = address.rpartition("@")[0]
    return _SRS0.fullmatch(local) is not None or _SRS1.fullmatch(local) is not None


def _stamp(now: int) -> str:
    day = now // _DAY % _PERIOD
    return _ALPHABET[day >> 5] + _ALPHABET[day & 31]


def _check_age(stamp: str, now: int) -> None:
    low = stamp.lower()
    if len(low) != 2 or any(c not in _ALPHABET for c in low):
        raise _refused()
    day = _ALPHABET.index(low[0]) << 5 | _ALPHABET.index(low[1])
    age = (now // _DAY - day) % _PERIOD
    if age == _PERIOD - 1:  # made a moment before midnight by a clock ahead of ours
        return
    if age > _PERIOD // 2:
        raise _refused()
    if age > MAX_AGE_DAYS:
        raise Invalid("The forwarding address has expired.", code="srs_expired")


def _bounded(local: str, domain: str) -> str:
    if len(local) > MAX_LOCAL or len(local) + 1 + len(domain) > MAX_ADDRESS:
        raise Invalid("The rewritten address is too long.", code="srs_too_long")
    return f"{local}@{domain}"


def _refused() -> Invalid:
    return Invalid("The address is not one of this server's.", code="srs_invalid")
