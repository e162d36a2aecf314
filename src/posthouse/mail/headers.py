"""Header fields as bytes: checked, encoded, folded, each ending in CRLF.

Lines are folded at 78 octets where there is a place to fold (RFC 5322 §2.1.1) and never pass
998. Values with other characters than printable ASCII become encoded words (RFC 2047, UTF-8,
Q or B by length), parameters follow RFC 2231. A value with CR, LF or another control character
is refused, so that nothing a caller hands in can begin a field of its own. Refusals are
`errors.Invalid` with the code `invalid_header`.

Fields a caller may not set: those with a place of their own (From, To, Cc, Bcc, Reply-To,
Subject), those that the builder owns (Date, Message-ID, MIME-Version, Content-*), trace and
authentication (Received, Return-Path, DKIM-Signature, ARC-*, …), Sender, since the envelope and
DMARC go by From, and Resent-*. Threading (In-Reply-To, References), List-*, Auto-Submitted,
priorities and X-* are the caller's.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote as percent_encode

from posthouse.errors import Invalid
from posthouse.mail.address import Mailbox, quote

FOLD_AT = 78  # octets, RFC 5322 §2.1.1
MAX_LINE = 998  # octets, RFC 5322 §2.1.1
MAX_NAME = 64  # characters of a field's name
MAX_VALUE = 16_384  # characters of a field's value
MAX_EXTRA = 64  # fields of the caller's own
MAX_MAILBOXES = 1000  # of one field
MAX_PARAMETER = 255  # characters

_RESERVED = re.compile(
    "from|sender|reply-to|to|cc|bcc|subject|date|message-id|mime-version|content-.*|resent-.*|return-path|received"
    "|delivered-to|envelope-to|apparently-to|x-original-to|x-envelope-.*|received-spf|authentication-results"
    "|dkim-signature|domainkey-signature|x-google-dkim-signature|arc-.*"
)
# Their grammar has no place for encoded words, and they stand once.
_STRUCTURED = re.compile(
    "in-reply-to|references|list-.*|auto-submitted|precedence|importance|priority|x-priority|feedback-id"
    "|disposition-notification-to|return-receipt-to|require-recipient-valid-since|tls-required"
)
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LINE_BREAKS = re.compile("[\t-\r\x1c-\x1e\x85\u2028\u2029 ]+")
_TOKEN = re.compile(r" *[^ ]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_WORD = 75  # octets of an encoded word, RFC 2047 §2
_FRAME = len("=?utf-8?q??=")
# What Q leaves as it is, in every place that an encoded word may stand (RFC 2047 §5 (3)).
_Q_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q = ["_" if b == 32 else chr(b) if b in _Q_SAFE else f"={b:02X}" for b in range(256)]


def unstructured(name: str, value: str) -> bytes:
    """A field of free text. What a reader decodes is `value` to the character.

    :param name: trusted: one of ours or checked by `custom`.
    :raises Invalid: a control character, a lone surrogate, or over `MAX_VALUE`.
    """
    if value.isascii() and value.isprintable() and "=?" not in value and value.strip(" ") == value:
        if len(name) + 2 + len(value) <= FOLD_AT:
            return f"{name}: {value}\r\n".encode()
        _refuse_long(name, value)
        folded = _folded(name, value)
        if folded is not None:
            return folded
    _refuse_long(name, value)
    _refuse_control(name, value)
    first = FOLD_AT - 2 - len(name) - 2
    if first < _FRAME + 12:  # no room for one character: start on a line of its own
        return "\r\n ".join([f"{name}:", *_encoded_words(value, _WORD)]).encode() + b"\r\n"
    return f"{name}: ".encode() + "\r\n ".join(_encoded_words(value, first)).encode() + b"\r\n"


def custom(name: str, value: str) -> bytes:
    """A field that the caller chose.

    :raises Invalid: the name is not one or is reserved, the value could not be kept whole.
    """
    if not _is_structured(name):
        return unstructured(name, value)
    value = value.strip(" ")
    _refuse_long(name, value)
    if not (value.isascii() and value.isprintable()):
        raise _wrong(f"The header {name} may hold printable ASCII only.")
    if len(name) + 2 + len(value) <= FOLD_AT:
        return f"{name}: {value}\r\n".encode()
    folded = _folded(name, value)
    if folded is None:
        raise _wrong(f"The header {name} has a part that is too long for a line of 998 octets.")
    return folded


def customs(extra: Sequence[tuple[str, str]], beside: Sequence[str] = ()) -> bytes:
    """All fields of the caller's own, in their order; see `custom`.

    :param beside: names of the fields that the message has already.
    :raises Invalid: also for more than `MAX_EXTRA`, or a field twice that may stand once.
    """
    _check_together((*beside, *[name for name, _ in extra]))
    return b"".join([custom(name, value) for name, value in extra])


def addresses(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """An address list, one mailbox after the other. UTF-8 local parts stay as they are (RFC 6532).

    :raises Invalid: a mailbox that did not come from `parse_mailbox` and holds control characters,
        or more than `MAX_MAILBOXES`.
    """
    if len(mailboxes) == 1 and not mailboxes[0].name:
        return f"{name}: {_printable(mailboxes[0].address)}\r\n".encode()
    if len(mailboxes) > MAX_MAILBOXES:
        raise _wrong(f"The header {name} has more than {MAX_MAILBOXES} addresses.")
    line = f"{name}:"
    lines: list[str] = []
    last = len(mailboxes) - 1
    for index, mailbox in enumerate(mailboxes):
        words = _mailbox_words(mailbox)
        if index < last:
            words[-1] += ","
        for word in words:
            if len(line) + 1 + len(word) > FOLD_AT and not (line.endswith(":") and not lines):
                lines.append(line)
                line = ""
            line = f"{line} {word}"
    return ("\r\n".join([*lines, line]) + "\r\n").encode()


def parameter(name: str, value: str) -> str:
    """`;` and the parameter on a line of its own: quoted where that is enough for every reader,
    else by RFC 2231, in segments when long.

    :raises Invalid: a control character, or more than `MAX_PARAMETER` characters.
    """
    if len(value) > MAX_PARAMETER:
        raise _wrong(f"A {name} is longer than {MAX_PARAMETER} characters.")
    _refuse_control(name, value)
    plain = value.isascii() and value.strip(" ") == value != ""
    if plain and len(value) <= 60 and "=?" not in value and not any(c in value for c in '"\\%'):
        return f';\r\n {name}="{value}"'
    encoded = percent_encode(value, safe="!#$&+^`{|}")
    if len(encoded) <= 60:
        return f";\r\n {name}*=utf-8''{encoded}"
    # Never inside a character: some readers decode each segment by itself.
    segments = _split([percent_encode(c, safe="!#$&+^`{|}") for c in value], 54)
    segments[0] = "utf-8''" + segments[0]
    return "".join(f";\r\n {name}*{i}*={segment}" for i, segment in enumerate(segments))


@lru_cache(maxsize=256)
def date(at: datetime) -> bytes:
    """`Date:` in UTC (RFC 5322 §3.3), to the second.

    :raises ValueError: a naive time.
    """
    if at.tzinfo is None:
        raise ValueError("a Date needs an aware time")
    t = at.astimezone(UTC)
    day, month = _DAYS[t.weekday()], _MONTHS[t.month - 1]
    clock = f"{t.hour:02d}:{t.minute:02d}:{t.second:02d}"
    return f"Date: {day}, {t.day:02d} {month} {t.year:04d} {clock} +0000\r\n".encode()


def message_id(value: str) -> bytes:
    """`Message-ID:`; `value` with its angle brackets (RFC 5322 §3.6.4).

    :raises Invalid: not `<left@right>` of printable ASCII, or over 250 octets.
    """
    if _MESSAGE_ID.fullmatch(value) is None or len(value) > 250:
        raise _wrong("The Message-ID is not valid.")
    return f"Message-ID: {value}\r\n".encode()


def one_line(text: str) -> str:
    """Free text made fit for a header: line ends and runs of blanks become one space, other
    control characters and lone surrogates go. For a subject that comes out of a template."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip(" ")
    return _LINE_BREAKS.sub(" ", _CONTROL.sub("", _LINE_BREAKS.sub(" ", text))).strip(" ")


