"""However the bytes are cut, the session says and tells the same; and nothing makes it fall."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from server_script import ENVELOPE, Script, codes

from posthouse.smtp.body import BodyCheck, DotDecoder, only_crlf
from posthouse.smtp.offer import Limits, Offer

FRAGMENTS = [
    b"MAIL FROM:<a@b.test>\r\n",
    b"MAIL FROM:<a@b.test> BODY=BINARYMIME SIZE=3\r\n",
    b"RCPT TO:<b@mx.test>\r\n",
    b"RCPT TO:<c@mx.test> NOTIFY=NEVER\r\n",
    b"DATA\r\n",
    b"BDAT 3 LAST\r\n",
    b"BDAT 4\r\n",
    b"BDAT 0 LAST\r\n",
    b"a\r\n",
    b"..\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"RSET\r\n",
    b"EHLO x.test\r\n",
    b"NOOP\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN\r\n",
    b"*\r\n",
    b"x" * 1001,
    b"\xff\xfe",
]
OFFER = Offer("mx.test", auth=("PLAIN",), auth_in_clear=True)
LIMITS = Limits(size=4000, errors=6, idle=6, refusals=3)

streams = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=24).map(b"".join)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    points = sorted({min(point, len(data)) for point in at} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(points)]


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.integers(0, 400), max_size=12))
def test_any_split_gives_the_same(data: bytes, at: list[int]) -> None:
    prefix = ENVELOPE if len(at) % 2 else b""
    whole, parts = Script(OFFER, LIMITS), Script(OFFER, LIMITS)
    whole.send(prefix + data)
    parts.feed(cut(prefix + data, at))
    assert parts.replies == whole.replies
    assert parts.events == whole.events
    assert parts.messages == whole.messages
    assert parts.server.closed == whole.server.closed


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_garbage_never_raises_and_replies_are_lines(pieces: list[bytes]) -> None:
    script = Script(OFFER, LIMITS, greet=False)
    script.feed([b"", *pieces])
    assert script.replies == b"" or script.replies.endswith(b"\r\n")
    assert all(200 <= code < 600 for code in codes(script.replies))
    assert script.server.buffered < 20_000


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b".", b"..", b"", b"\xe9", b".a", b"x" * 500]), max_size=20))
def test_what_a_client_stuffs_comes_back(lines: list[bytes]) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    wire = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"
    for step in (1, 7, len(wire)):
        decoder, got, rest = DotDecoder(), b"", None
        for at in range(0, len(wire), step):
            piece, rest = decoder.feed(wire[at : at + step])
            got += piece
        assert (got, rest) == (body, b"")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a"]), max_size=8).map(b"".join))
def test_only_crlf_agrees_with_taking_them_out(piece: bytes) -> None:
    rest = piece.replace(b"\r\n", b"")
    assert only_crlf(piece) == (b"\r" not in rest and b"\n" not in rest)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=8), st.lists(st.integers(0, 120), max_size=6))
def test_line_lengths_agree_with_splitting(lengths: list[int], at: list[int]) -> None:
    body = b"\r\n".join(b"x" * length for length in lengths)
    check = BodyCheck(10_000, 20)
    for piece in cut(body, at):
        if piece and not piece.endswith(b"\r") and not piece.startswith(b"\n"):
            check.look(piece)
        else:  # a piece never ends between CR and LF: feed the whole instead
            check = BodyCheck(10_000, 20)
            check.look(body)
            break
    ended = body.split(b"\r\n")
    expected = any(len(line) + 2 > 20 for line in ended[:-1]) or len(ended[-1]) > 20
    assert (check.flaw == "line") == expected
