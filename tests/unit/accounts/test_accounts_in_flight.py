from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse import errors
from posthouse.accounts import idempotency
from posthouse.accounts.idempotency import InFlight, Stored


def test_a_key_is_held_once_and_free_again_after() -> None:
    guard = InFlight()
    with guard.hold("a", "k"):
        with pytest.raises(errors.Conflict) as caught, guard.hold("a", "k"):
            pass
        assert caught.value.code == "idempotency_in_flight"
        with guard.hold("b", "k"), guard.hold("a", "l"):
            pass
    with pytest.raises(ZeroDivisionError), guard.hold("a", "k"):
        raise ZeroDivisionError
    with guard.hold("a", "k"):
        pass


def test_another_body_is_a_conflict() -> None:
    stored = Stored("one", 202, b"{}")
    assert idempotency.replay(stored, "one") is stored
    with pytest.raises(errors.Conflict) as caught:
        idempotency.replay(stored, "other")
    assert caught.value.code == "idempotency_key_reused"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=256))
def test_printable_keys_are_taken(key: str) -> None:
    assert idempotency.check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", "a\x00", "ä", "\x7f"])
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        idempotency.check_key(key)
    assert caught.value.code == "idempotency_key_invalid"
