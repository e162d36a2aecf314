from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.smtpd.sink.behaviour import Behaviours, named
from posthouse.smtpd.sink.counts import Counts, add, code_of


@pytest.mark.parametrize(
    ("address", "kind", "stage", "code", "times", "seconds"),
    [
        ("bounce@x.test", "refuse", "rcpt", "550 5.1.1", 0, None),
        ("Bounce+u1@x.test", "refuse", "rcpt", "550 5.1.1", 0, None),
        ("bounce-552@x.test", "refuse", "rcpt", "552 5.0.0", 0, None),
        ("bounce-550-5.7.1@x.test", "refuse", "rcpt", "550 5.7.1", 0, None),
        ("defer@x.test", "refuse", "rcpt", "451 4.3.0", 0, None),
        ("defer-2@x.test", "refuse", "rcpt", "451 4.3.0", 2, None),
        ("defer-450-4.2.0@x.test", "refuse", "rcpt", "450 4.2.0", 0, None),
        ("full@x.test", "refuse", "rcpt", "452 4.2.2", 0, None),
        ("spam@x.test", "refuse", "final", "550 5.7.1", 0, None),
        ("slow@x.test", "slow", "rcpt", None, 0, None),
        ("slow-5@x.test", "slow", "rcpt", None, 0, 5.0),
        ("slow-0.25@x.test", "slow", "rcpt", None, 0, 0.25),
        ("slow-final-5@x.test", "slow", "final", None, 0, 5.0),
        ("greylist-30@x.test", "greylist", "rcpt", None, 0, 30.0),
        ("slow-9999@x.test", "slow", "rcpt", None, 0, 3600.0),
        ("tls@x.test", "tls", "rcpt", None, 0, None),
        ("drop@x.test", "drop", "rcpt", None, 0, None),
        ("drop-data@x.test", "drop", "data", None, 0, None),
        ("drop-final+7@x.test", "drop", "final", None, 0, None),
    ],
)
def test_words(address: str, kind: str, stage: str, code: str | None, times: int, seconds: float | None) -> None:
    behaviour = Behaviours().of(address)
    assert behaviour is not None
    assert (behaviour.kind, behaviour.stage, behaviour.times, behaviour.seconds) == (kind, stage, times, seconds)
    assert (code_of(behaviour.reply) if behaviour.reply else None) == code


@pytest.mark.parametrize(
    "address",
    ["user@x.test", "bouncer@x.test", "defer-0@x.test", "bounce-550-4.7.1@x.test", "bounce-299@x.test", "postmaster"],
)
def test_other_words_are_plain(address: str) -> None:
    assert Behaviours().of(address) is None


def test_a_mix_is_drawn_by_address_and_seed() -> None:
    mix, again, other = (Behaviours("bounce=10%,defer=20%,slow-1=5%", seed) for seed in (1, 1, 2))
    addresses = [f"user{n}@example.test" for n in range(20_000)]
    drawn = [mix.of(address) for address in addresses]
    assert drawn == [again.of(address) for address in addresses]
    assert drawn != [other.of(address) for address in addresses]
    shares = {
        word: sum(behaviour == named(word) for behaviour in drawn) / 20_000 for word in ("bounce", "defer-1", "slow-1")
    }
    assert shares["bounce"] == pytest.approx(0.10, abs=0.01)
    assert shares["defer-1"] == pytest.approx(0.20, abs=0.012)
    assert shares["slow-1"] == pytest.approx(0.05, abs=0.008)
    assert mix.of("full@x.test") == named("full")


@pytest.mark.parametrize("mix", ["bounce", "bounce=x", "what=2%", "bounce=60%,defer=50%", "bounce=-1%", "slow"])
def test_a_wrong_mix_is_said(mix: str) -> None:
    with pytest.raises(ValueError, match="mix"):
        Behaviours(mix)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_address_is_read(address: str) -> None:
    behaviour = Behaviours().of(address)
    assert behaviour is None or behaviour.kind in {"refuse", "slow", "greylist", "tls", "drop"}


def test_counts_add_up() -> None:
    one, two = Counts(), Counts()
    one.accept(2, 100, 10.0)
    one.accept(1, 50, 11.0)
    two.accept(1, 1, 12.0)
    two.refused["550 5.1.1"] += 3
    both = add([one, two, Counts()])
    assert (both.accepted, both.recipients, both.octets) == (3, 4, 151)
    assert (both.first_at, both.last_at, both.per_second) == (10.0, 12.0, 1.0)
    assert both.report()["refused"] == {"550 5.1.1": 3}
    both.open = 1
    both.reset()
    assert (both.accepted, both.open, both.first_at, dict(both.refused)) == (0, 1, 0.0, {})
