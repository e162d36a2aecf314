from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail.address import Mailbox, mailbox, parse_domain, parse_mailbox

VALID = [
    ("ann@example.com", Mailbox("", "ann", "example.com")),
    ("Ann.Lee+tag@EXAMPLE.Com", Mailbox("", "Ann.Lee+tag", "example.com")),
    ("  ann@example.com ", Mailbox("", "ann", "example.com")),
    ("J. O'Neil-Lee <用户@Example.com>", Mailbox("J. O'Neil-Lee", "用户", "example.com")),
    ("Ann Lee < ann@example.com >", Mailbox("Ann Lee", "ann", "example.com")),
    ("Ann Lee <ann@example.com(home)>", Mailbox("Ann Lee", "ann", "example.com")),
    ("Ann (home) Lee  < ann@example.com >", Mailbox("Ann Lee", "ann", "example.com")),
    ("<ann@example.com>", Mailbox("", "ann", "example.com")),
    ("Ann Lee <ann@example.com>", Mailbox("Ann Lee", "ann", "example.com")),
    ('"Lee, Ann" <ann@example.com>', Mailbox("Lee, Ann", "ann", "example.com")),
    ('"a \\"b\\" \\\\" <ann@example.com>', Mailbox('a "b" \\', "ann", "example.com")),
    ('Dr. "Ann" B. <ann@example.com>', Mailbox("Dr. Ann B.", "ann", "example.com")),
    ("ann@x.example <ann@x.example>", Mailbox("ann@x.example", "ann", "x.example")),
    ("ann@example.com (Ann (at home))", Mailbox("", "ann", "example.com")),
    ('"(no comment)" <ann@example.com>', Mailbox("(no comment)", "ann", "example.com")),
    ('"ann"@example.com', Mailbox("", "ann", "example.com")),
    ('"a@b c"@example.com', Mailbox("", '"a@b c"', "example.com")),
    ('"a\\"b"@example.com', Mailbox("", '"a\\"b"', "example.com")),
    ("ann@[192.0.2.1]", Mailbox("", "ann", "[192.0.2.1]")),
    ("ann@[ipv6:2001:DB8:0::1]", Mailbox("", "ann", "[IPv6:2001:db8::1]")),
    ("ann@Bücher.example", Mailbox("", "ann", "xn--bcher-kva.example")),
    ("ann@例え。テスト", Mailbox("", "ann", "xn--r8jz45g.xn--zckzah")),
    ("用户@例え.テスト", Mailbox("", "用户", "xn--r8jz45g.xn--zckzah")),
    ("e\u0301ve@example.com", Mailbox("", "éve", "example.com")),
    ("Ünïcødé 😀 <ann@example.com>", Mailbox("Ünïcødé 😀", "ann", "example.com")),
    ("ann@localhost", Mailbox("", "ann", "localhost")),
    ("ann@xn--i-7iq.example", Mailbox("", "ann", "xn--i-7iq.example")),
    ("a" * 64 + "@example.com", Mailbox("", "a" * 64, "example.com")),
]

