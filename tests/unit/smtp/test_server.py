"""Each verb in each state, as byte strings."""

from __future__ import annotations

import pytest
from server_script import ENVELOPE, OFFER, Script, codes

from posthouse.smtp.command import Auth, Hello, Mail, Rcpt
from posthouse.smtp.events import AuthData, Connected, DataEnd, DataStart, Event, Reset, StartTls
from posthouse.smtp.offer import Limits, Offer
from posthouse.smtp.reply import Reply
from posthouse.smtp.server import Server

NO = Reply(550, "5.7.1", ("No",))
MESSAGE = b"Subject: x\r\n\r\nHello\r\n"


def refuse(*types: type[Event], reply: Reply = NO):
    return lambda event: reply if isinstance(event, types) else None


def test_a_whole_session() -> None:
    script = Script(greet=False)
    assert script.send(b"") == b"220 mx.test ESMTP Posthouse\r\n"
    hello = script.send(b"EHLO client.test\r\n")
    assert hello.startswith(b"250-mx.test\r\n250-PIPELINING\r\n")
    for word in (
        b"SIZE 37748736",
        b"8BITMIME",
        b"SMTPUTF8",
        b"CHUNKING",
        b"BINARYMIME",
        b"ENHANCEDSTATUSCODES",
        b"DSN",
        b"LIMITS RCPTMAX=1000",
    ):
        assert word in hello
    assert script.send(b"MAIL FROM:<a@client.test> SIZE=20 BODY=8BITMIME\r\n") == b"250 2.1.0 Sender ok\r\n"
    assert script.send(b"RCPT TO:<b@mx.test>\r\n") == b"250 2.1.5 Recipient ok\r\n"
    assert codes(script.send(b"DATA\r\n")) == [354]
    assert script.send(MESSAGE + b".\r\n") == b"250 2.0.0 Ok\r\n"
    assert script.send(b"QUIT\r\n") == b"221 2.0.0 Bye\r\n"
    assert script.server.closed
    assert script.messages == [MESSAGE]
    assert script.events == [
        Connected(),
        Hello("EHLO", "client.test"),
        Mail("a@client.test", size=20, body=script.events[2].body),  # type: ignore[union-attr]
        Rcpt("b@mx.test"),
        DataStart(chunked=False),
        DataEnd(len(MESSAGE)),
    ]


def test_a_pipelined_group_is_answered_in_one_write() -> None:
    script = Script()
    assert codes(script.send(ENVELOPE + b"DATA\r\n")) == [250, 250, 354]
    assert codes(script.send(MESSAGE + b".\r\n" + ENVELOPE + b"DATA\r\n")) == [250, 250, 250, 354]
    assert codes(script.send(b"x\r\n.\r\nQUIT\r\n")) == [250, 221]
    assert script.messages == [MESSAGE, b"x\r\n"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"RCPT TO:<b@mx.test>\r\n", [503]),
        (b"DATA\r\n", [503]),
        (b"MAIL FROM:<a@b.test>\r\nMAIL FROM:<a@b.test>\r\n", [250, 503]),
        (b"MAIL FROM:<a@b.test>\r\nDATA\r\n", [250, 503]),
        (b"MAIL FROM:<a@b.test>\r\nBDAT 3 LAST\r\nx\r\n", [250, 503]),
        (b"BDAT 6\r\nRSET\r\n", [503]),
        (b"BDAT 0 LAST\r\n", [503]),
        (ENVELOPE + b"BDAT 3\r\nx\r\nRCPT TO:<c@mx.test>\r\n", [250, 250, 250, 503]),
        (ENVELOPE + b"BDAT 3\r\nx\r\nDATA\r\n", [250, 250, 250, 503]),
        (b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<b@mx.test>\r\nDATA\r\n", [250, 250, 503]),
        (b"MAIL FROM:a@b.test\r\n", [501]),
        (b"MAIL <a@b.test>\r\n", [501]),
        (b"MAIL FROM:<a@b.test> SIZE=x\r\n", [501]),
        (b"MAIL FROM:<a@b.test> FLAG=1\r\n", [555]),
        (b"MAIL FROM:<a@b.test> SIZE=99999999999\r\n", [552]),
        (b"MAIL FROM:<\xc3\xa9@b.test>\r\n", [553]),
        (b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8\r\nRCPT TO:<\xc3\xa8@mx.test>\r\n", [250, 250]),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<\xc3\xa8@mx.test>\r\n", [250, 553]),
        (b"MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n", [250, 250]),
        (b"EHLO\r\n", [501]),
        (b"LHLO client.test\r\n", [500]),
        (b"HELO client.test\r\n", [250]),
        (b"TURN\r\n", [500]),
        (b"\r\n", [500]),
        (b"NOOP\r\nRSET\r\nVRFY x\r\nHELP\r\n", [250, 250, 252, 214]),
        (b"EXPN list\r\nSTARTTLS\r\nAUTH PLAIN\r\n", [502, 502, 502]),
        (b"DATA now\r\nQUIT now\r\n", [501, 501]),
        (b"mail from:<a@b.test>\r\nRcpt To:<b@mx.test>\r\nrset\r\n", [250, 250, 250]),
    ],
)
def test_replies_by_state(sent: bytes, expected: list[int]) -> None:
    assert codes(Script().send(sent)) == expected


