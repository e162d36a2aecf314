"""Two servers that see line ends differently can be made to see two messages in one.

Whatever stands where an end of data might be taken for one, we see one message and refuse it.
"""

from __future__ import annotations

import pytest
from server_script import ENVELOPE, Script, codes
from smuggling import ENDS, INNER, SAFE


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("whole", [True, False])
def test_no_second_message_and_the_first_is_refused(end: bytes, whole: bool) -> None:
    script = Script()
    script.send(ENVELOPE + b"DATA\r\n")
    wire = b"Subject: outer\r\n\r\nbody" + end + INNER
    script.feed([wire] if whole else [wire[at : at + 1] for at in range(len(wire))])
    assert script.messages == []
    assert codes(script.replies) == [250, 250, 354, 550]
    assert b"550 5.6.11" in script.replies
    assert codes(script.send(b"NOOP\r\n")) == [250]


@pytest.mark.parametrize("end", SAFE)
def test_what_is_no_line_end_is_content(end: bytes) -> None:
    script = Script()
    script.send(ENVELOPE + b"DATA\r\n")
    script.send(b"body" + end + INNER)
    assert codes(script.replies) == [250, 250, 354, 250]
    assert len(script.messages) == 1
    assert b"MAIL FROM:<admin@mx.test>" in script.messages[0]


@pytest.mark.parametrize("end", ENDS)
def test_chunks_keep_to_the_same_rule(end: bytes) -> None:
    body = b"body" + end + INNER
    for cut in range(len(body)):
        script = Script()
        script.send(ENVELOPE + b"BDAT %d\r\n" % cut + body[:cut] + b"BDAT %d LAST\r\n" % (len(body) - cut) + body[cut:])
        assert script.messages == []
        assert 550 in codes(script.replies)


@pytest.mark.parametrize(
    "line",
    [
        b"NOOP\nMAIL FROM:<evil@mx.test>\r\n",
        b"NOOP\n",
        b"\n",
        b"\n\r\n",
    ],
)
def test_a_bare_line_feed_in_a_command_closes(line: bytes) -> None:
    script = Script()
    assert codes(script.send(line)) == [500]
    assert script.server.closed


@pytest.mark.parametrize("line", [b"NOOP\rMAIL FROM:<evil@mx.test>\r\n", b"NOOP\r\r\n", b"NOOP\0\r\n", b"\0NOOP\r\n"])
def test_a_bare_carriage_return_or_nul_in_a_command_is_refused(line: bytes) -> None:
    script = Script()
    assert codes(script.send(line + b"NOOP\r\n")) == [500, 250]


def test_a_chunk_ending_in_a_carriage_return_is_refused() -> None:
    script = Script()
    assert codes(script.send(ENVELOPE + b"BDAT 3 LAST\r\nab\r"))[-1] == 550
