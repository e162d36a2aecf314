"""Messages on their way into an index: each once, in batches of bounded size, as words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from posthouse.storage.search.base import Doc
from posthouse.storage.search.tokens import Tokens, tokens

_DOCS_AT_ONCE = 1000
_CHARACTERS_AT_ONCE = 8_000_000
"""Of text in one batch: what it holds in memory is a few times that."""
_DOCS_BETWEEN_PAUSES = 16
"""About 2 ms of finding words, then the event loop has its turn. A thread of its own would
make every other step of the loop wait for the GIL."""

Prepared = tuple[Doc, Tokens]


def batches(docs: Sequence[Doc]) -> list[list[Doc]]:
    """Each message once, ascending by time, in batches of bounded size.

    :raises ValueError: an account or an email that is no id.
    """
    found: list[list[Doc]] = []
    room = 0
    unique = {(doc.account, doc.email): doc for doc in docs}
    for doc in sorted(unique.values(), key=lambda doc: doc.received_at):
        _check(doc)
        room -= len(doc.text)
        if not found or room < 0 or len(found[-1]) == _DOCS_AT_ONCE:
            found.append([])
            room = _CHARACTERS_AT_ONCE - len(doc.text)
        found[-1].append(doc)
    return found


def _check(doc: Doc) -> None:
    if not doc.email or len(doc.email) > 150 or not (doc.account + doc.email).isprintable():
        raise ValueError(f"not an id: {doc.account!r} {doc.email!r}")


async def prepare(docs: Sequence[Doc]) -> list[Prepared]:
    """Their words, with pauses for the event loop."""
    prepared: list[Prepared] = []
    for count, doc in enumerate(docs, 1):
        prepared.append((doc, tokens(doc)))
        if count % _DOCS_BETWEEN_PAUSES == 0:
            await asyncio.sleep(0)
    return prepared
