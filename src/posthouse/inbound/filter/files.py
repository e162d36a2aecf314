"""What a message carries: files that run when they are opened, and how they hide it.

Names, the first octets, and the names in a zip's directory are read. Nothing is unpacked.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple
from urllib.parse import unquote

from posthouse.mail.parse.words import decoded, unfolded
from posthouse.mail.parsed import Parsed, Part

PROGRAMS: Final = frozenset(
    "ace action ade adp app application appx appxbundle bat cab chm cmd com command cpl dll dmg exe fxp gadget hlp "
    "hta img inf ins iqy iso isp jar jnlp js jse lib lnk mad maf mde msc msi msix msp mst nsh one osd pif pkg prf ps1 "
    "ps1xml ps2 psc1 psm1 reg rgs scf scr sct settingcontent-ms shb shs slk sys sysx url vb vbe vbs vhd vhdx vxd "
    "wim workflow ws wsc wsf wsh xll xnk".split()
)
MACROS: Final = frozenset("docm dotm xlsm xltm xlam xlsb pptm potm ppam ppsm sldm".split())
ARCHIVES: Final = frozenset("7z ace arj bz2 cab gz lha lzh rar tar tgz xz z zip zst".split())
_DOCUMENTS: Final = frozenset("doc docx gif htm html jpeg jpg mp3 mp4 pdf png ppt pptx rtf txt xls xlsx zip".split())
_PAGES: Final = frozenset("htm html mht mhtml shtml svg xhtml".split())
_TURNED: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_GAP: Final = re.compile(r"\s{8,}\.[A-Za-z0-9]{2,4}$")

MOST_PARTS = 200
_HEAD = 1024
"""Encoded octets of a part's start that are looked at."""
_TAIL = 90_000
"""Encoded octets of its end: a zip's directory lies there."""
_MOST_NAMES = 2000
_END: Final = struct.Struct("<4s4H2LH")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")


class File(NamedTuple):
    """`risk`: program, disguised, double, turned, inside (a program in an archive), macro,
    locked (an encrypted archive), page (HTML or SVG to open in a browser)."""

    risk: str
    name: str


def files(raw: bytes, parsed: Parsed) -> tuple[File, ...]:
    """What may harm, in the order of the parts; at most twenty."""
    if not parsed.structure.children and parsed.structure.name is None and _is_text(parsed.structure):
        return ()
    return tuple(islice(_risks(raw, parsed.structure), 20))


def _risks(raw: bytes, structure: Part) -> Iterator[File]:
    for part in islice(_leaves(structure), MOST_PARTS):
        if part.name is None and _is_text(part):
            continue
        if part.name is not None:
            yield from _named(part.name)
            if _is_turned(raw[part.header : part.header + min(part.header_length, _HEAD * 4)]):
                yield File("turned", part.name)
        yield from _opened(raw, part)


def _is_text(part: Part) -> bool:
    return part.type in {"text/plain", "text/html"} and part.disposition != "attachment"


def _leaves(part: Part) -> Iterator[Part]:
    waiting = [part]
    while waiting:
        here = waiting.pop()
        if here.children:
            waiting.extend(reversed(here.children))
        else:
            yield here


def _named(name: str) -> Iterator[File]:
    pieces = name.lower().rstrip(". ").rsplit(".", 2)
    ending = pieces[-1].strip() if len(pieces) > 1 else ""
    if ending == "com" and (len(pieces) == 3 or "@" in name):  # www.example.com is no program
        ending = ""
    if ending in PROGRAMS:
        yield File("program", name)
        if (len(pieces) == 3 and pieces[1].strip() in _DOCUMENTS) or _GAP.search(name):
            yield File("double", name)
    elif ending in MACROS:
        yield File("macro", name)
    elif ending in _PAGES:
        yield File("page", name)


def _is_turned(header: bytes) -> bool:
    """Whether the part's header changes the direction of writing. The parser cleans names of
    such characters, so they are looked for where they stood."""
    if header.isascii() and b"%" not in header and b"=?" not in header:
        return False
    text = decoded(unfolded(header))
    return _TURNED.search(unquote(text) if "%" in text else text) is not None


def _opened(raw: bytes, part: Part) -> Iterator[File]:
    """What the octets say, whatever the name."""
    head = _decoded(raw[part.body : part.body + min(part.length, _HEAD)], part.encoding)
    name = part.name or part.type
    if _runs(head) and _ending(name) not in PROGRAMS:
        yield File("disguised", name)
    elif head[:4] == b"PK\x03\x04":
        yield from _zipped(raw, part, name)
    elif head[:7] == b"Rar!\x1a\x07\x01" and _rar_is_locked(head):
        yield File("locked", name)


def _runs(head: bytes) -> bool:
    """A program of Windows (or its shortcut), Linux or macOS."""
    if head[:2] == b"MZ":
        return b"\0" in head[:64]
    return head[:4] in {b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"} or head[:8] == b"L\0\0\0\x01\x14\x02\0"


def _zipped(raw: bytes, part: Part, name: str) -> Iterator[File]:
    start = max(part.body, part.body + part.length - _TAIL)
    locked = macro = False
    for flags, inner in zip_names(_decoded_end(raw[start : part.body + part.length], part.encoding)):
        locked = locked or bool(flags & 1)
        if inner.endswith("vbaProject.bin"):
            macro = True
        elif _ending(inner) in PROGRAMS and not inner.startswith(("word/", "xl/", "ppt/", "META-INF/")):
            yield File("inside", f"{name}: {inner}")
            return
    if macro and _ending(name) not in MACROS:
        yield File("macro", name)
    if locked:
        yield File("locked", name)


def zip_names(tail: bytes) -> Iterator[tuple[int, str]]:
    """(general purpose flags, name) of the directory's entries, from the end of a zip file
    (APPNOTE.TXT §4.3.12, §4.3.16). What is damaged or out of reach ends the list."""
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        return
    directory = _END.unpack_from(tail, end)[5]
    at = end - directory
    if at < 0:  # begins before what we have: take the first whole entry
        at = tail.find(b"PK\x01\x02")
    for _ in range(_MOST_NAMES):
        if at < 0 or at + _ENTRY.size > end or tail[at : at + 4] != b"PK\x01\x02":
            return
        entry = _ENTRY.unpack_from(tail, at)
        length, extra, comment = entry[10:13]
        name = tail[at + _ENTRY.size : at + _ENTRY.size + min(length, 1024)]
        yield entry[3], name.decode("utf-8", "replace")
        at += _ENTRY.size + length + extra + comment


def _rar_is_locked(head: bytes) -> bool:
    """RAR 5: the first block is an encryption header (type 4)."""
    return len(head) > 14 and head[13] == 4


def _ending(name: str) -> str:
    _, dot, ending = name.lower().rstrip(". ").rpartition(".")
    return ending if dot else ""


def _decoded(octets: bytes, encoding: str) -> bytes:
    """The start of an encoded body; what does not decode is empty."""
    if encoding == "base64":
        packed = octets.translate(None, b" \t\r\n")
        return _base64(packed[: len(packed) & ~3])
    if encoding == "quoted-printable":
        return binascii.a2b_qp(octets)
    return octets


def _decoded_end(octets: bytes, encoding: str) -> bytes:
    """The end of one: base64 is padded there, so its groups of four count from the end."""
    if encoding == "base64":
        packed = octets.translate(None, b" \t\r\n")
        return _base64(packed[len(packed) % 4 :])
    return _decoded(octets, encoding)


def _base64(packed: bytes) -> bytes:
    try:
        return binascii.a2b_base64(packed)
    except binascii.Error:
        return b""
