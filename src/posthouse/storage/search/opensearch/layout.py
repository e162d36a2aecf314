"""Names of indexes and aliases, and the steps from one arrangement to the next.

For `search.url = http://…/posthouse`:

    posthouse-v1-000003           an index
    posthouse-v1-read             the one that answers queries
    posthouse-v1-write-7-3        index 3 is written in epoch 7; while 4 is made beside it: …-write-7-4, too
    posthouse-v1-due-rebuilding   this one is being rebuilt (or `due-new`: was made empty)

Writers write through the aliases of the epoch that they know, and only if these exist. A step
takes the aliases of one epoch (a moment, in µs) away and sets those of the next in one change, so that a writer
who knows the old ones is refused, looks again, and writes where it should. Two who step at once
cannot both: what one takes away must be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from posthouse import clock
from posthouse.storage.search.base import Unbuilt

VERSION = 1
"""Of the mapping and of the words: another one is another set of indexes, made anew."""
LONGEST_WORD = 400
"""Characters; the longest are whole addresses, with their mark."""

Action: TypeAlias = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class State:
    """`written`: the alias by which each index is written, by its number. `due`: the index that
    is not whole yet, and why."""

    numbers: frozenset[int] = frozenset()
    read: int | None = None
    epoch: int = 0
    written: Mapping[int, str] = field(default_factory=dict[int, str])
    due: tuple[int, Unbuilt] | None = None

    @property
    def newest(self) -> int:
        return max(self.written)

    @property
    def whole(self) -> bool:
        """Whether it can be read and written; else one begins anew."""
        return self.read is not None and self.read in self.written

    @property
    def next_epoch(self) -> int:
        """By the clock, so that none comes again after all indexes were lost."""
        return max(self.epoch + 1, clock.now())

    @property
    def next(self) -> int:
        return max(self.numbers, default=0) + 1


class Layout:
    def __init__(self, name: str) -> None:
        """:param name: what all names begin with."""
        self._prefix = f"{name}-v{VERSION}"
        self.every = f"{self._prefix}-*"
        self.read = f"{self._prefix}-read"
        self._index = re.compile(re.escape(self._prefix) + r"-(\d{6,})")
        self._write = re.compile(re.escape(self._prefix) + r"-write-(\d+)-(\d+)")
        self._due = re.compile(re.escape(self._prefix) + r"-due-(new|rebuilding)")

    def index(self, number: int) -> str:
        return f"{self._prefix}-{number:06d}"

    def state(self, found: Mapping[str, Iterable[str]]) -> State:
        """:param found: each index with its aliases; what is not ours is passed over."""
        numbers: set[int] = set()
        written: dict[int, str] = {}
        read, epoch, due = None, 0, None
        for name, aliases in found.items():
            if (mark := self._index.fullmatch(name)) is None:
                continue
            number = int(mark[1])
            numbers.add(number)
            for alias in aliases:
                if alias == self.read:
                    read = max(number, read or 0)
                elif (mark := self._write.fullmatch(alias)) is not None:
                    epoch = max(epoch, int(mark[1]))
                    written[number] = alias
                elif (mark := self._due.fullmatch(alias)) is not None:
                    due = number, cast('Literal["new", "rebuilding"]', mark[1])
        return State(frozenset(numbers), read, epoch, dict(sorted(written.items())), due)

    def first_aliases(self, state: State) -> dict[str, Any]:
        """Of an index that is made where there is none."""
        names = (self.read, self._write_alias(state.next_epoch, state.next), self._due_alias("new"))
        return {name: {} for name in names}

    def mended(self, state: State) -> list[Action]:
        """The index that was read is gone, and another is being made: that one is read."""
        return [self._added(state.due[0], self.read)] if state.due is not None and state.due[0] in state.written else []

    def begin(self, state: State, number: int) -> list[Action]:
        """From now on `number` is written too, and is being rebuilt; one that was being rebuilt
        beside the first is left."""
        actions, epoch = self._taken(state), state.next_epoch
        if state.read is not None:
            actions.append(self._added(state.read, self._write_alias(epoch, state.read)))
        else:
            actions.append(self._added(number, self.read))
        actions.append(self._added(number, self._write_alias(epoch, number)))
        actions.append(self._added(number, self._due_alias("rebuilding")))
        return actions

    def finish(self, state: State) -> list[Action]:
        """The one that was due answers from now on, alone."""
        if state.due is None:
            return []
        number, _ = state.due
        if state.read == number:
            return [self._removed(number, self._due_alias(state.due[1]))]
        actions = self._taken(state, but=state.read)
        if state.read is not None:  # its aliases go with it
            actions.append({"remove_index": {"index": self.index(state.read)}})
        actions.append(self._added(number, self.read))
        actions.append(self._added(number, self._write_alias(state.next_epoch, number)))
        return actions

    def _taken(self, state: State, *, but: int | None = None) -> list[Action]:
        actions = [self._removed(number, alias) for number, alias in state.written.items() if number != but]
        if state.due is not None:
            actions.append(self._removed(state.due[0], self._due_alias(state.due[1])))
        return actions

    def _write_alias(self, epoch: int, number: int) -> str:
        return f"{self._prefix}-write-{epoch}-{number}"

    def _due_alias(self, why: Unbuilt) -> str:
        return f"{self._prefix}-due-{why}"

    def _added(self, number: int, alias: str) -> Action:
        return {"add": {"index": self.index(number), "alias": alias}}

    def _removed(self, number: int, alias: str) -> Action:
        return {"remove": {"index": self.index(number), "alias": alias, "must_exist": True}}


def definition(shards: int, replicas: int) -> dict[str, Any]:
    """Of an index. Sorted as pages are, newest first: a query stops at the end of its page, however
    many match. Nothing of the message is kept but its words."""
    words = {"type": "text", "analyzer": "words", "norms": False, "index_options": "positions"}
    return {
        "settings": {
            "number_of_shards": shards,
            "number_of_replicas": replicas,
            "refresh_interval": "30s",  # each batch asks for its own
            "index.sort.field": ["at", "email"],
            "index.sort.order": ["desc", "desc"],
            "analysis": {
                "tokenizer": {"spaces": {"type": "whitespace", "max_token_length": LONGEST_WORD}},
                "analyzer": {"words": {"type": "custom", "tokenizer": "spaces"}},
            },
        },
        "mappings": {
            "dynamic": "strict",
            "_source": {"enabled": False},
            "properties": {
                "account": {"type": "keyword", "doc_values": False},
                "email": {"type": "keyword", "index": False},
                "at": {"type": "long"},
                "body": words,
                "head": words,
            },
        },
    }
