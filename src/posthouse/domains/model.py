"""A domain that a tenant sends from, its keys, and what DNS says about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class DomainState(StrEnum):
    PENDING = "pending"
    """Never seen right in DNS."""
    VERIFIED = "verified"
    FAILING = "failing"
    """Was verified; a required record has gone since."""


class KeyState(msgspec.Struct, frozen=True):
    """A DKIM key without its private half. `active`: signs. A key that waits to be seen in DNS
    and one that is retired both do not."""

    id: str
    selector: str
    algorithm: str
    public_key: str
    status: str
    """waiting | active | retired"""
    created_at: int


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was looked up for one record, in words. `ok` None: DNS did not answer."""

    purpose: str
    name: str
    ok: bool | None
    expected: str
    found: str
    required: bool
    at: int


class Domain(msgspec.Struct, frozen=True):
    """`name` is in A-labels, lower case. Times in µs."""

    id: str
    tenant_id: str
    name: str
    state: str
    checks: tuple[Check, ...]
    keys: tuple[KeyState, ...]
    created_at: int
    checked_at: int | None
    verified_at: int | None


class DnsRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One to publish. `value` is the whole text; `strings` the same cut at 255 octets
    (RFC 1035 §3.3.14), quoted, as zone files and most DNS panels want it."""

    purpose: str
    """ownership | dkim-rsa | dkim-ed25519 | spf | dmarc | return-path"""
    type: str
    """TXT | MX | CNAME"""
    name: str
    value: str
    strings: str
    required: bool
    """Required: the domain is verified only with it. The others are for being believed."""
    note: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """For one DKIM signature; the same object as long as the key is cached."""

    domain: str
    selector: str
    algorithm: str
    private_pem: bytes
