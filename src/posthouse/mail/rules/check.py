"""Reads rules and says what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from posthouse.errors import Fault, Invalid, TooLarge
from posthouse.mail.address import parse_mailbox, refuse_hidden
from posthouse.mail.rules.model import (
    MAX_DEPTH,
    MAX_RULES,
    MAX_TESTS,
    Action,
    All,
    Any,
    File,
    Forward,
    Header,
    Not,
    Rule,
    Size,
    Test,
)

_decoder = msgspec.json.Decoder(Rule)
_PLACE = re.compile(r" - at `\$?([^`]*)`")
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


def read_rules(raws: Sequence[bytes | msgspec.Raw]) -> tuple[Rule, ...]:
    """Rules from JSON, one document each.

    :raises TooLarge: `too_many_rules`.
    :raises Invalid: `invalid_rule`, with a pointer to each rule's first fault (`/3/when/of/0/op`).
    """
    if len(raws) > MAX_RULES:
        raise TooLarge(f"There are more than {MAX_RULES} rules.", code="too_many_rules")
    rules: list[Rule] = []
    faults: list[Fault] = []
    for number, raw in enumerate(raws):
        try:
            rule = _decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            faults.append(_fault(number, error))
            continue
        found = list(_faults(rule, f"/{number}"))
        faults += found
        if not found:
            rules.append(rule)
    if faults:
        raise Invalid("A rule is not valid.", code="invalid_rule", faults=tuple(faults[:50]))
    return tuple(rules)


def _fault(number: int, error: Exception) -> Fault:
    if isinstance(error, RecursionError):
        return Fault(f"/{number}/when", "The tests are nested too deep.")
    text = str(error)
    found = _PLACE.search(text)
    place = _INDEX.sub(r"/\1", found[1]).replace(".", "/").replace("///", "0") if found else ""
    return Fault(f"/{number}{place}", text[: found.start()] if found else "This is not valid JSON of a rule.")


def _faults(rule: Rule, at: str) -> list[Fault]:
    """What the types cannot say."""
    faults: list[Fault] = []
    try:
        refuse_hidden(rule.name, "name")
    except Invalid as error:
        faults.append(Fault(f"{at}/name", error.public))
    _check_tests(rule.when, f"{at}/when", faults)
    for number, action in enumerate(rule.then):
        fault = _wrong_action(action, f"{at}/then/{number}")
        if fault is not None:
            faults.append(fault)
    return faults


def _check_tests(when: Test, at: str, faults: list[Fault]) -> None:
    waiting: list[tuple[Test, str, int]] = [(when, at, 1)]
    count = 0
    while waiting:
        test, place, depth = waiting.pop()
        count += 1
        if count > MAX_TESTS or depth > MAX_DEPTH:
            faults.append(Fault(at, f"A rule may have {MAX_TESTS} tests, nested {MAX_DEPTH} deep."))
            return
        match test:
            case All(of=tests) | Any(of=tests):
                if not tests:
                    faults.append(Fault(f"{place}/of", "It needs at least one test."))
                waiting += [(one, f"{place}/of/{number}", depth + 1) for number, one in enumerate(tests)]
            case Not(of=one):
                waiting.append((one, f"{place}/of", depth + 1))
            case Size(over=None, under=None):
                faults.append(Fault(place, "It needs over, under or both."))
            case Header(op=op, values=values) if (op == "exists") == bool(values):
                faults.append(Fault(f"{place}/values", "It needs values, and exists none."))
            case _:
                pass


def _wrong_action(action: Action, at: str) -> Fault | None:
    match action:
        case File(mailbox=name, role=role):
            if (name is None) == (role is None):
                return Fault(at, "It needs either mailbox or role.")
            return _hidden(name, f"{at}/mailbox") if name else None
        case Forward(to=to):
            for number, one in enumerate(to):
                try:
                    parse_mailbox(one)
                except Invalid as error:
                    return Fault(f"{at}/to/{number}", error.public)
        case _:
            pass
    return None


def _hidden(name: str, at: str) -> Fault | None:
    try:
        refuse_hidden(name, "mailbox's name")
    except Invalid as error:
        return Fault(at, error.public)
    return None
