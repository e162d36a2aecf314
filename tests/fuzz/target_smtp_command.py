"""SMTP's commands, paths and parameters: what is read is written and read again the same."""

from __future__ import annotations

from posthouse.errors import Invalid
from posthouse.smtp.command import (
    MAX_AUTH,
    MAX_CHUNK,
    MAX_ENVELOPE_COMMAND,
    Auth,
    BadCommand,
    Bdat,
    Command,
    Hello,
    Mail,
    Rcpt,
    Verb,
    parse,
)
from posthouse.smtp.path import (
    MAX_PATH,
    from_points,
    from_xtext,
    is_mailbox,
    split_path,
    to_points,
    to_xtext,
)
from posthouse.smtp.reply import MAX_LINE, ReplyParser

CORPUS: tuple[bytes, ...] = (
    b"",
    b"EHLO client.example",
    b"HELO [192.0.2.1]",
    b"LHLO [IPv6:2001:db8::1]",
    b"MAIL FROM:<ann@example.com>",
    b"MAIL FROM:<ann@example.com> SIZE=1000 BODY=8BITMIME",
    b"mail from: <> SIZE=00000000000000000012 RET=HDRS ENVID=QQ+2B314 AUTH=<>",
    b'MAIL FROM:<"a \\" > b"@example.com> BODY=BINARYMIME AUTH=ann+40example.com SMTPUTF8',
    "MAIL FROM:<dö@bücher.example> SMTPUTF8 RET=FULL".encode(),
    b"RCPT TO:<bob@example.org>",
    b"RCPT TO:<@relay.example,@other.example:bob@[192.0.2.7]> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+40example.org",
    "RCPT TO:<büb@example.org> NOTIFY=NEVER ORCPT=utf-8;b\\x{FC}b@bücher.example".encode(),
    b"RCPT TO:<Postmaster>",
    b"BDAT 1000000 LAST",
    b"BDAT 0",
    b"AUTH PLAIN AGFubgBzZWNyZXQ=",
    b"AUTH LOGIN =",
    b"auth cram-md5",
    b"DATA",
    b"RSET",
    b"NOOP anything at all",
    b"VRFY ann",
    b"EXPN list",
    b"HELP",
    b"QUIT",
    b"STARTTLS",
)


def check(data: bytes) -> None:
    """One line as a command, with and without SMTPUTF8, then its text as path and xtext."""
    for utf8 in (False, True):
        _check_line(data, utf8)
    _check_text(data.decode("utf-8", "replace"))


def _check_line(line: bytes, utf8: bool) -> None:
    command = _read(line, utf8)
    if command is None:
        return
    assert _LONGEST.get(type(command), 1000) >= len(line)
    if not line.endswith(b" ") and len(line) + 3 <= 512:
        assert _read(line + b" ", utf8) == command  # the short way and the long one read alike
    match command:
        case Mail() | Rcpt():
            _check_envelope(command, utf8)
        case Bdat():
            assert 0 <= command.size <= MAX_CHUNK
            assert _read(command.encode()[:-2], utf8) == command
        case Verb():
            assert command.argument.isascii() is False or _read(command.encode()[:-2], utf8) == command
        case Hello() | Auth():
            assert _read(command.encode()[:-2], utf8) == command


_LONGEST: dict[type[Command], int] = {Mail: MAX_ENVELOPE_COMMAND, Rcpt: MAX_ENVELOPE_COMMAND, Auth: MAX_AUTH}


def _check_envelope(command: Mail | Rcpt, utf8: bool) -> None:
    address = command.reverse_path if isinstance(command, Mail) else command.forward_path
    if not address or address.lower() == "postmaster":
        assert isinstance(command, Rcpt) == bool(address)
        return
    assert is_mailbox(address)
    try:
        wire = command.encode() if isinstance(command, Mail) else command.encode(utf8=utf8)
    except Invalid:
        # UTF-8 that came as it is may be too long when it is escaped.
        assert isinstance(command, Rcpt)
        assert command.orcpt is not None
        assert len(to_points(command.orcpt.address)) > 450
        return
    assert wire.endswith(b"\r\n")
    assert not set(wire[:-2]) & set(b"\r\n\0")
    assert _read(wire[:-2], utf8) == command


def _read(line: bytes, utf8: bool) -> Command | None:
    """None when it is refused, with a reply that can be sent."""
    try:
        return parse(line, utf8=utf8)
    except BadCommand as bad:
        parser = ReplyParser()
        parser.feed(bad.reply.encode())
        said = parser.next()
        assert said is not None
        assert said.permanent
        assert not parser.pending
        assert len(bad.reply.encode()) <= MAX_LINE
        return None


def _check_text(text: str) -> None:
    if is_mailbox(text):
        assert len(text.encode()) <= MAX_PATH - 2
        assert split_path(f"<{text}> x") == (text, " x")
        assert not any(ord(c) < 32 or ord(c) == 127 for c in text)
    try:
        path, rest = split_path(text)
    except ValueError:
        pass
    else:
        assert text.startswith("<")
        assert text.endswith(path + ">" + rest)
    assert from_xtext(to_xtext(text)) == text
    assert from_points(to_points(text)) == text
    for decode, encode in ((from_xtext, to_xtext), (from_points, to_points)):
        try:
            decoded = decode(text)
        except ValueError:
            continue
        assert decode(encode(decoded)) == decoded
