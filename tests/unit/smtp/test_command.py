from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.smtp.command import (
    MAX_COMMAND,
    MAX_ENVELOPE_COMMAND,
    Auth,
    BadCommand,
    Bdat,
    Body,
    Hello,
    Mail,
    Notify,
    OriginalRecipient,
    Rcpt,
    Ret,
    Verb,
    parse,
)
from posthouse.smtp.path import from_points, from_xtext, is_mailbox, to_points, to_xtext


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"EHLO mail.example", Hello("EHLO", "mail.example")),
        (b"helo [127.0.0.1]", Hello("HELO", "[127.0.0.1]")),
        (b"LHLO [IPv6:::1]", Hello("LHLO", "[IPv6:::1]")),
        (b"MAIL FROM:<>", Mail("")),
        (b"mail from:<a@b.example>", Mail("a@b.example")),
        (b"MAIL FROM: <a@b.example>  SIZE=10 ", Mail("a@b.example", size=10)),
        (b"MAIL FROM:<a@b.example> body=8bitmime", Mail("a@b.example", body=Body.EIGHT)),
        ("MAIL FROM:<é@b.example> SMTPUTF8".encode(), Mail("é@b.example", smtputf8=True)),
        (b"MAIL FROM:<a@b> RET=HDRS ENVID=QQ+2B1 AUTH=<>", Mail("a@b", ret=Ret.HEADERS, envid="QQ+1", auth="<>")),
        (b"MAIL FROM:<@one,@two:a@b.example>", Mail("a@b.example")),
        (b'RCPT TO:<"a> b\\""@b.example>', Rcpt('"a> b\\""@b.example')),
        (b"RCPT TO:<Postmaster>", Rcpt("Postmaster")),
        (b"RCPT TO:<a@[IPv6:2001:db8::1]>", Rcpt("a@[IPv6:2001:db8::1]")),
        (b"RCPT TO:<a..b@x.example>", Rcpt("a..b@x.example")),
        (
            b"RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bx@c.example",
            Rcpt("a@b.example", (Notify.SUCCESS, Notify.DELAY), OriginalRecipient("rfc822", "a+x@c.example")),
        ),
        (b"RCPT TO:<a@b> ORCPT=utf-8;\\x{E9}@c", Rcpt("a@b", (), OriginalRecipient("utf-8", "é@c"))),
        (b"DATA", Verb("DATA")),
        (b"data ", Verb("DATA")),
        (b"NOOP hello", Verb("NOOP", "hello")),
        (b"VRFY x", Verb("VRFY", "x")),
        (b"BDAT 0 LAST", Bdat(0, True)),
        (b"bdat 12", Bdat(12, False)),
        (b"AUTH plain AGEAYg==", Auth("PLAIN", b"\0a\0b")),
        (b"AUTH LOGIN", Auth("LOGIN")),
        (b"AUTH EXTERNAL =", Auth("EXTERNAL", b"")),
    ],
)
def test_reads(line: bytes, command: object) -> None:
    assert parse(line, utf8=False) == command


