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
from posthouse.mailauth.begun import Begun, begin
from posthouse.mailauth.digest import SMALL, Raw
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.memory import Facts, Memory
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
    memory: Memory | None = None,
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
    :param memory: of calls with the same other parameters: who says the same again within its
        seconds is not looked up again.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + deadline
    is_short = len(raw) <= SMALL or raw.find(b"\r\n\r\n", 0, SMALL) >= 0
    message = Message(raw) if is_short else await asyncio.to_thread(Message, raw)
    author = authors(message)
    signed, sealed = bool(message.places(b"dkim-signature")), arc.has_chain(message)
    at = "@" + reverse_path.rpartition("@")[2] if reverse_path else ""
    key = (peer, helo, at, author.domains[: MAX_DOMAINS + 1], author.problem)
    facts = memory.recall(key) if memory is not None else None
    if facts is not None and facts.plain is not None and not signed and not sealed:
        return facts.plain
    evaluation = dmarc.Evaluation(
        lookup, organizational=organizational, prefer_list=prefer_list, accept_partial=accept_partial
    )
    verifying = begin(verify.verify(message, lookup, now=now)) if signed else None
    chain = begin(arc.verify(message, lookup)) if sealed else None
    asked = None
    if facts is None:
        client = spf.Client(peer, helo, receiver, now)
        asked = _Asked(client, reverse_path, begin(evaluation.discover_all(author)), lookup)
    await _until((verifying, chain, *(asked.begun if asked is not None else ())), ends)
    if asked is not None:
        facts = asked.facts(len(author.domains[:MAX_DOMAINS]))
    assert facts is not None
    dkim = () if verifying is None else _known(verifying, None) or verify.unanswered(message, now)
    judging = begin(evaluation.judge(author, facts.policies, facts.spf, dkim))
    await _until((judging,), ends)
    judged = judging.result() if _is_there(judging) else Dmarc("temperror", author.domains[0], reason=_LATE)
    seen = Arc("none") if chain is None else _known(chain, Arc("fail", reason=_LATE))
    found = Authentication(facts.spf, facts.helo, dkim, judged, seen, facts.iprev)
    if memory is not None:
        memory.keep(key, facts, None if signed or sealed else found)
    return found


class _Asked:
    """What depends on the connection, the envelope and the author's domains alone, under way."""

    __slots__ = ("_client", "_helo", "_mail_from", "_named", "_policies", "_reverse_path")

    def __init__(
        self, client: spf.Client, reverse_path: str, policies: Begun[list[dmarc.Policy | None]], lookup: Lookup
    ) -> None:
        self._client = client
        self._reverse_path = reverse_path
        self._policies = policies
        self._helo = begin(spf.check_helo(lookup, client))
        self._mail_from = begin(spf.check_mail_from(lookup, client, reverse_path)) if reverse_path else self._helo
        self._named = begin(iprev(lookup, client.peer))

    @property
    def begun(self) -> tuple[Begun[Any], ...]:
        return self._helo, self._mail_from, self._policies, self._named

    def facts(self, domains: int) -> Facts:
        """What is there; of the rest, that DNS did not answer in time."""
        client = self._client
        return Facts(
            self._mail_from.result() if _is_there(self._mail_from) else _late_spf(self._reverse_path, client.helo),
            self._helo.result() if _is_there(self._helo) else _late_spf("", client.helo),
            tuple(_known(self._policies, [None] * domains)),
            _known(self._named, ("temperror", None))[0],
            client.asked_more,
        )


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


async def _until(begun: Sequence[Begun[Any] | None], ends: float) -> None:
    """Until all are done, or the deadline: then they are canceled."""
    tasks = {task for task in begun if isinstance(task, asyncio.Task)}
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=max(ends - asyncio.get_running_loop().time(), 0.0))
    finally:
        for task in tasks:
            task.cancel()


def _is_there(task: Begun[Any]) -> bool:
    return task.done() and not task.cancelled()


def _known(task: Begun[T], late: U) -> T | U:
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
