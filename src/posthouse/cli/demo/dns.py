"""The demo's DNS: the records of its domains, answered on loopback and to nobody else.

Small because what asks is one resolver that caches: UDP only, answers under 1,232 octets.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_TTL = 300
_BUFFER = 4096
_SOA = dns.rrset.from_text(dns.name.root, _TTL, "IN", "SOA", f"ns.demo. mail.demo. 1 3600 600 86400 {_TTL}")
"""Without it nobody may remember that a name does not exist (RFC 2308 §5)."""


class Dns:
    """`with Dns() as dns: dns.publish("example.com", "MX", "10 mx.example.com")`; it answers at
    `dns.address` in a thread of its own. A name without records does not exist."""

    def __init__(self) -> None:
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.address = ""
        """`127.0.0.1:PORT`, as the setting `dns.servers` wants it."""

    def publish(self, name: str, kind: str, *values: str) -> None:
        """In the form of a zone file: names end in a dot or are complete all the same, texts are
        quoted. What was there under this name and type is replaced.

        :raises dns.exception.DNSException: not a record.
        """
        key = dns.name.from_text(name), dns.rdatatype.from_text(kind)
        self._records[key] = dns.rrset.from_text_list(
            key[0], _TTL, dns.rdataclass.IN, key[1], values, origin=dns.name.root, relativize=False
        )

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(self._socket,), name="dns", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, self._socket = self._socket, None
        if self._thread is not None:
            self._thread.join(5)
        if held is not None:
            held.close()

    def _serve(self, held: socket.socket) -> None:
        while self._socket is held:
            with suppress(TimeoutError, OSError, dns.exception.DNSException):
                data, peer = held.recvfrom(_BUFFER)
                held.sendto(self.answer(data), peer)

    def answer(self, question: bytes) -> bytes:
        """The response to one query, as octets. :raises dns.exception.DNSException: it is no query."""
        query = dns.message.from_wire(question)
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        for asked in query.question:
            found = self._records.get((asked.name, asked.rdtype))
            if found is not None:
                response.answer.append(found)
            else:
                response.authority.append(_SOA)
                if not self._exists(asked.name):
                    response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()

    def _exists(self, name: dns.name.Name) -> bool:
        """Also a name that only stands above others (RFC 8020)."""
        return any(owner.is_subdomain(name) for owner, _ in list(self._records))


def quoted(text: str) -> str:
    """A TXT record's text in strings of at most 255 octets."""
    parts: Sequence[str] = [text[at : at + 255] for at in range(0, len(text), 255)]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
