"""`http(s)://[USER:PASSWORD@]HOST[:PORT][/INDEX][?shards=5&replicas=1&ca=FILE]`, as a value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from posthouse import errors

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_PORT, _INDEX = 9200, "posthouse"
_SHARDS, _REPLICAS = 5, 1
_SHARDS_AT_MOST, _REPLICAS_AT_MOST = 1024, 10


@dataclass(frozen=True, slots=True)
class Address:
    """`index`: what the names of all its indexes and aliases begin with. `ca`: a file of
    certificates to trust instead of the system's."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    index: str = _INDEX
    shards: int = _SHARDS
    replicas: int = _REPLICAS
    ca: str = ""


def parse(url: str) -> Address:
    """:raises Misconfigured: it is none; the message holds nothing of it."""
    try:
        parts = urlsplit(url)
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _wrong("not a URL") from None
    if parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise _wrong("no host")
    index = unquote(parts.path).strip("/") or _INDEX
    if not _NAME.fullmatch(index):
        raise _wrong("INDEX is small letters, digits, - and _")
    if unknown := options.keys() - {"shards", "replicas", "ca"}:
        raise _wrong(f"unknown option {', '.join(sorted(unknown))[:100]}")
    return Address(
        host,
        port or _PORT,
        parts.scheme == "https",
        unquote(user or ""),
        unquote(password or ""),
        index,
        _count(options, "shards", _SHARDS, 1, _SHARDS_AT_MOST),
        _count(options, "replicas", _REPLICAS, 0, _REPLICAS_AT_MOST),
        options.get("ca", ""),
    )


def _count(options: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and least <= int(text) <= most):
        raise _wrong(f"{name} is a number from {least} to {most}")
    return int(text)


def _wrong(why: str) -> errors.Misconfigured:
    return errors.Misconfigured(
        f"search.url is records: or http(s)://[USER:PASSWORD@]HOST[:PORT][/INDEX][?shards=…&replicas=…] ({why})",
        code="search_url",
    )
