"""The fields that a receiver puts in front: Return-Path and Received (RFC 5321 §4.4).

What the peer said of itself is quoted as RFC 5321's grammar allows, or left out.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HOST = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*)(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*")
_LITERAL = re.compile(r"\[[0-9A-Za-z:.]{2,60}\]")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATH = re.compile(r"[^\x00-\x20\x7f<>]{1,512}")
_TLS = re.compile(r"[A-Za-z0-9._ /=-]{1,80}")


def return_path(reverse_path: str) -> bytes:
    """:param reverse_path: without angle brackets, empty for the null path; one that could not be
    a path becomes the null path."""
    path = reverse_path if _PATH.fullmatch(reverse_path) is not None else ""
    return f"Return-Path: <{path}>\r\n".encode("utf-8", "replace")


def received(
    *,
    helo: str,
    peer: str,
    rdns: str | None,
    host: str,
    protocol: str,
    id: str,  # noqa: A002 - the clause's name
    at: datetime,
    recipient: str | None = None,
    tls: str | None = None,
) -> bytes:
    """`Received: from helo (rdns [peer]) by host with protocol id id for <recipient>; date`.

    :param helo: as the peer said it.
    :param peer: IPv4 or IPv6 as text.
    :param rdns: the peer's verified name, if there is one.
    :param protocol: as in RFC 3848 and RFC 6531: ESMTPS, UTF8SMTPA, LMTP, …
    :param recipient: only when there is one: nobody learns of another's address.
    :param tls: version and cipher, for people.
    :raises ValueError: a naive time, or an address that is none.
    """
    lines = [_from(helo, peer, rdns), f" by {host} with {protocol} id {id if _ID.fullmatch(id) else 'none'}"]
    if tls is not None and _TLS.fullmatch(tls):
        lines.append(f" ({tls})")
    if recipient is not None and _PATH.fullmatch(recipient) is not None:
        lines.append(f" for <{recipient}>")
    return ("\r\n".join(lines) + f";\r\n {_date(at)}\r\n").encode("utf-8", "replace")


@lru_cache(maxsize=4096)
def _from(helo: str, peer: str, rdns: str | None) -> str:
    name = helo if _HOST.fullmatch(helo) or _LITERAL.fullmatch(helo) else "unknown"
    address = ipaddress.ip_address(peer.partition("%")[0])
    literal = f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
    seen = f"{rdns} {literal}" if rdns is not None and _HOST.fullmatch(rdns) else literal
    return f"Received: from {name} ({seen})"


def _date(at: datetime) -> str:
    """RFC 5322 §3.3, in the zone that `at` has."""
    offset = at.utcoffset()
    if offset is None:
        raise ValueError("a trace needs an aware time")
    return _spelt(at.replace(tzinfo=None), int(offset.total_seconds()) // 60)


@lru_cache(maxsize=256)
def _spelt(at: datetime, minutes: int) -> str:
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} {zone}"
    )
