"""Rules of one recipient: whom they allow, block and write to."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

import msgspec

from posthouse.directory.model import AccountSettings
from posthouse.inbound.filter import names
from posthouse.inbound.filter.look import Look
from posthouse.inbound.filter.rule import Rule

Pair = tuple[int, str]
"""(account, address)"""


class Person(msgspec.Struct, frozen=True, gc=False):
    """`allowed`, `blocked`: the entry that fits, or ''. `known`: the account has written to the
    From's address. `proved`: that address's domain is proved. `original`: an address known to
    the account that the From's is made to be taken for."""

    address: str
    allowed: str
    blocked: str
    known: bool
    proved: bool
    doubtful: bool
    original: str


def asked(account: int, seen: Look) -> list[Pair]:
    """Which correspondents must be looked up for a recipient: none for forwards elsewhere."""
    if not account or not seen.address or "@" not in seen.address:
        return []
    return [(account, seen.address), *[(account, one) for one in originals(seen.address)]]


@lru_cache(maxsize=20_000)
def originals(address: str) -> tuple[str, ...]:
    return tuple(names.originals(address))


def person(
    account: int, settings: AccountSettings | None, seen: Look, reverse_path: str, known: AbstractSet[Pair]
) -> Person:
    allowed = blocked = ""
    if settings is not None and (settings.allow or settings.block):
        blocked = _entry(settings.block, seen.address) or _entry(settings.block, reverse_path.lower())
        allowed = _entry(settings.allow, seen.address)
        # An address says more than a domain; of two alike, the block is the careful one.
        if allowed and blocked:
            if blocked.startswith("@") and not allowed.startswith("@"):
                blocked = ""
            else:
                allowed = ""
    is_known = (account, seen.address) in known
    original = "" if is_known or not known else _original(account, seen.address, known)
    return Person(seen.address, allowed, blocked, is_known, seen.proved, seen.doubtful, original)


def _entry(entries: tuple[str, ...], address: str) -> str:
    if not entries or not address:
        return ""
    if address in entries:
        return address
    domain = "@" + address.rpartition("@")[2]
    return domain if domain in entries else ""


def _original(account: int, address: str, known: AbstractSet[Pair]) -> str:
    if "@" not in address:
        return ""
    return next((one for one in originals(address) if (account, one) in known), "")


PERSONAL: Final[tuple[Rule[Person], ...]] = (
    Rule("blocked", 20.0, "The account blocks {}.", lambda p: p.blocked),
    Rule("allowed", -8.0, "The account allows {}, and the sender is proved.", lambda p: p.proved and p.allowed),
    Rule(
        "allowed_unproved",
        -4.0,
        "The account allows {}, and nothing proves that it is the sender: half the credit.",
        lambda p: not p.proved and p.allowed,
    ),
    Rule("correspondent", -3.0, "The account has written to {}, and the sender is proved.", lambda p: _known(p, True)),
    Rule(
        "correspondent_unproved",
        -0.5,
        "The account has written to {}, and nothing proves that it is the sender.",
        lambda p: _known(p, False) if not p.doubtful else "",
    ),
    Rule("like_correspondent", 4.0, "It looks like {}, to whom the account has written.", lambda p: p.original),
)


def _known(person: Person, proved: bool) -> str:
    return person.address if person.known and person.proved is proved else ""
