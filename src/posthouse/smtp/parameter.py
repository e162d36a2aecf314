"""Values of the parameters of MAIL and RCPT, read and written (RFC 1870, 3461, 4954, 6152, 6533)."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from posthouse.errors import Invalid
from posthouse.smtp.path import from_points, from_xtext, is_mailbox, to_points, to_xtext

MAX_ENVID = 100  # RFC 3461 §4.4
MAX_ORCPT = 500  # RFC 3461 §4.2
_SIZE = re.compile(r"[0-9]{1,20}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Body(StrEnum):
    """RFC 6152, RFC 3030 §3."""

    SEVEN = "7BIT"
    EIGHT = "8BITMIME"
    BINARY = "BINARYMIME"


class Ret(StrEnum):
    """What a failure notice returns (RFC 3461 §4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(StrEnum):
    """When a notice is wanted (RFC 3461 §4.1); NEVER stands alone."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class OriginalRecipient(msgspec.Struct, frozen=True, gc=False):
    """ORCPT (RFC 3461 §4.2): `kind` is `rfc822`, or `utf-8` (RFC 6533 §3)."""

    kind: str
    address: str


def encode_envid(envid: str) -> str:
    text = to_xtext(envid)
    if not (envid.isascii() and envid.isprintable()) or not 0 < len(text) <= MAX_ENVID:
        raise Invalid("ENVID is 1 to 100 printable ASCII characters")
    return text


def encode_orcpt(orcpt: OriginalRecipient) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,32}", orcpt.kind):
        raise Invalid("The address type of ORCPT is not an atom")
    text = f"{orcpt.kind};" + (to_points if orcpt.kind.lower() == "utf-8" else to_xtext)(orcpt.address)
    if len(text) > MAX_ORCPT:
        raise Invalid("ORCPT is longer than 500 characters")
    return text


def _size(value: str) -> int:
    if not _SIZE.fullmatch(value):  # RFC 1870 §4
        raise ValueError(value)
    return int(value)


def _body(value: str) -> Body:
    return Body(value.upper())


def _ret(value: str) -> Ret:
    return Ret(value.upper())


def _flag(value: str) -> bool:
    if value:
        raise ValueError(value)
    return True


def _parse_envid(value: str) -> str:
    envid = from_xtext(value)
    if not (0 < len(value) <= MAX_ENVID and envid.isascii() and envid.isprintable()):
        raise ValueError(value)
    return envid


def _parse_auth(value: str) -> str:
    auth = from_xtext(value)
    if auth != "<>" and not is_mailbox(auth):
        raise ValueError(value)
    return auth


MAIL_VALUES: dict[str, Callable[[str], object]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _flag,
    "RET": _ret,
    "ENVID": _parse_envid,
    "AUTH": _parse_auth,
}


def parse_notify(value: str) -> tuple[Notify, ...]:
    notify = tuple(Notify(word.upper()) for word in value.split(","))
    if len(set(notify)) != len(notify) or (Notify.NEVER in notify and len(notify) > 1):
        raise ValueError(value)
    return notify


def parse_orcpt(value: str) -> OriginalRecipient:
    kind, semicolon, encoded = value.partition(";")
    if not semicolon or not encoded or len(value) > MAX_ORCPT or not re.fullmatch(r"[A-Za-z0-9-]{1,32}", kind):
        raise ValueError(value)
    address = from_points(encoded) if kind.lower() == "utf-8" else from_xtext(encoded)
    if CONTROL.search(address):
        raise ValueError(value)
    return OriginalRecipient(kind, address)
