"""Addresses, domains, subjects, header values, rewritten addresses: short texts that strangers choose."""

from __future__ import annotations

from email.header import decode_header, make_header

from posthouse.domains.name import normalise, organizational
from posthouse.errors import Invalid
from posthouse.inbound.filter import names
from posthouse.mail import headers
from posthouse.mail.address import Mailbox, mailbox, parse_domain, parse_mailbox, refuse_hidden
from posthouse.mail.parse import decode_words, header_fields, parse
from posthouse.mail.parse.dates import parse_date
from posthouse.mail.srs import Srs, is_srs
from posthouse.mail.threads.quotes import read_excerpt
from posthouse.mail.threads.subject import base_subject, read_subject
from posthouse.mail.transfer import encode_text
from posthouse.smtp.path import is_mailbox
from tests.fuzz.bodies import decoded

_SRS = Srs(b"0123456789abcdef")
_NOW = 1_700_000_000_000_000
CORPUS: tuple[bytes, ...] = (
    b"",
    b"ann@example.com",
    b"Ann Lee <ann@example.com>",
    b'"Lee, \\"Ann\\"" <"a b"@example.com> (work)',
    "Dörte <dö@bücher.example>".encode(),
    b"ann@[192.0.2.1]",
    b"ann@[IPv6:2001:db8::1]",
    "x@xn--bcher-kva.example, \u202eevil\u2066 <a@b.example>".encode(),
    "раураl.com gооgle.com \u1e05ank.example".encode(),
    _SRS.forward("ann@example.com", "relay.example", _NOW).encode(),
    _SRS.forward("SRS0=abcde=XY=other.example=bob@hop.example", "relay.example", _NOW).encode(),
    "Re: AW: [list] Re[2]: Fwd: (fwd) Über die Sache".encode(),
    b"Re: =?utf-8?q?W=C3=B6rld?= =?iso-8859-1?b?5A==?= =?x?y?z?=",
    b"Mon, 02 Jan 2023 10:00:00 +0000 (UTC)",
    b"On Mon, Jan 2, 2023 at 10:00 AM Ann <ann@example.com> wrote:\n> hi\n>> there\n-----Original Message-----\nFrom: x\n",
    "Text mit Umläuten\r\nFrom here\n.\n trailing \t\nx=y\n".encode() + b"a" * 1200,
)


def check(data: bytes) -> None:
    """The same text as each of them."""
    text = data.decode("utf-8", "replace")
    _check_mailbox(text)
    _check_domain(text)
    _check_rewritten(text)
    _check_subject(text)
    _check_header(text)
    _check_text(text)
    _check_lookalikes(text[:400])
    moment, offset, exact = parse_date(text)
    assert moment is None or -(1 << 63) <= moment < 1 << 63
    assert abs(offset) <= 24 * 60
    assert isinstance(exact, bool)


def _check_mailbox(text: str) -> None:
    try:
        found = parse_mailbox(text)
    except Invalid as error:
        assert error.public.isprintable()
        return
    assert mailbox(found.address, found.name) == found
    assert parse_mailbox(found.address) == Mailbox("", found.local, found.domain)
    assert found.domain.isascii()
    assert found.domain == found.domain.lower() or found.domain.startswith("[")
    assert is_mailbox(found.address)
    refuse_hidden(found.address, "address")
    field = headers.addresses("To", (found,))
    assert field.endswith(b"\r\n")
    ((name, _, _, _),) = header_fields(field + b"\r\n")
    assert name == b"To"
    (shown,) = parse(field + b"\r\n").to
    assert shown.address.lower() == found.address.lower()


def _check_domain(text: str) -> None:
    for read in (parse_domain, normalise):
        try:
            domain = read(text)
        except Invalid:
            continue
        assert domain.isascii()
        assert read(domain) == domain
        assert domain.endswith(organizational(domain))


def _check_rewritten(text: str) -> None:
    if is_mailbox(text):  # as every reverse-path is
        try:
            made = _SRS.forward(text, "relay.example", _NOW)
        except Invalid:
            pass
        else:
            assert is_mailbox(made)
            if made != text:
                assert is_srs(made)
                back = _SRS.reverse(made, _NOW)
                assert is_mailbox(back)
                assert is_srs(text) or back == text
                assert _SRS.reverse(made.lower(), _NOW).lower() == back.lower()
    try:
        back = _SRS.reverse(text, _NOW)
    except Invalid:
        return
    assert back.rpartition("@")[2]


def _check_subject(text: str) -> None:
    subject = read_subject(text)
    base = base_subject(text)
    assert base == subject.base
    short = text[:300]
    if sum(map(short.count, ":：[(*{")) < 12:  # prefixes are taken off in so many rounds
        assert read_subject("Re: " + short).key == read_subject(short).key
    excerpt = read_excerpt(text)
    assert read_excerpt(text) == excerpt
    assert len(decode_words(text.encode())) <= 4000


def _check_header(text: str) -> None:
    for write, name in ((headers.unstructured, "Subject"), (headers.custom, "X-Own"), (headers.custom, "List-Id")):
        try:
            field = write(name, text)
        except Invalid:
            continue
        ((read, _, start, end),) = header_fields(field + b"\r\n")
        assert read.decode() == name
        assert field[start:end].rstrip(b"\r\n") == field.rstrip(b"\r\n")
        assert all(len(line) <= 998 for line in field.split(b"\r\n"))
    said = headers.one_line(text)[:500]
    value = headers.unstructured("Subject", said).decode("ascii").partition(":")[2].replace("\r\n", "").strip()
    assert str(make_header(decode_header(value))) == said


def _check_text(text: str) -> None:
    encoding, octets = encode_text(text)
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    assert octets.isascii()
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert decoded(encoding, octets) == text.replace("\r\n", "\n").replace("\r", "\n").encode().replace(b"\n", b"\r\n")


def _check_lookalikes(text: str) -> None:
    for one in (names.registrable, names.ascii_host, names.shown_host, names.skeleton):
        assert isinstance(one(text), str)
    names.mixes_scripts(text)
    names.hides_characters(text)
    assert names.split_words(text) >= 0
    names.deceptive_idn(text)
    names.imitates_brand(text)
    names.imitates(text, "bank.example")
    names.claimed_brand(text)
    names.one_off(text, "Ann Lee")
