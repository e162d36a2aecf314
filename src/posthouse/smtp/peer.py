"""Who is at the other end of a connection, as the shell of a server learnt it."""

from __future__ import annotations

import msgspec


class Tls(msgspec.Struct, frozen=True, gc=False):
    """`version` as `TLSv1.3`, `cipher` as OpenSSL names it."""

    version: str
    cipher: str


class Peer(msgspec.Struct, frozen=True, gc=False):
    """`address`: IPv4 or IPv6 in its shortest form, an IPv4-mapped one as IPv4; what the PROXY
    header said when the connection came from a trusted proxy. `listener`: mx or lmtp.
    `trusted`: a site's own front server (LMTP), whose word on the client is not checked."""

    address: str
    port: int
    listener: str = "mx"
    trusted: bool = False
