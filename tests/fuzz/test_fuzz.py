"""Each target for half a second; `.ci/run` gives each a minute."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.fuzz.harness import LARGEST, Failure, Target, fuzz, mutated, targets


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.name)
def test_half_a_second_of(target: Target) -> None:
    assert fuzz(target, 0.5, seed=20_260) > len(target.corpus)


def test_the_same_seed_tries_the_same_inputs() -> None:
    pool = [b"Subject: x\r\n\r\nbody\r\n", b"abc"]
    first, second = ([mutated(random.Random(seed), pool) for seed in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 25
    assert max(map(len, first)) <= LARGEST


def test_what_fails_is_kept() -> None:
    def check(data: bytes) -> None:
        if data.startswith(b"b"):
            raise ValueError("begins with b")

    with pytest.raises(Failure, match="begins with b") as caught:
        fuzz(Target("x", (b"a", b"ba"), check), 1.0, seed=1)
    assert caught.value.data == b"ba"


def test_what_is_slow_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.harness.SLOWEST", -1.0)

    def check(_: Any) -> None:
        pass

    with pytest.raises(Failure, match="took"):
        fuzz(Target("x", (b"a",), check), 1.0, seed=1)