@pytest.mark.parametrize("sent", [b"MAIL FROM:<a@b.test>", b"RCPT TO:<a@b.test>", b"DATA", b"BDAT 0 LAST"])
def test_hello_comes_first(sent: bytes) -> None:
    script = Script(greet=False)
    script.send(b"")
    assert script.send(sent + b"\r\n").startswith(b"503 5.5.1 Say hello first")


def test_all_recipients_refused_then_data() -> None:
    script = Script(decide=refuse(Rcpt))
    assert codes(script.send(ENVELOPE + b"DATA\r\n")) == [250, 550, 554]
    assert codes(script.send(b"BDAT 6 LAST\r\nRSET\r\nRSET\r\n")) == [554, 250]


@pytest.mark.parametrize("ending", [b"RSET\r\n", b"EHLO again.test\r\n"])
def test_an_open_transaction_is_reset(ending: bytes) -> None:
    script = Script()
    script.send(ENVELOPE + ending)
    assert Reset() in script.events
    assert codes(script.send(b"RCPT TO:<c@mx.test>\r\n")) == [503]


@pytest.mark.parametrize("half", [b"", b"BDAT 5\r\nab", b"DATA\r\nab"])
def test_a_lost_connection_resets_what_is_open(half: bytes) -> None:
    script = Script()
    script.send(ENVELOPE + half)
    script.server.lost()
    script.send(b"more")
    assert script.events[-1] == Reset()
    assert script.events.count(Reset()) == 1
    assert script.server.closed


def test_quit_resets_what_is_open() -> None:
    script = Script()
    assert codes(script.send(ENVELOPE + b"QUIT\r\n")) == [250, 250, 221]
    assert script.events[-1] == Reset()


def test_decisions_may_wait() -> None:
    server = Server(OFFER)
    assert server.next_event() == Connected()
    server.receive(b"EHLO x.test\r\nMAIL FROM:<a@b.test>\r\n")
    assert server.next_event() is None
    assert server.take() == b""
    assert server.buffered
    server.accept()
    assert isinstance(server.next_event(), Hello)
    server.reject(Reply(550, "5.7.1", ("Not you",)))
    assert server.next_event() is None  # MAIL without hello
    assert codes(server.take()) == [220, 550, 503]


def test_answers_need_an_event() -> None:
    server = Server(OFFER)
    with pytest.raises(ValueError, match="no event"):
        server.accept()
    server.next_event()
    with pytest.raises(TypeError):
        server.challenge(b"")
    with pytest.raises(ValueError, match="handshake"):
        Server(OFFER).tls_started()
    with pytest.raises(ValueError, match="recipient"):
        server.answer_each([])


def test_a_refused_greeting_only_takes_quit() -> None:
    script = Script(decide=refuse(Connected, reply=Reply(554, "5.7.1", ("No",))), greet=False)
    assert codes(script.send(b"")) == [554]
    assert codes(script.send(b"EHLO x.test\r\nWHAT\r\nQUIT\r\n")) == [503, 503, 221]


@pytest.mark.parametrize("kind", [Connected, Hello, Mail, Rcpt, DataStart, DataEnd])
def test_421_closes_anywhere(kind: type[Event]) -> None:
    script = Script(decide=refuse(kind, reply=Reply(421, "4.3.2", ("Later",))), greet=False)
    script.send(b"")
    script.send(b"EHLO x.test\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\nNOOP\r\n")
    assert codes(script.replies)[-1] == 421
    assert script.server.closed
    assert not script.server.wants_data


def test_shutdown_is_told_and_resets() -> None:
    script = Script()
    script.send(ENVELOPE + b"DATA\r\nSubject: half")
    script.server.close()
    assert script.send(b"more\r\n.\r\n") == b"421 4.3.2 Shutting down\r\n"
    assert script.events[-1] == Reset()
    assert script.messages == []


