from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.domains.name import normalise, organizational
from posthouse.errors import Invalid


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("mail.example.co.uk", "mail.example.co.uk"),
        (" a.example ", "a.example"),
    ],
)
def test_names_are_keyed_by_a_labels(name: str, normal: str) -> None:
    assert normalise(name) == normal


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "domain name"),
        ("com", "two labels"),
        ("localhost", "two labels"),
        ("co.uk", "public suffix"),
        ("github.io", "public suffix"),
        ("192.0.2.1", "IP address"),
        ("a..example", "labels"),
        ("-a.example", "labels"),
        ("a_b.example", "labels"),
        ("a.example\r\nX: y", "labels"),
        ("a" * 64 + ".example", "labels"),
        ("a." * 130 + "example", "253"),
        ("xn--a.example", "IDNA"),
    ],
)
def test_what_is_refused(name: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        normalise(name)
    assert refused.value.faults[0].pointer == "/name"
    assert why in refused.value.faults[0].message


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = normalise(text)
    except Invalid:
        return
    assert normalise(name) == name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_the_organizational_domain() -> None:
    assert organizational("a.b.example.co.uk") == "example.co.uk"
    assert organizational("example.com") == "example.com"
