"""The judge: it knows the promise and nothing of how it is kept.

Every message of a 202 ends in exactly one final state; what is called delivered is in the
sink's log; what bounced is not; no message is there that no 202 named; and a message is there
twice only when a kill lay between, for at most one transaction a connection and kill.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from posthouse.smtpd.sink.journal import Entry
from tests.product import message_id

FINAL = {"delivered", "bounced", "suppressed", "canceled", "failed"}


@dataclass(slots=True)
class Verdict:
    wrong: list[str] = field(default_factory=list[str])
    """Broken promises, in words."""
    states: Counter[str] = field(default_factory=Counter[str])
    duplicates: int = 0


def judge(
    accepted: Sequence[str],
    ledger: Sequence[dict[str, Any]],
    log: Sequence[Entry],
    restarts: Sequence[float],
    connections: int,
    states: frozenset[str] = frozenset({"delivered", "bounced"}),
) -> Verdict:
    """
    :param accepted: ids in answers 202.
    :param ledger: `GET /v1/messages`, all of it; one recipient each.
    :param restarts: when the server was started again after each kill (seconds since 1970),
        the sink having read all that came before.
    :param states: the final states that can happen in this run.
    """
    wrong, counted = judge_states(accepted, ledger, log, states)
    verdict = Verdict(wrong, counted)
    repeated: Counter[int] = Counter()
    for name, lives in _arrivals(log, restarts).items():
        twice = [life for life, count in lives.items() if count > 1]
        wrong += [f"{name}: twice in life {life}, with no kill between" for life in twice]
        repeated.update(sorted(lives)[:-1])
    verdict.duplicates = repeated.total()
    wrong += [f"kill {life}: {count} messages came again" for life, count in repeated.items() if count > connections]
    return verdict


def judge_states(
    accepted: Sequence[str], ledger: Sequence[dict[str, Any]], log: Sequence[Entry], states: frozenset[str]
) -> tuple[list[str], Counter[str]]:
    """Whether the answers, the ledger and the sink's log name the same messages; and how they ended."""
    by_id = {row["id"]: row for row in ledger}
    arrived = {message_id(entry) for entry in log if entry.outcome.startswith("250")}
    wrong = ["one id was given out twice"] if len(set(accepted)) != len(accepted) else []
    wrong += [f"{name}: accepted and not in the ledger" for name in set(accepted) - by_id.keys()]
    wrong += [f"{name}: in the ledger and never answered for" for name in by_id.keys() - set(accepted)]
    wrong += [f"{name}: at the sink and not in the ledger" for name in arrived - by_id.keys()]
    counted: Counter[str] = Counter()
    for name, row in by_id.items():
        state = row["status"]
        counted[state] += 1
        if state not in states:
            wrong.append(f"{name}: ended as {state}: {row['recipients']}")
        if (state == "delivered") != (name in arrived):
            wrong.append(f"{name}: {state}, and {'is' if name in arrived else 'is not'} at the sink")
    return wrong, counted


def _arrivals(log: Sequence[Entry], restarts: Sequence[float]) -> dict[str, Counter[int]]:
    """How often each message was answered 250, by the number of the server's life."""
    found: dict[str, Counter[int]] = {}
    for entry in log:
        if entry.outcome.startswith("250"):
            found.setdefault(message_id(entry), Counter())[bisect(restarts, entry.at)] += 1
    return found


def judge_events(name: str, events: Sequence[dict[str, Any]], state: str) -> list[str]:
    """What is wrong with one message's history: it ends once, in its state, and begins once."""
    types = [event["type"] for event in events]
    ends = [kind for kind in types if kind in FINAL]
    wrong: list[str] = []
    if ends != [state] or types[-1] != state:
        wrong.append(f"{name}: is {state} and its events say {types}")
    if types.count("accepted") != 1 or types[0] != "accepted":
        wrong.append(f"{name}: began as {types}")
    return wrong