# -- data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..x\r\n...\r\n.\r\n", b".x\r\n..\r\n"),
        (b".x\r\n.\r\n", b"x\r\n"),
        (b"a\r\n\r\n..\r\n.\r\n", b"a\r\n\r\n.\r\n"),
        (b"8 bit \xe9\r\n.\r\n", b"8 bit \xe9\r\n"),
    ],
)
def test_dots(wire: bytes, message: bytes) -> None:
    script = Script()
    script.send(ENVELOPE + b"DATA\r\n")
    assert codes(script.send(wire)) == [250]
    assert script.messages == [message]
    byte_by_byte = Script()
    byte_by_byte.send(ENVELOPE + b"DATA\r\n")
    for at in range(len(wire)):
        byte_by_byte.send(wire[at : at + 1])
    assert byte_by_byte.messages == [message]


def test_chunks() -> None:
    script = Script()
    assert codes(script.send(ENVELOPE + b"BDAT 4\r\na\r\n\rBDAT 3\r\n\n.xBDAT 0 LAST\r\n")) == [250, 250, 250, 250, 250]
    assert script.messages == [b"a\r\n\r\n.x"]


def test_binarymime_keeps_every_octet() -> None:
    script = Script()
    body = bytes(range(256)) * 8
    script.send(b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\nRCPT TO:<b@mx.test>\r\nBDAT %d LAST\r\n" % len(body) + body)
    assert script.messages == [body]


@pytest.mark.parametrize("line", [b"BDAT", b"BDAT x LAST", b"BDAT -1", b"BDAT 5 FIRST", b"BDAT 99999999999999999999"])
def test_a_chunk_of_unknown_size_closes(line: bytes) -> None:
    script = Script()
    script.send(ENVELOPE)
    assert codes(script.send(line + b"\r\nMAIL FROM:<evil@b.test>\r\n")) == [501]
    assert script.server.closed


def test_a_lying_chunk_swallows_what_it_announced() -> None:
    script = Script()
    script.send(ENVELOPE + b"BDAT 30 LAST\r\nshort\r\n")
    assert script.send(b"RSET\r\nNOOP\r\n") == b""
    assert codes(script.send(b"12345678901QUIT\r\n")) == [250, 221]
    assert script.messages == [b"short\r\nRSET\r\nNOOP\r\n12345678901"]


def test_a_refused_start_of_chunks() -> None:
    script = Script(decide=refuse(DataStart, reply=Reply(452, "4.3.1", ("Full",))))
    assert codes(script.send(ENVELOPE + b"BDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nRSET\r\n")) == [250, 250, 452, 503]
    assert codes(script.send(ENVELOPE + b"BDAT 6 LAST\r\nRSET\r\nNOOP\r\n")) == [250, 250, 452, 250]
    assert codes(script.send(ENVELOPE + b"DATA\r\nNOOP\r\n")) == [250, 250, 452, 250]
    assert script.messages == []


# -- bounds -------------------------------------------------------------------------------


def test_size_is_counted() -> None:
    limits = Limits(size=100)
    for body in (b"DATA\r\n" + b"x" * 98 + b"\r\n.\r\n", b"BDAT 100 LAST\r\n" + b"x" * 100):
        script = Script(limits=limits)
        script.send(ENVELOPE + body)
        assert len(script.messages[0]) == 100
    for body in (b"DATA\r\n" + b"x" * 99 + b"\r\n.\r\n", b"BDAT 101 LAST\r\n" + b"x" * 101):
        script = Script(limits=Limits(size=100, text_line=0))
        assert script.send(ENVELOPE + body + b"NOOP\r\n").endswith(
            b"552 5.3.4 The message is too large\r\n250 2.0.0 Ok\r\n"
        )
        assert script.messages == []
        assert isinstance(script.events[-1], Reset)


def test_far_too_many_octets_close() -> None:
    for start in (b"DATA\r\n", b"BDAT 9223372036854775807 LAST\r\n"):
        script = Script(limits=Limits(size=1000))
        script.send(ENVELOPE + start)
        for _ in range(30):
            script.send((b"x" * 98 + b"\r\n") * 500)
        assert script.server.closed
        assert codes(script.replies)[-1] == 421


def test_lines_of_a_message() -> None:
    for length, code in ((998, 250), (999, 550)):
        script = Script()
        script.send(ENVELOPE + b"DATA\r\n")
        assert codes(script.send(b"." + b"." * length + b"\r\n.\r\n"))[-1] == code


def test_command_lines() -> None:
    script = Script()
    longest = b"NOOP " + b"x" * 505 + b"\r\n"  # RFC 5321 §4.5.3.1.4
    assert len(longest) == 512
    assert codes(script.send(longest)) == [250]
    assert codes(script.send(b"NOOP " + b"x" * 506 + b"\r\n")) == [500]
    for size in (12_288, 12_289, 100_000):
        assert codes(script.send(b"x" * size + b"\r\nNOOP\r\n")) == [500, 250]
    for _ in range(300):
        script.send(b"y" * 1000)
        assert script.server.buffered < 20_000
    assert codes(script.send(b"\r\nNOOP\r\n")) == [500, 250]


def test_paths() -> None:
    local, domain = b"l" * 64, b".".join([b"d" * 61] * 4)  # RFC 5321 §4.5.3.1.1 and .2
    assert codes(Script().send(b"MAIL FROM:<%s@%s>\r\n" % (local, b"d" * 60 + b".test"))) == [250]
    assert codes(Script().send(b"MAIL FROM:<%s@b.test>\r\n" % (local + b"l"))) == [501]
    assert codes(Script().send(b"MAIL FROM:<%s@%s>\r\n" % (local, domain))) == [501]  # path over 256


def test_recipients_are_bounded() -> None:
    script = Script(limits=Limits(recipients=100))
    script.send(b"MAIL FROM:<a@b.test>\r\n")
    assert codes(script.send(b"RCPT TO:<b@mx.test>\r\n" * 102)) == [250] * 100 + [452, 452]
    assert codes(script.send(b"BDAT 2 LAST\r\n\r\n")) == [250]
    rejecting = Script(limits=Limits(refusals=5), decide=refuse(Rcpt))
    rejecting.send(b"MAIL FROM:<a@b.test>\r\n")
    assert codes(rejecting.send(b"RCPT TO:<b@mx.test>\r\n" * 9)) == [550] * 6 + [421]


def test_errors_and_idle_commands_are_bounded() -> None:
    assert codes(Script(limits=Limits(errors=3)).send(b"WHAT\r\n" * 9)) == [500] * 4 + [421]
    assert codes(Script(limits=Limits(idle=4)).send(b"NOOP\r\n" * 9)) == [250] * 3 + [421]
    again = Script(limits=Limits(errors=3))
    for _ in range(4):  # a message accepted forgives
        again.send(b"WHAT\r\n" * 2 + ENVELOPE + b"BDAT 2 LAST\r\n\r\n")
    assert not again.server.closed


def test_transactions_are_bounded_and_announced() -> None:
    script = Script(limits=Limits(transactions=2), greet=False)
    script.send(b"")
    assert b"LIMITS RCPTMAX=1000 MAILMAX=2" in script.send(b"EHLO x.test\r\n")
    assert codes(script.send((ENVELOPE + b"BDAT 2 LAST\r\n\r\n") * 3)) == [250] * 6 + [421]


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="limit"):
        Limits(recipients=0)


