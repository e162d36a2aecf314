"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from posthouse.inbound.model import Reason

SubjectT = TypeVar("SubjectT")

MOST_QUOTED = 100
"""Characters of a peer's text in one sentence."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[SubjectT]):
    """`score`: points, against the sender when positive. `text`: the sentence; `{}` is where
    what `test` found goes. `test`: False or an empty text when the rule does not apply."""

    code: str
    score: float
    text: str
    test: Callable[[SubjectT], bool | str]


def reasons(rules: tuple[Rule[SubjectT], ...], subject: SubjectT) -> list[Reason]:
    """Of the rules that apply, in the table's order."""
    out: list[Reason] = []
    for rule in rules:
        found = rule.test(subject)
        if found:
            text = rule.text if found is True else rule.text.format(quoted(found))
            out.append(Reason(rule.code, rule.score, text))
    return out


def quoted(text: str) -> str:
    """A peer's text for a sentence: printable, in one line, bounded."""
    short = text[:MOST_QUOTED]
    if not short.isprintable():
        short = "".join(char if char.isprintable() else "�" for char in short)
    return short + "…" if len(text) > MOST_QUOTED else short