@pytest.mark.parametrize(
    ("line", "start"),
    [
        (b"", b"500 5.5.1"),
        (b"FOO", b"500 5.5.1"),
        (b"DATA\r", b"500 5.5.2"),
        (b"DATA\nQUIT", b"500 5.5.2"),
        (b"NOOP \x00", b"500 5.5.2"),
        (b"NOOP \x07", b"501 5.5.4"),
        (b"NOOP \xff", b"501 5.5.2"),
        (b"DATA x", b"501 5.5.4"),
        (b"EHLO", b"501 5.5.4"),
        (b"EHLO a b", b"501 5.5.4"),
        (b"NOOP " + b"x" * MAX_COMMAND, b"500 5.5.2"),
        (b"MAIL FROM:<a@b> ENVID=" + b"x" * MAX_ENVELOPE_COMMAND, b"500 5.5.2"),
        (b"MAIL", b"501 5.5.4"),
        (b"MAIL FROM:a@b", b"501 5.5.4"),
        (b"MAIL FROM:<a@b", b"501 5.5.4"),
        (b"MAIL FROM:<a@b>x", b"501 5.5.4"),
        (b'MAIL FROM:<"a@b>', b"501 5.5.4"),
        (b"MAIL FROM:<a b@c>", b"501 5.1.7"),
        (b"MAIL FROM:<a>", b"501 5.1.7"),
        (b"MAIL FROM:<" + b"a" * 65 + b"@b>", b"501 5.1.7"),
        (b"MAIL FROM:<a@" + b"b" * 250 + b".example>", b"501 5.1.7"),
        (b"MAIL FROM:<a@b..c>", b"501 5.1.7"),
        (b"MAIL FROM:<a@-b>", b"501 5.1.7"),
        ("MAIL FROM:<é@b>".encode(), b"553 5.6.7"),
        ("MAIL FROM:<é@b\u2028> SMTPUTF8".encode(), b"501 5.1.7"),
        (b"MAIL FROM:<a@b> SIZE=x", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=1 SIZE=1", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=" + b"1" * 21, b"501 5.5.4"),
        (b"MAIL FROM:<a@b> BODY=9BIT", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> SMTPUTF8=1", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> RET=ALL", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> ENVID=a+0Ab", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> ENVID=+C3", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> AUTH=a", b"501 5.5.4"),
        (b"MAIL FROM:<a@b> FOO=1", b"555 5.5.4"),
        (b"MAIL FROM:<a@b> =1", b"501 5.5.4"),
        (b"RCPT TO:<>", b"501 5.1.3"),
        ("RCPT TO:<é@b>".encode(), b"553 5.6.7"),
        (b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", b"501 5.5.4"),
        (b"RCPT TO:<a@b> NOTIFY=", b"501 5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=rfc822", b"501 5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=rfc822;a+0Ab", b"501 5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=utf-8;\\x{D800}", b"501 5.5.4"),
        (b"RCPT TO:<a@b> ORCPT=utf-8;\\x{110000}", b"501 5.5.4"),
        (b"RCPT TO:<a@b> SIZE=1", b"555 5.5.4"),
        (b"BDAT", b"501 5.5.4"),
        (b"BDAT -1", b"501 5.5.4"),
        (b"BDAT 1 FIRST", b"501 5.5.4"),
        (b"BDAT " + b"9" * 20, b"501 5.5.4"),
        (b"AUTH", b"501 5.5.4"),
        (b"AUTH PLAIN !", b"501 5.5.2"),
    ],
)
def test_refuses(line: bytes, start: bytes) -> None:
    with pytest.raises(BadCommand) as caught:
        parse(line)
    assert caught.value.reply.encode().startswith(start)


def test_utf8_is_allowed_in_an_smtputf8_transaction() -> None:
    assert parse("RCPT TO:<é@bücher.example>".encode(), utf8=True) == Rcpt("é@bücher.example")


hostile = st.one_of(
    st.text(max_size=30), st.sampled_from(["a@b.example", "a@b>\r\nRCPT TO:<c@d", "a@b> SIZE=1", '"a"@b', "a@b\n"])
)


@given(hostile, hostile)
def test_nothing_can_be_injected(address: str, envid: str) -> None:
    """Whatever the values are, a line is refused or reads back as exactly those values."""
    mail = Mail(address, size=5, body=Body.EIGHT, smtputf8=True, envid=envid)
    try:
        line = mail.encode()
    except Invalid:
        pass
    else:
        assert parse(line[:-2]) == mail
    rcpt = Rcpt(address, (Notify.NEVER,), OriginalRecipient("utf-8", envid))
    try:
        line = rcpt.encode(utf8=True)
    except Invalid:
        return
    assert b"\r" not in line[:-2]
    assert b"\n" not in line[:-2]
    assert line.count(b">") == address.count(">") + 1 + envid.count(">")


@pytest.mark.parametrize(
    "command",
    [
        Mail("a\r\nb@c"),
        Mail("é@c"),
        Mail("a@b", envid=""),
        Mail("a@b", envid="x" * 101),
        Mail("a@b", envid="é"),
        Rcpt(""),
        Rcpt("postmaster"),
        Rcpt("a@b", (Notify.NEVER, Notify.DELAY)),
        Rcpt("a@b", (), OriginalRecipient("x y", "z")),
        Rcpt("a@b", (), OriginalRecipient("rfc822", "z" * 500)),
        Hello("EHLO", "a b"),
        Hello("EHLO", "a\r\nMAIL"),
        Verb("NOOP", "\r\nQUIT"),
        Mail("\ud800@b", smtputf8=True),
    ],
)
def test_refuses_to_write(command: Mail) -> None:
    with pytest.raises(Invalid):
        command.encode()


@pytest.mark.parametrize(
    "command", [Bdat(5, True), Bdat(0, False), Auth("PLAIN", b"\0a\0b"), Auth("X", b""), Auth("X")]
)
def test_reads_back(command: Bdat | Auth) -> None:
    wire = command.encode()
    assert wire.endswith(b"\r\n")
    assert parse(wire[:-2]) == command


@given(st.binary(max_size=80))
def test_garbage_is_a_command_or_refused(line: bytes) -> None:
    for verb in (b"", b"MAIL FROM:<", b"RCPT TO:<a@b> ORCPT=", b"AUTH ", b"BDAT "):
        try:
            parse(verb + line, utf8=True)
        except BadCommand as refusal:
            assert refusal.reply.permanent


@given(st.text(max_size=60))
def test_xtext(text: str) -> None:
    assert from_xtext(to_xtext(text)) == text
    assert to_xtext(text).isascii()
    assert from_points(to_points(text)) == text


def test_mailboxes() -> None:
    assert is_mailbox("a@b")
    assert is_mailbox("用户@例子.广告")
    assert not is_mailbox("a" * 60 + "@" + "b" * 200)
    assert not is_mailbox("é" * 33 + "@b")
    for wrong in ("", "@", "a@", "@b", "a@b@c", "a@.b", "a b@c", "a@b c", "<a@b>", "a@[::1", "a\t@b"):
        assert not is_mailbox(wrong)


@given(
    st.sampled_from(["MAIL FROM:", "mail from:", "Mail From:", "RCPT TO:", "rcpt to:", "MAIL FROM: "]),
    st.text('ab.-_+=@<> é"\\%', max_size=12),
    st.text("ab.-_1", max_size=12),
    st.sampled_from(
        ["", " ", " SIZE=5", " size=5 body=8bitmime", " BODY=7BIT", " SIZE=", " SIZE=5x", " BODY=X", " X=1"]
    ),
)
def test_the_short_way_reads_what_the_long_way_reads(verb: str, local: str, domain: str, rest: str) -> None:
    line = f"{verb}<{local}@{domain}>{rest}".encode()

    def read() -> object:
        try:
            return parse(line)
        except BadCommand as bad:
            return bad.reply

    short = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posthouse.smtp.command._ordinary", lambda _line: None)
        assert read() == short