# -- extensions ---------------------------------------------------------------------------


def test_extensions_off() -> None:
    bare = Offer(
        "mx.test",
        pipelining=False,
        eight_bit=False,
        smtputf8=False,
        chunking=False,
        enhanced=False,
        dsn=False,
        size=False,
        limits=False,
    )
    script = Script(bare, greet=False)
    script.send(b"")
    assert script.send(b"EHLO x.test\r\n") == b"250 mx.test\r\n"
    for parameter in (b"SIZE=1", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=FULL", b"AUTH=<>"):
        assert codes(script.send(b"MAIL FROM:<a@b.test> %s\r\n" % parameter)) == [555]
    assert script.send(b"MAIL FROM:<a@b.test>\r\n") == b"250 Sender ok\r\n"
    assert codes(script.send(b"RCPT TO:<b@mx.test> NOTIFY=NEVER\r\n")) == [555]
    assert codes(script.send(b"RCPT TO:<b@mx.test>\r\nDATA\r\n")) == [554]
    assert script.server.closed


def test_bdat_without_chunking_closes() -> None:
    script = Script(Offer("mx.test", chunking=False))
    assert codes(script.send(ENVELOPE + b"BDAT 6 LAST\r\nRSET\r\n")) == [250, 250, 502]
    assert script.server.closed


def test_starttls_forgets_and_drops_what_was_injected() -> None:
    script = Script(Offer("mx.test", starttls=True))
    assert codes(script.send(b"MAIL FROM:<a@b.test>\r\nSTARTTLS\r\nRCPT TO:<evil@mx.test>\r\n")) == [250, 220]
    assert script.events[-2:] == [Reset(), StartTls()]
    assert script.send(b"NOOP\r\n") == b""
    script.server.tls_started()
    assert codes(script.send(b"MAIL FROM:<a@b.test>\r\n")) == [503]
    assert b"STARTTLS" not in script.send(b"EHLO x.test\r\n")
    assert codes(script.send(b"STARTTLS\r\n" + ENVELOPE)) == [502, 250, 250]


def test_starttls_may_be_refused() -> None:
    script = Script(Offer("mx.test", starttls=True), decide=refuse(StartTls, reply=Reply(454, "4.7.0", ("Not now",))))
    assert codes(script.send(b"STARTTLS\r\nNOOP\r\n")) == [454, 250]
    assert not script.server.tls


def test_auth_with_challenges() -> None:
    server = Server(Offer("mx.test", auth=("PLAIN", "LOGIN"), auth_in_clear=True))

    def say(data: bytes) -> Event | None:
        server.receive(data)
        return server.next_event()

    server.next_event()
    server.accept()
    assert say(b"EHLO x.test\r\n") == Hello("EHLO", "x.test")
    server.accept()
    assert b"AUTH PLAIN LOGIN\r\n" in server.take()
    assert say(b"AUTH CRAM-MD5\r\n") is None
    assert codes(server.take()) == [504]
    assert say(b"AUTH LOGIN\r\n") == Auth("LOGIN")
    server.challenge(b"Username:")
    assert server.take() == b"334 VXNlcm5hbWU6\r\n"
    assert say(b"dXNlcg==\r\n") == AuthData(b"user")
    server.reject(Reply(535, "5.7.8", ("No",)))
    assert say(b"AUTH PLAIN =\r\n") == Auth("PLAIN", b"")
    server.challenge(b"")
    assert say(b"*\r\n") == AuthData(None)
    assert not server.waiting
    assert say(b"AUTH PLAIN AHgAeQ==\r\n") == Auth("PLAIN", b"\0x\0y")
    server.accept()
    assert say(b"AUTH PLAIN AHgAeQ==\r\n") is None
    assert codes(server.take()) == [535, 334, 501, 235, 503]
    assert server.authenticated


@pytest.mark.parametrize("line", [b"not base64\r\n", b"x" * 13_000 + b"\r\n"])
def test_a_bad_response_ends_the_exchange(line: bytes) -> None:
    server = Server(Offer("mx.test", auth=("PLAIN",), auth_in_clear=True))
    server.next_event()
    server.accept()
    server.receive(b"EHLO x.test\r\nAUTH PLAIN\r\n")
    server.next_event()
    server.accept()
    server.next_event()
    server.challenge(b"")
    server.take()
    server.receive(line + b"NOOP\r\n")
    assert server.next_event() == AuthData(None)
    assert server.next_event() is None
    assert codes(server.take())[1:] == [250]


def test_auth_only_under_tls() -> None:
    script = Script(Offer("mx.test", auth=("PLAIN",), starttls=True))
    assert codes(script.send(b"AUTH PLAIN AHgAeQ==\r\nSTARTTLS\r\n")) == [502, 220]
    script.server.tls_started()
    assert b"AUTH PLAIN" in script.send(b"EHLO x.test\r\n")


def test_lmtp_answers_each_recipient() -> None:
    script = Script(Offer("mx.test", lmtp=True))
    assert codes(script.send(b"EHLO x.test\r\n")) == [500]
    assert codes(script.send(ENVELOPE + b"RCPT TO:<c@mx.test>\r\nDATA\r\n")) == [250, 250, 250, 354]
    assert codes(script.send(b"x\r\n.\r\n")) == [250, 250]
    assert codes(script.send(ENVELOPE + b"RCPT TO:<c@mx.test>\r\nDATA\r\nx\n\r\n.\r\n"))[-2:] == [550, 550]


def test_lmtp_answers_differ() -> None:
    server = Server(Offer("mx.test", lmtp=True))
    server.receive(b"LHLO x.test\r\n" + ENVELOPE + b"RCPT TO:<c@mx.test>\r\nBDAT 2 LAST\r\n\r\n")
    while (event := server.next_event()) is not None:
        if isinstance(event, DataEnd):
            server.answer_each([Reply(250), Reply(452, "4.2.2", ("Full",))])
        elif server.waiting:
            server.accept()
    assert server.take().endswith(b"250 \r\n452 4.2.2 Full\r\n")


def test_replies_carry_utf8_only_when_asked() -> None:
    decide = refuse(Rcpt, reply=Reply(550, "5.1.1", ("Pas là",)))
    assert "Pas là".encode() in Script(decide=decide).send(b"MAIL FROM:<a@b.test> SMTPUTF8\r\nRCPT TO:<b@b.test>\r\n")
    assert Script(decide=decide).send(ENVELOPE).isascii()
