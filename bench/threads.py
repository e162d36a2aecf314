"""How well conversations are found, and what it costs.

Precision and recall over pairs of mails in labelled, generated conversations, by what their
headers lost, beside three simpler rules; and µs of one core for keys and placement.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from tests.corpus.conversations import DAMAGES, Sample, account
from tests.corpus.judge import RULES, agreement, read

from bench.report import Report, main
from posthouse.mail.threads import Candidate, encode, place
from posthouse.mail.threads.keys import id_hash
from posthouse.mail.threads.quotes import name_mark
from posthouse.mail.threads.subject import read_subject

T = TypeVar("T")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accounts", type=int, default=6, help="of about 1,200 mails each")


def measure(args: argparse.Namespace) -> Report:
    accounts = [account(seed) for seed in range(args.accounts)]
    figures: dict[str, float | str] = {}
    bars: dict[str, tuple[str, float]] = {}
    for damage in DAMAGES:
        for rule in RULES:
            precision, recall = _judged(accounts, damage, rule)
            name = f"{damage}: {rule}"
            if rule == "posthouse":
                figures[f"{damage}: precision"], figures[f"{damage}: recall"] = precision, recall
                bars[f"{damage}: precision"], bars[f"{damage}: recall"] = ("≥", 0.995), ("≥", 0.96)
            else:
                figures[name] = f"{precision:.3f} / {recall:.3f}"
    figures |= _costs(accounts[0])
    bars |= {"µs_without_references": ("≤", 25), "µs_3_references_3_candidates": ("≤", 60)}
    return Report("threads", figures, bars)


def _judged(accounts: Sequence[list[Sample]], damage: str, rule: str) -> tuple[float, float]:
    found: list[Hashable] = []
    labels: list[Hashable] = []
    for number, mails in enumerate(accounts):
        left = DAMAGES[damage](mails, random.Random(number))
        found += [(number, thread) for thread in RULES[rule](left)]
        labels += [(number, mail.label) for mail in left]
    return agreement(found, labels)


def _costs(mails: Sequence[Sample]) -> dict[str, float | str]:
    first = [one for one in mails if not one.parsed.references and not one.parsed.in_reply_to]
    third = [one for one in mails if len(one.parsed.references) == 3]
    talks: dict[int, list[Candidate]] = {}
    for number, one in enumerate(mails):
        talks.setdefault(one.label, []).append(Candidate(f"eml_{number:06}", f"thr_{one.label}", read(one).facts))
    answers = [(talk[3], talk[:3]) for talk in talks.values() if len(talk) > 3 and len(talk[3].facts.refs) > 1]
    placing = _cost(lambda job: place(job[0], job[1]), answers)
    sizes = [len(encode(one.facts)) for talk in talks.values() for one in talk]
    return {
        "µs_without_references": _cost(read, first)
        + _cost(lambda one: place(one, ()), [talk[0] for talk in talks.values()]),
        "µs_3_references_3_candidates": _cost(read, third) + placing,
        "µs_place_3_candidates": placing,
        "octets_kept": sum(sizes) / len(sizes),
        "keys_of_a_first_mail": sum(len(read(one).index) for one in first) / len(first),
    }


def _cost(work: Callable[[T], object], things: Sequence[T]) -> float:
    """µs of CPU each, the best of ten rounds, caches cold."""
    best = float("inf")
    for _ in range(10):
        for cached in (read_subject, id_hash, name_mark):
            cached.cache_clear()
        began = time.process_time()
        for thing in things:
            work(thing)
        best = min(best, time.process_time() - began)
    return best / len(things) * 1e6


if __name__ == "__main__":
    main(measure, options)
