"""How well the threads agree with labelled conversations, by what their headers lost."""

from __future__ import annotations

import random

import pytest
from tests.corpus.conversations import DAMAGES, Sample, account
from tests.corpus.judge import agreement, ids_and_subject, posthouse

PRECISION, RECALL = 0.995, 0.96


@pytest.fixture(scope="module")
def accounts() -> list[list[Sample]]:
    return [account(seed) for seed in range(10, 14)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_headers_hardly_matter(damage: str, accounts: list[list[Sample]]) -> None:
    found: list[tuple[int, object]] = []
    simple: list[tuple[int, object]] = []
    labels: list[tuple[int, int]] = []
    for number, mails in enumerate(accounts):
        left = DAMAGES[damage](mails, random.Random(number))
        found += [(number, thread) for thread in posthouse(left)]
        simple += [(number, thread) for thread in ids_and_subject(left)]
        labels += [(number, mail.label) for mail in left]
    precision, recall = agreement(found, labels)
    assert precision >= PRECISION
    assert recall >= RECALL
    assert recall >= agreement(simple, labels)[1]
