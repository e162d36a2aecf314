"""What the directory takes from callers: checked, bounded, folded."""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from posthouse.directory.model import AccountSettings, DomainSettings, fold
from posthouse.errors import Fault, Invalid
from posthouse.mail.address import parse_domain

_MOST_NAME = 200
_MOST_LISTED = 1000
_MOST_FORWARDS = 100
_MOST_RAW = 256 * 1024
"""Octets of an account's rules as JSON."""
_MOST_OCTETS = 2**53
_PLUS = re.compile(r"[!#$%&'*+/=?^_`{|}~.-]?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def refuse(pointer: str, message: str) -> NoReturn:
    raise Invalid("The request is not valid", faults=(Fault(pointer, message),))


def domain_name(name: str, pointer: str = "/name") -> str:
    """A-labels, lower case, without a final dot. :raises Invalid:"""
    try:
        return parse_domain(name.strip().removesuffix("."))
    except Invalid as error:
        refuse(pointer, error.public)


def address(text: str, pointer: str) -> str:
    """Folded. :raises Invalid:"""
    try:
        return fold(text)
    except Invalid as error:
        refuse(pointer, error.public)


def alias_address(text: str) -> str:
    """Folded; `@example.com` for a catch-all. :raises Invalid: pointer `/address`."""
    if text.startswith("@"):
        return f"@{domain_name(text[1:], '/address')}"
    return address(text, "/address")


def person(name: str) -> str:
    if len(name) > _MOST_NAME or _CONTROL.search(name):
        refuse("/name", f"is at most {_MOST_NAME} characters, without control characters")
    return name.strip()


def quota(octets: int, pointer: str) -> int:
    if not 0 <= octets <= _MOST_OCTETS:
        refuse(pointer, "is a number of octets, 0 for none")
    return octets


def domain_settings(settings: DomainSettings) -> DomainSettings:
    if not _PLUS.fullmatch(settings.plus):
        refuse("/settings/plus", "is one character that an address may hold, such as + or -, or nothing")
    quota(settings.quota, "/settings/quota")
    quota(settings.quota_all, "/settings/quota_all")
    return settings


def account_settings(settings: AccountSettings) -> AccountSettings:
    raw = sum(len(bytes(rule)) for rule in settings.rules) + len(bytes(settings.vacation or b""))
    if raw > _MOST_RAW:
        refuse("/settings/rules", f"are more than {_MOST_RAW} octets")
    return msgspec.structs.replace(
        settings,
        allow=_senders(settings.allow, "/settings/allow"),
        block=_senders(settings.block, "/settings/block"),
        forward=_forwards(settings.forward),
    )


def _senders(listed: tuple[str, ...], pointer: str) -> tuple[str, ...]:
    """Addresses, or domains as `@example.com`."""
    if len(listed) > _MOST_LISTED:
        refuse(pointer, f"has more than {_MOST_LISTED} entries")
    return tuple(
        f"@{domain_name(one[1:], f'{pointer}/{n}')}" if one.startswith("@") else address(one, f"{pointer}/{n}")
        for n, one in enumerate(listed)
    )


def _forwards(listed: tuple[str, ...]) -> tuple[str, ...]:
    if len(listed) > _MOST_FORWARDS:
        refuse("/settings/forward", f"has more than {_MOST_FORWARDS} addresses")
    return tuple(dict.fromkeys(address(one, f"/settings/forward/{n}") for n, one in enumerate(listed)))
