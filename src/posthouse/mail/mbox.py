"""mbox files, read in the forms that programs write and written as mboxrd.

A message begins behind a line `From …` and ends before the next one. What tells such a line from
text differs, and `Form` names it:

    rd   every line of text that looks so has one more `>` before it; reading takes it off
    o    only a line that begins with `From ` has a `>`: which `>From ` was text cannot be told
    cl   as `o`, and Content-Length says where the body ends
    cl2  only Content-Length says so, and nothing is quoted

`auto` heeds a Content-Length that leads exactly to the next `From ` line or the end of the file;
what it bounds is taken for unquoted when a line of text begins with `From ` in it. The rest is
read as `rd`, with `From ` lines told by the empty line before them and the time in them.

Keywords: what is written begins with the fields Status, X-Status and X-Keywords, which mail programs
read, and one that says whose they are; reading takes these four off again. Status and X-Status of
other programs are read and stay.

Lines: a message without a single CR LF gets CR LF at its line ends; another stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from mmap import mmap
from typing import Literal, NamedTuple

from posthouse.errors import Invalid

Form = Literal["auto", "rd", "o", "cl", "cl2"]

_HEADER_AT_MOST = 1 << 20
"""Octets in which a header ends, if Content-Length is to count."""
_LINE_AT_MOST = 2000
_FROM = b"From "
_CANDIDATE = re.compile(rb"\nFrom ([^\n]*)")
_TIME = rb"\d?\d:\d\d(?::\d\d)?\b[^\n]*\b(?:19|20)\d\d\b|\b(?:19|20)\d\d\b[^\n]*\b\d?\d:\d\d"
_LOOSE = re.compile(_TIME)
_STRICT = re.compile(
    rb"\S+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d?\d +"
    rb"\d?\d:\d\d(?::\d\d)?(?: +[A-Z]{1,5}| +[+-]\d{4})? +\d{4}\b"
)
_ASCTIME = re.compile(
    rb"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d?\d) +(\d?\d):(\d\d)(?::(\d\d))?"
    rb"(?: +([A-Z]{1,5}|[+-]\d{4}))? +(\d{4})\b"
)
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_END = re.compile(rb"(?:\r?\n){0,2}(?=From )|(?:\r?\n)*\Z")
_UNQUOTE_RD = re.compile(rb"^>(>*From )", re.MULTILINE)
_UNQUOTE_O = re.compile(rb"^>(From )", re.MULTILINE)
_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_UNQUOTED = re.compile(rb"^From ", re.MULTILINE)
_STATUS = re.compile(rb"^(status|x-status):[ \t]*([A-Za-z]{0,10})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_FLAGS = {
    b"status": {"R": "$seen"},
    b"x-status": {"A": "$answered", "F": "$flagged", "T": "$draft"},
}
_NOTED = re.compile(
    rb"Status: (R?O)\r?\nX-Status: (A?F?T?)\r?\nX-Keywords:((?: [!-~]+)*)\r?\nX-Exported-By: Posthouse\r?\n"
)


class Piece(NamedTuple):
    """Where a message lies: `start:end` of its octets, and where the next piece begins. `envelope`:
    the `From ` line without its line end. `form`: how its text is quoted."""

    start: int
    end: int
    after: int
    envelope: bytes
    form: Form


def pieces(data: bytes | mmap, start: int = 0, form: Form = "auto") -> Iterator[Piece]:
    """In order, from an offset where one begins (0, or an `after`).

    :raises Invalid: code `mbox_broken`: none begins there.
    """
    size = len(data)
    at = _skip_empty(data, start)
    while at < size or start > size:
        if data[at : at + 5] != _FROM:
            raise Invalid(
                f"No message begins at octet {at}: this is no mbox file, or it has changed", code="mbox_broken"
            )
        line_end = data.find(b"\n", at)
        if line_end < 0:
            return
        envelope = data[at : min(line_end, at + _LINE_AT_MOST)].rstrip(b"\r")
        piece = _by_length(data, line_end + 1, envelope, form) if form in ("auto", "cl", "cl2") else None
        piece = piece or _by_line(data, line_end + 1, envelope, form)
        yield piece
        at = _skip_empty(data, piece.after)


def message(data: bytes | mmap, piece: Piece) -> bytes:
    """The octets of a piece, unquoted, with CR LF, without what `entry` noted."""
    noted = _NOTED.match(data, piece.start, piece.end)
    found = data[noted.end() if noted is not None else piece.start : piece.end]
    if piece.form == "rd":
        found = _UNQUOTE_RD.sub(rb"\1", found) if b">From " in found else found
    elif piece.form in ("o", "cl"):
        found = _UNQUOTE_O.sub(rb"\1", found) if b">From " in found else found
    return with_crlf(found)


def entry(raw: bytes, *, sender: str, at: datetime, keywords: Iterable[str] = ()) -> bytes:
    """A message as mboxrd has it: with its `From ` line, its keywords, quoted, LF, and the empty
    line behind."""
    text = with_lf(raw)
    if _FROM in text:
        text = _QUOTE.sub(rb">\1", text)
    who = re.sub(r"[^!-~]+", "", sender)[:200] or "MAILER-DAEMON"
    line = f"From {who} {at.astimezone(UTC).ctime()}\n"
    return line.encode("ascii") + _note(set(keywords)) + text + (b"\n" if text.endswith(b"\n") else b"\n\n")


def _note(words: set[str]) -> bytes:
    status, more = (
        "".join(flag for flag, word in _FLAGS[field].items() if word in words) for field in (b"status", b"x-status")
    )
    rest = sorted(words.difference(*(flags.values() for flags in _FLAGS.values())))
    other = "".join(f" {word}" for word in rest if word.isascii() and word.isprintable() and " " not in word)
    return f"Status: {status}O\nX-Status: {more}\nX-Keywords:{other}\nX-Exported-By: Posthouse\n".encode("ascii")


def received_at(envelope: bytes) -> datetime | None:
    """The time of a `From ` line, which has no zone as a rule: UTC."""
    found = _ASCTIME.search(envelope)
    if found is None:
        return None
    month, day, hour, minute, second, zone, year = found.groups()
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC
        )
        if zone and zone[:1] in b"+-":
            moment = moment.replace(tzinfo=datetime.strptime(zone.decode(), "%z").tzinfo).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment


def keywords(data: bytes | mmap, piece: Piece) -> list[str]:
    """What `entry` noted, or else what mail programs did in Status and X-Status fields."""
    noted = _NOTED.match(data, piece.start, piece.end)
    if noted is not None:
        fields = [(b"status", noted[1]), (b"x-status", noted[2])]
        found = set(noted[3].decode().split())
    else:
        limit = min(piece.end, piece.start + _HEADER_AT_MOST)
        ends = [at for mark in (b"\n\n", b"\n\r\n") if (at := data.find(mark, piece.start, limit)) >= 0]
        fields, found = _STATUS.findall(data[piece.start : min(ends, default=limit)]), set[str]()
    for name, flags in fields:
        known = _FLAGS[name.lower()]
        found |= {known[flag] for flag in flags.decode().upper() if flag in known}
    return sorted(found)


def with_crlf(text: bytes) -> bytes:
    """What `with_lf` undid, and LF of other programs; text with any CR LF stays."""
    return text if b"\r\n" in text else text.replace(b"\n", b"\r\n")


def with_lf(raw: bytes) -> bytes:
    """With LF where all lines end in CR LF, so that `with_crlf` gives it back; else as it is."""
    changed = raw.replace(b"\r\n", b"\n")
    whole = b"\r\n" not in changed and changed.count(b"\n") == raw.count(b"\r\n")
    return changed if whole else raw


def _skip_empty(data: bytes | mmap, at: int) -> int:
    while True:
        if data[at : at + 1] == b"\n":
            at += 1
        elif data[at : at + 2] == b"\r\n":
            at += 2
        else:
            return at


def _by_length(data: bytes | mmap, start: int, envelope: bytes, form: Form) -> Piece | None:
    """Bounded by a Content-Length that leads where a message can end."""
    limit = min(len(data), start + _HEADER_AT_MOST)
    ends = [at + len(mark) for mark in (b"\n\n", b"\n\r\n") if (at := data.find(mark, start, limit)) >= 0]
    if not ends:
        return None
    body = min(ends)
    found = _LENGTH.search(data[start:body])
    if found is None:
        return None
    end = body + int(found[1])
    if end > len(data):
        return None
    after = _END.match(data, end)
    if after is None or (after.end() < len(data) and end > start and data[after.end() - 1 : after.end()] != b"\n"):
        return None
    if form == "auto":
        # Quoted text has no line that begins so.
        form = "cl2" if _UNQUOTED.search(data[body:end]) else "rd"
    return Piece(start, end, after.end(), envelope, form)


def _by_line(data: bytes | mmap, start: int, envelope: bytes, form: Form) -> Piece:
    """Bounded by the next `From ` line, or the end of the file."""
    said: Form = "o" if form in ("o", "cl") else "cl2" if form == "cl2" else "rd"
    for found in _CANDIDATE.finditer(data, start - 1):
        if _separates(data, found, strict=form == "rd"):
            at = found.start() + 1
            return Piece(start, _without_empty(data, start, at), at, envelope, said)
    return Piece(start, _without_empty(data, start, len(data)), len(data), envelope, said)


def _separates(data: bytes | mmap, found: re.Match[bytes], *, strict: bool) -> bool:
    if strict:
        return True  # all others are quoted
    line = found[1][:_LINE_AT_MOST]
    if _STRICT.match(line):
        return True
    at = found.start()
    empty_before = data[at - 1 : at] == b"\n" or data[max(0, at - 2) : at] == b"\n\r"
    return empty_before and _LOOSE.search(line) is not None


def _without_empty(data: bytes | mmap, start: int, end: int) -> int:
    """Without the empty line that stands between two messages."""
    for mark in (b"\r\n\r\n", b"\n\n"):
        if end - start >= len(mark) and data[end - len(mark) : end] == mark:
            return end - len(mark) // 2
    return end
