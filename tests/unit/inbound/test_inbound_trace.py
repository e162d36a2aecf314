"""The fields before a message are ours alone, whatever it begins with."""

from __future__ import annotations

import mmap

import pytest

from posthouse.inbound.trace import closed
from posthouse.mail.parse import header_fields

OURS = b"Received: by mx.example;\r\n date\r\nAuthentication-Results: mx.example; dkim=none\r\n"


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_a_message_that_begins_with_a_blank_goes_on_with_no_field_of_ours(blank: bytes) -> None:
    message = blank + b"; dkim=pass header.d=bank.example\r\nFrom: ann@example.com\r\n\r\nx\r\n"
    fields = {name: value for name, value, _, _ in header_fields(closed(OURS, message) + message)}
    assert fields[b"Authentication-Results"].strip() == b"mx.example; dkim=none"
    assert b"bank.example" in fields[b"X-Stray-Line"]


@pytest.mark.parametrize("message", [b"", b"From: ann@example.com\r\n\r\nx\r\n", b"\r\nx\r\n", b"no field\r\n"])
def test_of_any_other_nothing_changes(message: bytes) -> None:
    assert closed(OURS, message) == OURS


def test_a_mapped_file_is_looked_at_alike() -> None:
    with mmap.mmap(-1, 3) as mapped:
        mapped[:] = b" x\n"
        assert closed(OURS, mapped).endswith(b"X-Stray-Line:\r\n")
