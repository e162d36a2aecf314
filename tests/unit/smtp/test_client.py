"""The client as byte strings: what the peer says, and what comes of it."""

from __future__ import annotations

import base64

import pytest

from posthouse.errors import Conflict, Invalid
from posthouse.smtp.client import Client
from posthouse.smtp.outcome import (
    Cause,
    Closed,
    Delivery,
    Envelope,
    Event,
    Failure,
    Peer,
    Ready,
    Stage,
    StartTls,
    Timeouts,
    UseTls,
)
from posthouse.smtp.parameter import Notify, OriginalRecipient, Ret
from posthouse.smtp.sasl import Credentials

PEER = Peer("mx.example")
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"
ONE = Envelope("a@x.example", ("b@y.example",))
THREE = Envelope("a@x.example", ("b@y.example", "c@y.example", "d@z.example"))
BDAT = ("PIPELINING", "CHUNKING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN")
PIPE = ("PIPELINING", "SIZE 1000000", "8BITMIME")


def ehlo(*keywords: str) -> bytes:
    lines = ["mx.example", *keywords]
    return b"".join(f"250{' ' if i == len(lines) - 1 else '-'}{line}\r\n".encode() for i, line in enumerate(lines))


def ready(*keywords: str, tls: UseTls = UseTls.NEVER) -> Client:
    client = Client("me.example", PEER, tls=tls)
    assert client.receive(b"220 mx.example ESMTP\r\n") == []
    assert client.take() == b"EHLO me.example\r\n"
    (event,) = client.receive(ehlo(*keywords))
    assert isinstance(event, Ready)
    assert client.stage is Stage.IDLE
    return client


def say(client: Client, *wires: bytes) -> list[Event]:
    """What the peer says, each after the client has written."""
    events: list[Event] = []
    for wire in wires:
        events += client.receive(wire)
        client.take()
    return events


def send(client: Client, envelope: Envelope = ONE, data: bytes = MESSAGE) -> bytes:
    assert client.deliver(envelope, data) is None
    return client.take()


def codes(event: Event) -> list[int]:
    assert isinstance(event, Delivery)
    return [reply.code for reply in event.replies]


def only(events: list[Event]) -> Delivery:
    (event,) = events
    assert isinstance(event, Delivery)
    return event


def broken(events: list[Event]) -> tuple[Delivery, Failure]:
    delivery, failure = events
    assert isinstance(delivery, Delivery)
    assert isinstance(failure, Failure)
    assert delivery.failure == failure
    return delivery, failure


# Opening


@pytest.mark.parametrize(
    ("greeting", "code"),
    [(b"554 no mail here\r\n", 554), (b"421 4.3.2 busy\r\n", 421), (b"554-no\r\n554 mail\r\n", 554)],
)
def test_a_greeting_that_refuses(greeting: bytes, code: int) -> None:
    client = Client("me.example", PEER)
    (failure,) = client.receive(greeting)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.cause, failure.reply.code) == (Stage.GREETING, Cause.REFUSED, code)
    assert not failure.local
    assert client.closed


@pytest.mark.parametrize("greeting", [b"SSH-2.0-x\r\n", b"250 hi\r\n", b"354 go\r\n", b"\r\n", b"\x16\x03\x01\x00\n"])
def test_a_greeting_that_is_not_smtp(greeting: bytes) -> None:
    client = Client("me.example", PEER)
    (failure,) = client.receive(greeting)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.cause, failure.reply.temporary) == (Stage.GREETING, Cause.GARBLED, True)


def test_helo_when_ehlo_is_not_known() -> None:
    client = Client("me.example", PEER)
    say(client, b"220 old\r\n")
    assert client.receive(b"502 what?\r\n") == []
    assert client.take() == b"HELO me.example\r\n"
    (event,) = client.receive(b"250 old\r\n")
    assert isinstance(event, Ready)
    assert not client.capabilities.keywords
    assert send(client) == b"MAIL FROM:<a@x.example>\r\n"


def test_ehlo_refused_for_good_or_for_now() -> None:
    for wire, code in ((b"451 later\r\n", 451), (b"421 bye\r\n", 421), (b"550 no\r\n", 550)):
        client = Client("me.example", PEER)
        (failure,) = say(client, b"220 x\r\n", *[wire] * (2 if code == 550 else 1))
        assert isinstance(failure, Failure)
        assert (failure.stage, failure.reply.code) == (Stage.EHLO, code)


