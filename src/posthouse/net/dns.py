"""DNS for mail: MX, addresses and TXT, cached by TTL, each question asked once at a time.

Three ways to have no records are told apart: the name does not exist (`nxdomain`), it has
none of that type (an empty `records`), and nobody could say (`DnsUnavailable`, temporary).
When DNS does not answer, an answer that is out of date for less than `stale` serves (RFC 8767).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, cast

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.txtbase
import dns.resolver
import msgspec

from posthouse.errors import DnsUnavailable, Misconfigured

T = TypeVar("T")
MAX_TTL = 86_400.0
MAX_NEGATIVE_TTL = 10_800.0  # RFC 2308 §5: three hours
MAX_RECORDS = 256
"""Of one answer; more are not looked at."""


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    """`host` is lower case without the last dot; empty in a null MX (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """`ttl` in seconds, as it came. `secure`: the resolver validated it (AD, RFC 4035)."""

    records: tuple[T, ...]
    nxdomain: bool = False
    ttl: float = 0.0
    secure: bool = False
    stale: bool = False
    """Out of date; DNS did not answer."""


@dataclass(frozen=True, slots=True)
class _Entry:
    answer: Answer[object] | DnsUnavailable
    expires: float


@dataclass(slots=True)
class Counts:
    """Since the start: for metrics."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    failures: int = 0
    shared: int = 0
    """Misses that another process's answer served."""


class Shelf(Protocol):
    """Answers that processes share: what one has asked, the others need not."""

    async def get(self, key: str) -> tuple[bytes, float] | None:
        """The value and for how many seconds it may be used. Never raises."""
        ...

    def put(self, key: str, value: bytes, seconds: float) -> None:
        """Soon, if at all. Never raises, never waits."""
        ...


class _Shelved(msgspec.Struct, Generic[T], frozen=True, array_like=True):
    records: tuple[T, ...]
    nxdomain: bool
    ttl: float
    secure: bool


_SHELVED = {"TXT", "A"}
_pack = msgspec.msgpack.Encoder().encode
_UNPACK: dict[str, Callable[[bytes], _Shelved[Any]]] = {
    "TXT": msgspec.msgpack.Decoder(_Shelved[bytes]).decode,
    "A": msgspec.msgpack.Decoder(_Shelved[str]).decode,
}


class Resolver:
    """:param nameservers: (address, port) of each, asked in order; None: the system's.
    :param timeout: seconds for one server's answer.
    :param lifetime: seconds for a question, all servers together.
    :param capacity: answers in the cache; the longest unused leave first.
    :param stale: seconds that an answer may be out of date when DNS does not answer.
    :param failure_ttl: seconds until a question that found no answer is asked again.
    :param shelf: shared with other processes; holds TXT and A (SPF, DKIM, DMARC, block lists),
        and never that nobody could say.
    :raises Misconfigured: the system has no resolver configuration.
    """

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int]] | None = None,
        *,
        timeout: float = 2.0,
        lifetime: float = 8.0,
        capacity: int = 50_000,
        stale: float = 3600.0,
        failure_ttl: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
        shelf: Shelf | None = None,
    ) -> None:
        self._shelf = shelf
        self.counts = Counts()
        self._resolver = _configure(nameservers, timeout, lifetime)
        self._capacity = capacity
        self._stale = stale
        self._failure_ttl = failure_ttl
        self._monotonic = monotonic
        self._cache: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._flights: dict[tuple[str, str], asyncio.Task[Answer[object]]] = {}

    async def mx(self, domain: str) -> Answer[Mx]:
        """By preference, lowest first. :raises DnsUnavailable:"""
        answer = await self._ask(domain, "MX")
        records = cast("tuple[Mx, ...]", answer.records)
        return cast("Answer[Mx]", replace(answer, records=tuple(sorted(records))))

    async def addresses(self, host: str) -> Answer[str]:
        """IPv4 first, then IPv6; an address is its own answer. What one family gives is enough
        when the other cannot be asked. :raises DnsUnavailable:"""
        try:
            return Answer((str(ipaddress.ip_address(host)),))
        except ValueError:
            pass
        asked = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"), return_exceptions=True)
        answers = [cast("Answer[str]", answer) for answer in asked if not isinstance(answer, BaseException)]
        records = tuple(record for answer in answers for record in answer.records)
        if not records:
            for failure in asked:
                if isinstance(failure, BaseException):
                    raise failure
        return Answer(
            records,
            nxdomain=all(answer.nxdomain for answer in answers),
            ttl=min(answer.ttl for answer in answers),
            secure=all(answer.secure for answer in answers),
            stale=any(answer.stale for answer in answers),
        )

    async def txt(self, name: str) -> Answer[bytes]:
        """Each record with its strings joined (RFC 7208 §3.3). :raises DnsUnavailable:"""
        return cast("Answer[bytes]", await self._ask(name, "TXT"))

    async def a(self, name: str) -> Answer[str]:
        """IPv4 only. :raises DnsUnavailable:"""
        return cast("Answer[str]", await self._ask(name, "A"))

    async def aaaa(self, name: str) -> Answer[str]:
        """IPv6 only. :raises DnsUnavailable:"""
        return cast("Answer[str]", await self._ask(name, "AAAA"))

    async def ptr(self, address: str) -> Answer[str]:
        """The names of an address, lower case without the last dot; text that is no address has
        none. :raises DnsUnavailable:"""
        name = _reverse_name(address)
        return cast("Answer[str]", await self._ask(name, "PTR")) if name else Answer((), nxdomain=True)

    def forget(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    async def _ask(self, name: str, kind: str) -> Answer[object]:
        key = (name.lower().rstrip("."), kind)
        entry = self._cache.get(key)
        if entry is not None and entry.expires > self._monotonic():
            self.counts.hits += 1
            self._cache.move_to_end(key)
            if isinstance(entry.answer, DnsUnavailable):
                raise DnsUnavailable(detail=entry.answer.detail)
            return entry.answer
        flight = self._flights.get(key)
        if flight is None:
            self.counts.misses += 1
            flight = asyncio.get_running_loop().create_task(self._fly(key))
            self._flights[key] = flight
            flight.add_done_callback(lambda task: self._land(key, task))
        # Who asks may be cancelled; the others still wait for the same answer.
        return await asyncio.shield(flight)

    def _land(self, key: tuple[str, str], task: asyncio.Task[Answer[object]]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits any more

    async def _fly(self, key: tuple[str, str]) -> Answer[object]:
        shelved = await self._from_shelf(key)
        if shelved is not None:
            return shelved
        try:
            answer = await self._query(*key)
        except DnsUnavailable as failure:
            self.counts.failures += 1
            known = self._cache.get(key)
            now = self._monotonic()
            if known is not None and isinstance(known.answer, Answer) and now < known.expires + self._stale:
                self.counts.stale += 1
                return replace(known.answer, stale=True)
            self._keep(key, _Entry(failure, now + self._failure_ttl))
            raise
        negative = not answer.records
        ttl = min(answer.ttl, MAX_NEGATIVE_TTL if negative else MAX_TTL)
        self._keep(key, _Entry(answer, self._monotonic() + ttl))
        if self._shelf is not None and key[1] in _SHELVED and ttl > 0:
            body = (answer.records, answer.nxdomain, answer.ttl, answer.secure)
            self._shelf.put(f"{key[1]} {key[0]}", _pack(body), ttl)
        return answer

    async def _from_shelf(self, key: tuple[str, str]) -> Answer[object] | None:
        if self._shelf is None or key[1] not in _SHELVED:
            return None
        held = await self._shelf.get(f"{key[1]} {key[0]}")
        if held is None:
            return None
        try:
            found = _UNPACK[key[1]](held[0])
        except msgspec.MsgspecError:
            return None
        self.counts.shared += 1
        answer: Answer[object] = Answer(found.records, found.nxdomain, found.ttl, found.secure)
        self._keep(key, _Entry(answer, self._monotonic() + min(held[1], MAX_TTL)))
        return answer

    def _keep(self, key: tuple[str, str], entry: _Entry) -> None:
        self._cache[key] = entry
        self._cache.move_to_end(key)
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)

    async def _query(self, name: str, kind: str) -> Answer[object]:
        try:
            question = dns.name.from_text(name, idna_codec=dns.name.IDNA_2008_Practical)
        except (dns.exception.DNSException, UnicodeError):
            return Answer((), nxdomain=True, ttl=MAX_NEGATIVE_TTL)  # no such name can exist
        try:
            found = await self._resolver.resolve(question, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as missing:
            return _missing(missing, question)
        except (dns.exception.DNSException, OSError) as error:
            raise DnsUnavailable(detail=f"{kind} {name[:255]!r}: {type(error).__name__}: {error}"[:500]) from error
        response = found.response
        secure = bool(response.flags & dns.flags.AD)
        ttl = float(found.chaining_result.minimum_ttl)
        if found.rrset is None:
            return Answer((), ttl=_negative_ttl(response), secure=secure)
        records = tuple(_READ[kind](record) for record in list(found.rrset)[:MAX_RECORDS])
        return Answer(records, ttl=ttl, secure=secure)


def _configure(
    nameservers: Sequence[tuple[str, int]] | None, timeout: float, lifetime: float
) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=nameservers is None)
    except dns.resolver.NoResolverConfiguration as error:
        raise Misconfigured("The system has no DNS resolver; name one in the settings", detail=str(error)) from error
    if nameservers is not None:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in nameservers]
    resolver.timeout = timeout
    resolver.lifetime = lifetime
    resolver.use_edns(0, 0, 1232)
    resolver.flags = dns.flags.RD | dns.flags.AD  # RFC 6840 §5.7: say whether it was validated
    return resolver