def _wrong(sentence: str) -> Invalid:
    return Invalid(sentence, code="invalid_header")


@lru_cache(maxsize=1024)
def _is_structured(name: str) -> bool:
    """Checks a caller's field name, and says whether its value has a grammar."""
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise _wrong("A header's name may hold up to 64 letters, digits and hyphens.")
    low = name.lower()
    if _RESERVED.fullmatch(low) is not None:
        raise _wrong(f"The header {name} is set by the server or has a field of its own.")
    return _STRUCTURED.fullmatch(low) is not None


@lru_cache(maxsize=256)
def _check_together(names: tuple[str, ...]) -> None:
    if len(names) > MAX_EXTRA:
        raise _wrong(f"There are more than {MAX_EXTRA} headers.")
    once = [name.lower() for name in names if _is_structured(name)]
    if len(set(once)) < len(once):
        raise _wrong("A header that may stand once is given twice.")


def _refuse_long(name: str, value: str) -> None:
    if len(value) > MAX_VALUE:
        raise _wrong(f"The header {name} is longer than {MAX_VALUE} characters.")


def _refuse_control(name: str, value: str) -> None:
    found = _CONTROL.search(value)
    if found is not None:
        raise _wrong(f"The value of {name} has a character that is not allowed (U+{ord(found[0]):04X}).")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise _wrong("An address has a character that is not allowed.")
    return text