def test_capabilities() -> None:
    client = ready("SIZE 1000", "auth=LOGIN PLAIN", "X_Y", "limits RCPTMAX=5 MAILMAX=2 FOO=x", "PIPELINING", "")
    capabilities = client.capabilities
    assert capabilities.size == 1000
    assert capabilities.auth == {"LOGIN", "PLAIN"}
    assert (capabilities.recipients_max, capabilities.mails_max, capabilities.domains_max) == (5, 2, None)
    assert capabilities.pipelining
    assert ready("SIZE", "SIZE 0").capabilities.size is None
    assert ready("SIZE -5").capabilities.size is None


def test_the_name_must_be_one() -> None:
    with pytest.raises(Invalid):
        Client("a\r\nQUIT", PEER)


# One write


def test_chunking_sends_all_in_one_write() -> None:
    client = ready(*BDAT)
    wire = send(client)
    assert wire == (
        b"MAIL FROM:<a@x.example> SIZE=21\r\nRCPT TO:<b@y.example>\r\nBDAT 21 LAST\r\nSubject: x\r\n\r\nHello\r\n"
    )
    assert client.stage is Stage.MAIL
    delivery = only(client.receive(b"250 ok\r\n250 ok\r\n250 2.0.0 queued as 1\r\n"))
    assert delivery.replies[0].lines == ("queued as 1",)
    assert delivery.final == delivery.replies[0]
    assert (delivery.stage, delivery.unknown, delivery.ours, delivery.failure) == (Stage.FINAL, False, set(), None)
    assert client.reusable
    assert send(client).startswith(b"MAIL FROM")


def test_pipelined_data_waits_for_354() -> None:
    client = ready(*PIPE)
    assert send(client).endswith(b"RCPT TO:<b@y.example>\r\nDATA\r\n")
    assert client.receive(b"250 ok\r\n250 ok\r\n") == []
    assert client.stage is Stage.DATA
    assert client.take() == b""
    assert client.receive(b"354 go\r\n") == []
    assert client.take() == MESSAGE + b".\r\n"
    assert client.stage is Stage.FINAL
    assert codes(only(client.receive(b"250 ok\r\n"))) == [250]


def test_step_by_step_without_pipelining() -> None:
    client = ready()
    wires = [send(client, THREE)]
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"550 5.1.1 no\r\n", b"251 ok\r\n", b"354 go\r\n"):
        assert client.receive(reply) == []
        wires.append(client.take())
    assert wires == [
        b"MAIL FROM:<a@x.example>\r\n",
        b"RCPT TO:<b@y.example>\r\n",
        b"RCPT TO:<c@y.example>\r\n",
        b"RCPT TO:<d@z.example>\r\n",
        b"DATA\r\n",
        MESSAGE + b".\r\n",
    ]
    assert codes(only(client.receive(b"250 done\r\n"))) == [250, 550, 250]


def test_chunking_without_pipelining() -> None:
    client = ready("CHUNKING")
    assert send(client) == b"MAIL FROM:<a@x.example>\r\n"
    client.receive(b"250 ok\r\n")
    assert client.take() == b"RCPT TO:<b@y.example>\r\n"
    client.receive(b"250 ok\r\n")
    assert client.take() == b"BDAT 21 LAST\r\n" + MESSAGE
    assert codes(only(client.receive(b"250 ok\r\n"))) == [250]


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n.b\r\n..c\r\n", b"a\r\n..b\r\n...c\r\n.\r\n"),
        (b"a\r.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
        (b"a\n\r.\n", b"a\r\n\r\n..\r\n.\r\n"),
    ],
)
def test_line_ends_and_dots(data: bytes, wire: bytes) -> None:
    client = ready(*PIPE)
    send(client, data=data)
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert client.take() == wire
    client = ready(*BDAT)
    assert b"\n" not in send(client, data=data).replace(b"\r\n", b"")


# Large messages