def _missing(error: dns.resolver.NXDOMAIN, question: dns.name.Name) -> Answer[object]:
    response = cast("dns.message.QueryMessage", error.response(question))
    return Answer((), nxdomain=True, ttl=_negative_ttl(response), secure=bool(response.flags & dns.flags.AD))


def _negative_ttl(response: dns.message.Message) -> float:
    """RFC 2308 §5: of the SOA in the authority section; 0 without one, so not cached."""
    for rrset in response.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return float(min(rrset.ttl, cast("dns.rdtypes.ANY.SOA.SOA", rrset[0]).minimum))
    return 0.0


@lru_cache(maxsize=4096)
def _reverse_name(address: str) -> str | None:
    try:
        return ipaddress.ip_address(address).reverse_pointer
    except ValueError:
        return None


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _read_mx(record: object) -> Mx:
    mx = cast("dns.rdtypes.ANY.MX.MX", record)
    return Mx(int(mx.preference), _host(mx.exchange))


def _read_ptr(record: object) -> str:
    return _host(cast("dns.rdtypes.ANY.PTR.PTR", record).target)


def _read_txt(record: object) -> bytes:
    return b"".join(cast("dns.rdtypes.txtbase.TXTBase", record).strings)


_READ: dict[str, Callable[[object], object]] = {
    "MX": _read_mx,
    "TXT": _read_txt,
    "A": str,
    "AAAA": str,
    "PTR": _read_ptr,
}
