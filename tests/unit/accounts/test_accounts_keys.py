from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse import errors, ids
from posthouse.accounts import keys, passwords
from posthouse.accounts.model import Caller, Limits, Scope, Tenant


def test_a_secret_names_its_key_and_matches_its_hash() -> None:
    key_id = ids.new("key")
    secret = keys.generate(key_id)
    assert secret.text.startswith("ph_")
    assert len(secret.text) == keys.LENGTH
    assert keys.id_of(secret.text) == key_id
    assert secret.hint == secret.text[-4:]
    assert keys.matches(secret.text, secret.hash)


def test_two_secrets_of_one_key_differ_and_do_not_match() -> None:
    key_id = ids.new("key")
    one, other = keys.generate(key_id), keys.generate(key_id)
    assert one.text != other.text
    assert not keys.matches(one.text, other.hash)


def test_a_secret_is_not_in_its_repr() -> None:
    secret = keys.generate(ids.new("key"))
    assert secret.text not in repr(secret)
    assert secret.hash not in repr(secret)


@given(st.integers(0, keys.LENGTH - 1), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_seen_by_the_checksum(position: int, character: str) -> None:
    text = keys.generate("key_" + "0" * 12 + "7" + "1" * 19).text
    wrong = text[:position] + character + text[position + 1 :]
    assert (keys.id_of(wrong) is not None) == (wrong == text)


@given(st.text(max_size=200))
def test_no_text_that_is_no_key_is_taken_for_one(text: str) -> None:
    assert keys.id_of(text) is None


def test_a_password_is_verified_and_another_is_not() -> None:
    stored = passwords.hash_password("correct horse")
    assert stored.startswith("scrypt$")
    assert passwords.verify_password("correct horse", stored)
    assert not passwords.verify_password("correct horsf", stored)


@pytest.mark.parametrize(
    "stored", ["", "x", "scrypt$1$2$3$4", "scrypt$a$8$1$AAAA$AAAA", "scrypt$99999999$8$1$AAAA$AAAA", "bcrypt$1$2$3$4$5"]
)
def test_a_stored_text_that_is_none_of_ours_verifies_nothing(stored: str) -> None:
    assert not passwords.verify_password("x", stored)


def test_need_takes_any_of_the_scopes() -> None:
    tenant = Tenant("ten_x", "x", 0, None, Limits())
    caller = Caller(tenant, "key_x", frozenset({Scope.READ}))
    caller.need(Scope.SEND, Scope.READ)
    assert not caller.operator
    with pytest.raises(errors.Forbidden) as caught:
        caller.need(Scope.SEND)
    assert caught.value.code == "scope_missing"
    assert "`send`" in caught.value.public
