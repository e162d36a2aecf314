from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse import errors
from posthouse.smtp.reply import MAX_LINE, MAX_LINES, ProtocolViolation, Reply, ReplyParser, printable, to_reply


def read(*chunks: bytes) -> list[Reply]:
    parser = ReplyParser()
    replies: list[Reply] = []
    for chunk in chunks:
        parser.feed(chunk)
        while (reply := parser.next()) is not None:
            replies.append(reply)
    return replies


def story(chunks: list[bytes]) -> list[object]:
    """The replies, and the violation that ended them."""
    parser = ReplyParser()
    seen: list[object] = []
    try:
        for chunk in chunks:
            parser.feed(chunk)
            while (reply := parser.next()) is not None:
                seen.append(reply)
    except ProtocolViolation as violation:
        seen.append((violation.public, violation.detail))
    return seen


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"250 2.1.0 Ok\r\n", Reply(250, "2.1.0", ("Ok",))),
        (b"250 2.1.0 Ok\n", Reply(250, "2.1.0", ("Ok",))),
        (b"250\r\n", Reply(250, None, ("",))),
        (b"354 \r\n", Reply(354, None, ("",))),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0", ("",))),
        (b"550 2.1.0 other class\r\n", Reply(550, None, ("2.1.0 other class",))),
        (b"550 5.1.1234 x\r\n", Reply(550, None, ("5.1.1234 x",))),
        (b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", Reply(550, "5.1.1", ("no such", "user"))),
        (b"550-5.1.1 no such\r\n550 user\r\n", Reply(550, "5.1.1", ("no such", "user"))),
        (b"250-a\r\n251 b\r\n", Reply(251, None, ("a", "b"))),
        (b"554 caf\xc3\xa9 \xff\r\n", Reply(554, None, ("café \\xff",))),
        (b"554 \x1b[31m\x00\tred\r\r\n", Reply(554, None, ("\\x1b[31m\\x00 red",))),
        ("554 \u202eevil\u2028\r\n".encode(), Reply(554, None, ("\\u202eevil\\u2028",))),
    ],
)
def test_reads(wire: bytes, reply: Reply) -> None:
    assert read(wire) == [reply]
    assert read(*[wire[i : i + 1] for i in range(len(wire))]) == [reply]
    assert read(wire * 3) == [reply] * 3


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"hello\r\n",
        b"25 x\r\n",
        b"2500 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"250_x\r\n",
        b"2\xb25 x\r\n",
        b"250-a\r\n550 b\r\n",
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"250 " + b"x" * (MAX_LINE + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 4000 + b"\r\n") * 17,
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_refuses_what_is_not_a_reply(wire: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read(wire)


def test_replies_before_garbage_are_given_out() -> None:
    assert story([b"250 ok\r\n", b"what\r\n"])[0] == Reply(250, None, ("ok",))
    assert story([b"250 ok\r\nwhat\r\n"])[0] == Reply(250, None, ("ok",))


def test_knows_what_is_pending() -> None:
    parser = ReplyParser()
    parser.feed(b"220 go\r\n250")
    assert parser.next() is not None
    assert parser.pending
    parser.feed(b"-a\r\n")
    assert parser.next() is None
    assert parser.pending
    parser.feed(b"250 b\r\n")
    assert parser.next() is not None
    assert not parser.pending


def test_classes() -> None:
    assert Reply(250).ok
    assert not Reply(354).ok
    assert Reply(421).temporary
    assert Reply(550).permanent
    assert str(Reply(550, "5.1.1", ("no", "such"))) == "550 5.1.1 no such"


def test_written_lines_stay_under_512_octets() -> None:
    wire = Reply(550, "5.1.1", ("word " * 300, "ü" * 600)).encode(utf8=True)
    assert all(len(line) <= 510 for line in wire.split(b"\r\n"))
    assert read(wire)[0].text.replace(" ", "") == "word" * 300 + "ü" * 600
    assert Reply(250, None, ("ü\r\nx",)).encode() == b"250 \\xfc\\x0d\\x0ax\r\n"
    assert Reply(250, None, ()).encode() == b"250 \r\n"


@given(
    st.integers(200, 599),
    st.lists(st.text(max_size=60).map(printable), min_size=1, max_size=5),
    st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_what_is_written_is_read_back(code: int, lines: list[str], detail: tuple[int, int]) -> None:
    enhanced = None if code // 100 == 3 else f"{code // 100}.{detail[0]}.{detail[1]}"
    texts = tuple(line.strip() + "." for line in lines)
    reply = Reply(code, enhanced, texts)
    assert read(reply.encode(utf8=True)) == [reply]


pieces = st.sampled_from([b"250 ok\r\n", b"250-a\r\n", b"550 5.1.1 no\n", b"421-x\r\n", b"x\r\n", b"\r", b"\n", b"25"])


@given(st.lists(st.one_of(pieces, st.binary(max_size=20)), max_size=12), st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=200)
def test_any_split_gives_the_same_replies(parts: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(parts)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    assert story([wire]) == story([wire[a:b] for a, b in itertools.pairwise(edges)])
    assert story([wire]) == story([wire[i : i + 1] for i in range(len(wire))])


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (errors.Invalid(), b"501 5.5.4 "),
        (errors.Malformed(), b"500 5.5.2 "),
        (errors.TooLarge(), b"552 5.3.4 "),
        (errors.Unauthorized(), b"535 5.7.8 "),
        (errors.Forbidden(), b"550 5.7.1 "),
        (errors.NotFound(), b"550 5.1.1 "),
        (errors.Conflict(), b"503 5.5.1 "),
        (errors.Limited(), b"450 4.7.1 "),
        (errors.Unavailable(), b"451 4.3.0 "),
        (errors.StorageUnavailable(), b"452 4.3.1 "),
        (errors.DnsUnavailable(), b"451 4.4.3 "),
        (errors.Corrupt(detail="secret"), b"451 4.3.0 "),
    ],
)
def test_errors_become_replies(error: errors.Error, start: bytes) -> None:
    wire = to_reply(error).encode()
    assert wire.startswith(start)
    assert b"secret" not in wire


def test_faults_are_told() -> None:
    error = errors.Invalid("Wrong", faults=(errors.Fault("/to", "no domain"),))
    assert to_reply(error).encode() == b"501-5.5.4 Wrong\r\n501 5.5.4 no domain\r\n"
