"""A DNS server on loopback, over UDP and TCP, from a dict. For any test that resolves names.

    zones = {
        "example.com": {"MX": ["10 mx.example.com."], "TXT": ['"v=spf1 -all"']},
        "mx.example.com": {"A": ["127.0.0.1"]},
        "broken.example": "SERVFAIL",
    }
    async with DnsServer(zones) as server:
        resolver = Resolver([server.nameserver])

A name that is not there is NXDOMAIN; a type that is not there is no data; CNAMEs are followed.
Instead of a dict: `"SERVFAIL"`, `"DROP"` (no answer) or `"TRUNCATE"` cannot be told over UDP, so
a name may be in `truncated` and is then answered in full over TCP only.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Zones = Mapping[str, Mapping[str, Sequence[str]] | str]


class DnsServer(asyncio.DatagramProtocol):
    def __init__(
        self, zones: Zones, *, ttl: int = 300, negative_ttl: int = 60, truncated: frozenset[str] = frozenset()
    ) -> None:
        self.zones: dict[str, Mapping[str, Sequence[str]] | str] = dict(zones)
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self.truncated = truncated
        self.queries: list[tuple[str, str]] = []
        self.silent = False
        self.nameserver = ("127.0.0.1", 0)

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
            self.nameserver = ("127.0.0.1", self._udp.get_extra_info("sockname")[1])
            try:
                self._tcp = await asyncio.start_server(self._serve, *self.nameserver)
            except OSError:  # that port is taken for TCP
                self._udp.close()
            else:
                return self
        raise OSError("no port is free for both UDP and TCP")

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data, udp=True)
        if answer is not None:
            self._transport.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            answer = self._answer(await reader.readexactly(size), udp=False)
            if answer is not None:
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, data: bytes, *, udp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.queries.append((name, dns.rdatatype.to_text(question.rdtype)))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        zone = self.zones.get(name)
        if self.silent or zone == "DROP":
            return None
        if zone == "SERVFAIL":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif udp and name in self.truncated:
            response.flags |= dns.flags.TC
        else:
            self._fill(response, question.name, question.rdtype)
        return response.to_wire(max_size=65_535)

    def _fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        kind = dns.rdatatype.to_text(rdtype)
        for _ in range(8):
            zone = self.zones.get(name.to_text(omit_final_dot=True).lower())
            if zone is None or isinstance(zone, str):
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if kind in zone:
                response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", kind, *zone[kind]))
                return
            if "CNAME" not in zone:
                break
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", *zone["CNAME"]))
            name = dns.name.from_text(zone["CNAME"][0])
        soa = f"ns.test. host.test. 1 3600 600 86400 {self.negative_ttl}"
        response.authority.append(dns.rrset.from_text("test.", 3600, "IN", "SOA", soa))
