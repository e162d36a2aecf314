"""What is asked of `mailauth` for an arrival, and the fields that are put before it."""

from __future__ import annotations

from functools import lru_cache
from mmap import mmap

from posthouse.clock import SECOND, to_datetime
from posthouse.domains.name import organizational
from posthouse.inbound.house import Authenticate, Hop, Trace
from posthouse.mailauth import results
from posthouse.mailauth.authenticate import authenticate
from posthouse.mailauth.evidence import Authentication
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.memory import Memory
from posthouse.mailauth.trace import received, return_path


def authenticator(lookup: Lookup, hostname: str, *, deadline: float = 20.0) -> Authenticate:
    """:param hostname: ours, for SPF's macros. :param deadline: seconds for everything together."""

    memory = Memory()

    async def ask(message: bytes | mmap, *, peer: str, helo: str, reverse_path: str, now: int) -> Authentication:
        return await authenticate(
            message,
            peer=peer,
            helo=helo,
            reverse_path=reverse_path,
            lookup=lookup,
            now=now // SECOND,
            receiver=hostname,
            deadline=deadline,
            organizational=organizational,
            memory=memory,
        )

    return ask


def tracer(hostname: str, authserv_id: str) -> Trace:
    """:param hostname: ours, in Received. :param authserv_id: ours, in Authentication-Results."""

    def fields(hop: Hop) -> bytes:
        line = received(
            helo=hop.helo,
            peer=hop.peer,
            rdns=hop.host,
            host=hostname,
            protocol=protocol(hop),
            id=hop.id,
            at=to_datetime(hop.at // SECOND * SECOND),  # the same for all of a second
            recipient=hop.recipient or None,
            tls=f"{hop.tls.version} {hop.tls.cipher}" if hop.tls is not None else None,
        )
        head = return_path(hop.reverse_path) + line
        if hop.verb == "LHLO":
            return head
        # What says the same again is not made again; a signature is of one message only.
        make = results.header if hop.auth.dkim else _remembered
        return head + make(hop.auth, authserv_id, peer=hop.peer)

    return fields


def closed(fields: bytes, message: bytes | mmap) -> bytes:
    """What stands before `message`. One that begins with a blank would go on with the last of our
    fields (RFC 5322 §2.2.3), and with the results that we vouch for: a field of its own takes that.
    """
    return fields + b"X-Stray-Line:\r\n" if message[:1] in {b" ", b"\t"} else fields


_remembered = lru_cache(maxsize=2048)(results.header)


def protocol(hop: Hop) -> str:
    """RFC 3848 and RFC 6531 §4.3."""
    if hop.verb == "HELO":
        return "SMTP"
    secure = "S" if hop.tls is not None else ""
    base = "LMTP" if hop.verb == "LHLO" else "SMTP" if hop.utf8 else "ESMTP"
    return f"UTF8{base}{secure}" if hop.utf8 else f"{base}{secure}"
