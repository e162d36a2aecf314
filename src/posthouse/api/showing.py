"""What of a message is shown beside its row: header fields and text, read by range and bounded."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec

from posthouse.api.mail_views import BodyView, HeaderView
from posthouse.mail.parse import decode_words, header_fields, text
from posthouse.mail.parse.html import words
from posthouse.mail.parsed import Part, part_of
from posthouse.mailbox.model import Email
from posthouse.mailbox.reading import Reading

HEADER_OCTETS: Final = 256 * 1024
FIELDS_AT_MOST: Final = 500
_MOST_VALUE: Final = 4096
_BODY_OCTETS: Final = 1024 * 1024
"""Of a part, that are read for its text."""
BODY_CHARACTERS: Final = 200_000
_PARTS: Final = 20
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_BLANKS = re.compile(r"[ \t\xa0]+")
_LINES = re.compile(r"\n[ \n]*\n")


async def headers(reading: Reading, account: int, email: Email) -> tuple[list[HeaderView], bool]:
    """The fields, and whether there are more than are shown."""
    size = email.detail.header_length
    block = await reading.raw_range(account, email.id, 0, min(size, HEADER_OCTETS))
    fields = await asyncio.to_thread(_fields, block) if len(block) > 64 * 1024 else _fields(block)
    return fields[:FIELDS_AT_MOST], size > HEADER_OCTETS or len(fields) > FIELDS_AT_MOST


def trace(block: bytes) -> list[HeaderView]:
    """Of the fields that we add before a message."""
    return _fields(block)[:FIELDS_AT_MOST]


def _fields(block: bytes) -> list[HeaderView]:
    found: list[HeaderView] = []
    for name, value, _, _ in header_fields(block)[: FIELDS_AT_MOST + 1]:
        found.append(HeaderView(name.decode("latin-1")[:200], _value(value)))
    return found


def _value(value: bytes) -> str:
    shown = decode_words(value[: 8 * _MOST_VALUE])
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", shown)[:_MOST_VALUE]


async def body(reading: Reading, account: int, email: Email) -> BodyView:
    """The text as a reader sees it: of the text parts, or where there are none, of the HTML."""
    detail = email.detail
    for ids, kind in ((detail.text, "text/plain"), (detail.html, "text/html")):
        parts = [part for one in ids[:_PARTS] if (part := part_of(detail.structure, one)) and part.type == kind]
        if parts:
            pieces = [await _text(reading, account, email.id, part) for part in parts]
            shown = "\n\n".join(piece for piece in pieces if piece)
            cut = len(shown) > BODY_CHARACTERS or any(part.length > _BODY_OCTETS for part in parts)
            return BodyView(shown[:BODY_CHARACTERS], kind, cut)
    return BodyView("", "", False)


async def _text(reading: Reading, account: int, email: int, part: Part) -> str:
    _, octets = await reading.part(account, email, part.id, length=_BODY_OCTETS)
    # The part stands alone in these octets.
    alone = msgspec.structs.replace(part, header=0, header_length=0, body=0, length=len(octets))
    return await asyncio.to_thread(_shown, octets, alone)


def _shown(octets: bytes, part: Part) -> str:
    found = text(octets, part, BODY_CHARACTERS * (4 if part.type == "text/html" else 1))
    if part.type == "text/html":
        lines = (_BLANKS.sub(" ", line).strip() for line in words(found).split("\n"))
        found = _LINES.sub("\n\n", "\n".join(lines)).strip()
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", found.replace("\r", "\n"))
