from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange_text import body_text

from posthouse.errors import Invalid
from posthouse.mail.transfer import base64_lines, encode_text, has_short_lines, quoted_printable


def with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unsafe(data: bytes) -> bytes:
    return bytes(octet for octet in data if octet not in (9, 10) and not 32 <= octet < 127)


def check_lines(encoded: bytes, limit: int) -> None:
    assert b"\r" not in encoded.replace(b"\r\n", b"")
    assert b"\n" not in encoded.replace(b"\r\n", b"")
    for line in encoded.split(b"\r\n"):
        assert len(line) <= limit
        assert not line.endswith((b" ", b"\t"))
        assert not line.startswith(b"From ")
        assert line != b"."


@given(body_text)
def test_text_reads_back(text: str) -> None:
    encoding, encoded = encode_text(text)
    decode = {"7bit": bytes, "quoted-printable": quopri.decodestring, "base64": base64.b64decode}[encoding]
    assert decode(encoded).decode() == with_lf(text).replace("\n", "\r\n")
    assert encoded.isascii()
    assert b"\0" not in encoded
    check_lines(encoded, 998 if encoding == "7bit" else 76)


@given(body_text)
def test_quoted_printable(text: str) -> None:
    data = with_lf(text).encode()
    encoded = quoted_printable(data, unsafe(data))
    check_lines(encoded, 76)
    assert not any(line.startswith(b".") for line in encoded.split(b"\r\n"))
    assert quopri.decodestring(encoded).replace(b"\r\n", b"\n") == data


@given(st.text("F.rom =é\n", max_size=30), st.integers(60, 160))
def test_soft_breaks_never_make_a_fragile_line(text: str, width: int) -> None:
    data = ("".join(text.split("\n")) * 40)[:width].encode()
    for padded in (b"." * 5 + data, b"From " + data, data + b"." * 200, b"a" * 74 + b".From " + data, b"." * 80):
        encoded = quoted_printable(padded, unsafe(padded))
        check_lines(encoded, 76)
        assert quopri.decodestring(encoded) == padded


def test_which_encoding() -> None:
    cases = {
        "Hello\n": "7bit",
        "": "7bit",
        "x" * 998: "7bit",
        "x" * 999: "quoted-printable",
        "From here": "quoted-printable",
        "a\nFrom here": "quoted-printable",
        "a\n.\nb": "quoted-printable",
        ".": "quoted-printable",
        "a\n.": "quoted-printable",
        "-- \nAnn": "quoted-printable",
        "blank at the end ": "quoted-printable",
        ".css { }": "7bit",
        "Most of it is ASCII, some isn’t.": "quoted-printable",
        "Это написано по-русски.": "base64",
    }
    assert {text: encode_text(text)[0] for text in cases} == cases


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(Invalid):
        encode_text("a\ud800b")


@given(st.binary(max_size=400))
def test_base64(data: bytes) -> None:
    encoded = base64_lines(data)
    check_lines(encoded, 76)
    assert base64.b64decode(encoded) == data


@given(st.lists(st.integers(0, 1200), max_size=5))
def test_line_lengths(lengths: list[int]) -> None:
    assert has_short_lines(b"\r\n".join(b"x" * n for n in lengths)) == all(n <= 998 for n in lengths)
