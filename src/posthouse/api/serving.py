"""Octets that strangers wrote, served so that no browser takes them for ours to run.

Every answer is `nosniff` and sandboxed. Only types that cannot run anything keep their name;
the rest is an attachment of plain octets.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from posthouse.api.http import Call, Reply

Read = Callable[[int, int], Awaitable[bytes]]
"""Octets from a start, so many at most."""

_INERT = frozenset(
    "image/png image/jpeg image/gif image/webp image/bmp audio/mpeg audio/ogg audio/wav audio/mp4 video/mp4 video/webm "
    "video/ogg".split()
)
_CHARSET = re.compile(r"[A-Za-z0-9._:+-]{1,40}")
_RANGE = re.compile(rb"bytes=(\d{0,15})-(\d{0,15})")
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9 !#$&()+,;=@^_`{}~.-]")
_MOST_NAME = 200
_SECURITY = (
    (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"accept-ranges", b"bytes"),
)


@dataclass(frozen=True, slots=True)
class Octets:
    """What there is to serve. `etag`: the same for the same octets. `kind` as its sender named it."""

    size: int
    read: Read
    etag: str
    kind: str = "application/octet-stream"
    charset: str | None = None
    name: str = ""


async def serve(call: Call, octets: Octets) -> Reply:
    """The whole, or the range that was asked for (RFC 9110 §14): one of octets, else the whole."""
    headers = (*_SECURITY, (b"etag", f'"{octets.etag}"'.encode()), _disposition(octets))
    kind = _safe_type(octets).encode()
    asked = _asked(call, octets)
    if asked is None:
        return Reply(200, await octets.read(0, octets.size), kind, headers)
    start, end = asked
    if start >= end:
        return Reply(416, b"", kind, (*headers, (b"content-range", b"bytes */%d" % octets.size)))
    data = await octets.read(start, end - start)
    where = b"bytes %d-%d/%d" % (start, start + len(data) - 1, octets.size)
    return Reply(206, data, kind, (*headers, (b"content-range", where)))


def _asked(call: Call, octets: Octets) -> tuple[int, int] | None:
    """From and to; both the same for a range that the octets do not have."""
    found = _RANGE.fullmatch(call.headers.get(b"range", b"").strip())
    condition = call.headers.get(b"if-range")
    if found is None or (condition is not None and condition != f'"{octets.etag}"'.encode()):
        return None
    first, last = found.group(1, 2)
    if not first:
        if not last:
            return None
        return max(0, octets.size - int(last)), octets.size if int(last) else 0
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= octets.size:
        return 0, 0
    return start, min(octets.size, int(last) + 1) if last else octets.size


def _safe_type(octets: Octets) -> str:
    if octets.kind in _INERT:
        return octets.kind
    if octets.kind == "message/rfc822":
        return octets.kind
    if octets.kind.startswith("text/") and not _may_run(octets.kind):
        charset = octets.charset or "us-ascii"
        return f"text/plain; charset={charset if _CHARSET.fullmatch(charset) else 'us-ascii'}"
    return "application/octet-stream"


def _may_run(kind: str) -> bool:
    return any(word in kind for word in ("html", "xml", "script", "css", "svg"))


def _disposition(octets: Octets) -> tuple[bytes, bytes]:
    """RFC 6266: the name in ASCII, and as it is (RFC 8187). A path is no name."""
    how = "inline" if octets.kind in _INERT else "attachment"
    name = re.split(r"[/\\]", octets.name)[-1][:_MOST_NAME].strip(". ")
    name = "".join(c for c in name if c.isprintable())
    if not name:
        return b"content-disposition", how.encode()
    plain = _PLAIN_NAME.sub("_", name)
    value = f'{how}; filename="{plain}"'
    if plain != name:
        value += f"; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"
    return b"content-disposition", value.encode("ascii")
