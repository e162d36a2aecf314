"""Messages sent on: what is put before their bytes, which stay as they came.

    ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results    what we saw (RFC 8617)
    Delivered-To                                                   ends loops (RFC 9228)
    Received, Authentication-Results                               of this server
    …                                                              as it arrived

The reverse-path becomes one of our domain's that leads bounces back (`mail.srs`); the null one
stays null, and one that cannot be rewritten becomes null.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache

import structlog

from posthouse import ids
from posthouse.clock import SECOND, Clock
from posthouse.directory.model import Account, fold
from posthouse.domains.model import SigningKey
from posthouse.errors import Corrupt, Invalid, Misconfigured
from posthouse.events.handover import Handover, Kind
from posthouse.inbound.decision import Order, Parcel
from posthouse.inbound.fields import Fields
from posthouse.inbound.model import UNASKED, Arrival, Recipient
from posthouse.inbound.proof import untold
from posthouse.mail.dsn import MAX_HEADERS
from posthouse.mail.srs import Srs
from posthouse.mailauth import results, seal
from posthouse.mailauth.dkim import Signer, load_private_key
from posthouse.storage.contents import Contents

log = structlog.get_logger("forward")

MOST_HOPS = 100
"""Received fields of a message that is sent on, ours included (RFC 5321 §6.3)."""
_LARGE = 64 * 1024
"""Octets from which a message is put together in a thread, seal or not."""

Keys = Callable[[str, frozenset[str]], Awaitable[Mapping[str, Sequence[SigningKey]]]]
"""A tenant's active keys by domain: `Domains.signing_keys`."""


def own_address(recipient: Recipient, account: Account | None) -> str:
    """Of ours, that sends on: the account's, or that of the alias which leads elsewhere."""
    if account is not None:
        return account.address
    aliases = recipient.via.aliases
    if aliases and not aliases[-1].startswith("@"):
        return aliases[-1]
    try:
        return fold(recipient.address.removesuffix("."))
    except Invalid:  # a bare postmaster
        return recipient.address + (aliases[-1] if aliases else "")


def circles(header: Fields, own: str) -> str:
    """Why a message may not be sent on by this address once more, or ''."""
    if any(value.strip().strip("<>").casefold() == own.casefold() for value in header("delivered-to")):
        return f"It was sent on by {own} before and has come back: it goes no further (RFC 9228)."
    if header.count("received") >= MOST_HOPS:
        return f"It has passed {MOST_HOPS} servers, as a message in a loop does: it goes no further."
    return ""


class Forwarding:
    """:param authserv_id: ours, in the seal's results."""

    def __init__(self, contents: Contents, srs: Srs, keys: Keys, *, authserv_id: str, clock: Clock) -> None:
        self._contents = contents
        self._srs = srs
        self._keys = keys
        self._authserv_id = authserv_id
        self._clock = clock

    async def parcel(self, order: Order, to: tuple[str, ...]) -> Parcel:
        """One message for all these addresses.

        :raises Unavailable: the keys cannot be read, or the message cannot be laid down.
        """
        arrival, recipient = order.arrival, order.recipient
        own = own_address(recipient, order.account)
        domain = own.rpartition("@")[2]
        head = _head(arrival, own)
        signer = await self._signer(recipient.tenant_id, domain) if _is_checked(arrival) else None
        if signer is not None or arrival.size > _LARGE:
            message = await asyncio.to_thread(self._message, arrival, head, signer)
        else:
            message = head + arrival.raw
        content = await self._contents.put(message)
        id_ = ids.derived("msg", arrival.id, f"forward\0{own}")
        told = "" if untold(arrival, order.parsed) else arrival.reverse_path
        header = arrival.raw[: min(order.parsed.header_length, MAX_HEADERS)]
        asked_utf8 = b" with UTF8" in arrival.trace or not head.isascii()
        return Parcel(
            f"It goes to {', '.join(to)} as {id_}.",
            content,
            Handover(
                id_,
                recipient.tenant_id,
                Kind.FORWARD,
                content.key,
                content.size,
                self._reverse_path(arrival.reverse_path, domain),
                order.parsed.from_[0].address if order.parsed.from_ else own,
                to,
                arrival.id,
                utf8=asked_utf8 and not (head.isascii() and _is_ascii(arrival, order.parsed.header_length)),
                report_to=told or None,
                subject=order.parsed.subject,
                domain=domain,
                written_to=recipient.address,
                arrived_at=arrival.received_at,
                header=header if told else b"",
            ),
        )

    def _reverse_path(self, path: str, domain: str) -> str:
        try:
            return self._srs.forward(path, domain, self._clock())
        except Invalid:
            return ""

    async def _signer(self, tenant_id: str, domain: str) -> Signer | None:
        """With a key that everybody verifies."""
        try:
            found = await self._keys(tenant_id, frozenset({domain}))
        except (Misconfigured, Corrupt):
            log.exception("key_unusable", domain=domain)
            return None
        key = next((one for one in found.get(domain, ()) if one.algorithm == "rsa-sha256"), None)
        return _loaded(key) if key is not None else None

    def _message(self, arrival: Arrival, head: bytes, signer: Signer | None) -> bytes:
        message = head + arrival.raw
        if signer is None:
            return message
        auth = arrival.evidence.auth
        saw = results.payload(auth, self._authserv_id, peer=arrival.evidence.peer)
        try:
            sealed = seal.seal(message, signer, saw, auth.arc.result, self._clock() // SECOND)
        except Exception as error:  # what cannot be sealed, such as a mail without From, goes as it is
            log.warning("seal_impossible", inbound_id=arrival.id, error=type(error).__name__)
            return message
        return sealed + message


def _head(arrival: Arrival, own: str) -> bytes:
    """Ours, but Return-Path, which only a last server writes (RFC 5321 §4.4)."""
    trace = arrival.trace
    if trace.startswith(b"Return-Path:"):
        trace = trace.partition(b"\r\n")[2]
    return f"Delivered-To: {own}\r\n".encode() + trace


def _is_checked(arrival: Arrival) -> bool:
    """Whether we asked who sent it: else there is nothing to seal, and a chain would break."""
    return arrival.evidence.auth.spf.reason != UNASKED


def _is_ascii(arrival: Arrival, header_length: int) -> bool:
    return arrival.raw[:header_length].isascii()


@lru_cache(maxsize=256)
def _loaded(key: SigningKey) -> Signer:
    return Signer(key.domain, key.selector, load_private_key(key.private_pem))
