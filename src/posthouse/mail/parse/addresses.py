"""Address lists as mail has them: RFC 5322 §3.4 with its obsolete forms, and what people and
programs write instead: names without quotes, brackets without end, semicolons for commas."""

from __future__ import annotations

import re
from functools import lru_cache

from posthouse.mail.parse.comments import comment, without_comments
from posthouse.mail.parse.words import clean, decoded
from posthouse.mail.parsed import Addr

MAX_ADDRESSES = 10_000
MAX_NAME = 256
"""Characters of a name."""
_MAX_ADDRESS = 1000  # characters; longer ones are none
_SHORT = 128  # characters of a list that is remembered: the same people write and are written to
_MAX_WORD = 4096  # characters that are joined to one word

_PLAIN_NAME = re.compile(r'[^"\\(),:;<>@\[\]]*+')
_QUOTED_NAME = re.compile(r'"([^"\\]*+)"')
_PLAIN_ADDRESS = re.compile(r"([!#-'*+./0-9=?A-Z^-~-]++@)([A-Za-z0-9.-]++)")
_SPLITTABLE = re.compile(r"[^\"\\(:;]*+")
_TOKEN = re.compile(
    r'\s*+(?:("(?:[^"\\]++|\\.)*+")|<((?:"(?:[^"\\]++|\\.)*+"|[^"<>]++)*+)>?|([,;:(])|(\[[^\[\]<>,;]*+\])'
    r'|(=\?[^\s?]{1,60}\?[bBqQ]\?[^?<>]{0,500}\?=|[^\s"(),:;<>\[]++)|(.))',
    re.DOTALL,
)
# For when a quote never ends, which is looked for once.
_UNQUOTED_TOKEN = re.compile(
    r'\s*+(?:((?!))|<([^<>]*+)>?|([,;:(])|(\[[^\[\]<>,;]*+\])|([^\s(),:;<>\["]++)|(.))', re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPACES = re.compile(r"\s+")


def parse_addresses(text: str) -> tuple[Addr, ...]:
    """The mailboxes of an unfolded address list, in their order; groups are flattened."""
    return _seen_before(text) if len(text) <= _SHORT else _read(text)


@lru_cache(maxsize=2048)
def _seen_before(text: str) -> tuple[Addr, ...]:
    return _read(text)


def _read(text: str) -> tuple[Addr, ...]:
    if _SPLITTABLE.fullmatch(text) is not None:
        simple: list[Addr] = []
        for piece in text.split(",", MAX_ADDRESSES)[:MAX_ADDRESSES]:
            found = _simple(piece.strip())
            if found is None:
                return _List(text).read()
            if found.address or found.name:
                simple.append(found)
        return tuple(simple)
    found = _simple(text.strip())
    return (found,) if found is not None else _List(text).read()


def _simple(text: str) -> Addr | None:
    """`ann@example.com`, `Ann <ann@example.com>`, `"Ann" <ann@example.com>`, or nothing."""
    if text.endswith(">"):
        name, _, address = text[:-1].partition("<")
        found = _PLAIN_ADDRESS.fullmatch(address)
        if found is None or len(address) > _MAX_ADDRESS:
            return None
        name = name.strip()
        quoted = _QUOTED_NAME.fullmatch(name)
        if quoted is None and _PLAIN_NAME.fullmatch(name) is None:
            return None
        return Addr(_name(name if quoted is None else quoted[1]), found[1] + found[2].lower())
    if not text:
        return Addr("", "")
    found = _PLAIN_ADDRESS.fullmatch(text)
    if found is None or len(text) > _MAX_ADDRESS:
        return None
    return Addr("", found[1] + found[2].lower())


def _name(text: str) -> str:
    return clean(decoded(text) if "=?" in text else text, MAX_NAME)


class _List:
    """Reads a list token by token. Each character is looked at a bounded number of times."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._token = _TOKEN
        self._has_comments = True
        self._last_semicolon = text.rfind(";")
        self._last_angle = text.rfind("<")
        self._found: list[Addr] = []
        self._group: str | None = None
        self._clear()

    def _clear(self) -> None:
        self._words: list[str] = []
        self._names: list[str] = []
        self._comments: list[str] = []
        self._angle: str | None = None

    def read(self) -> tuple[Addr, ...]:
        at, size = 0, len(self._text)
        while at < size and len(self._found) < MAX_ADDRESSES:
            token = self._token.match(self._text, at)
            if token is None:  # blanks at the end
                break
            spaced = self._text[at].isspace()
            at = token.end()
            if token[3] is not None:
                at = self._special(token[3], at)
            elif token[2] is not None:
                self._take_angle(token[2])
                if self._text.startswith('"', at) and self._text[at - 1] != ">":
                    self._token = _UNQUOTED_TOKEN
            elif token[6] == '"':
                self._token = _UNQUOTED_TOKEN
            elif token[6] not in (">", ")"):  # closing what was never opened
                self._word(token, spaced)
        self._flush()
        return tuple(self._found[:MAX_ADDRESSES])

    def _take_angle(self, content: str) -> None:
        if self._angle is not None:  # `<a@x> <b@x>` without a comma
            self._flush()
        self._angle = content

    def _word(self, token: re.Match[str], spaced: bool) -> None:
        raw = token[token.lastindex or 0]
        shown = _ESCAPED.sub(r"\1", raw[1:-1]) if token[1] is not None else raw
        if self._angle is not None:
            if "@" not in raw:
                return
            self._flush()  # `<a@x> b@x` without a comma
        words = self._words
        if words and not spaced:
            if len(words[-1]) < _MAX_WORD:
                words[-1] += raw
                self._names[-1] += shown
        else:
            words.append(raw)
            self._names.append(shown)

    def _special(self, c: str, at: int) -> int:
        """Handles `,`, `;`, `:` or `(`; says where to go on."""
        if c == "(":
            found = comment(self._text, at - 1) if self._has_comments else None
            if found is None:
                self._has_comments = False
                return at
            self._comments.append(found[0])
            return found[1]
        if c == ":":
            self._colon(at)
            return at
        self._flush()
        if c == ";":
            self._group = None
        return at

    def _colon(self, at: int) -> None:
        if self._group is None and self._angle is None and self._can_be_group(at):
            name = self._phrase()
            if "@" not in name:
                self._clear()
                self._group = None if name.lower() == "mailto" else name
                return
        if self._names == ["mailto"]:
            self._clear()
        elif self._names and len(self._words[-1]) < _MAX_WORD:  # a colon in a name without quotes
            self._names[-1] += ":"
            self._words[-1] += ":"

    def _can_be_group(self, at: int) -> bool:
        """Whether a colon that ends at `at` can end a group's name, not stand in a person's."""
        return at <= self._last_semicolon or at > self._last_angle

    def _phrase(self) -> str:
        return _name(" ".join(self._names))

    def _flush(self) -> None:
        if self._angle is not None:
            address = _address(self._angle)
            name = self._phrase() or (_name(self._comments[0]) if self._comments else "")
            name = name if name or address else _name(self._angle)
            if address or name:
                self._found.append(Addr(name, address, self._group))
        elif self._words:
            self._flush_bare()
        self._clear()

    def _flush_bare(self) -> None:
        """Words without angle brackets: an address, several, or one with a name beside it."""
        whole = [_address(word) if word.find("@", 1) > 0 and not word.endswith("@") else "" for word in self._words]
        addresses = [address for address in whole if address]
        if not addresses:
            joined = "".join(self._words)
            if joined.count("@") == 1 and joined.find("@") > 0 and not joined.endswith("@"):  # `ann @ example . com`
                addresses = [_address(joined)]
                whole = addresses
        name = " ".join(shown for shown, address in zip(self._names, whole, strict=False) if not address)
        if addresses and addresses is whole:
            name = ""
        name = _name(name) or (_name(self._comments[0]) if self._comments else "")
        if len(addresses) > 1:
            self._found += [Addr("", address, self._group) for address in addresses]
        elif addresses or name:
            self._found.append(Addr(name, addresses[0] if addresses else "", self._group))


def _address(text: str) -> str:
    """As it stands, without route, comments and blanks, its domain lower-cased; "" for none."""
    text = text.strip()
    if len(text) > _MAX_ADDRESS:
        return ""
    if text.startswith("@"):  # a route, RFC 5322 §4.4
        text = text.rpartition(":")[2].strip()
    if "(" in text and '"' not in text:
        text = without_comments(text)
    text = decoded(text) if "=?" in text else text
    text = text.removeprefix("mailto:")
    local, at, domain = text.rpartition("@")
    if not at:
        return ""
    if not local.startswith('"'):
        local = _SPACES.sub("", local)
    return clean(f"{local}@{_SPACES.sub('', domain).lower().rstrip('.')}", _MAX_ADDRESS)
