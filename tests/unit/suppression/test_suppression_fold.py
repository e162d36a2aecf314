from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.suppression.model import fold


@pytest.mark.parametrize(
    ("address", "folded"),
    [
        ("Ann.Lee@Example.COM", "ann.lee@example.com"),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example"),
        ("ANN@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("Jose\u0301@example.com", "jos\u00e9@example.com"),
        ('"a@B"@example.com', '"a@b"@example.com'),
    ],
)
def test_spellings_of_one_mailbox_are_one_key(address: str, folded: str) -> None:
    assert fold(address) == folded


@pytest.mark.parametrize("bad", ["", "a", "@x", "a@", "a\n@x", "a\0@x.example", "é@\u2028", "é@ü..b"])
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"address|domain"):
        fold(bad)


@given(st.text(max_size=30), st.sampled_from(["example.com", "Bücher.example", "EXAMPLE.com"]))
def test_folding_twice_changes_nothing(local: str, domain: str) -> None:
    try:
        once = fold(f"{local}@{domain}")
    except ValueError:
        return
    assert fold(once) == once
