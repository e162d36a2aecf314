"""What people read on the terminal."""

from __future__ import annotations

import pytest

from posthouse.cli.output import count


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "email", "0 emails"),
        (1, "email", "1 email"),
        (2, "mailbox/mailboxes", "2 mailboxes"),
        (1, "mailbox/mailboxes", "1 mailbox"),
        (1_204, "conversation", "1,204 conversations"),
        (1.0, "point", "1 point"),
        (-0.5, "point", "-0.5 points"),
    ],
)
def test_one_is_not_many(number: float, noun: str, text: str) -> None:
    assert count(number, noun) == text