INVALID = [
    "", " ", "ann", "@example.com", "ann@", "<>", "ann@example.com.", "ann@.example.com", "ann@a..b", ".ann@a.b",
    "ann.@a.b", "a..b@a.b", "ann@-a.b", "ann@a-.b", "ann@a_b.example", "ann@1.2.3.4", "ann@[1.2.3]", "ann@[1.2.3.4",
    "ann@[IPv6:fe80::1%eth0]", "ann@[x]", "ann@a b.example", "a nn@a.b", "ann@b@c.example", "Lee, Ann <ann@a.b>",
    "a@b.example, c@d.example", "a@b.example; c <d@e.example>", "Ann <a@b.example> x", "Ann <a@b.example",
    "a@b.example)",
    "(" * 40 + ")" * 40 + "a@b.example", "ann@example.com\r\nBcc: x@y.example", "ann\n@example.com",
    "ann\0@example.com",
    "Ann\nX <ann@example.com>", "Ann\u202e <ann@example.com>", "ann\u200b@example.com", "a\u00a0b@example.com",
    '"a\x01b"@example.com', '"unclosed@example.com', "a" * 65 + "@example.com", "é" * 33 + "@example.com",
    "ann@" + "a" * 64 + ".example", "a" * 60 + "@" + ".".join(["b" * 60] * 4), "ann@xn--\u00fc.example",
    "ann@xn--a-ä.b", "ann@☃\u200b..example", "ann@exa\u202emple.com", "\ud800@example.com",
    "n" * 257 + " <a@b.example>", "a" * 5000,
    "ann@xn--99999999.example", "ann@" + "é" * 250, "n" * 257 + " <é@b.example>", "a a <ann>", "a <a b@c.d>",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), VALID)
def test_valid(text: str, expected: Mailbox) -> None:
    assert parse_mailbox(text) == expected


@pytest.mark.parametrize("text", INVALID)
def test_invalid(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_mailbox(text)
    assert caught.value.code == "invalid_address"
    assert caught.value.public.isprintable()


def test_address_and_smtputf8() -> None:
    assert parse_mailbox("用户@例え.テスト").address == "用户@xn--r8jz45g.xn--zckzah"
    assert parse_mailbox("用户@例え.テスト").needs_smtputf8
    assert not parse_mailbox("ann@例え.テスト").needs_smtputf8


def test_name_beside_the_address() -> None:
    assert mailbox("ann@Example.com", "Lee, Ann ") == Mailbox("Lee, Ann", "ann", "example.com")
    assert mailbox('"a b"@example.com', "") == Mailbox("", '"a b"', "example.com")
    for address, name in [("Ann <ann@a.b>", ""), ("ann@a.b", "x\r\nBcc: y"), ("ann@a.b", "x" * 257), ("a\n@b.c", "")]:
        with pytest.raises(Invalid):
            mailbox(address, name)


def test_domains() -> None:
    assert parse_domain("EXAMPLE.com") == "example.com"
    assert parse_domain("straße.example") == "xn--strae-oqa.example"
    for text in ("", ".", "a..b", "a b", "[1.2.3.4]", "a\n", "é" * 300, "a" * 256):
        with pytest.raises(Invalid):
            parse_domain(text)


_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda s: s[2:4] != "--")
_LOCAL = st.one_of(
    st.text(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=20),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.text(st.characters(categories=("L", "M", "N"), min_codepoint=128), min_size=1, max_size=10),
)
_NAME = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs")), max_size=40)


@given(_LOCAL, st.lists(_LABEL, min_size=1, max_size=4), _NAME)
def test_what_is_written_is_read(local: str, labels: list[str], name: str) -> None:
    domain = ".".join([*labels, "example"])
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    quoted_name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    read = parse_mailbox(f"{quoted_name} <{quoted}@{domain}>")
    assert read.domain == domain
    assert read.name == name.strip(" ")
    again = parse_mailbox(read.address)
    assert (again.local, again.domain) == (read.local, read.domain)
    assert mailbox(read.address, read.name) == read


@given(st.text(max_size=60) | st.text('a@.<>()"\\ ,[]1\r\n:é', max_size=40))
def test_anything_is_read_safely_or_refused(text: str) -> None:
    try:
        read = parse_mailbox(text)
    except Invalid:
        return
    assert not any(c in read.address + read.name for c in "\r\n\0")
    assert len(read.address.encode()) <= 254
    assert parse_mailbox(read.address).address == read.address


def test_long_input_takes_no_long_time() -> None:
    for text in ('"' + "\\" * 2000, "(" * 2000, "a " * 1000 + "<", "<" * 2000, '"a" ' * 500 + "<a@b.c>"):
        with pytest.raises(Invalid):
            parse_mailbox(text)
