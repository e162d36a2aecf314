"""What people type into a search box, as a `Query`: `from:ann "exact words" -draft report*`.

    word  "exact words"       in that order, in any field; rep* is how a word begins
    from: to: subject: body: filename:    in one field (cc: and bcc: are to:)
    a OR b   -a  NOT a   (…)  as in other mail programs: OR binds closer than the space

Nothing typed is an error: what cannot be used is left out, and `dropped` says so. A Query is
words and structure only; each backend writes its own syntax from it, so none can be typed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from posthouse.storage.search import words

Field: TypeAlias = Literal["from", "to", "subject", "body", "filename"]
Reason: TypeAlias = Literal["no_words", "nothing_follows", "short_prefix", "too_deep", "too_long", "too_many"]

CHARACTERS_AT_MOST = 2000
TERMS_AT_MOST = 32
WORDS_AT_MOST = 24
"""In one phrase."""
DEPTH_AT_MOST = 8
SHORTEST_PREFIX = 2
"""Letters before a `*`: a single one begins too many words."""

_FIELDS: dict[str, Field] = {
    "from": "from",
    "to": "to",
    "cc": "to",
    "bcc": "to",
    "subject": "subject",
    "body": "body",
    "filename": "filename",
    "attachment": "filename",
}
_ADDRESSED = ("from", "to")


@dataclass(frozen=True, slots=True)
class Term:
    """`words` in a row, folded, at least one; `prefix`: the last is how a word begins.
    `whole`: the e-mail address that this is, when it is exactly one, in from or to."""

    words: tuple[str, ...]
    field: Field | None = None
    prefix: bool = False
    whole: str | None = None


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One of the parts at least."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


Node: TypeAlias = Term | All | Some | Not


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was typed and not searched for."""

    text: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Query:
    """`root` is None when nothing can be searched for; such a query finds nothing."""

    root: Node | None
    dropped: tuple[Dropped, ...] = ()


def term(text: str, field: Field | None = None, *, prefix: bool = False) -> Term | None:
    """The text as a phrase; None when it has no words."""
    found, open_end = words.phrase(text)
    if not found:
        return None
    kept = found[:WORDS_AT_MOST]
    open_end = (prefix or open_end) and kept == found
    whole = words.address(text) if field in _ADDRESSED and not open_end else None
    return Term(kept, field, open_end, whole)


def parse(text: str) -> Query:
    """Never raises."""
    parser = _Parser(text)
    root = parser.group(None, 0)
    return Query(root, tuple(parser.dropped))


_PIECE = re.compile(
    r"""\s*(?:
        (?P<open>\()
      | (?P<close>\))
      | (?P<either>(?:OR|\|\|?)(?=[\s()"]|$))
      | (?P<both>(?:AND|&&?)(?=[\s()"]|$))
      | (?P<negated>-(?=[^\s-])|NOT(?=[\s("]))
      | (?P<field>(?i:from|to|cc|bcc|subject|body|filename|attachment)):\s*
      | ["“”„](?P<quoted>[^"“”„]*)(?:["“”„]|$)(?P<star>\*)?
      | (?P<bare>[^\s()"“”„]+)
    )""",
    re.VERBOSE,
)


@dataclass(slots=True)
class _Parser:
    text: str
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    _terms: int = 0
    _pieces: Iterator[re.Match[str]] = field(init=False)
    _next: re.Match[str] | None = field(init=False)

    def __post_init__(self) -> None:
        if len(self.text) > CHARACTERS_AT_MOST:
            self.drop(self.text[CHARACTERS_AT_MOST:], "too_long")
        self._pieces = _PIECE.finditer(self.text[:CHARACTERS_AT_MOST])
        self._next = next(self._pieces, None)

    def drop(self, text: str, reason: Reason) -> None:
        if text.strip() and len(self.dropped) < TERMS_AT_MOST:
            self.dropped.append(Dropped(text.strip()[:100], reason))

    def group(self, where: Field | None, depth: int) -> Node | None:
        """Up to the parenthesis that closes it, or the end: alternatives, all of them needed."""
        alternatives: list[list[Node]] = []
        joined = False
        while (piece := self._next) is not None:
            if piece["close"] and depth:
                break
            if piece["either"] and alternatives:
                joined = True
                self._take()
                continue
            node = self._item(where, depth)
            if node is None:
                continue
            if joined:
                alternatives[-1].append(node)
            else:
                alternatives.append([node])
            joined = False
        return _joined(All, [_joined(Some, each) for each in alternatives])

    def _take(self) -> None:
        self._next = next(self._pieces, None)

    def _item(self, where: Field | None, depth: int) -> Node | None:
        """One word, phrase or group with what stands before it; None when it comes to nothing."""
        negated = False
        said = ""
        while (piece := self._next) is not None and (piece["negated"] or piece["field"]):
            if piece["negated"]:
                negated = not negated
            else:
                where = _FIELDS[piece["field"].lower()]
            said += piece[0]
            self._take()
        if piece is None or (piece["close"] and said):
            self.drop(said, "nothing_follows")
            return None
        self._take()
        node = self._inside(where, depth) if piece["open"] else self._term(piece, where)
        return Not(node) if negated and node is not None else node

    def _inside(self, where: Field | None, depth: int) -> Node | None:
        if depth < DEPTH_AT_MOST:
            node = self.group(where, depth + 1)
            self._take()  # its closing parenthesis, or nothing
            return node
        self.drop("(", "too_deep")
        return None

    def _term(self, piece: re.Match[str], where: Field | None) -> Node | None:
        text = piece["quoted"] if piece["quoted"] is not None else piece["bare"]
        if text is None:  # a parenthesis or an operator where none belongs
            return None
        found = term(text.rstrip("*"), where, prefix=bool(piece["star"]) or text.endswith("*"))
        if found is None:
            self.drop(text, "no_words")
        elif self._terms == TERMS_AT_MOST:
            self.drop(text, "too_many")
            return None
        elif found.prefix and len(found.words[-1]) < SHORTEST_PREFIX and found.words[-1].isascii():
            self.drop(f"{text.rstrip('*')}*", "short_prefix")
            found = Term(found.words, found.field)
        self._terms += found is not None
        return found


def _joined(kind: type[All] | type[Some], parts: Sequence[Node | None]) -> Node | None:
    present = tuple(part for part in parts if part is not None)
    return kind(present) if len(present) > 1 else (present[0] if present else None)