def test_a_large_message_waits_for_the_recipients() -> None:
    big = b"x" * 76 + b"\r\n"
    big *= 2000
    for keywords, head in ((BDAT, b"BDAT %d LAST\r\n" % len(big)), (PIPE, b"")):
        client = ready(*keywords)
        assert b"BDAT" not in send(client, data=big)
        client.receive(b"250 ok\r\n250 ok\r\n")
        if not head:
            client.receive(b"354 go\r\n")
        assert client.take() == head
        assert client.stage is Stage.BLOCK
        assert client.timeout == 180
        sent = b""
        while (block := client.next_block()) is not None:
            assert len(block) <= 65536
            sent += block
        assert sent == big + (b"" if head else b".\r\n")
        assert client.stage is Stage.FINAL
        assert client.timeout == 600
        assert codes(only(client.receive(b"250 ok\r\n"))) == [250]


def test_content_is_not_sent_for_nobody() -> None:
    client = ready(*BDAT)
    send(client, data=b"x\r\n" * 50_000)
    assert codes(only(client.receive(b"250 ok\r\n550 5.1.1 no\r\n"))) == [550]
    assert client.take() == b""
    assert send(client) == b"RSET\r\n"
    assert client.receive(b"250 ok\r\n") == []
    assert client.take().startswith(b"MAIL FROM")


@pytest.mark.parametrize(("wire", "code"), [(b"552 5.3.4 too big\r\n", 552), (b"421 bye\r\n", 421)])
def test_a_refusal_in_the_middle_of_the_content(wire: bytes, code: int) -> None:
    client = ready(*BDAT)
    send(client, data=b"x\r\n" * 50_000)
    say(client, b"250 ok\r\n250 ok\r\n")
    client.next_block()
    delivery = only(client.receive(wire))
    assert codes(delivery) == [code]
    assert delivery.stage is Stage.BLOCK
    assert not delivery.unknown
    assert client.closed
    assert not client.reusable
    assert not client.has_blocks


def test_a_success_in_the_middle_of_the_content_is_a_violation() -> None:
    client = ready(*BDAT)
    send(client, data=b"x\r\n" * 50_000)
    say(client, b"250 ok\r\n250 ok\r\n")
    client.next_block()
    delivery, failure = broken(client.receive(b"250 ok\r\n"))
    assert failure.cause is Cause.GARBLED
    assert not delivery.unknown


# Refusals


@pytest.mark.parametrize("keywords", [BDAT, PIPE, ()])
@pytest.mark.parametrize("code", [450, 550])
def test_mail_refused(keywords: tuple[str, ...], code: int) -> None:
    client = ready(*keywords)
    send(client, THREE)
    wire = b"%d 5.1.7 no\r\n" % code
    if keywords:
        wire += b"503 5.5.1 no mail\r\n" * 4
    delivery = only(client.receive(wire))
    assert codes(delivery) == [code] * 3
    assert delivery.stage is Stage.MAIL
    assert delivery.final is None
    assert client.reusable
    assert send(client).startswith(b"MAIL FROM")


