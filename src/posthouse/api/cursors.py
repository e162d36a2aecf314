"""Opaque list cursors: what comes back has to be one that we gave, for the same list."""

from __future__ import annotations

import base64
import binascii

import msgspec

from posthouse.errors import Fault, Invalid

_MOST = 1000
_decode = msgspec.json.Decoder(tuple[str, str]).decode


def encode(kind: str, position: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((kind, position))).decode().rstrip("=")


def decode(kind: str, cursor: str | None) -> str | None:
    """:raises Invalid: code `cursor_invalid`."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor[:_MOST] + "=" * (-min(len(cursor), _MOST) % 4), altchars=b"-_", validate=True)
        found, position = _decode(text)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        found, position = "", ""
    if found != kind or "\x00" in position:
        message = "This is not a cursor of this list"
        raise Invalid(message, code="cursor_invalid", faults=(Fault("?cursor", message),))
    return position


def page(kind: str, position: str | None) -> str | None:
    """`next` of an answer."""
    return None if position is None else encode(kind, position)
