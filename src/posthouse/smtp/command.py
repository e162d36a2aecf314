"""SMTP command lines, read and written. What is written can be read back as the same command.

`parse` takes one line without its CR LF; the caller splits at CR LF and at nothing else, so
a CR, LF or NUL that is still inside is refused. `encode` refuses whatever would not be one
clean line, so no caller's value can add a command or a parameter.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

import msgspec

from posthouse.errors import Invalid
from posthouse.smtp.parameter import (
    CONTROL,
    MAIL_VALUES,
    Body,
    Notify,
    OriginalRecipient,
    Ret,
    encode_envid,
    encode_orcpt,
    parse_notify,
    parse_orcpt,
)
from posthouse.smtp.path import MAX_PATH, is_mailbox, split_path, to_xtext
from posthouse.smtp.reply import Reply

MAX_COMMAND = 512  # RFC 5321 §4.5.3.1.4, with CR LF
MAX_ENVELOPE_COMMAND = 2048
"""MAIL and RCPT: 512 and what SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531 §3.4),
DSN (RFC 3461 §3) and AUTH (RFC 4954 §5) add together, rounded up."""
MAX_AUTH = 12_288  # RFC 4954 §4
MAX_CHUNK = 2**63 - 1


class BadCommand(Invalid):
    """A line that cannot be obeyed; `reply` is the answer to it."""

    code = "bad_command"
    title = "The SMTP command is not valid"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class _Command(msgspec.Struct, frozen=True, gc=False):
    pass


class Hello(_Command, frozen=True):
    """EHLO, HELO or LHLO, by `verb`."""

    verb: str
    domain: str

    def encode(self) -> bytes:
        if not _HELLO.fullmatch(self.domain):
            raise Invalid("The name for EHLO is not a domain or an address literal", detail=repr(self.domain[:300]))
        return f"{self.verb} {self.domain}\r\n".encode()


class Mail(_Command, frozen=True):
    """`reverse_path` is empty for the null path; `size` in octets; `auth` is `<>` or an address."""

    reverse_path: str
    size: int | None = None
    body: Body | None = None
    smtputf8: bool = False
    ret: Ret | None = None
    envid: str | None = None
    auth: str | None = None

    def encode(self) -> bytes:
        """:raises Invalid: a value that may not be sent."""
        parts = [_path("MAIL FROM:", self.reverse_path, self.smtputf8, null=True)]
        if self.size is not None:
            parts.append(f"SIZE={self.size}")
        if self.body is not None:
            parts.append(f"BODY={self.body.value}")
        if self.smtputf8:
            parts.append("SMTPUTF8")
        if self.ret is not None:
            parts.append(f"RET={self.ret.value}")
        if self.envid is not None:
            parts.append(f"ENVID={encode_envid(self.envid)}")
        if self.auth is not None:
            parts.append(f"AUTH={to_xtext(self.auth)}")
        return _line(parts)


class Rcpt(_Command, frozen=True):
    forward_path: str
    notify: tuple[Notify, ...] = ()
    orcpt: OriginalRecipient | None = None

    def encode(self, *, utf8: bool = False) -> bytes:
        """:param utf8: the transaction has SMTPUTF8. :raises Invalid: a value that may not be sent."""
        parts = [_path("RCPT TO:", self.forward_path, utf8)]
        if self.notify:
            if Notify.NEVER in self.notify and len(self.notify) > 1:
                raise Invalid("NOTIFY=NEVER stands alone")
            parts.append("NOTIFY=" + ",".join(self.notify))
        if self.orcpt is not None:
            parts.append(f"ORCPT={encode_orcpt(self.orcpt)}")
        return _line(parts)


class Bdat(_Command, frozen=True):
    """RFC 3030 §2: `size` octets follow the line at once."""

    size: int
    last: bool

    def encode(self) -> bytes:
        return b"BDAT %d LAST\r\n" % self.size if self.last else b"BDAT %d\r\n" % self.size


class Auth(_Command, frozen=True):
    """RFC 4954 §4: `initial` is the decoded initial response; None when there is none."""

    mechanism: str
    initial: bytes | None = None

    def encode(self) -> bytes:
        if self.initial is None:
            return f"AUTH {self.mechanism}\r\n".encode()
        return b"AUTH %s %s\r\n" % (self.mechanism.encode(), base64.b64encode(self.initial) or b"=")


class Verb(_Command, frozen=True):
    """DATA, RSET, NOOP, QUIT, STARTTLS, VRFY, EXPN or HELP."""

    name: str
    argument: str = ""

    def encode(self) -> bytes:
        if CONTROL.search(self.argument) or not self.argument.isascii():
            raise Invalid("The argument is not printable ASCII")
        return _line([self.name, self.argument] if self.argument else [self.name])


Command = Hello | Mail | Rcpt | Bdat | Auth | Verb

_BARE = {b"DATA": Verb("DATA"), b"RSET": Verb("RSET"), b"QUIT": Verb("QUIT"), b"STARTTLS": Verb("STARTTLS")}
_HELLO = re.compile(r"[A-Za-z0-9\[_](?:[A-Za-z0-9._:\]-]{0,254})")
_FROM = re.compile(r"FROM: ?", re.IGNORECASE)  # the space is wrong and common
_TO = re.compile(r"TO: ?", re.IGNORECASE)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,63})(?:=([^\s=\x00-\x1f\x7f]+))?")
_SIZE = re.compile(r"[0-9]{1,20}")
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")
_PLAIN = re.compile(
    rb"(?i:(MAIL FROM)|RCPT TO):"
    rb"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}@([A-Za-z0-9](?:[A-Za-z0-9._-]{0,180}[A-Za-z0-9])?))>"
    rb"(?i: SIZE=([0-9]{1,20}))?(?i: BODY=(8BITMIME|7BIT))?"
)
_UNCLEAN = re.compile(rb"[\r\n\x00]")


def _line(parts: list[str]) -> bytes:
    return " ".join(parts).encode() + b"\r\n"


def _path(prefix: str, address: str, utf8: bool, *, null: bool = False) -> str:
    if (not address and null) or is_mailbox(address):
        if utf8 or address.isascii():
            return f"{prefix}<{address}>"
        raise Invalid("The address needs SMTPUTF8", code="smtputf8_needed", detail=repr(address[:MAX_PATH]))
    raise Invalid("The address cannot be sent by SMTP", code="bad_address", detail=repr(address[:MAX_PATH]))


def parse(line: bytes, *, utf8: bool = False) -> Command:
    """:param line: without CR LF.
    :param utf8: the transaction has SMTPUTF8, so RCPT may carry UTF-8 (MAIL says it itself).
    :raises BadCommand: with the reply to give.
    """
    bare = _BARE.get(line) or _ordinary(line)
    if bare is not None:
        return bare
    if _UNCLEAN.search(line):
        raise _bad(500, "5.5.2", "Lines end in CR LF, with no CR, LF or NUL before it")
    verb, _, rest = line.partition(b" ")
    name = verb.upper().decode("ascii", "replace")
    if len(line) + 2 > _LONGEST.get(name, MAX_COMMAND):
        raise _bad(500, "5.5.2", "Line too long")
    try:
        argument = rest.decode("utf-8").rstrip(" ")
    except UnicodeDecodeError:
        raise _bad(501, "5.5.2", "The line is not UTF-8") from None
    if name == "RCPT":
        return _rcpt(argument, utf8)
    return _PARSERS.get(name, _verb)(name, argument)


def _ordinary(line: bytes) -> Mail | Rcpt | None:
    """What nearly every line is, in one look; the rest of the module reads it alike, at twice the cost."""
    found = _PLAIN.fullmatch(line)
    if found is None or b".." in found[3]:
        return None
    address = found[2].decode()
    if found[1] is None:
        return Rcpt(address) if found[4] is None and found[5] is None else None
    body = found[5]
    size = found[4]
    return Mail(address, None if size is None else int(size), None if body is None else Body(body.decode().upper()))


_LONGEST = {"MAIL": MAX_ENVELOPE_COMMAND, "RCPT": MAX_ENVELOPE_COMMAND, "AUTH": MAX_AUTH}


def _bad(code: int, enhanced: str, text: str) -> BadCommand:
    return BadCommand(Reply(code, enhanced, (text,)))


def _hello(name: str, argument: str) -> Hello:
    if not _HELLO.fullmatch(argument):
        raise _bad(501, "5.5.4", f"{name} needs a domain or an address literal")
    return Hello(name, argument)


def _verb(name: str, argument: str) -> Verb:
    if name in {"DATA", "RSET", "QUIT", "STARTTLS"}:
        if argument:
            raise _bad(501, "5.5.4", f"{name} takes no argument")
        return Verb(name)
    if name in {"NOOP", "VRFY", "EXPN", "HELP"}:
        if CONTROL.search(argument):
            raise _bad(501, "5.5.4", "No control characters, please")
        return Verb(name, argument)
    raise _bad(500, "5.5.1", "Command not recognized")


def _bdat(_: str, argument: str) -> Bdat:
    size, _, last = argument.partition(" ")
    if not _SIZE.fullmatch(size) or int(size) > MAX_CHUNK or last.upper() not in {"", "LAST"}:
        raise _bad(501, "5.5.4", "BDAT size [LAST]")
    return Bdat(int(size), bool(last))


def _auth(_: str, argument: str) -> Auth:
    mechanism, _, initial = argument.partition(" ")
    if not _MECHANISM.fullmatch(mechanism):
        raise _bad(501, "5.5.4", "AUTH mechanism [initial-response]")
    if not initial:
        return Auth(mechanism.upper())
    if initial == "=":
        return Auth(mechanism.upper(), b"")
    try:
        return Auth(mechanism.upper(), base64.b64decode(initial, validate=True))
    except (binascii.Error, ValueError):
        raise _bad(501, "5.5.2", "The initial response is not base64") from None


def _mailbox(argument: str, keyword: re.Pattern[str], form: str) -> tuple[str, dict[str, str]]:
    start = keyword.match(argument)
    if start is None:
        raise _bad(501, "5.5.4", form)
    try:
        address, rest = split_path(argument[start.end() :])
    except ValueError:
        raise _bad(501, "5.5.4", form) from None
    parameters: dict[str, str] = {}
    for word in filter(None, rest.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None or match[1].upper() in parameters:
            raise _bad(501, "5.5.4", "A parameter is malformed or there twice")
        parameters[match[1].upper()] = match[2] or ""
    return address, parameters


def _mail(_: str, argument: str) -> Mail:
    address, parameters = _mailbox(argument, _FROM, "MAIL FROM:<address> [parameters]")
    if address and not is_mailbox(address):
        raise _bad(501, "5.1.7", "The sender's address is malformed")
    smtputf8 = "SMTPUTF8" in parameters
    if not smtputf8 and not argument.isascii():
        raise _bad(553, "5.6.7", "That address needs SMTPUTF8")  # RFC 6531 §3.5
    values: dict[str, object] = {}
    for key, value in parameters.items():
        if key not in MAIL_VALUES:
            raise _bad(555, "5.5.4", f"{key} is not a parameter of MAIL here")
        values[key.lower()] = _value(key, value)
    return msgspec.structs.replace(Mail(address), **values) if values else Mail(address)


def _rcpt(argument: str, utf8: bool) -> Rcpt:
    address, parameters = _mailbox(argument, _TO, "RCPT TO:<address> [parameters]")
    if not is_mailbox(address) and address.lower() != "postmaster":  # RFC 5321 §4.1.1.3
        raise _bad(501, "5.1.3", "The recipient's address is malformed")
    if not utf8 and not argument.isascii():
        raise _bad(553, "5.6.7", "That address needs SMTPUTF8")
    unknown = parameters.keys() - {"NOTIFY", "ORCPT"}
    if unknown:
        raise _bad(555, "5.5.4", f"{min(unknown)} is not a parameter of RCPT here")
    try:
        notify = parse_notify(parameters["NOTIFY"]) if "NOTIFY" in parameters else ()
        orcpt = parse_orcpt(parameters["ORCPT"]) if "ORCPT" in parameters else None
    except ValueError:
        raise _bad(501, "5.5.4", "NOTIFY or ORCPT is malformed") from None
    return Rcpt(address, notify, orcpt)


def _value(key: str, value: str) -> object:
    try:
        return MAIL_VALUES[key](value)
    except ValueError:
        raise _bad(501, "5.5.4", f"{key} is malformed") from None


_PARSERS: dict[str, Callable[[str, str], Command]] = {
    "MAIL": _mail,
    "BDAT": _bdat,
    "AUTH": _auth,
    "EHLO": _hello,
    "HELO": _hello,
    "LHLO": _hello,
}
