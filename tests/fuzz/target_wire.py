"""Other protocols' octets: the PROXY header, DNS answers, the virus scanner's reply."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import dns.message
import dns.nameserver
import dns.query

from posthouse.errors import DnsUnavailable, TooLarge, Unavailable
from posthouse.net.clamd import Clamd
from posthouse.net.dns import MAX_NEGATIVE_TTL, MAX_RECORDS, Answer, Mx, Resolver
from posthouse.smtp import proxy

_V4 = bytes((192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0, 25))
_V6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::ffff:192.0.2.9").packed + b"\x30\x39\0\x19"


def _proxied(command: int, family: int, block: bytes) -> bytes:
    return proxy.SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


def _summed(block: bytes) -> bytes:
    blank = _proxied(0x21, 0x11, block + b"\x03\0\x04\0\0\0\0")
    return blank[:-4] + proxy.crc32c(blank).to_bytes(4, "big")


def _answer(kind: str, *records: str, cname: str = "", more: str = "") -> bytes:
    """After its id."""
    owner = cname or "q.example."
    lines = [f"q.example. 300 IN CNAME {cname}"] if cname else []
    lines += [f"{owner} 300 IN {kind} {record}" for record in records]
    text = f"id 0\nopcode QUERY\nrcode NOERROR\nflags QR RD RA AD\n;QUESTION\nq.example. IN {kind}\n;ANSWER\n"
    return dns.message.from_text(text + "\n".join(lines) + "\n;AUTHORITY\n" + more).to_wire()[2:]


_SOA = "example. 300 IN SOA ns.example. h.example. 1 2 3 4 60\n"
_KINDS = ("A", "AAAA", "MX", "TXT", "PTR")
_ANSWERS = (
    b"\0" + _answer("A", "192.0.2.1", "192.0.2.2"),
    b"\1" + _answer("AAAA", "2001:db8::1", cname="other.example."),
    b"\2" + _answer("MX", "10 mx1.example.", "0 .", "20 \\000\\032\\200.example."),
    b"\3" + _answer("TXT", '"v=spf1 " "-all"', '"\\255\\000"'),
    b"\4" + _answer("PTR", "host.example."),
    b"\3" + _answer("TXT", more=_SOA),
    b"\3" + _answer("TXT", more=_SOA).replace(b"\x81\xa0", b"\x81\xa3", 1),
)
CORPUS: tuple[bytes, ...] = (
    b"",
    _proxied(0x21, 0x11, _V4),
    _proxied(0x21, 0x21, _V6) + b"EHLO x\r\n",
    _proxied(0x20, 0x00, b""),
    _proxied(0x21, 0x11, _V4 + b"\x04\0\x02ab" + b"\x20\0\x05\0\0\0\0\0"),
    _summed(_V4 + b"\x04\0\x01x"),
    _proxied(0x21, 0x31, b"/path" + bytes(211)),
    *_ANSWERS,
    b"stream: OK\0",
    b"stream: Win.Test.EICAR_HDB-1 FOUND\0",
    b"INSTREAM size limit exceeded. ERROR\0",
    b"stream: \x1b[31m\xff FOUND\n\0more",
)


def check(data: bytes) -> None:
    """Each reader reads all of it; what it says of a part stays so of the whole."""
    _check_proxy(data)
    if proxy.SIGNATURE[:4] != data[:4]:
        asyncio.run(_check_dns(data))
        asyncio.run(_check_clamd(data))


def _check_proxy(data: bytes) -> None:
    seen = [_read(data[:size]) for size in {*range(min(len(data), 20)), len(data) // 2, len(data)}]
    whole = _read(data)
    for one in seen:
        assert one in (None, whole)
    if isinstance(whole, proxy.Proxied):
        assert 16 <= whole.size <= min(len(data), 16 + proxy.MAX_EXTRA)
        assert 0 <= whole.port < 65_536
        assert _read(data[: whole.size]) == whole
        assert _read(data[: whole.size - 1]) is None
        assert whole.address is None or proxy.shortest(whole.address) == whole.address
    elif whole is None:
        assert len(data) < 16 + proxy.MAX_EXTRA


def _read(data: bytes) -> proxy.Proxied | str | None:
    try:
        return proxy.parse(data)
    except proxy.BadProxy:
        return "bad"


class _Canned(dns.nameserver.Nameserver):
    """Gives the same octets to each question, with its id."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def __str__(self) -> str:
        return "canned"

    def kind(self) -> str:
        return "canned"

    def is_always_max_size(self) -> bool:
        return True

    def answer_nameserver(self) -> str:
        return "192.0.2.53"

    def answer_port(self) -> int:
        return 53

    async def async_query(self, request: dns.message.QueryMessage, *_: Any, **__: Any) -> dns.message.Message:
        response = dns.message.from_wire(request.id.to_bytes(2, "big") + self._wire)
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response


async def _check_dns(data: bytes) -> None:
    resolver = Resolver([("192.0.2.53", 53)], timeout=0.02, lifetime=0.02)
    resolver._resolver.nameservers = [_Canned(data[1:])]
    kind = _KINDS[data[0] % len(_KINDS)] if data else "A"
    try:
        answer: Answer[Any] = await resolver._ask("q.example", kind)
    except DnsUnavailable as failure:
        assert failure.detail is None or len(failure.detail) <= 500
        return
    assert len(answer.records) <= MAX_RECORDS
    assert answer.ttl >= 0
    assert not (answer.nxdomain and answer.records)
    if not answer.records:
        assert answer.ttl <= max(MAX_NEGATIVE_TTL, 2**31)
    for record in answer.records:
        match kind:
            case "TXT":
                assert isinstance(record, bytes)
            case "MX":
                assert isinstance(record, Mx)
                assert 0 <= record.preference < 65_536
                _check_host(record.host)
            case "PTR":
                _check_host(record)
            case _:
                assert ipaddress.ip_address(record).version == (4 if kind == "A" else 6)


def _check_host(host: str) -> None:
    assert host == host.lower()
    assert host.isascii()
    assert host.isprintable()


class _Writer:
    """Takes everything."""

    def __init__(self) -> None:
        self.transport = self

    def write(self, _: bytes) -> None: ...

    async def drain(self) -> None: ...

    def abort(self) -> None: ...


class _Answered(Clamd):
    def __init__(self, reply: bytes) -> None:
        super().__init__("127.0.0.1:3310", timeout=5.0)
        self._said = reply

    async def _connect(self) -> Any:
        reader = asyncio.StreamReader(limit=4096)
        reader.feed_data(self._said)
        reader.feed_eof()
        return reader, _Writer()


async def _check_clamd(data: bytes) -> None:
    try:
        found = await _Answered(data).scan(b"message")
    except (TooLarge, Unavailable):
        return
    if found is None:
        assert data.partition(b"\0")[0].rstrip(b"\r\n ").endswith(b"OK")
    else:
        assert found.isprintable()
        assert 0 < len(found) <= 200
        assert b"FOUND" in data
