"""The client against peers that Hypothesis makes up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.smtp.client import Client
from posthouse.smtp.content import canonical, dotted
from posthouse.smtp.outcome import Delivery, Envelope, Event, Failure, Peer, Ready, Stage, StartTls, UseTls
from posthouse.smtp.sasl import Credentials

ENVELOPE = Envelope("a@x.example", ("b@y.example", "c@y.example"))
KEYWORDS = ("PIPELINING", "CHUNKING", "SIZE 9000000", "STARTTLS", "AUTH PLAIN LOGIN", "LIMITS RCPTMAX=1", "8BITMIME")
LARGE = b"line\r\n" * 20_000

lines = st.sampled_from(
    [
        *(f"{code} 2.0.0 text" for code in (220, 221, 235, 250, 251)),
        *("250-more", "250", "334 ", "334 YQ==", "354 go", "421 4.3.2 bye", "450 4.2.0 later", "451-x", "504 no"),
        *("550 5.1.1 no", "550-5.1.1 no", "535 5.7.8 no", "503 x", "554 5.7.1 spam", "garbage", "", "250_", "999 x"),
    ]
)
offers = st.sets(st.sampled_from(KEYWORDS)).map(lambda keywords: ["mx.example", *sorted(keywords)])


def offer(keywords: list[str]) -> list[str]:
    return [f"250{' ' if i == len(keywords) - 1 else '-'}{word}" for i, word in enumerate(keywords)]


class Run:
    """Drives a client with a stream in pieces, the way a shell does."""

    def __init__(self, data: bytes, tls: UseTls, credentials: Credentials | None) -> None:
        self.client = Client("me.example", Peer("mx.example"), tls=tls, credentials=credentials)
        self.data = data
        self.events: list[Event] = []
        self.wire = b""
        self.delivered = 0

    def react(self, events: list[Event]) -> None:
        client = self.client
        self.events += events
        for event in events:
            if isinstance(event, StartTls):
                self.wire += client.take()
                client.tls_started(Peer("mx.example", tls="TLSv1.3"))
            elif isinstance(event, Ready | Delivery) and client.reusable and self.delivered < 2:
                self.delivered += 1
                self.react([done] if (done := client.deliver(ENVELOPE, self.data)) else [])
        self.wire += client.take()
        while client.has_blocks:
            self.wire += client.next_block() or b""

    def feed(self, chunks: list[bytes]) -> None:
        self.react([])
        for chunk in chunks:
            self.react(self.client.receive(chunk))


streams = st.tuples(offers, st.lists(lines, max_size=14)).map(
    lambda made: "\r\n".join(["220 hi", *offer(made[0]), *made[1], ""]).encode()
)
modes = st.sampled_from([UseTls.NEVER, UseTls.OFFERED, UseTls.REQUIRED, UseTls.DONE])
secrets = st.sampled_from([None, Credentials("u", "p", plaintext=True)])


@given(streams, modes, secrets, st.sampled_from([b"Hi\r\n.\r\n", LARGE]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_peer_ends_in_typed_outcomes(
    stream: bytes, tls: UseTls, credentials: Credentials | None, data: bytes, late: bool
) -> None:
    run = Run(data, tls, credentials)
    run.feed([stream[i : i + 7] for i in range(0, len(stream), 7)])
    run.react(run.client.timed_out() if late else [])
    run.react(run.client.lost())
    assert run.client.closed
    deliveries = [event for event in run.events if isinstance(event, Delivery)]
    assert len(deliveries) == run.delivered
    for delivery in deliveries:
        assert len(delivery.replies) == 2
        assert not (delivery.unknown and all(reply.ok for reply in delivery.replies))
        assert all(reply.code >= 400 or delivery.stage is Stage.FINAL for reply in delivery.replies)
    assert sum(isinstance(event, Failure) for event in run.events) <= 1
    assert b"\n" not in run.wire.replace(b"\r\n", b"")


COMMAND = re.compile(rb"^(?:MAIL|RCPT|BDAT|DATA|\\.\r$)", re.MULTILINE)


def converse(offered: list[str], said: list[bytes], split: Callable[[bytes], list[bytes]]) -> list[Event]:
    """A peer that answers each command once, when it has it, in pieces as `split` says."""
    client = Client("me.example", Peer("mx.example"), tls=UseTls.NEVER)
    for line in ("220 hi\r\n", "\r\n".join([*offer(offered), ""])):
        client.receive(line.encode())
        client.take()
    assert client.deliver(ENVELOPE, b"Hi\r\n") is None
    events: list[Event] = []
    while (asked := len(COMMAND.findall(client.take()))) and said:
        replies, said = said[:asked], said[asked:]
        for piece in split(b"".join(replies)):
            events += client.receive(piece)
    return events + client.lost()


replies = st.lists(
    st.one_of(
        lines.map(lambda line: f"{line}\r\n".encode()),
        st.sampled_from([b"250 ok\r\n", b"250-a\r\n250 b\n", b"354 go\r\n"]),
    ),
    max_size=8,
)


@given(offers, replies, st.lists(st.integers(1, 99), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_same_events(offered: list[str], said: list[bytes], cuts: list[int]) -> None:
    def at_cuts(data: bytes) -> list[bytes]:
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        return [data[a:b] for a, b in itertools.pairwise(edges)]

    whole = converse(offered, said, lambda data: [data])
    assert converse(offered, said, at_cuts) == whole
    assert converse(offered, said, lambda data: [data[i : i + 1] for i in range(len(data))]) == whole


@given(st.lists(st.binary(max_size=40), max_size=6), modes)
@settings(max_examples=200)
def test_garbage_raises_nothing(chunks: list[bytes], tls: UseTls) -> None:
    run = Run(b"Hi\r\n", tls, None)
    run.feed(chunks)
    run.feed([b"220 x\r\n250-x\r\n250-STARTTLS\r\n250 PIPELINING\r\n", *chunks])
    run.react(run.client.lost())
    assert run.client.closed


contents = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\x00", b"\xff"]), max_size=30).map(b"".join)


@given(contents)
@settings(max_examples=300)
def test_content_is_lines_and_never_ends_early(data: bytes) -> None:
    body = canonical(data)
    assert canonical(body) == body
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert b"\r" not in body.replace(b"\r\n", b"")
    assert not body or body.endswith(b"\r\n")
    assert re.split(rb"\r\n|\r|\n", data.removesuffix(b"\n").removesuffix(b"\r")) == body.removesuffix(b"\r\n").split(
        b"\r\n"
    ) or data.endswith((b"\r", b"\n"))
    wire = dotted(body)
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    received = b"\r\n".join(
        line.removeprefix(b".") if line.startswith(b".") else line for line in wire[:-3].split(b"\r\n")
    )
    assert received == body
