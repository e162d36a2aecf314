"""The PROXY protocol, version 2: what a load balancer writes before the client's first octet.

Only the binary form is read (HAProxy's proxy-protocol.txt, §2.2): the text of version 1 cannot be
told from a client's own words with certainty. A header counts only from an address that is
trusted to write one, and from such an address it has to be there; that is the shell's affair.
"""

from __future__ import annotations

import ipaddress

import msgspec

from posthouse.errors import Invalid

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MAX_EXTRA = 4096
"""Octets after the fixed 16: addresses and TLVs. The protocol's own bound is 65,535."""
MAX_TLVS = 64
_HEAD = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESSES = {_TCP4: (4, 12), _TCP6: (16, 36)}
"""Family → octets of one address, of the whole address block."""
_CRC32C = 0x03


class BadProxy(Invalid):
    """What stands where a PROXY header has to be is none."""

    code = "bad_proxy_header"
    title = "The PROXY header is not valid"


class Proxied(msgspec.Struct, frozen=True, gc=False):
    """`address` is None when the connection is the proxy's own (LOCAL, as for a health check, or
    a family that it does not tell): then the real ends of the connection count. `size`: octets
    of the header."""

    address: str | None
    port: int
    size: int


def parse(data: bytes) -> Proxied | None:
    """None when more octets are needed; never asks for more than 16 + MAX_EXTRA.

    :raises BadProxy: it is no header, or one that breaks a bound.
    """
    if not data.startswith(SIGNATURE[: len(data)]):
        raise BadProxy("The signature of PROXY v2 is missing")
    if len(data) < _HEAD:
        return None
    command, family = data[12], data[13]
    extra = int.from_bytes(data[14:16], "big")
    if command not in {_LOCAL, _PROXY}:
        raise BadProxy("Neither version 2 nor a known command")
    if extra > MAX_EXTRA:
        raise BadProxy("The header is too long")
    size = _HEAD + extra
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Proxied(None, 0, size)
    return _proxied(data[:size], family)


def shortest(address: str | bytes) -> str:
    """An IPv4 or IPv6 address in its shortest form, an IPv4-mapped one as IPv4, without a zone.

    :raises ValueError: not an address.
    """
    found = ipaddress.ip_address(address.partition("%")[0] if isinstance(address, str) else address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)


def _proxied(header: bytes, family: int) -> Proxied:
    if family == _UNSPECIFIED:
        return Proxied(None, 0, len(header))
    if family not in _ADDRESSES:
        raise BadProxy("Only TCP over IPv4 or IPv6 can carry mail")
    width, block = _ADDRESSES[family]
    if len(header) < _HEAD + block:
        raise BadProxy("The addresses are cut off")
    _check_tlvs(header, _HEAD + block)
    ports = _HEAD + 2 * width
    address = shortest(header[_HEAD : _HEAD + width])
    return Proxied(address, int.from_bytes(header[ports : ports + 2], "big"), len(header))


def _check_tlvs(header: bytes, at: int) -> None:
    for _ in range(MAX_TLVS):
        if at == len(header):
            return
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise BadProxy("A TLV is cut off")
        if header[at] == _CRC32C and not _crc_holds(header, value, end):
            raise BadProxy("The checksum of the header is wrong")
        at = end
    if at != len(header):
        raise BadProxy("Too many TLVs")


def _crc_holds(header: bytes, start: int, end: int) -> bool:
    blank = header[:start] + bytes(end - start) + header[end:]
    return end - start == 4 and int.from_bytes(header[start:end], "big") == crc32c(blank)


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 9260 appendix A), a bit at a time: headers are short and rarely carry it."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