def _folded(name: str, value: str) -> bytes | None:
    """Folds printable ASCII at its spaces; None when a piece does not fit into a line."""
    lines: list[str] = []
    line = f"{name}:"
    for token in _TOKEN.findall(" " + value):
        if len(line) + len(token) > (FOLD_AT if lines or line[-1] != ":" else MAX_LINE):
            lines.append(line)
            line = ""
        line += token
        if len(line) > MAX_LINE:
            return None
    return ("\r\n".join([*lines, line]) + "\r\n").encode()


def _encoded_words(text: str, first: int) -> list[str]:
    """Encoded words of whole characters, the first at most `first` octets long."""
    data = text.encode()
    q = "".join([_Q[b] for b in data])
    as_q = len(q) <= (len(data) + 2) // 3 * 4
    if _FRAME + (len(q) if as_q else (len(data) + 2) // 3 * 4) <= min(first, _WORD):
        return [_encoded_word(text, as_q)]
    words: list[str] = []
    start, used, room = 0, 0, min(first, _WORD) - _FRAME
    for i, c in enumerate(text):
        octets = c.encode()
        size = sum([len(_Q[b]) for b in octets]) if as_q else len(octets)
        if used + size > (room if as_q else room // 4 * 3):
            words.append(_encoded_word(text[start:i], as_q))
            start, used, room = i, 0, _WORD - _FRAME
        used += size
    words.append(_encoded_word(text[start:], as_q))
    return words


def _encoded_word(text: str, as_q: bool) -> str:
    data = text.encode()
    if as_q:
        return f"=?utf-8?q?{''.join([_Q[b] for b in data])}?="
    return f"=?utf-8?b?{b2a_base64(data, newline=False).decode()}?="


def _mailbox_words(mailbox: Mailbox) -> list[str]:
    """The pieces between which a mailbox may be folded."""
    name = mailbox.name
    address = _printable(mailbox.address)
    if not name:
        return [address]
    if "=?" not in name and name.isascii():
        if _ATOMS.fullmatch(name) is not None:
            return [*name.split(" "), f"<{address}>"]
        if len(name) <= 60 and name.isprintable() and "  " not in name and name.strip(" ") == name:
            return [quote(name), f"<{address}>"]
    _refuse_control("a name", name)
    return [*_encoded_words(name, 60), f"<{address}>"]


def _split(pieces: Sequence[str], room: int) -> list[str]:
    """Joins pieces into strings of at most `room` characters."""
    out = [""]
    for piece in pieces:
        if len(out[-1]) + len(piece) > room:
            out.append("")
        out[-1] += piece
    return out
