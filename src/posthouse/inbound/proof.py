"""Whether a sender may be told of a failure, or that somebody is away: only one that the envelope
proved. Pure.

A notice to an address that somebody made up is backscatter, so SPF must have passed for the
reverse-path's own domain, or DMARC for a domain of the same organisation.
"""

from __future__ import annotations

from posthouse.domains.name import organizational
from posthouse.inbound.model import Arrival
from posthouse.mail.parsed import Parsed
from posthouse.mailauth.evidence import Authentication
from posthouse.mailauth.names import normal


def untold(arrival: Arrival, parsed: Parsed) -> str:
    """Why the reverse-path may not be told; empty when it may."""
    if not arrival.reverse_path:
        return "its reverse-path is null"
    if parsed.automatic or parsed.list_unsubscribe or parsed.list_post:
        return "it came from a list or a program"
    if parsed.structure.type == "multipart/report":
        return "it is a report itself"
    return "" if is_proved(arrival) else "nothing proves that it came from there"


def is_proved(arrival: Arrival) -> bool:
    """Whether the reverse-path is that of whoever sent it."""
    domain = normal(arrival.reverse_path.rpartition("@")[2])
    return domain is not None and _speaks_for(arrival.evidence.auth, domain)


def _speaks_for(auth: Authentication, domain: str) -> bool:
    spf = auth.spf
    if spf.result == "pass" and spf.scope == "mailfrom" and normal(spf.domain) == domain:
        return True
    author = normal(auth.dmarc.domain) if auth.dmarc.result == "pass" else None
    return author is not None and organizational(author) == organizational(domain)
