"""A whole message at once: header, structure, what shows it, a preview, and its flaws."""

from __future__ import annotations

import re

from posthouse.mail.parse import html
from posthouse.mail.parse.addresses import parse_addresses
from posthouse.mail.parse.bodies import Bodies
from posthouse.mail.parse.dates import parse_date
from posthouse.mail.parse.decoding import CHUNK, count
from posthouse.mail.parse.fields import Block, Raw, read_block
from posthouse.mail.parse.reading import preview
from posthouse.mail.parse.structure import Structure, is_ascii
from posthouse.mail.parse.words import are_sound, clean, decoded, unfolded
from posthouse.mail.parsed import Addr, Parsed, Part

MAX_LINE = 998  # octets, RFC 5322 §2.1.1
MAX_REFERENCES = 200
_MAX_ID = 998
_PAIRED = 1024  # octets that are looked through for CR and LF apart
_HTML_CHECKED = 16_384  # octets of an HTML part that are looked through for hidden text
_MAX_LIST = 262_144  # octets of an address list
_LISTED = (b"to", b"cc", b"bcc", b"reply-to")
_ONCE = frozenset(
    b"from sender reply-to to cc bcc message-id in-reply-to references subject date mime-version content-type"
    b" content-transfer-encoding content-disposition content-id".split()
)  # RFC 5322 §3.6, RFC 2045 §3
_IDS = re.compile(r"<([^<>]{1,998})>")
_SOUND_ID = re.compile(r"<([!-;=?-~]{1,900}@[!-;=?-~]{1,900})>")
_BLANKS = re.compile(r"\s+")


def parse(message: Raw) -> Parsed:
    """Whatever the octets are; never raises. Time and memory are linear in their number: 36 MB
    take about a second at worst."""
    flaws: set[str] = set()
    whole = _whole_lines(message, flaws)
    size = len(whole)
    ascii_only = is_ascii(whole, 0, size)
    if whole.find(b"\0") >= 0:
        flaws.add("nul")
    block = read_block(whole, 0, size)
    header = _Header(block, flaws)
    if not ascii_only:
        header.note_octets(whole[: min(block.body, CHUNK)])
    _check_lines(whole, block.body, flaws)
    structure = Structure(whole, is_ascii=ascii_only, flaws=flaws)
    root = structure.root(header.first, block.body, size)
    bodies = Bodies(root)
    _check_html(whole, bodies.html, flaws)
    senders = header.senders()
    message_id = header.message_id()
    date, offset = header.date()
    return Parsed(
        size=size,
        header_length=block.body,
        structure=root,
        message_id=message_id,
        in_reply_to=header.ids(b"in-reply-to"),
        references=header.ids(b"references"),
        subject=header.text(b"subject"),
        from_=senders,
        sender=header.addresses(b"sender"),
        reply_to=header.addresses(b"reply-to"),
        to=header.addresses(b"to"),
        cc=header.addresses(b"cc"),
        bcc=header.addresses(b"bcc"),
        date=date,
        date_offset=offset,
        text=tuple([part.id for part in bodies.text]),
        html=tuple([part.id for part in bodies.html]),
        attachments=tuple([part.id for part in bodies.attachments]),
        preview=preview(whole, bodies.text, bodies.html),
        list_id=header.list_id(),
        auto_submitted=header.word(b"auto-submitted"),
        precedence=header.word(b"precedence"),
        list_unsubscribe=b"list-unsubscribe" in header.first,
        list_post=header.word(b"list-post") not in {None, "no"},
        thread_index=header.thread_index(),
        flaws=tuple(sorted(flaws)),
    )


