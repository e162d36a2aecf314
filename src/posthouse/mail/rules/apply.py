"""Applies rules to a mail."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posthouse.mail.parsed import Addr, Parsed
from posthouse.mail.rules.model import (
    Action,
    All,
    Any,
    HasAttachment,
    Header,
    Not,
    Rule,
    Size,
    Spam,
    Stop,
    Test,
    Text,
    said,
)

MAX_TEXT = 100_000
"""Characters of a body that are searched; 4,000 of any other text."""
_MAX_FIELD = 4_000


@dataclass(frozen=True, slots=True)
class Incoming:
    """A mail as the tests see it. `header`: the decoded values of a field by its lower-case name.
    `body`: its text without markup; asked for only when a rule looks at it."""

    parsed: Parsed
    header: Callable[[str], Sequence[str]]
    body: Callable[[], str]
    junk: bool = False
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """An action that was decided, the rule that did, and the sentence that says so."""

    action: Action
    rule: str
    reason: str


def apply(rules: Sequence[Rule], mail: Incoming) -> tuple[Step, ...]:
    """What the rules decide, in order. Cannot fail on any mail; a `stop` is not listed."""
    steps: list[Step] = []
    eyes = _Eyes(mail)
    for rule in rules:
        if not rule.enabled or not eyes.holds(rule.when):
            continue
        for action in rule.then:
            if isinstance(action, Stop):
                return tuple(steps)
            steps.append(Step(action, rule.name, f"The rule “{rule.name}” fits: {said(action)}."))
    return tuple(steps)


class _Eyes:
    """Looks at one mail; what several tests ask for is worked out once."""

    __slots__ = ("_mail", "_seen")

    def __init__(self, mail: Incoming) -> None:
        self._mail = mail
        self._seen: dict[str, tuple[str, ...]] = {}

    def holds(self, test: Test) -> bool:
        match test:
            case All(of=tests):
                return all(self.holds(one) for one in tests)
            case Any(of=tests):
                return any(self.holds(one) for one in tests)
            case Not(of=one):
                return not self.holds(one)
            case Text(field=field, op=op, values=values):
                return _fits(op, values, self._texts(field))
            case Header(name=name, op=op, values=values):
                texts = self._texts("header:" + name.lower())
                return bool(texts) if op == "exists" else _fits(op, values, texts)
            case _:
                return self._is(test)

    def _is(self, test: Size | HasAttachment | Spam) -> bool:
        parsed = self._mail.parsed
        match test:
            case Size(over=over, under=under):
                return (over is None or parsed.size > over) and (under is None or parsed.size < under)
            case Spam(over=over):
                return self._mail.junk if over is None else self._mail.score > over
            case HasAttachment():
                return bool(parsed.attachments)

    def _texts(self, field: str) -> tuple[str, ...]:
        texts = self._seen.get(field)
        if texts is None:
            limit = MAX_TEXT if field == "body" else _MAX_FIELD
            texts = tuple([_folded(one[:limit]) for one in self._raw(field) if one])
            self._seen[field] = texts
        return texts

    def _raw(self, field: str) -> Sequence[str]:
        parsed = self._mail.parsed
        if field.startswith("header:"):
            return self._mail.header(field[7:])[:100]
        if field == "body":
            return (self._mail.body(),)
        return _FIELDS[field](parsed)


def _said_of(people: Sequence[Addr]) -> list[str]:
    """The ways in which a person may be meant: address, domain, name, name with address."""
    texts: list[str] = []
    for one in people[:200]:
        texts.append(one.address)
        at = one.address.rfind("@")
        if at >= 0:
            texts.append(one.address[at:])
        if one.name:
            texts += (one.name, f"{one.name} <{one.address}>")
    return texts


def _names(parsed: Parsed) -> list[str]:
    """Attachments' file names."""
    names: list[str] = []
    parts = [parsed.structure]
    while parts and len(names) < 200:
        part = parts.pop()
        if part.name:
            names.append(part.name)
        parts += part.children
    return names


def _folded(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).casefold()


def _fits(op: str, values: Sequence[str], texts: Sequence[str]) -> bool:
    for value in values:
        wanted = _folded(value)
        for text in texts:
            if _TESTS[op](text, wanted):
                return True
    return False


def _matches(text: str, pattern: str) -> bool:
    """Wildcards: `*` any characters, `?` one. Linear in the text for each piece between stars."""
    first, *rest = [re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL) for piece in pattern.split("*")]
    if not rest:
        return first.fullmatch(text) is not None
    found = first.match(text)
    if found is None:
        return False
    at = found.end()
    for piece in rest[:-1]:
        found = piece.search(text, at)
        if found is None:
            return False
        at = found.end()
    tail = len(pattern) - pattern.rfind("*") - 1
    return len(text) - tail >= at and rest[-1].fullmatch(text, len(text) - tail) is not None


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "is": str.__eq__,
    "contains": str.__contains__,
    "starts": str.startswith,
    "ends": str.endswith,
    "matches": _matches,
}


_FIELDS: dict[str, Callable[[Parsed], Sequence[str]]] = {
    "from": lambda parsed: _said_of((*parsed.from_, *parsed.sender)),
    "to": lambda parsed: _said_of(parsed.to),
    "cc": lambda parsed: _said_of(parsed.cc),
    "recipients": lambda parsed: _said_of((*parsed.to, *parsed.cc, *parsed.bcc)),
    "subject": lambda parsed: (parsed.subject,),
    "list_id": lambda parsed: (parsed.list_id or "",),
    "attachment": _names,
}
