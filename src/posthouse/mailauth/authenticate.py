"""One question: who answers for this message? All checks at the same time, within one deadline.

What DNS has not answered by then is temperror; what was found out until then counts.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

from posthouse.errors import DnsUnavailable
from posthouse.mailauth import arc, dmarc, spf, verify
from posthouse.mailauth.author import MAX_DOMAINS, authors
from posthouse.mailauth.begun import Done, begin
from posthouse.mailauth.digest import SMALL, Raw
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.message import Message
from posthouse.mailauth.names import normal, printable

T = TypeVar("T")
U = TypeVar("U")

DEADLINE = 20.0  # seconds; RFC 7208 §4.6.4 asks SPF alone for at least this
MAX_POINTERS = 10  # names of an address that are tried, as in RFC 7208 §5.5
_LATE = "DNS did not answer in time"


async def authenticate(
    raw: Raw,
    *,
    peer: str,
    helo: str,
    reverse_path: str,
    lookup: Lookup,
    now: int,
    receiver: str = "unknown",
    deadline: float = DEADLINE,
    organizational: dmarc.Organizational | None = None,
    prefer_list: bool = False,
    accept_partial: bool = False,
) -> Authentication:
    """SPF of both identities, DKIM, ARC, the peer's name and, from these, DMARC.

    Never raises for what stands in the message or in DNS.

    :param raw: the message with CR LF line ends; an `mmap` of any size is read in pieces.
    :param peer: the client's address as text.
    :param reverse_path: without angle brackets, empty for the null path.
    :param now: seconds since 1970.
    :param receiver: our host name, for SPF's macro r.
    :param deadline: seconds for everything together.
    :param organizational: by the public suffix list (`domains.name.organizational`), for domains
        of which the tree walk finds nothing; `prefer_list`: always, as RFC 7489 had it.
    :param accept_partial: a signature whose `l=` leaves text unsigned is enough for DMARC.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + deadline
    is_short = len(raw) <= SMALL or raw.find(b"\r\n\r\n", 0, SMALL) >= 0
    message = Message(raw) if is_short else await asyncio.to_thread(Message, raw)
    author = authors(message)
    evaluation = dmarc.Evaluation(
        lookup, organizational=organizational, prefer_list=prefer_list, accept_partial=accept_partial
    )
    client = spf.Client(peer, helo, receiver, now)
    helo_check = begin(spf.check_helo(lookup, client))
    mail_check = begin(spf.check_mail_from(lookup, client, reverse_path)) if reverse_path else helo_check
    policies = begin(evaluation.discover_all(author))
    named = begin(iprev(lookup, peer))
    is_signed, is_sealed = bool(message.places(b"dkim-signature")), arc.has_chain(message)
    signed = begin(verify.verify(message, lookup, now=now)) if is_signed else None
    chain = begin(arc.verify(message, lookup)) if is_sealed else None
    await _until((helo_check, mail_check, policies, named, signed, chain), ends)
    mail_from = mail_check.result() if _is_there(mail_check) else _late_spf(reverse_path, helo)
    helo_result = helo_check.result() if _is_there(helo_check) else _late_spf("", helo)
    dkim = () if signed is None else _known(signed, None) or verify.unanswered(message, now)
    found_policies = _known(policies, [None] * len(author.domains[:MAX_DOMAINS]))
    judging = begin(evaluation.judge(author, found_policies, mail_from, dkim))
    await _until((judging,), ends)
    judged = judging.result() if _is_there(judging) else Dmarc("temperror", author.domains[0], reason=_LATE)
    sealed = Arc("none") if chain is None else _known(chain, Arc("fail", reason=_LATE))
    return Authentication(mail_from, helo_result, dkim, judged, sealed, _known(named, ("temperror", None))[0])


async def iprev(lookup: Lookup, peer: str) -> tuple[str, str | None]:
    """The result (RFC 8601 §2.7.3), and the peer's name when it leads back to the peer.

    :param peer: IPv4 or IPv6 as text.
    """
    address = _address(peer)
    if address is None:
        return "permerror", None
    ask = lookup.a if address.version == 4 else lookup.aaaa
    answered = True
    try:
        names = (await lookup.ptr(str(address))).records[:MAX_POINTERS]
    except DnsUnavailable:
        return "temperror", None
    for name in names:
        try:
            found = await ask(name)
        except DnsUnavailable:
            answered = False
            continue
        if any(_address(text) == address for text in found.records):
            return "pass", normal(name)
    if not names:
        return "permerror", None
    return ("fail" if answered else "temperror"), None


async def _until(begun: Sequence[Done[Any] | asyncio.Task[Any] | None], ends: float) -> None:
    """Until all are done, or the deadline: then they are canceled."""
    tasks = {task for task in begun if isinstance(task, asyncio.Task)}
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=max(ends - asyncio.get_running_loop().time(), 0.0))
    finally:
        for task in tasks:
            task.cancel()


def _is_there(task: Done[Any] | asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled()


def _known(task: Done[T] | asyncio.Task[T], late: U) -> T | U:
    return task.result() if _is_there(task) else late


def _late_spf(reverse_path: str, helo: str) -> Spf:
    domain, scope = (reverse_path.rpartition("@")[2], "mailfrom") if reverse_path else (helo, "helo")
    return Spf("temperror", normal(domain) or printable(domain), scope, reason=_LATE)


@lru_cache(maxsize=16_384)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