class _Header:
    """The fields at the top, by name, and what they mean."""

    __slots__ = ("_flaws", "first")

    def __init__(self, block: Block, flaws: set[str]) -> None:
        self.first: dict[bytes, bytes] = {}
        self._flaws = flaws
        first = self.first
        for name, value, _ in block.fields:
            key = name.lower()
            if key not in first:
                first[key] = value
            elif key in _ONCE:
                self._repeated(key, value)
        flaws.update(block.flaws)

    def _repeated(self, key: bytes, value: bytes) -> None:
        self._flaws.add("duplicate_header")
        if key == b"from":
            self._flaws.add("many_from")
        elif key in _LISTED and len(self.first[key]) < _MAX_LIST:
            self.first[key] = self.first[key].rstrip() + b", " + value.lstrip()

    def note_octets(self, block: bytes) -> None:
        """Says how the header goes beyond ASCII, when it does."""
        if block.isascii():
            return
        try:
            block.decode("utf-8")
            self._flaws.add("utf8_header")
        except UnicodeDecodeError:
            self._flaws.add("eight_bit_header")

    def text(self, name: bytes) -> str:
        value = self.first.get(name)
        if value is None:
            return ""
        text = unfolded(value)
        if "=?" in text:
            self._check_words(text)
            text = decoded(text)
        return clean(text)

    def _check_words(self, text: str) -> None:
        if not are_sound(text):
            self._flaws.add("bad_encoded_word")

    def word(self, name: bytes) -> str | None:
        """The first word of a value, lower-case; "" for an empty one."""
        value = self.first.get(name)
        if value is None:
            return None
        words = unfolded(value).replace(";", " ").split(None, 1)
        return clean(words[0].lower(), 60) if words else ""

    def addresses(self, name: bytes) -> tuple[Addr, ...]:
        value = self.first.get(name)
        if value is None:
            return ()
        text = unfolded(value, _MAX_LIST)
        if "=?" in text:
            self._check_words(text)
        return parse_addresses(text)

    def senders(self) -> tuple[Addr, ...]:
        found = self.addresses(b"from")
        if b"from" not in self.first:
            self._flaws.add("no_from")
        elif not any(each.address for each in found):
            self._flaws.add("bad_from")
        elif len(found) > 1 and b"sender" not in self.first:
            self._flaws.add("many_from")
        return found

    def date(self) -> tuple[int | None, int]:
        value = self.first.get(b"date")
        if value is None:
            self._flaws.add("no_date")
            return None, 0
        at, offset, sound = parse_date(unfolded(value[:400]))
        if not sound:
            self._flaws.add("bad_date")
        return at, offset

    def message_id(self) -> str | None:
        value = self.first.get(b"message-id")
        if value is None:
            self._flaws.add("no_message_id")
            return None
        text = unfolded(value[:4096])
        sound = _SOUND_ID.fullmatch(text)
        if sound is not None:
            return sound[1]
        self._flaws.add("bad_message_id")
        found = _found_ids(text)
        if found:
            return found[0]
        return clean(_BLANKS.sub("", text).strip("<>"), _MAX_ID) or None

    def ids(self, name: bytes) -> tuple[str, ...]:
        """At most `MAX_REFERENCES`: the first, which began the thread, and the last ones."""
        value = self.first.get(name)
        if value is None:
            return ()
        text = unfolded(value)
        found = _found_ids(text) or _bare_ids(text)
        if len(found) > MAX_REFERENCES:
            found = [found[0], *found[1 - MAX_REFERENCES :]]
        return tuple(found)

    def list_id(self) -> str | None:
        """RFC 2919: what stands between angle brackets, or else the value."""
        text = self.text(b"list-id")
        start, stop = text.rfind("<"), text.rfind(">")
        return (text[start + 1 : stop] if 0 <= start < stop else text).strip()[:_MAX_ID].lower() or None

    def thread_index(self) -> str | None:
        value = self.first.get(b"thread-index")
        if value is None:
            return None
        return clean(_BLANKS.sub("", unfolded(value[:200])), 22) or None


def _found_ids(text: str) -> list[str]:
    found = _IDS.findall(text)
    if text.isascii() and text.isprintable() and " " not in "".join(found):
        return found
    return [each for each in [clean(_BLANKS.sub("", each), _MAX_ID) for each in found] if each]


def _bare_ids(text: str) -> list[str]:
    """Words that look like ids where no angle brackets are."""
    words = [clean(word, _MAX_ID) for word in text.split() if len(word) <= _MAX_ID]
    return [word for word in words if word.find("@", 1) > 0]


def _whole_lines(message: Raw, flaws: set[str]) -> Raw:
    """The message with LF somewhere: one whose lines all end in CR alone is read as if in LF."""
    size = len(message)
    newlines = count(message, b"\n", 0, size)
    returns = count(message, b"\r", 0, size)
    # As many of both and never in pairs would be a strange message: its beginning shows it.
    near = min(size, _PAIRED)
    if newlines != returns or count(message, b"\n", 0, near) != count(message, b"\r\n", 0, near):
        flaws.add("bare_newline")
    if newlines == 0 and returns:
        return (message if isinstance(message, bytes) else message[:]).replace(b"\r", b"\n")
    return message


def _check_lines(message: Raw, body: int, flaws: set[str]) -> None:
    if _has_long_line(message, 0, body):
        flaws.add("header_too_long")
    if _has_long_line(message, body, len(message)):
        flaws.add("text_too_long")


def _has_long_line(message: Raw, start: int, end: int) -> bool:
    """Whether a line has more than 998 octets without its line end; a few steps a kilobyte."""
    while end - start > MAX_LINE + 2:
        at = message.rfind(b"\n", start, start + MAX_LINE + 2)
        if at < 0:
            return True
        start = at + 1
    return end - start > MAX_LINE and message.rfind(b"\n", start, end) < 0


def _check_html(message: Raw, parts: list[Part], flaws: set[str]) -> None:
    for part in parts[:4]:
        if part.type == "text/html" and part.encoding != "base64":
            raw = message[part.body : part.body + min(part.length, _HTML_CHECKED)]
            if html.hides(raw):
                flaws.add("hidden_text")
