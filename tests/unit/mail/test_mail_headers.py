from __future__ import annotations

import email
import re
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strange_text import SAMPLES, one_line

from posthouse.errors import Invalid
from posthouse.mail import headers
from posthouse.mail.address import Mailbox, parse_mailbox

ANN = Mailbox("Ann Lee", "ann", "example.com")


def read(field: bytes) -> email.message.EmailMessage:
    """The one field there is, as the standard package reads it."""
    check_lines(field)
    message = email.message_from_bytes(field + b"\r\nbody\r\n", policy=policy.default)
    assert len(message.keys()) == 1
    assert message.get_payload() == "body\r\n"
    return message


def check_lines(field: bytes) -> None:
    assert field.endswith(b"\r\n")
    lines = field[:-2].split(b"\r\n")
    assert all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", field):
        assert len(word) <= 75


def decoded(field: bytes) -> str:
    """By RFC 2047 alone, without the newer parser's opinions on blanks."""
    value = field[:-2].split(b":", 1)[1].replace(b"\r\n", b"").decode().removeprefix(" ")
    return str(make_header(decode_header(value)))


@given(one_line)
def test_a_subject_reads_back(value: str) -> None:
    field = headers.unstructured("Subject", value)
    assert read(field)["subject"] == value
    assert all(len(line) <= 78 or b" " not in line[1:].strip() for line in field.split(b"\r\n"))


@given(one_line.filter(bool))
def test_every_encoded_word_is_whole_characters(value: str) -> None:
    field = headers.unstructured("X-Long-Name-For-A-Header-Field-Of-Somebody-Who-Likes-Names", value + "é")
    assert decoded(field) == value + "é"
    for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", field):
        assert str(make_header(decode_header(word.decode())))


@pytest.mark.parametrize(
    "bad", ["a\r\nBcc: x@y.z", "a\nb", "a\rb", "a\0b", "\t", "a\x7f", "\x85", "\u2028", "\ud800", "\x1b[1m"]
)
def test_controls_are_refused(bad: str) -> None:
    for make in (
        lambda: headers.unstructured("Subject", bad),
        lambda: headers.custom("X-A", bad),
        lambda: headers.custom("List-Unsubscribe", f"<{bad}>"),
        lambda: headers.custom("X" + bad, "v"),
        lambda: headers.addresses("To", (Mailbox(bad, "a", "b.c"),)),
        lambda: headers.addresses("To", (Mailbox("", bad, "b.c"),)),
        lambda: headers.addresses("To", (Mailbox("A", "a", bad), ANN)),
        lambda: headers.parameter("filename", bad),
        lambda: headers.message_id(f"<{bad}@a.b>"),
    ):
        with pytest.raises(Invalid):
            make()


@given(st.text(max_size=80))
def test_one_line_is_always_fit(text: str) -> None:
    tidy = headers.one_line(text)
    assert read(headers.unstructured("Subject", tidy))["subject"] == tidy
    assert headers.one_line(tidy) == tidy


def test_one_line_joins_lines() -> None:
    assert headers.one_line("  Hello\r\n\tAnn \n and\x00 all ") == "Hello Ann and all"


def test_shorter_encoding_is_taken() -> None:
    assert b"?q?" in headers.unstructured("Subject", "Grüße aus Hamburg")
    assert b"?b?" in headers.unstructured("Subject", "Привет")


def test_reserved_names() -> None:
    for name in ("Bcc", "from", "DKIM-Signature", "Return-Path", "Received", "Content-Type", "MIME-Version", "Date",
                 "Message-ID", "Resent-To", "ARC-Seal", "Sender", "", "A B", "A:", "Ä", "A" * 65):  # fmt: skip
        with pytest.raises(Invalid) as caught:
            headers.custom(name, "x")
        assert caught.value.code == "invalid_header"


