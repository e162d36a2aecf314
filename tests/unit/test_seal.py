from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Corrupt, Misconfigured
from posthouse.seal import Seal, load, load_or_create, rotate

KEY = bytes(range(32))


@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_was_sealed_opens(secret: bytes, about: str) -> None:
    seal = Seal([KEY])
    sealed = seal.seal(secret, about)
    assert seal.open(sealed, about) == secret
    assert secret not in sealed or len(secret) < 4
    assert seal.seal(secret, about) != sealed


@given(st.data())
def test_no_altered_bit_opens(data: st.DataObject) -> None:
    seal = Seal([KEY])
    sealed = bytearray(seal.seal(b"secret", "dkim_key:1"))
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[at // 8] ^= 1 << at % 8
    with pytest.raises((Corrupt, Misconfigured)):
        seal.open(bytes(sealed), "dkim_key:1")


def test_another_row_does_not_open_it() -> None:
    seal = Seal([KEY])
    with pytest.raises(Corrupt):
        seal.open(seal.seal(b"secret", "dkim_key:1"), "dkim_key:2")
    with pytest.raises(Corrupt):
        seal.open(b"short", "dkim_key:1")


def test_the_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    sealed = load_or_create(path).seal(b"secret", "x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create(path).open(sealed, "x") == b"secret"


def test_a_rotated_key_still_opens_what_is_older(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    old = load_or_create(path)
    sealed = old.seal(b"secret", "x")
    new = rotate(path)
    assert new.open(sealed, "x") == b"secret"
    assert not new.is_current(sealed)
    assert new.is_current(new.seal(b"secret", "x"))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Misconfigured, match="lacks the key"):
        old.open(new.seal(b"secret", "x"), "x")


@pytest.mark.parametrize("content", [b"", b"no base64!", b"\xff", base64.b64encode(b"short")])
def test_a_wrong_file_stops_with_the_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured):
        load(path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        load(path)
    with pytest.raises(Misconfigured, match="cannot be read"):
        load(tmp_path / "absent")
    with pytest.raises(Misconfigured, match="cannot be made"):
        load_or_create(tmp_path / "absent" / "master.key")
    assert [one.name for one in tmp_path.iterdir()] == ["master.key"]
