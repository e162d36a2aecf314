"""Who is not written to, and why."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

import idna
import msgspec

ALL_STREAMS = ""
"""As a suppression's `stream_id`: every stream of the tenant."""


class Reason(StrEnum):
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"


class Suppression(msgspec.Struct, frozen=True, omit_defaults=True):
    """`address` is the folded key (see `fold`). Times in µs; `expires_at` None: for good."""

    address: str
    stream_id: str
    reason: str
    source: str
    created_at: int
    evidence: str | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One to add. `source` says who or what asked (`api:<key id>`, `smtp`); `evidence` is the
    peer's reply, a report's id or a note: shown to people, never interpreted."""

    address: str
    reason: str = Reason.MANUAL
    stream_id: str = ALL_STREAMS
    source: str = "api"
    evidence: str | None = None
    expires_at: int | None = None


def fold(address: str) -> str:
    """The key that addresses are compared by: NFC, lower case throughout, the domain as
    A-labels. Bounces and reports come back in any case, so `Ann@` and `ann@` are one mailbox
    here (RFC 5321 §2.4 lets a host tell them apart; none that matters does, and the wrong
    guess would write to someone who asked not to be written to).

    :raises ValueError: there is no `@`, an empty side, a control character, or a domain that
        IDNA refuses.
    """
    if address.isascii():
        folded = address.lower()
    else:
        local, _, domain = unicodedata.normalize("NFC", address).rpartition("@")
        folded = f"{local.lower()}@{_a_labels(domain)}"
    at = folded.rfind("@")
    if at < 1 or at == len(folded) - 1 or not folded.isprintable():
        raise ValueError("an address has the form local@domain")
    return folded


def _a_labels(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"the domain is not valid: {error}") from None
