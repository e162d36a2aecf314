"""Types of the directory. Addresses are folded by `fold` before they are compared or stored."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from posthouse.mail.address import mailbox


def fold(address: str) -> str:
    """As addresses are compared here: the domain in A-labels, the local part in lower case,
    since nobody expects `Ann@` and `ann@` to be two people (RFC 5321 §2.4 leaves it to us).

    :raises Invalid: not an address.
    """
    found = mailbox(address)
    return f"{found.local.lower()}@{found.domain}"


class Spam(StrEnum):
    JUNK = "junk"
    REFUSE = "refuse"


class DmarcAction(StrEnum):
    FOLLOW = "follow"
    """What the sender's domain asks for: reject refuses, quarantine goes to Junk."""
    JUNK = "junk"
    """Never refused, at most Junk."""
    ACCEPT = "accept"
    """Only evidence for the filter."""


class DomainSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """`plus`: the separator of a tag in the local part, '' for none. `quota`: octets of a new
    account; `quota_all`: of all accounts of the domain together; 0 is none."""

    spam: Spam = Spam.JUNK
    dmarc: DmarcAction = DmarcAction.FOLLOW
    greylist: bool = False
    plus: str = "+"
    quota: int = 0
    quota_all: int = 0


class MailDomain(msgspec.Struct, frozen=True):
    name: str
    tenant_id: str
    settings: DomainSettings
    created_at: int


class AccountSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """`allow` and `block`: addresses, or domains as `@example.com`. `rules`, `vacation`: as
    `mail.rules` and `mail.vacation` read them, an empty or null vacation for none. `forward`:
    addresses that get a copy of everything; `keep` is whether it stays here too."""

    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    rules: tuple[msgspec.Raw, ...] = ()
    vacation: msgspec.Raw = msgspec.Raw(b"")
    forward: tuple[str, ...] = ()
    keep: bool = True


class Account(msgspec.Struct, frozen=True):
    """`number` is what rows below the account are keyed by; `id` is its public name."""

    number: int
    id: str
    tenant_id: str
    address: str
    name: str
    state: str
    quota: int
    settings: AccountSettings
    created_at: int
    used: int = 0
    emails: int = 0


class AliasKind(StrEnum):
    ALIAS = "alias"
    GROUP = "group"
    CATCH_ALL = "catch_all"


class Alias(msgspec.Struct, frozen=True):
    address: str
    tenant_id: str
    kind: AliasKind
    targets: tuple[str, ...]
    created_at: int


class NewAccount(msgspec.Struct, frozen=True):
    """Checked, its password hashed: ready for a transaction. `quota` None: as its domain says."""

    tenant_id: str
    address: str
    name: str
    password_hash: str | None
    quota: int | None
    settings: AccountSettings


class Target(msgspec.Struct, frozen=True):
    """Where mail for an address ends: an account here (`account` is its number) or, with
    `account` 0, the address `forward` elsewhere. `via`: the aliases on the way, the first
    named first. `tag`: what stood after the separator."""

    account: int
    tenant_id: str
    domain: str
    via: tuple[str, ...] = ()
    tag: str = ""
    forward: str = ""


class Status(StrEnum):
    """What becomes of mail for an address, or why there can be none."""

    FOUND = "found"
    UNKNOWN = "unknown"
    """The domain is ours, the address is nobody's."""
    FOREIGN = "foreign"
    """Not a domain of ours: taking it would be relaying."""
    MALFORMED = "malformed"
    DISABLED = "disabled"
    """Every account that it leads to is disabled."""
    LOOPS = "loops"
    """Aliases lead back to themselves, too deep or to too many."""


class Resolution(msgspec.Struct, frozen=True, gc=False):
    """:ivar room: octets free in the roomiest account it leads to; None: no quota counts.
    :ivar most: the largest of those accounts' quotas: a message above it never fits.
    :ivar duty: postmaster@ or abuse@, which every domain must accept (RFC 5321 §4.5.1, RFC 2142)."""

    status: Status
    address: str = ""
    tenant_id: str = ""
    domain: str = ""
    settings: DomainSettings = DomainSettings()
    targets: tuple[Target, ...] = ()
    room: int | None = None
    most: int | None = None
    duty: bool = False