def test_each_recipient_has_an_outcome() -> None:
    client = ready(*BDAT)
    send(client, THREE)
    delivery = only(client.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n452 4.2.2 full\r\n250 2.0.0 queued\r\n"))
    assert codes(delivery) == [250, 550, 452]
    assert delivery.stage is Stage.FINAL
    assert send(client).startswith(b"MAIL FROM")


@pytest.mark.parametrize("final", [b"503 5.5.1 no recipients\r\n", b"554 no\r\n", b"250 odd\r\n"])
def test_all_recipients_refused_with_bdat_under_way(final: bytes) -> None:
    client = ready(*BDAT)
    send(client, THREE)
    delivery = only(client.receive(b"250 ok\r\n" + b"550 5.1.1 no\r\n" * 2 + b"450 later\r\n" + final))
    assert codes(delivery) == [550, 550, 450]
    assert delivery.stage is Stage.RCPT
    assert delivery.final is None
    assert send(client).startswith(b"MAIL" if final.startswith(b"250") else b"RSET\r\n")


def test_all_recipients_refused_with_data_under_way() -> None:
    client = ready(*PIPE)
    send(client)
    delivery = only(client.receive(b"250 ok\r\n550 5.1.1 no\r\n503 5.5.1 no recipients\r\n"))
    assert (codes(delivery), delivery.stage) == ([550], Stage.RCPT)
    assert send(client) == b"RSET\r\n"


def test_all_recipients_refused_and_354_all_the_same() -> None:
    client = ready(*PIPE)
    send(client)
    assert client.receive(b"250 ok\r\n550 5.1.1 no\r\n354 go\r\n") == []
    assert client.take() == b".\r\n"
    assert client.stage is Stage.FINAL
    delivery = only(client.receive(b"554 5.5.1 no recipients\r\n"))
    assert (codes(delivery), delivery.stage, delivery.final) == ([550], Stage.RCPT, None)
    assert send(client).startswith(b"MAIL")


def test_lost_after_the_lone_dot_is_not_unknown() -> None:
    client = ready(*PIPE)
    send(client)
    say(client, b"250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    delivery, _ = broken(client.lost())
    assert codes(delivery) == [550]
    assert not delivery.unknown


def test_mail_refused_and_354_all_the_same() -> None:
    client = ready(*PIPE)
    send(client)
    client.receive(b"550 no\r\n250 ok\r\n354 go\r\n")
    assert client.take() == b".\r\n"
    delivery = only(client.receive(b"250 ok\r\n"))
    assert (codes(delivery), delivery.stage) == ([550], Stage.MAIL)


def test_data_refused() -> None:
    client = ready(*PIPE)
    send(client, THREE)
    delivery = only(client.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n451 4.3.0 later\r\n"))
    assert codes(delivery) == [451, 550, 451]
    assert (delivery.stage, delivery.final) == (Stage.DATA, None)
    assert send(client) == b"RSET\r\n"


@pytest.mark.parametrize(("keywords", "next_wire"), [(PIPE, b"MAIL"), (BDAT, b"RSET\r\n")])
def test_content_refused(keywords: tuple[str, ...], next_wire: bytes) -> None:
    client = ready(*keywords)
    send(client)
    middle = b"354 go\r\n" if keywords is PIPE else b""
    delivery = only(say(client, b"250 ok\r\n250 ok\r\n" + middle, b"554 5.7.1 spam\r\n"))
    assert codes(delivery) == [554]
    assert delivery.final is not None
    assert delivery.stage is Stage.FINAL
    assert send(client).startswith(next_wire)


def test_content_never_goes_out_before_rset_is_answered() -> None:
    client = ready(*BDAT)
    send(client)
    only(client.receive(b"250 ok\r\n250 ok\r\n554 no\r\n"))
    assert send(client) == b"RSET\r\n"
    assert client.stage is Stage.RSET
    delivery, failure = broken(client.receive(b"502 no RSET here\r\n"))
    assert failure.stage is Stage.RSET
    assert not delivery.unknown
    assert codes(delivery) == [451]


def test_a_reply_before_the_command_is_no_reply() -> None:
    """Were it taken for one, a message that was never sent would count as delivered."""
    for keywords, said in (((), b"250 ok\r\n" * 2), (PIPE, b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n")):
        client = ready(*keywords)
        send(client)
        delivery, failure = broken(client.receive(said))
        assert failure.cause is Cause.GARBLED
        assert codes(delivery) == [451]
        assert not delivery.unknown
    client = Client("me.example", PEER)
    (failure,) = client.receive(b"220 x\r\n" + ehlo(*BDAT))
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED


# 421


@pytest.mark.parametrize("keywords", [BDAT, PIPE, ()])
@pytest.mark.parametrize("after", range(5))
def test_421_anywhere(keywords: tuple[str, ...], after: int) -> None:
    client = ready(*keywords)
    send(client)
    replies = [b"250 ok\r\n", b"250 ok\r\n", *([] if "CHUNKING" in keywords else [b"354 go\r\n"]), b"250 ok\r\n"]
    if after >= len(replies):
        assert len(replies) <= after
        return
    for reply in replies[:after]:
        assert client.receive(reply) == []
        client.take()
    delivery = only(client.receive(b"421 4.3.2 shutting down\r\n"))
    assert codes(delivery) == [421]
    assert not delivery.unknown
    assert (
        delivery.stage
        is [Stage.MAIL, Stage.RCPT, *([] if "CHUNKING" in keywords else [Stage.DATA]), Stage.FINAL][after]
    )
    assert client.closed
    assert client.lost() == []


def test_421_keeps_the_refusals_before_it() -> None:
    client = ready(*BDAT)
    send(client, THREE)
    delivery = only(client.receive(b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n421 bye\r\n"))
    assert codes(delivery) == [550, 421, 421]


def test_421_while_idle() -> None:
    client = ready(*BDAT)
    (event,) = client.receive(b"421 4.4.2 idle too long\r\n")
    assert isinstance(event, Closed)
    assert event.reply is not None
    assert not client.reusable
    with pytest.raises(Conflict):
        client.deliver(ONE, MESSAGE)


def test_421_right_behind_the_final_reply() -> None:
    client = ready(*BDAT)
    send(client)
    delivery, closed = client.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n")
    assert codes(delivery) == [250]
    assert isinstance(closed, Closed)
    assert not client.reusable


# Connections that break


@pytest.mark.parametrize(
    ("keywords", "said", "stage", "unknown"),
    [
        (BDAT, b"", Stage.MAIL, True),
        (BDAT, b"250 ok\r\n", Stage.RCPT, True),
        (BDAT, b"250 ok\r\n250 ok\r\n", Stage.FINAL, True),
        (BDAT, b"250 ok\r\n250 ok\r\n250-almost\r\n", Stage.FINAL, True),
        (BDAT, b"550 no\r\n", Stage.RCPT, False),
        (BDAT, b"250 ok\r\n550 no\r\n", Stage.FINAL, False),
        (PIPE, b"", Stage.MAIL, False),
        (PIPE, b"250 ok\r\n250 ok\r\n", Stage.DATA, False),
        (PIPE, b"250 ok\r\n250 ok\r\n354 go\r\n", Stage.FINAL, True),
        ((), b"", Stage.MAIL, False),
    ],
)
@pytest.mark.parametrize("how", ["lost", "timed_out", "garbled"])
def test_breaks(keywords: tuple[str, ...], said: bytes, stage: Stage, unknown: bool, how: str) -> None:
    client = ready(*keywords)
    send(client)
    assert say(client, said) == []
    if how == "garbled":
        events = client.receive(b"!@#$\r\n")
    else:
        events = client.lost("reset") if how == "lost" else client.timed_out()
    delivery, failure = broken(events)
    assert failure.cause is {"lost": Cause.LOST, "timed_out": Cause.TIMEOUT, "garbled": Cause.GARBLED}[how]
    assert (failure.stage, delivery.unknown) == (stage, unknown)
    assert codes(delivery) == [550 if b"550" in said else 451]
    assert delivery.final is None
    assert client.closed
    assert client.take() == b""
    assert client.lost() == client.timed_out() == []


def test_lost_in_the_middle_of_the_content_is_not_unknown() -> None:
    client = ready(*BDAT)
    send(client, data=b"x\r\n" * 50_000)
    say(client, b"250 ok\r\n250 ok\r\n")
    client.next_block()
    delivery, failure = broken(client.lost())
    assert failure.stage is Stage.BLOCK
    assert not delivery.unknown


@pytest.mark.parametrize(
    "said",
    [
        b"354 go\r\n",
        b"250 ok\r\n354 go\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n",
        b"250 ok\r\n250 ok\r\n354 go\r\n354 again\r\n",
        b"250 ok\r\n550-a\r\n250 b\r\n",
        b"250 " + b"x" * 5000,
    ],
)
def test_replies_that_cannot_come_there(said: bytes) -> None:
    client = ready(*PIPE)
    send(client)
    delivery, failure = broken(client.receive(said))
    assert failure.cause is Cause.GARBLED
    assert delivery.replies[0].temporary
    assert failure.local


def test_an_answer_to_nothing() -> None:
    client = ready(*BDAT)
    (failure,) = client.receive(b"250 unasked\r\n")
    assert isinstance(failure, Failure)
    assert failure.stage is Stage.IDLE


def test_lost_while_idle_or_quitting() -> None:
    client = ready()
    assert client.lost() == [Closed()]
    client = ready()
    assert client.quit()
    assert client.take() == b"QUIT\r\n"
    assert client.timeout == 5
    assert not client.quit()
    assert client.timed_out() == [Closed()]
    client = ready()
    client.quit()
    client.take()
    (event,) = client.receive(b"221 2.0.0 bye\r\n")
    assert isinstance(event, Closed)
    assert client.closed
    assert client.timed_out() == []


def test_timeouts_are_those_of_the_stage() -> None:
    client = Client("me.example", PEER, tls=UseTls.NEVER, timeouts=Timeouts(mail=7, rcpt=8, final=9))
    assert client.timeout == 300
    say(client, b"220 x\r\n", ehlo(*BDAT))
    assert client.timeout is None
    send(client)
    seen = [client.timeout]
    for _ in range(2):
        before = client.progress
        client.receive(b"250 ok\r\n")
        assert client.progress > before
        seen.append(client.timeout)
    assert seen == [7, 8, 9]
    before = client.progress
    client.receive(b"250-slow")
    assert client.progress == before
    (failure,) = Client("me.example", PEER).timed_out()
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.cause) == (Stage.GREETING, Cause.TIMEOUT)


# What the peer cannot take


@pytest.mark.parametrize(
    ("keywords", "envelope", "enhanced"),
    [
        (("SIZE 10",), ONE, "5.3.4"),
        (("8BITMIME",), Envelope("é@x", ("b@y",), smtputf8=True), "5.6.7"),
        ((), Envelope("a@x", ("b@y",), body_8bit=True), "5.6.3"),
        ((), Envelope("a@x", ("b\r\n@y",)), "5.1.3"),
        ((), Envelope("a\r\n@x", ("b@y",)), "5.1.7"),
        ((), Envelope("a@x", ("é@y",)), "5.6.7"),
        ((), Envelope("é@x", ("b@y",)), "5.6.7"),
        ((), Envelope("a@x", ("b@y",), envid="\n"), None),
    ],
)
def test_refused_locally(keywords: tuple[str, ...], envelope: Envelope, enhanced: str | None) -> None:
    client = ready(*keywords)
    delivery = client.deliver(envelope, MESSAGE)
    if enhanced is None:  # ENVID is left out where DSN is not offered
        assert delivery is None
        return
    assert delivery is not None
    assert delivery.ours == {0}
    assert [reply.permanent for reply in delivery.replies] == [True]
    assert delivery.replies[0].enhanced == enhanced
    assert client.take() == b""
    assert client.reusable


def test_parameters() -> None:
    client = ready(*BDAT)
    envelope = Envelope(
        "é@x.example",
        ("b@y.example", "ü@y.example"),
        smtputf8=True,
        body_8bit=True,
        ret=Ret.HEADERS,
        envid="id+1",
        notify=(Notify.FAILURE, Notify.DELAY),
        orcpt=(OriginalRecipient("rfc822", "o@y.example"), None),
    )
    lines = send(client, envelope).decode().split("\r\n")
    assert lines[:3] == [
        "MAIL FROM:<é@x.example> SIZE=21 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1",
        "RCPT TO:<b@y.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;o@y.example",
        "RCPT TO:<ü@y.example> NOTIFY=FAILURE,DELAY",
    ]


def test_limits() -> None:
    client = ready(*BDAT, "LIMITS RCPTMAX=2 MAILMAX=2")
    assert send(client, THREE).count(b"RCPT") == 2
    delivery = only(client.receive(b"250 ok\r\n" * 4))
    assert codes(delivery) == [250, 250, 452]
    assert delivery.replies[2].enhanced == "4.5.3"
    send(client)
    only(client.receive(b"250 ok\r\n" * 3))
    assert not client.reusable
    client = ready(*BDAT, "LIMITS RCPTDOMAINMAX=1")
    assert send(client, THREE).count(b"RCPT") == 2
    assert codes(only(client.receive(b"250 ok\r\n550 no\r\n550 no\r\n503 no\r\n"))) == [550, 550, 452]


def test_a_bad_address_costs_the_others_nothing() -> None:
    client = ready(*BDAT, "LIMITS RCPTMAX=4")
    wire = send(client, Envelope("", ("a@x", "b b@x", "c@x", "é@x", "d@x")))
    assert wire.startswith(b"MAIL FROM:<> SIZE=21\r\nRCPT TO:<a@x>\r\nRCPT TO:<c@x>\r\nBDAT")
    delivery = only(client.receive(b"250 ok\r\n550 no\r\n250 ok\r\n250 queued\r\n"))
    assert codes(delivery) == [550, 553, 250, 553, 452]
    assert delivery.ours == {1, 3, 4}
    send(client, Envelope("", ("a@x", "b b@x")))
    delivery, _ = broken(client.receive(b"250 ok\r\n") + client.lost())
    assert codes(delivery) == [451, 553]
    assert delivery.ours == {0, 1}


def test_misuse() -> None:
    client = ready(*BDAT)
    delivery = client.deliver(Envelope("a@x", ()), MESSAGE)
    assert delivery is not None
    assert delivery.replies == ()
    send(client)
    with pytest.raises(Conflict):
        client.deliver(ONE, MESSAGE)
    assert not client.quit()


# TLS


def starting(tls: UseTls = UseTls.OFFERED, *keywords: str) -> Client:
    client = Client("me.example", PEER, tls=tls)
    client.receive(b"220 x\r\n")
    client.take()
    client.receive(ehlo("STARTTLS", *keywords))
    assert client.take() == b"STARTTLS\r\n"
    assert client.stage is Stage.STARTTLS
    return client


def test_starttls_forgets_what_was_said_before() -> None:
    client = starting(UseTls.OFFERED, "CHUNKING", "AUTH PLAIN")
    assert client.receive(b"220 go\r\n") == [StartTls()]
    assert client.stage is Stage.TLS
    assert client.timeout == 60
    client.tls_started(Peer("mx.example", tls="TLSv1.3"))
    assert client.take() == b"EHLO me.example\r\n"
    assert not client.capabilities.chunking
    (event,) = client.receive(ehlo("PIPELINING", "STARTTLS"))
    assert isinstance(event, Ready)
    assert client.take() == b""
    assert client.peer.tls == "TLSv1.3"
    send(client)
    assert only(client.receive(b"550 no\r\n503 x\r\n503 x\r\n")).peer.tls == "TLSv1.3"


@pytest.mark.parametrize("injected", [b"250 evil\r\n", b"2", b"\n"])
def test_plain_text_behind_starttls_is_an_attack(injected: bytes) -> None:
    client = starting()
    (failure,) = client.receive(b"220 go\r\n" + injected)
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED
    client = starting()
    assert client.receive(b"220 go\r\n") == [StartTls()]
    (failure,) = client.receive(b"250 evil\r\n")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED


def test_the_server_refuses_starttls() -> None:
    client = starting()
    (event,) = client.receive(b"454 4.7.0 not now\r\n")
    assert isinstance(event, Ready)
    client = starting(UseTls.REQUIRED)
    (failure,) = client.receive(b"554 5.7.0 no\r\n")
    assert isinstance(failure, Failure)
    assert (failure.cause, failure.reply.temporary, failure.without_tls) == (Cause.TLS_MISSING, True, False)
    (failure,) = starting().receive(b"421 bye\r\n")
    assert isinstance(failure, Failure)
    assert failure.stage is Stage.STARTTLS
    (failure,) = starting().receive(b"354 what\r\n")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED


def test_tls_is_required_and_not_there() -> None:
    client = Client("me.example", PEER, tls=UseTls.REQUIRED)
    (failure,) = say(client, b"220 x\r\n", ehlo("PIPELINING"))
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.TLS_MISSING
    assert failure.reply.enhanced == "4.7.10"


@pytest.mark.parametrize(("tls", "again"), [(UseTls.OFFERED, True), (UseTls.REQUIRED, False)])
def test_a_handshake_that_fails(tls: UseTls, again: bool) -> None:
    for how in ("failed", "timeout"):
        client = starting(tls)
        client.receive(b"220 go\r\n")
        (failure,) = client.tls_failed("bad\r\ncertificate") if how == "failed" else client.timed_out()
        assert isinstance(failure, Failure)
        assert (failure.cause, failure.without_tls) == (Cause.TLS_FAILED, again)
        assert "\n" not in failure.detail


def test_no_helo_after_tls() -> None:
    client = starting()
    client.receive(b"220 go\r\n")
    client.tls_started(PEER)
    assert client.take() == b"EHLO me.example\r\n"
    (failure,) = client.receive(b"502 no\r\n")
    assert isinstance(failure, Failure)
    assert failure.stage is Stage.EHLO


# AUTH


def login(credentials: Credentials, *keywords: str, tls: UseTls = UseTls.DONE) -> tuple[Client, list[Event]]:
    client = Client("me.example", PEER, tls=tls, credentials=credentials)
    client.receive(b"220 x\r\n")
    assert client.take() == b"EHLO me.example\r\n"
    return client, client.receive(ehlo(*keywords))


def b64(text: bytes) -> bytes:
    return base64.b64encode(text)


USER = Credentials("ann", "pässword")


def test_plain() -> None:
    client, events = login(USER, "AUTH LOGIN PLAIN CRAM-MD5")
    assert events == []
    assert client.take() == b"AUTH PLAIN " + b64("\0ann\0pässword".encode()) + b"\r\n"
    assert isinstance(client.receive(b"235 2.7.0 ok\r\n")[0], Ready)
    client, _ = login(USER, "AUTH PLAIN")
    client.take()
    client.receive(b"334 \r\n")
    assert client.take() == b64("\0ann\0pässword".encode()) + b"\r\n"


def test_login() -> None:
    client, _ = login(USER, "AUTH LOGIN")
    wires = [client.take()]
    for challenge in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"):
        assert client.receive(challenge) == []
        wires.append(client.take())
    assert wires == [b"AUTH LOGIN\r\n", b64(b"ann") + b"\r\n", b64("pässword".encode()) + b"\r\n"]
    assert client.receive(b"334 again\r\n") == []
    assert client.take() == b"*\r\n"
    (failure,) = client.receive(b"501 cancelled\r\n")
    assert isinstance(failure, Failure)
    assert failure.stage is Stage.AUTH


def test_bearer_tokens() -> None:
    token = Credentials("ann@x", "TOKEN", token=True)
    client, _ = login(token, "AUTH XOAUTH2 PLAIN")
    assert client.take() == b"AUTH XOAUTH2 " + b64(b"user=ann@x\1auth=Bearer TOKEN\1\1") + b"\r\n"
    client.receive(b"334 " + b64(b'{"status":"401"}') + b"\r\n")
    assert client.take() == b"\r\n"
    (failure,) = client.receive(b"535 5.7.8 no\r\n")
    assert isinstance(failure, Failure)
    assert failure.reply.permanent
    assert "401" in failure.detail
    client, _ = login(token, "AUTH XOAUTH2 OAUTHBEARER")
    expected = b"n,a=ann@x,\1host=mx.example\1port=25\1auth=Bearer TOKEN\1\1"
    assert client.take() == b"AUTH OAUTHBEARER " + b64(expected) + b"\r\n"
    client.receive(b"334 " + b64(b"{}") + b"\r\n")
    assert client.take() == b64(b"\1") + b"\r\n"
    client.receive(b"334 " + b64(b"{}") + b"\r\n")
    assert client.take() == b"*\r\n"
    (failure,) = client.receive(b"334 more\r\n")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED


def test_cram_md5_only_when_asked_for() -> None:
    _, (failure,) = login(USER, "AUTH CRAM-MD5")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.AUTH_MISSING
    asked = Credentials("tim", "tanstaaftanstaaf", mechanisms=("CRAM-MD5",))
    client, _ = login(asked, "AUTH CRAM-MD5", tls=UseTls.NEVER)
    assert client.take() == b"AUTH CRAM-MD5\r\n"
    client.receive(b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n")
    assert base64.b64decode(client.take()) == b"tim b913a602c7eda7a495b4e6e7334d3890"  # RFC 2195 §2


def test_nothing_secret_in_plain_text() -> None:
    client, (failure,) = login(USER, "AUTH PLAIN LOGIN", tls=UseTls.OFFERED)
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.AUTH_MISSING
    assert client.take() == b""
    client, events = login(Credentials("a", "b", plaintext=True), "AUTH PLAIN", tls=UseTls.NEVER)
    assert events == []
    assert client.take().startswith(b"AUTH PLAIN")
    assert "pässword" not in repr(USER)


def test_auth_outcomes() -> None:
    for wire, code in ((b"535 5.7.8 no\r\n", 535), (b"454 4.7.0 later\r\n", 454), (b"534 5.7.9 weak\r\n", 534)):
        client, _ = login(USER, "AUTH PLAIN LOGIN")
        client.take()
        (failure,) = client.receive(wire)
        assert isinstance(failure, Failure)
        assert (failure.stage, failure.cause, failure.reply.code) == (Stage.AUTH, Cause.REFUSED, code)
    client, _ = login(USER, "AUTH PLAIN LOGIN")
    client.take()
    client.receive(b"504 5.5.4 not that\r\n")
    assert client.take() == b"AUTH LOGIN\r\n"
    client, _ = login(USER, "AUTH PLAIN")
    client.take()
    client.receive(b"334 !!!\r\n")
    assert client.take() == b"*\r\n"
    client, _ = login(USER, "AUTH PLAIN")
    client.take()
    (failure,) = client.receive(b"354 x\r\n")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.GARBLED
    _, (failure,) = login(Credentials("a", "x" * 20_000), "AUTH PLAIN")
    assert isinstance(failure, Failure)
    assert failure.cause is Cause.AUTH_MISSING
