"""What header values mean: encoded words, addresses, dates, parameters, charsets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.parse import decode_words, header_fields, unfold
from posthouse.mail.parse.addresses import parse_addresses
from posthouse.mail.parse.charsets import codec, decode
from posthouse.mail.parse.comments import without_comments
from posthouse.mail.parse.dates import parse_date
from posthouse.mail.parse.parameters import disposition, file_name, media_type


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?q?W=C3=B6rld?=", "Wörld"),
        (b"=?UTF-8?B?V8O2cmxk?=", "Wörld"),
        (b"=?iso-8859-1*de?Q?W=F6rld_x?=", "Wörld x"),  # RFC 2231 §5
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),  # RFC 2047 §6.2
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        (b"x =?utf-8?q?a?= y", "x a y"),
        (b"=?utf-8?q?a_b?=", "a b"),
        (b"=?utf-8?q?W=C3?= =?utf-8?q?=B6rld?=", "Wörld"),  # a character in two words
        (b"=?utf-8?b?V8O2c?= =?utf-8?b?mxk?=", "Wörld"),  # base64 cut between words
        (b"=?utf-8?b?V8O2cmxk?==?utf-8?b?ISE=?=", "Wörld!!"),
        (b"=?utf-8?b?V8O2cmxkIQ?=", "Wörld!"),  # padding lacks
        (b"=?utf-8?q?a b?=", "a b"),  # blanks where none may be
        (b"Re:=?utf-8?q?_=C3=A4?=", "Re: ä"),
        (b"=?utf-8?q?what?_so?=", "what? so"),
        (b"=?utf-8?q?=C3=B6", "=?utf-8?q?=C3=B6"),  # never ends
        (b"=?utf-8?q?open =?utf-8?q?closed?=", "=?utf-8?q?open closed"),
        (b"=?nonsense?q?=C3=B6?=", "ö"),
        (b"=?nonsense?q?=F6?=", "ö"),
        (b"=?us-ascii?q?W=F6rld?=", "Wörld"),
        (b"=?utf-8?q??=", ""),
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
        (b"=?gb2312?b?1tDOxA==?=", "中文"),
        (b"\x1b$BF|K\\\x1b(B Re", "日本 Re"),  # as it is sent without any encoding
        (b"\x1b$)C\x0eGQ1[\x0f", "한글"),
        (b"=?koi8-r?b?8NLJ18XU?=", "Привет"),
        (b"=?windows-1251?q?=CF=F0=E8?=", "При"),
        (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("Grüße".encode(), "Grüße"),  # RFC 6532
        ("Grüße".encode("latin-1"), "Grüße"),
        (b"a\r\n b\r\n\tc", "a b c"),
        (b"a\x00\x07b\x7f", "ab"),
        ("e\u0301".encode(), "é"),
        ("safe\u202ecod.exe".encode(), "safecod.exe"),
        (b"  x  ", "x"),
    ],
)
def test_text(value: bytes, text: str) -> None:
    assert decode_words(value) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.com", [("", "ann@example.com", None)]),
        ("Ann <ann@EXAMPLE.com>", [("Ann", "ann@example.com", None)]),
        ('"Lee, Ann" <Ann@example.com>', [("Lee, Ann", "Ann@example.com", None)]),
        ('"A \\"B\\" C" <a@b.c>', [('A "B" C', "a@b.c", None)]),
        ("a@b.c, d@e.f", [("", "a@b.c", None), ("", "d@e.f", None)]),
        ("a@b.c,, ,d@e.f,", [("", "a@b.c", None), ("", "d@e.f", None)]),
        ("a@b.c; d@e.f", [("", "a@b.c", None), ("", "d@e.f", None)]),
        ("a@b.c d@e.f", [("", "a@b.c", None), ("", "d@e.f", None)]),
        ("<a@b.c> <d@e.f>", [("", "a@b.c", None), ("", "d@e.f", None)]),
        ("Pals: Ann <a@b.c>, d@e.f; x@y.z", [("Ann", "a@b.c", "Pals"), ("", "d@e.f", "Pals"), ("", "x@y.z", None)]),
        ("undisclosed-recipients:;", []),
        ("a@b.c (Ann (of) Lee)", [("Ann (of) Lee", "a@b.c", None)]),
        ("Ann (x) <a@b.c>", [("Ann", "a@b.c", None)]),
        ("Ann ann@example.com", [("Ann", "ann@example.com", None)]),
        ("Ann <ann@example.com", [("Ann", "ann@example.com", None)]),
        ("ann@example.com>", [("", "ann@example.com", None)]),
        ("Dr. A. Lee <a@b.c>", [("Dr. A. Lee", "a@b.c", None)]),
        ("Sales: Ann <a@b.c>", [("Sales: Ann", "a@b.c", None)]),
        ("Ann@Home <a@b.c>", [("Ann@Home", "a@b.c", None)]),
        ("a@b.c <d@e.f>", [("a@b.c", "d@e.f", None)]),
        ("<@x.y,@z:a@b.c>", [("", "a@b.c", None)]),
        ("ann @ example . com", [("", "ann@example.com", None)]),
        ('"john doe"@example.com', [("", '"john doe"@example.com', None)]),
        ("a@[192.0.2.1]", [("", "a@[192.0.2.1]", None)]),
        ("X <a@[IPv6:2001:db8::1]>", [("X", "a@[ipv6:2001:db8::1]", None)]),
        ("=?utf-8?q?Lee=2C_Ann?= <a@b.c>", [("Lee, Ann", "a@b.c", None)]),
        ("=?utf-8?q?Lee,_Ann?= <a@b.c>", [("Lee, Ann", "a@b.c", None)]),
        ('"=?utf-8?q?J=C3=B6rg?=" <a@b.c>', [("Jörg", "a@b.c", None)]),
        ("Jörg <jörg@bücher.example>", [("Jörg", "jörg@bücher.example", None)]),
        ("Just a name", [("Just a name", "", None)]),
        ("<root>", [("root", "", None)]),
        ("mailto:a@b.c", [("", "a@b.c", None)]),
        ('"Ann <a@b.c>', [("Ann", "a@b.c", None)]),
        ("Ann ( <a@b.c>", [("Ann", "a@b.c", None)]),
        ("", []),
        ("<>", []),
    ],
)
def test_addresses(text: str, expected: list[tuple[str, str, str | None]]) -> None:
    assert [(each.name, each.address, each.group) for each in parse_addresses(text)] == expected


def at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000


NOON = at(2023, 1, 2, 12, 0, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Mon, 02 Jan 2023 12:00:00 +0000", (NOON, 0, True)),
        ("Mon, 2 Jan 2023 13:00 +0100", (NOON, 60, True)),
        ("2 Jan 2023 04:00:00 -0800 (PST)", (NOON, -480, True)),
        ("Mon, 02 Jan 2023 12:00:00 GMT", (NOON, 0, False)),
        ("Mon (x), 2 (y) Jan 2023 12 : 00 (z) : 00 +0000", (NOON, 0, False)),  # RFC 5322 §4.3
        ("Mon, 02 Jan 2023 07:00:00 EST", (NOON, -300, False)),
        ("Mon, 02 Jan 2023 12:00:00 A", (NOON, 0, False)),
        ("Mon, 02 Jan 23 12:00:00 +0000", (NOON, 0, False)),
        ("Mon, 02 Jan 123 12:00:00 +0000", (NOON, 0, False)),
        ("Mon, 02 Jan 98 12:00:00 +0000", (at(1998, 1, 2, 12, 0, 0), 0, False)),
        ("Mon (day), 02 (of (the)) Jan 2023 12:00:00 +0000", (NOON, 0, False)),
        ("Monday, 2-Jan-2023 12:00:00 +0000", (NOON, 0, False)),
        ("Mon,02 Jan 2023 12:00:00 +00:00", (NOON, 0, False)),
        ("Mon, 02  Jan  2023  12:00:00  +0000", (NOON, 0, False)),
        ("Mon Jan  2 12:00:00 2023", (NOON, 0, False)),
        ("Mon Jan 2 07:00:00 EST 2023", (NOON, -300, False)),
        ("January 2, 2023 12:00 PM", (NOON, 0, False)),
        ("2023-01-02T12:00:00Z", (NOON, 0, False)),
        ("2023-01-02 14:00:00.123 +02:00", (NOON, 120, False)),
        ("Mon, 02 Jan 2023 12:00:00", (NOON, 0, False)),
        ("Mon, 02 Jan 2023 14:00:00 GMT+0200", (NOON, 120, False)),
        ("Sat, 31 Dec 2016 23:59:60 +0000", (at(2017, 1, 1, 0, 0, 0), 0, True)),
        ("Mon, 32 Jan 2023 12:00:00 +0000", (None, 0, False)),
        ("Mon, 02 Foo 2023 12:00:00 +0000", (None, 0, False)),
        ("Mon, 02 Jan 2023 25:00:00 +0000", (None, 0, False)),
        ("Mon, 02 Jan 1023 12:00:00 +0000", (None, 0, False)),
        ("tomorrow", (None, 0, False)),
        ("", (None, 0, False)),
    ],
)
def test_dates(value: str, expected: tuple[int | None, int, bool]) -> None:
    assert parse_date(value) == expected


@given(st.integers(at(1900, 1, 2) // 1_000_000, at(9999, 12, 31) // 1_000_000), st.integers(-1439, 1439))
def test_every_sound_date_is_read(local: int, zone: int) -> None:
    when = datetime.fromtimestamp(local, UTC)
    hours, minutes = divmod(abs(zone), 60)
    value = f"{when:%d %b} {when.year:04d} {when:%H:%M:%S} {'-' if zone < 0 else '+'}{hours:02d}{minutes:02d}"
    assert parse_date(value) == ((local - zone * 60) * 1_000_000, zone, True)


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        (b"text/plain", "text/plain", {}),
        (b"TEXT/Html; Charset=UTF-8", "text/html", {"charset": "UTF-8"}),
        (b'text/plain; charset="utf-8"; format=flowed', "text/plain", {"charset": "utf-8", "format": "flowed"}),
        (b"text/plain; charset=us-ascii (Plain text)", "text/plain", {"charset": "us-ascii"}),
        (b"text/plain (comment); charset=x", "text/plain", {"charset": "x"}),
        (b"text / plain;charset = x", "text/plain", {"charset": "x"}),
        (b"multipart/mixed; boundary=----=_Part_1", "multipart/mixed", {"boundary": "----=_Part_1"}),
        (b'multipart/mixed; boundary="a b;c"', "multipart/mixed", {"boundary": "a b;c"}),
        (b'multipart/mixed;\r\n\tboundary="x"', "multipart/mixed", {"boundary": "x"}),
        (b'multipart/mixed; boundary="open', "multipart/mixed", {"boundary": "open"}),
        (b"text/plain;; ;charset=x;", "text/plain", {"charset": "x"}),
        (b"text/plain; charset=a; charset=b", "text/plain", {"charset": "a"}),
        (b"text", None, {}),
        (b"", None, {}),
        (b"; charset=x", None, {"charset": "x"}),
        (b'application/x; name="C:\\temp\\a.txt"', "application/x", {"name": "C:\\temp\\a.txt"}),
        (b'application/x; name="a\\"b"', "application/x", {"name": 'a"b'}),
        (b"application/x; name=two words.pdf", "application/x", {"name": "two words.pdf"}),
        (b"application/x; name=report (1).pdf", "application/x", {"name": "report (1).pdf"}),
    ],
)
def test_media_types(value: bytes, kind: str | None, parameters: dict[str, str]) -> None:
    assert media_type(value) == (kind, parameters)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"attachment; filename=a.txt", "a.txt"),
        (b"attachment; filename*=utf-8''%E2%82%AC%20rates", "€ rates"),
        (b"attachment; filename*=utf-8'en'x", "x"),
        (b"attachment; filename*0=long; filename*1=er.txt", "longer.txt"),
        (b"attachment; filename*1=er.txt; filename*0=long", "longer.txt"),
        (b"attachment; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=.txt", "ä.txt"),  # a character in two
        (b"attachment; filename*0=a; filename*2=c", "a"),
        (b"attachment; filename=plain.txt; filename*=utf-8''ext%C3%A4.txt", "extä.txt"),
        (b'attachment; filename="=?utf-8?q?=C3=A4.txt?="', "ä.txt"),
        (b'attachment; filename="=?utf-8?q?=C3?=\r\n =?utf-8?q?=A4.txt?="', "ä.txt"),
        (b"attachment; filename==?utf-8?b?w6QudHh0?=", "ä.txt"),
        ('attachment; filename="ä.txt"'.encode(), "ä.txt"),
        ('attachment; filename="ä.txt"'.encode("latin-1"), "ä.txt"),
        (b"attachment; filename*=iso-8859-1''%E4.txt", "ä.txt"),
        (b"attachment; filename=\"utf-8''%C3\"", "utf-8''%C3"),
        (b'attachment; filename="../../etc/passwd"', "passwd"),
        (b'attachment; filename="C:\\Users\\x.doc"', "x.doc"),
        (b'attachment; filename=".."', None),
        (b"attachment", None),
        (b"filename=x.txt", "x.txt"),
        (b'attachment; filename="' + b"x" * 400 + b'.pdf"', "x" * 251 + ".pdf"),
    ],
)
def test_file_names(value: bytes, name: str | None) -> None:
    assert file_name(disposition(value)[1], {}) == name


def test_a_type_names_the_file_when_the_disposition_does_not() -> None:
    assert file_name({}, media_type(b"image/png; name=x.png")[1]) == "x.png"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("utf-8", "utf_8"), ("UTF8", "utf_8"), ("us-ascii", ""), ("iso-8859-1", "cp1252"), ("ISO8859-15", "iso8859_15"),
        ("windows-1252", "cp1252"), ("cp-1251", "cp1251"), ("x-sjis", "cp932"), ("ks_c_5601-1987", "cp949"),
        ("gb2312", "gb18030"), ("windows-31j", "cp932"), ("cp50221", "iso2022_jp_ext"), ("koi8-u", "koi8_u"), ("iso-8859-8-i", "iso8859_8"), ("unicode-1-1-utf-7", "utf_7"),
        ("base64", None), ("zlib", None), ("rot13", None), ("unicode_escape", None), ("punycode", None),
        ("", None), ("x" * 500, None), ("../os", None),
    ],
)  # fmt: skip
def test_charsets(charset: str, name: str | None) -> None:
    assert codec(charset) == name


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("ä".encode(), None, "ä"),
        ("ä".encode("latin-1"), None, "ä"),
        ("ä".encode(), "us-ascii", "ä"),
        (b"\x93x\x94", "iso-8859-1", "“x”"),
        (b"\x81", "iso-8859-1", "\x81"),
        ("ä".encode("latin-1"), "utf-8", "ä"),
        ("äö".encode() + b"\xff", "utf-8", "äö\ufffd"),
        ("日本".encode("utf-16"), "utf-16", "日本"),
        (b"+AOQ-", "utf-7", "ä"),
        (b"abc", "no-such", "abc"),
        ("日本".encode("iso-2022-jp"), "iso-2022-jp", "日本"),
        (b"~{VPND~}", "hz-gb-2312", "中文"),
    ],
)
def test_text_in_any_charset(data: bytes, charset: str | None, text: str) -> None:
    assert decode(data, charset) == text


def test_a_character_that_was_cut_is_dropped() -> None:
    assert decode("aä".encode()[:-1], "utf-8", whole=False) == "a"
    assert decode("aä".encode()[:-1], None, whole=False) == "a"


@given(st.binary(max_size=80), st.sampled_from([*{"utf-8", "utf-16", "utf-7", "big5", "hz", "euc-jp", "cp437", "x"}]))
def test_no_octets_are_refused(data: bytes, charset: str) -> None:
    assert isinstance(decode(data, charset), str)
    assert isinstance(decode(data, charset, whole=False), str)


@given(st.text(alphabet='ab@<>",;:()[]\\=?q .\u00e4', max_size=60))
def test_no_address_list_is_refused(text: str) -> None:
    for each in parse_addresses(text):
        assert each.name or each.address
        assert each.address == "" or "@" in each.address
        assert not set(each.address) & set("\r\n\0")
    assert isinstance(parse_date(text), tuple)
    assert isinstance(without_comments(text), str)


@given(st.binary(max_size=80) | st.text('=?utf-8qbQ= ?_C3A9\r\n\t"', max_size=80).map(str.encode))
def test_no_value_is_refused(value: bytes) -> None:
    text = decode_words(value)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    assert text == text.strip()
    media_type(value)
    disposition(value)


def test_fields_keep_where_they_lie() -> None:
    message = b"From x\nA: 1\r\nB : two\r\n lines\nC:\n\nbody: no\n"
    found = header_fields(message)
    assert [(name, value) for name, value, _, _ in found] == [(b"A", b"1"), (b"B", b"two\r\n lines"), (b"C", b"")]
    assert [message[start:end] for _, _, start, end in found] == [b"A: 1\r\n", b"B : two\r\n lines\n", b"C:\n"]
    assert unfold(b" two\r\n lines ") == b"two lines"


def test_a_line_that_is_no_field_ends_them() -> None:
    assert [name for name, *_ in header_fields(b"A: 1\nno field\nB: 2\n\n")] == [b"A"]
    assert header_fields(b"") == []
    assert header_fields(b"\r\nA: 1\r\n") == []
