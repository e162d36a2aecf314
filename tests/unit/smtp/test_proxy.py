"""PROXY v2 as HAProxy's document gives it, and anything else."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.smtp.proxy import MAX_EXTRA, MAX_TLVS, SIGNATURE, BadProxy, Proxied, crc32c, parse, shortest

IPV4 = bytes([203, 0, 113, 9, 192, 0, 2, 1]) + struct.pack("!HH", 40000, 25)


def header(block: bytes, command: int = 0x21, family: int = 0x11, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if size is None else size) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def test_a_known_header_octet_for_octet() -> None:
    wire = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c cb007109 c0000201 9c40 0019")
    assert parse(wire) == Proxied("203.0.113.9", 40000, 28)
    assert parse(wire + b"EHLO x\r\n") == Proxied("203.0.113.9", 40000, 28)


def test_needs_more_until_it_is_whole() -> None:
    wire = header(IPV4 + tlv(4, b"padding"))
    for end in range(len(wire)):
        assert parse(wire[:end]) is None
    assert parse(wire) == Proxied("203.0.113.9", 40000, len(wire))


@given(st.ip_addresses(v=6), st.integers(0, 65535), st.lists(st.tuples(st.integers(4, 255), st.binary(max_size=40))))
def test_ipv6_and_tlvs(address: ipaddress.IPv6Address, port: int, extras: list[tuple[int, bytes]]) -> None:
    block = address.packed * 2 + struct.pack("!HH", port, 25) + b"".join(tlv(*extra) for extra in extras)
    assert parse(header(block, family=0x21)) == Proxied(shortest(address.packed), port, 16 + len(block))


def test_a_mapped_address_is_ipv4_and_a_zone_is_dropped() -> None:
    assert shortest("::ffff:192.0.2.7") == "192.0.2.7"
    assert shortest("fe80::1%eth0") == "fe80::1"
    assert shortest("2001:DB8:0:0::1") == "2001:db8::1"
    with pytest.raises(ValueError, match="appear"):
        shortest("/run/socket")


@pytest.mark.parametrize("family", range(256))
def test_local_says_nothing_of_the_peer(family: int) -> None:
    assert parse(header(b"", 0x20, family)) == Proxied(None, 0, 16)
    assert parse(header(b"\xff" * 99, 0x20, family)) == Proxied(None, 0, 115)


@pytest.mark.parametrize("family", [f for f in range(256) if f not in {0x00, 0x11, 0x21}])
def test_only_tcp_over_ip_is_taken(family: int) -> None:
    with pytest.raises(BadProxy):
        parse(header(IPV4 * 20, family=family))


@pytest.mark.parametrize("command", [c for c in range(256) if c not in {0x20, 0x21}])
def test_other_versions_and_commands_are_refused(command: int) -> None:
    with pytest.raises(BadProxy):
        parse(header(IPV4, command))


@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO x\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        header(IPV4[:-1]),
        header(b""),
        header(IPV4, family=0x21),
        header(IPV4 + b"\x04"),
        header(IPV4 + b"\x04\x00"),
        header(IPV4 + b"\x04\x00\x01"),
        header(IPV4 + b"\x04\xff\xff" + b"x" * 100),
        header(IPV4 + tlv(4, b"") * (MAX_TLVS + 1)),
        header(IPV4, size=MAX_EXTRA + 1),
        header(b"", 0x20, size=65535),
        header(IPV4 + tlv(3, b"abcd")),
        header(IPV4 + tlv(3, b"")),
    ],
)
def test_what_breaks_a_bound_is_refused(wire: bytes) -> None:
    with pytest.raises(BadProxy):
        parse(wire)


def test_as_many_and_as_long_as_allowed() -> None:
    assert parse(header(IPV4 + tlv(4, b"") * MAX_TLVS)) is not None
    assert parse(header(IPV4 + tlv(4, b"x" * (MAX_EXTRA - 15)))) is not None


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    blank = header(IPV4 + tlv(3, bytes(4)) + tlv(4, b"more"))
    right = crc32c(blank).to_bytes(4, "big")
    assert parse(header(IPV4 + tlv(3, right) + tlv(4, b"more"))) is not None
    with pytest.raises(BadProxy, match="checksum"):
        parse(header(IPV4 + tlv(3, right) + tlv(4, b"mere")))


@given(st.binary(max_size=200), st.booleans())
def test_anything_is_a_header_or_an_error_or_too_short(data: bytes, signed: bool) -> None:
    wire = SIGNATURE + data if signed else data
    try:
        found = parse(wire)
    except BadProxy:
        return
    if found is None:
        assert len(wire) < 16 + MAX_EXTRA
    else:
        assert 16 <= found.size <= len(wire)
        if found.address is not None:
            ipaddress.ip_address(found.address)
