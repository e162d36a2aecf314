"""The client's side of SASL in SMTP (RFC 4954): PLAIN, LOGIN, XOAUTH2, OAUTHBEARER, CRAM-MD5."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

PASSWORD_MECHANISMS = ("PLAIN", "LOGIN")
TOKEN_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")


class Cancelled(Exception):
    """The server asks for something that the mechanism does not have."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """`secret` is a password, or a bearer token when `token`. `mechanisms` are those that may
    be used, best first; CRAM-MD5 is used only when it is named there. In plain text nothing
    but CRAM-MD5 is sent unless `plaintext`."""

    user: str
    secret: str = field(repr=False)
    token: bool = False
    mechanisms: tuple[str, ...] = ()
    plaintext: bool = False

    def allowed(self, *, encrypted: bool) -> tuple[str, ...]:
        names = self.mechanisms or (TOKEN_MECHANISMS if self.token else PASSWORD_MECHANISMS)
        return tuple(name for name in names if encrypted or self.plaintext or name == "CRAM-MD5")


@dataclass(slots=True)
class Exchange:
    """`initial` goes with AUTH (None: nothing); `respond` answers each challenge."""

    initial: bytes | None
    respond: Callable[[bytes], bytes]
    """:raises Cancelled: there is no answer to that."""


def begin(mechanism: str, credentials: Credentials, *, host: str, port: int) -> Exchange:
    """:raises KeyError: a mechanism that is not in this module."""
    return _MECHANISMS[mechanism](credentials, host, port)


def known(mechanism: str) -> bool:
    return mechanism in _MECHANISMS


def _answers(*answers: bytes) -> Callable[[bytes], bytes]:
    remaining = iter(answers)

    def respond(_: bytes) -> bytes:
        try:
            return next(remaining)
        except StopIteration:
            raise Cancelled from None

    return respond


def _plain(credentials: Credentials, _host: str, _port: int) -> Exchange:
    message = f"\0{credentials.user}\0{credentials.secret}".encode()  # RFC 4616
    return Exchange(message, _answers(message))  # a server that ignored the initial response asks again


def _login(credentials: Credentials, _host: str, _port: int) -> Exchange:
    return Exchange(None, _answers(credentials.user.encode(), credentials.secret.encode()))


def _xoauth2(credentials: Credentials, _host: str, _port: int) -> Exchange:
    message = f"user={credentials.user}\1auth=Bearer {credentials.secret}\1\1".encode()
    return Exchange(message, _answers(b""))  # a challenge is an error report; empty ends it


def _oauthbearer(credentials: Credentials, host: str, port: int) -> Exchange:
    user = credentials.user.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 saslname
    message = f"n,a={user},\1host={host}\1port={port}\1auth=Bearer {credentials.secret}\1\1".encode()
    return Exchange(message, _answers(b"\1"))  # RFC 7628 §3.2.3


def _cram_md5(credentials: Credentials, _host: str, _port: int) -> Exchange:
    used = False

    def respond(challenge: bytes) -> bytes:
        nonlocal used
        if used:
            raise Cancelled
        used = True
        digest = hmac.new(credentials.secret.encode(), challenge, hashlib.md5).hexdigest()  # RFC 2195
        return f"{credentials.user} {digest}".encode()

    return Exchange(None, respond)


_MECHANISMS: dict[str, Callable[[Credentials, str, int], Exchange]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "XOAUTH2": _xoauth2,
    "OAUTHBEARER": _oauthbearer,
    "CRAM-MD5": _cram_md5,
}