def test_structured_values_stay_as_they_are() -> None:
    url = f"<https://example.com/{'a' * 900}>"
    assert headers.custom("List-Unsubscribe", url) == f"List-Unsubscribe: {url}\r\n".encode()
    long = " ".join(f"<{i}@example.com>" for i in range(60))
    field = headers.custom("References", long)
    check_lines(field)
    assert field.replace(b"\r\n", b"").decode() == f"References: {long}"
    for value in ("<https://exämple.com>", f"<{'a' * 1000}>"):
        with pytest.raises(Invalid):
            headers.custom("List-Unsubscribe", value)
    with pytest.raises(Invalid):
        headers.custom("X-A", "a" * 20_000)


def test_fields_that_stand_once() -> None:
    assert headers.customs([("X-A", "1"), ("x-a", "2")]) == b"X-A: 1\r\nx-a: 2\r\n"
    with pytest.raises(Invalid):
        headers.customs([("References", "<a@b>"), ("references", "<c@d>")])
    with pytest.raises(Invalid):
        headers.customs([("References", "<a@b>")], beside=["References"])
    with pytest.raises(Invalid):
        headers.customs([("X-A", "1")] * 65)


@given(st.lists(one_line.map(lambda s: s[:256]), min_size=1, max_size=5))
def test_addresses_read_back(names: list[str]) -> None:
    boxes = [Mailbox(name, f"user{i}", "example.com") for i, name in enumerate(names)]
    field = headers.addresses("To", boxes)
    found = read(field)["to"].addresses
    assert [a.addr_spec for a in found] == [box.address for box in boxes]
    assert [squeezed(a.display_name) for a in found] == [squeezed(name) for name in names]


def squeezed(name: str) -> str:
    # The standard package keeps the blank between two encoded words of a name, against RFC 2047 §6.2.
    return "".join(name.split())


@given(one_line.map(lambda s: s[:256]).filter(bool))
def test_a_name_decodes_to_the_character(name: str) -> None:
    field = headers.addresses("To", (Mailbox(name, "ann", "example.com"),))
    value = field[:-2].replace(b"\r\n", b"").decode().removeprefix("To: ")
    phrase = value.removesuffix(" <ann@example.com>")
    if phrase.startswith('"'):
        assert parse_mailbox(value).name == name
    else:
        assert str(make_header(decode_header(phrase))) == name


def test_many_addresses_fold() -> None:
    field = headers.addresses("Cc", [Mailbox("", f"user{i}", "example.com") for i in range(500)])
    check_lines(field)
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert len(read(field)["cc"].addresses) == 500
    with pytest.raises(Invalid):
        headers.addresses("Cc", (ANN,) * 1001)


def test_utf8_local_part_stays() -> None:
    assert headers.addresses("To", (parse_mailbox("Ä <用户@example.com>"),)) == (
        "To: =?utf-8?b?w4Q=?= <用户@example.com>\r\n".encode()
    )


@given(one_line.map(lambda s: s[:255]).filter(bool))
def test_filenames_read_back(name: str) -> None:
    field = f"Content-Disposition: attachment{headers.parameter('filename', name)}\r\n".encode()
    check_lines(field)
    assert read(field)["content-disposition"].params["filename"] == name


def test_long_filenames_are_refused() -> None:
    with pytest.raises(Invalid):
        headers.parameter("filename", "a" * 256)


def test_date() -> None:
    assert headers.date(datetime(2025, 7, 1, 9, 5, 3, tzinfo=UTC)) == b"Date: Tue, 01 Jul 2025 09:05:03 +0000\r\n"
    late = datetime(2025, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert headers.date(late) == b"Date: Tue, 31 Dec 2024 22:30:00 +0000\r\n"
    with pytest.raises(ValueError, match="aware"):
        headers.date(datetime(2025, 1, 1))  # noqa: DTZ001 - the naive time is the case


def test_message_id() -> None:
    assert headers.message_id("<a.1@example.com>") == b"Message-ID: <a.1@example.com>\r\n"
    for bad in ("a@b", "<a>", "<a@b", "<a b@c>", "<a@b>\r\n", "<ä@b>", f"<{'a' * 300}@b>"):
        with pytest.raises(Invalid):
            headers.message_id(bad)


def test_samples_in_every_place() -> None:
    for value in SAMPLES:
        assert read(headers.custom("X-Sample", value))["x-sample"] == value
