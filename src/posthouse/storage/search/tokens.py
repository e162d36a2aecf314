"""A message as the words that backends index.

`body` is the text. `head` is every other field, twice: plain, so that a word without a field
finds it, and marked (`<ann` for from, `#report` for subject), so that a word of one field is
one posting list however common it is elsewhere; then the whole addresses, marked. `=` parts
what is no phrase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from posthouse.storage.search import words
from posthouse.storage.search.base import Doc
from posthouse.storage.search.query import Field

MARKS: dict[Field, str] = {"from": "<", "to": ">", "subject": "#", "filename": "%"}
BOUNDARY = "="
MARKS_USED = "<>#%=@.+-_/"
"""What words of ours may hold besides letters, marks and digits."""

_HEAD_AT_MOST = 2000
"""Words of one header field."""
_TEXTS_AT_MOST = 500
"""Addresses, or file names."""
_CHARACTERS_AT_MOST = 2000
"""Of one of them."""


@dataclass(frozen=True, slots=True)
class Tokens:
    body: list[str]
    head: list[str]


def tokens(doc: Doc) -> Tokens:
    head: list[str] = []
    marked: list[str] = []
    _add(head, marked, "#", (doc.subject,))
    _add(head, marked, "<", doc.from_)
    _add(head, marked, ">", doc.to)
    _add(head, marked, "%", doc.attachments)
    return Tokens(words.words(doc.text), head + marked)


def _add(head: list[str], marked: list[str], mark: str, texts: Iterable[str]) -> None:
    most = len(head) + _HEAD_AT_MOST
    for text in tuple(texts)[:_TEXTS_AT_MOST]:
        cut = text[:_CHARACTERS_AT_MOST]
        found = words.words(cut, _HEAD_AT_MOST)
        if len(head) + len(found) > most:
            return
        if found:
            head += found
            head.append(BOUNDARY)
            marked += [mark + word for word in found]
            marked.append(BOUNDARY)
        if mark in "<>":
            marked += [mark + whole for whole in words.addresses(cut)]
