"""Whole messages: structure, ids, ranges, bodies, previews, flaws."""

from __future__ import annotations

import mmap
from typing import Any

import pytest

from posthouse.mail.parse import FLAWS, content, parse, search_text, text
from posthouse.mail.parsed import Part, part_of

HEAD = b"From: a@b.c\r\nDate: Mon, 02 Jan 2023 10:00:00 +0000\r\nMessage-ID: <1@b.c>\r\n"


def shape(part: Part) -> Any:
    own = f"{part.id} {part.type}"
    return [own, *[shape(child) for child in part.children]] if part.children else own


def lines(*each: str) -> bytes:
    return "\r\n".join(each).encode() + b"\r\n"


def body(message: bytes, part_id: str) -> bytes:
    part = part_of(parse(message).structure, part_id)
    assert part is not None
    return content(message, part)


RFC_2046_5_1_1 = lines(
    "From: Nathaniel Borenstein <nsb@bellcore.com>",
    "Date: Sun, 21 Mar 1993 23:56:48 -0800 (PST)",
    "Message-ID: <1@bellcore.com>",
    "MIME-Version: 1.0",
    'Content-type: multipart/mixed; boundary="simple boundary"',
    "",
    "This is the preamble.  It is to be ignored.",
    "",
    "--simple boundary",
    "",
    "This is implicitly typed plain US-ASCII text.",
    "It does NOT end with a linebreak.",
    "--simple boundary",
    "Content-type: text/plain; charset=us-ascii",
    "",
    "This is explicitly typed plain US-ASCII text.",
    "It DOES end with a linebreak.",
    "",
    "--simple boundary--",
    "",
    "This is the epilogue.  It is also to be ignored.",
)


def test_the_example_of_rfc_2046() -> None:
    parsed = parse(RFC_2046_5_1_1)
    assert shape(parsed.structure) == ["0 multipart/mixed", "1 text/plain", "2 text/plain"]
    assert body(RFC_2046_5_1_1, "1").endswith(b"NOT end with a linebreak.")
    assert body(RFC_2046_5_1_1, "2").endswith(b"DOES end with a linebreak.\r\n")
    assert parsed.flaws == ()
    assert parsed.text == parsed.html == ("1", "2")


def multipart(kind: str, boundary: str, *parts: bytes) -> bytes:
    delimiter = b"--" + boundary.encode()
    head = f"Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\n".encode()
    return head + b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--"


def leaf(kind: str, content: str = "x", *fields: str) -> bytes:
    return lines(f"Content-Type: {kind}", *fields, "") + content.encode()


def test_sections_are_numbered_as_in_rfc_9051() -> None:
    inner = lines("Subject: inner") + multipart("mixed", "i", leaf("text/plain"), leaf("application/octet-stream"))
    related = lines("Subject: last") + multipart(
        "mixed", "j", leaf("image/gif"), multipart("alternative", "k", leaf("text/plain"), leaf("text/richtext"))
    )
    message = HEAD + multipart(
        "mixed",
        "o",
        leaf("text/plain"),
        leaf("application/octet-stream"),
        leaf("message/rfc822") + inner,
        multipart("mixed", "m", leaf("image/gif"), leaf("message/rfc822") + related),
        leaf("message/rfc822") + lines("Subject: plain", "") + b"text",
    )
    message = message.replace(b"\r\n\r\nxSubject", b"\r\n\r\nSubject")
    parsed = parse(message)
    assert shape(parsed.structure) == [
        "0 multipart/mixed",
        "1 text/plain",
        "2 application/octet-stream",
        ["3 message/rfc822", ["3.0 multipart/mixed", "3.1 text/plain", "3.2 application/octet-stream"]],
        [
            "4 multipart/mixed",
            "4.1 image/gif",
            [
                "4.2 message/rfc822",
                [
                    "4.2.0 multipart/mixed",
                    "4.2.1 image/gif",
                    ["4.2.2 multipart/alternative", "4.2.2.1 text/plain", "4.2.2.2 text/richtext"],
                ],
            ],
        ],
        ["5 message/rfc822", "5.1 text/plain"],
    ]
    assert parsed.flaws == ()
    assert body(message, "5.1") == b"text"
    assert body(message, "4.2.2.2") == b"x"
    attached = part_of(parsed.structure, "5")
    assert attached is not None
    assert content(message, attached) == b"Subject: plain\r\n\r\ntext"
    assert part_of(parsed.structure, "9.9") is None


# RFC 8621 §4.1.4's own example, with the bodies it wants.
def test_bodies_are_chosen_as_in_rfc_8621() -> None:
    message = HEAD + multipart(
        "mixed",
        "1",
        leaf("text/plain", "A", "Content-Disposition: inline"),
        multipart(
            "mixed",
            "2",
            multipart(
                "alternative",
                "3",
                multipart(
                    "mixed",
                    "4",
                    leaf("text/plain", "B", "Content-Disposition: inline"),
                    leaf("image/jpeg", "C", "Content-Disposition: inline"),
                    leaf("text/plain", "D", "Content-Disposition: inline"),
                ),
                multipart("related", "5", leaf("text/html", "E"), leaf("image/jpeg", "F")),
            ),
            leaf("image/jpeg", "G", "Content-Disposition: attachment"),
            leaf("application/x-excel", "H"),
            leaf("message/rfc822", "J"),
        ),
        leaf("text/plain", "K", "Content-Disposition: inline"),
    )
    parsed = parse(message)

    def named(ids: tuple[str, ...]) -> str:
        return "".join(body(message, each).decode()[0] for each in ids)

    assert named(parsed.text) == "ABCDK"
    assert named(parsed.html) == "AEK"
    assert named(parsed.attachments) == "CFGHJ"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (leaf("text/html"), (("1",), ("1",), ())),
        (leaf("text/plain", "x", "Content-Disposition: attachment"), ((), (), ("1",))),
        (leaf("application/pdf"), ((), (), ("1",))),
        (multipart("alternative", "b", leaf("text/plain"), leaf("text/html")), (("1",), ("2",), ())),
        (multipart("alternative", "b", leaf("text/html")), (("1",), ("1",), ())),
        (multipart("alternative", "b", leaf("text/plain"), leaf("text/calendar")), (("1",), ("1",), ("2",))),
        (multipart("mixed", "b", leaf("text/plain"), leaf("text/plain; name=a.txt")), (("1",), ("1",), ("2",))),
        (multipart("mixed", "b", leaf("text/plain; name=a.txt")), (("1",), ("1",), ())),
        (multipart("related", "b", leaf("text/html"), leaf("image/png")), (("1",), ("1",), ("2",))),
        (multipart("mixed", "b", leaf("text/plain"), leaf("image/png")), (("1", "2"), ("1", "2"), ())),
    ],
)
def test_what_shows_a_message(message: bytes, found: tuple[tuple[str, ...], ...]) -> None:
    parsed = parse(message)
    assert (parsed.text, parsed.html, parsed.attachments) == found


def test_an_outer_boundary_ends_what_is_inside() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=o-i\r\n\r\n--o-i\r\n\r\nfirst\r\n--o-i\r\n\r\nsecond"
    parsed = parse(message := multipart("mixed", "o", inner, leaf("text/plain", "third")))
    assert shape(parsed.structure) == [
        "0 multipart/mixed",
        ["1 multipart/mixed", "1.1 text/plain", "1.2 text/plain"],
        "2 text/plain",
    ]
    assert [body(message, each) for each in ("1.1", "1.2", "2")] == [b"first", b"second", b"third"]
    assert "no_close" in parsed.flaws


@pytest.mark.parametrize("newline", [b"\n", b"\r"])
def test_other_line_ends(newline: bytes) -> None:
    message = RFC_2046_5_1_1.replace(b"\r\n", newline)
    parsed = parse(message)
    assert shape(parsed.structure) == ["0 multipart/mixed", "1 text/plain", "2 text/plain"]
    assert body(message, "2").endswith(b"DOES end with a linebreak." + newline)
    assert parsed.flaws == ("bare_newline",)


def test_line_ends_may_be_mixed() -> None:
    message = b"A: b\r\nContent-Type: multipart/mixed; boundary=x\n\r\n--x\n\r\none\r\n--x\r\n\ntwo\n--x--"
    assert [body(message, "1"), body(message, "2")] == [b"one", b"two"]


def test_odd_delimiters() -> None:
    message = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x \t\r\n\r\none\r\n--xy\r\n --x\r\n--x\r\n--x\r\n"
        b"Content-Type: text/html\r\n--x\r\n\r\n\r\n--x-- \r\n--x\r\n\r\nepilogue"
    )
    parsed = parse(message)
    assert shape(parsed.structure) == [
        "0 multipart/mixed",
        "1 text/plain",
        "2 text/plain",
        "3 text/html",
        "4 text/plain",
    ]
    assert [body(message, each) for each in "1234"] == [b"one\r\n--xy\r\n --x", b"", b"", b""]


@pytest.mark.parametrize("parameter", ["", "; boundary=other", '; boundary=""', "; boundary=" + "x" * 2000])
def test_a_boundary_that_lacks_is_guessed(parameter: str) -> None:
    message = lines(f"Content-Type: multipart/mixed{parameter}", "", "--b", "Content-Type: text/html", "", "x", "--b--")
    parsed = parse(message)
    assert shape(parsed.structure) == ["0 multipart/mixed", "1 text/html"]
    assert "no_boundary" in parsed.flaws
    assert body(message, "1") == b"x"


def test_a_multipart_without_parts_is_text() -> None:
    parsed = parse(message := lines("Content-Type: multipart/mixed; boundary=b", "", "just text"))
    assert shape(parsed.structure) == ["0 multipart/mixed", "1 text/plain"]
    assert parsed.preview == "just text"
    assert body(message, "1") == b"just text\r\n"


def test_a_digest_holds_messages() -> None:
    parsed = parse(multipart("digest", "b", b"\r\nSubject: one\r\n\r\n1", leaf("text/plain")))
    assert shape(parsed.structure) == ["0 multipart/digest", ["1 message/rfc822", "1.1 text/plain"], "2 text/plain"]


def test_an_encoded_message_is_kept_closed() -> None:
    parsed = parse(message := leaf("message/rfc822", "U3ViamVjdDogeA==", "Content-Transfer-Encoding: base64"))
    assert shape(parsed.structure) == "1 message/rfc822"
    assert "encoded_composite" in parsed.flaws
    assert body(message, "1") == b"Subject: x"


@pytest.mark.parametrize(
    ("encoding", "raw", "plain"),
    [
        ("base64", b"AAEC\r\nAwQ=", bytes(range(5))),
        ("BASE64", b"AAEC\r\nAwQ=", bytes(range(5))),
        ("base64", b"A A!E-C\r\nAwQ", bytes(range(5))),
        ("base64", b"AAE=AgM=", bytes(range(4))),
        ("base64", b"AAECA", bytes(range(3))),
        ("base64", b"aGVsbG8=\r\n\r\n___\r\nA list, https://list.example/\r\n", b"hello"),
        ("base64", b"aGVsbG8=\r\n\r\nQUJD", b"helloABC"),
        ("base64", b"", b""),
        ("quoted-printable", b"a=3Db=3d=\r\nc=\nd", b"a=b=cd"),
        ("quoted-printable", b"a  \r\nb\t\r\nc= \r\nd ", b"a\r\nb\r\ncd"),
        ("quoted-printable", b"=ZZ=4", b"=ZZ=4"),
        ("quoted-printable", b"a=", b"a"),
        ("7bit (really)", b"=41", b"=41"),
        ("8 bit", b"=41", b"=41"),
        ("x-unknown", b"=41", b"=41"),
        ("x-uuencode", b"text\r\nbegin 644 a\r\n#0V%T\r\n`\r\nend\r\nmore", b"Cat"),
        ("uuencode", b"begin 644 a\nbad\n#0V%T\nend", b"Cat"),
    ],
)
def test_transfer_encodings(encoding: str, raw: bytes, plain: bytes) -> None:
    message = lines("Content-Type: application/octet-stream", f"Content-Transfer-Encoding: {encoding}", "") + raw
    assert body(message, "1") == plain


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 1000, 49_151, 200_001])
def test_large_parts_are_decoded_by_chunks(size: int) -> None:
    from posthouse.mail.transfer import base64_lines, quoted_printable

    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    head = b"Content-Type: application/x\r\nContent-Transfer-Encoding: "
    message = head + b"base64\r\n\r\n" + base64_lines(data)
    assert body(message, "1") == data
    assert parse(message).structure.size == size
    text_data = (b"a =\xc3\xa4 line\n" * (size // 10 + 1))[:size].rstrip(b"\n")
    quoted = quoted_printable(text_data, text_data.translate(None, bytes(range(9, 127))))
    message = head + b"quoted-printable\r\n\r\n" + quoted
    assert body(message, "1") == text_data.replace(b"\n", b"\r\n")
    assert parse(message).structure.size == len(body(message, "1"))


def test_a_part_says_everything() -> None:
    message = multipart(
        "mixed",
        "b",
        leaf(
            'text/plain; charset="UTF-8"; name=a.txt',
            "1\r\n2\r\n",
            "Content-ID: <x@y>",
            "Content-Disposition: INLINE",
            "Content-Language: de, en",
            "Content-Location: http://a.example/",
        ),
    )
    [part] = parse(message).structure.children
    assert (part.charset, part.name, part.cid, part.disposition) == ("utf-8", "a.txt", "x@y", "inline")
    assert (part.language, part.location, part.lines) == ("de, en", "http://a.example/", 2)
    assert message[part.header : part.body].startswith(b"Content-Type")
    assert message[part.body : part.body + part.length] == b"1\r\n2\r\n"


def test_the_header() -> None:
    message = lines(
        "From: Ann <ann@example.com>",
        "Sender: s@example.com",
        "Reply-To: r@example.com",
        "To: b@example.com",
        "Cc: c@example.com",
        "To: d@example.com",
        "Subject: =?utf-8?q?=C3=A4?=",
        "Message-ID: <1@example.com>",
        "In-Reply-To: <0@example.com> (a comment)",
        "References: <a@example.com>",
        "\t<0@example.com>",
        "Date: Mon, 02 Jan 2023 10:00:00 +0100",
        "List-Id: The list <List.example.com>",
        "List-Unsubscribe: <https://example.com/>",
        "List-Post: NO",
        "Precedence: Bulk",
        "Auto-Submitted: auto-generated; x=y",
        "Thread-Index: AdkeXyZ0123456789abcdefghijk",
        "",
        "body",
    )
    parsed = parse(message)
    assert [each.address for each in (*parsed.from_, *parsed.sender, *parsed.reply_to, *parsed.to, *parsed.cc)] == [
        f"{local}@example.com" for local in ("ann", "s", "r", "b", "d", "c")
    ]
    assert (parsed.subject, parsed.message_id) == ("ä", "1@example.com")
    assert (parsed.in_reply_to, parsed.references) == (("0@example.com",), ("a@example.com", "0@example.com"))
    assert (parsed.date, parsed.date_offset) == (1_672_650_000_000_000, 60)
    assert (parsed.list_id, parsed.list_unsubscribe, parsed.list_post) == ("list.example.com", True, False)
    assert (parsed.precedence, parsed.auto_submitted, parsed.thread_index) == (
        "bulk",
        "auto-generated",
        "AdkeXyZ0123456789abcde",
    )
    assert parsed.automatic
    assert parsed.flaws == ("duplicate_header",)
    assert message[parsed.header_length :] == b"body\r\n"


def test_ids_without_brackets_are_cleaned() -> None:
    parsed = parse(b"References: 1@x> <2@x\x08he\r\nIn-Reply-To: \x7f@b c@d\r\n\r\n")
    assert parsed.references == ("1@x>", "<2@xhe")
    assert parsed.in_reply_to == ("c@d",)


def test_many_references_keep_the_first_and_the_last() -> None:
    parsed = parse(b"References: " + b" ".join(b"<%d@x>" % number for number in range(500)) + b"\n\n")
    assert len(parsed.references) == 200
    assert (parsed.references[0], parsed.references[-1]) == ("0@x", "499@x")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (leaf("text/plain", "a\r\n  b \u00a0c"), "a b c"),
        (leaf("text/html", "<head><title>t</title></head><body><p>a&amp;<b>b</b>c</p><p>d"), "a&bc d"),
        (leaf("text/html", "<style>x</style>a<!-- b > -->c<br>d<script>e</script><img alt='>'>f"), "a c d f"),
        (leaf("text/html", "a &lt;b&gt; &#228; &#xe4; &bogus; &#" + "9" * 5000 + ";"), "a <b> ä ä &bogus; \ufffd"),
        (leaf("text/html; charset=utf-8", "a\u00ad\u200b\u034fb"), "ab"),
        (multipart("alternative", "b", leaf("text/plain", " \r\n"), leaf("text/html", "<p>html")), "html"),
        (leaf("text/plain; format=flowed; delsp=yes", "ab \r\ncd\r\nef"), "abcd ef"),
        (leaf("text/plain; format=flowed", "ab \r\ncd\r\nef"), "ab cd ef"),
        (leaf("text/plain", "begin 644 a\r\n#0V%T\r\nend"), "begin 644 a #0V%T end"),
        (leaf("application/ms-tnef", "x"), ""),
    ],
)
def test_previews(message: bytes, shown: str) -> None:
    assert parse(message).preview == shown


def test_a_preview_is_short_and_whole_characters() -> None:
    message = lines("Content-Type: text/plain; charset=utf-8", "") + "ä€😀 ".encode() * 5000
    parsed = parse(message)
    assert parsed.preview == ("ä€😀 " * 100)[:256].strip()


def test_a_page_says_its_charset() -> None:
    message = b'Content-Type: text/html\n\n<meta http-equiv=x content="text/html; charset=windows-1251"><p>\xcf\xf0\xe8'
    assert parse(message).preview == "При"


def test_text_is_decoded_as_far_as_wanted() -> None:
    message = lines("Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: quoted-printable", "")
    message += b"gr=FC=DFe\r\nzwei"
    [part] = [parse(message).structure]
    assert text(message, part, 100) == "grüße\nzwei"
    assert text(message, part, 3) == "grü"
    assert text(message, part, 0) == ""


def test_the_words_of_a_message() -> None:
    html = "<p>Hello <i>wor</i>ld</p>" + "<td></td>" * 30
    message = multipart(
        "mixed",
        "b",
        multipart("alternative", "c", leaf("text/plain", "Hello plain, as long as it takes"), leaf("text/html", html)),
        leaf("text/csv; name=list.csv", "one,two"),
        leaf("application/pdf; name=paper.pdf", "%PDF"),
    )
    words = search_text(message, parse(message))
    assert words.split() == "Hello plain, as long as it takes list.csv one,two paper.pdf".split()
    short = message.replace(b"Hello plain, as long as it takes", b"See HTML")
    assert "Hello world" in search_text(short, parse(short))
    assert len(search_text(message, parse(message), most=9)) == 9


FLAWED = {
    "bad_base64": HEAD + leaf("text/plain", "!!!!", "Content-Transfer-Encoding: base64"),
    "bad_content_type": HEAD + leaf("nonsense"),
    "bad_date": HEAD.replace(b"Jan", b"Foo") + b"\r\n",
    "bad_encoded_word": HEAD + b"Subject: =?utf-8?q?open\r\n\r\n",
    "bad_from": HEAD.replace(b"a@b.c", b"nobody") + b"\r\n",
    "bad_message_id": HEAD.replace(b"<1@b.c>", b"1@b.c") + b"\r\n",
    "bare_newline": HEAD + b"\n",
    "duplicate_header": HEAD + b"Subject: a\r\nSubject: b\r\n\r\n",
    "eight_bit_header": HEAD + b"Subject: \xe4\r\n\r\n",
    "encoded_composite": HEAD + leaf("message/rfc822", "", "Content-Transfer-Encoding: base64"),
    "header_too_long": HEAD + b"Subject: " + b"x" * 1000 + b"\r\n\r\n",
    "hidden_text": HEAD + leaf("text/html", "<p style='display : none'>x"),
    "many_from": HEAD.replace(b"a@b.c", b"a@b.c, d@e.f") + b"\r\n",
    "mbox_line": b"From x\r\n" + HEAD + b"\r\n",
    "mime_in_8bit": HEAD + leaf("text/plain", "ä"),
    "no_boundary": HEAD + leaf("multipart/mixed"),
    "no_close": HEAD + leaf("multipart/mixed; boundary=b", "\r\n--b\r\n\r\nx"),
    "no_date": b"\r\n",
    "no_from": b"\r\n",
    "no_message_id": b"\r\n",
    "no_separator": HEAD + b"body",
    "nul": HEAD + b"\r\n\0",
    "text_too_long": HEAD + b"\r\n" + b"x" * 999 + b"\r\n",
    "too_deep": b"Content-Type: message/rfc822\r\n\r\n" * 102,
    "too_many_headers": HEAD + b"A:\r\n" * 10_001 + b"\r\n",
    "too_many_parts": HEAD + leaf("multipart/mixed; boundary=b", "--b\r\n\r\n" * 10_001 + "--b--"),
    "unknown_charset": HEAD + leaf("text/plain; charset=klingon"),
    "unknown_encoding": HEAD + leaf("text/plain", "x", "Content-Transfer-Encoding: x-rot13"),
    "utf8_header": HEAD + "Subject: ä\r\n\r\n".encode(),
}


def test_a_sound_message_has_no_flaw() -> None:
    assert parse(HEAD + b"\r\nbody\r\n").flaws == ()
    assert parse(HEAD + b"Subject: =?utf-8?b?YQ==?= =?utf-8?q?=3F?=\r\n\r\n" + b"x" * 998 + b"\r\n").flaws == ()


def test_every_flaw_is_known_and_tested() -> None:
    assert set(FLAWED) == set(FLAWS)


@pytest.mark.parametrize("flaw", FLAWED)
def test_flaws(flaw: str) -> None:
    assert flaw in parse(FLAWED[flaw]).flaws


def test_depth_and_parts_are_bounded() -> None:
    deep = parse(b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (i, i) for i in range(200)))
    levels, part = 0, deep.structure
    while part.children:
        levels, part = levels + 1, part.children[0]
    assert levels == 100
    assert part.type == "multipart/mixed"
    wide = parse(FLAWED["too_many_parts"])
    assert len(wide.structure.children) == 9_999


def test_a_map_reads_as_bytes_do() -> None:
    message = RFC_2046_5_1_1 * 2
    with mmap.mmap(-1, len(message)) as mapped:
        mapped[:] = message
        assert parse(mapped) == parse(message)


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("size", [*range(65_520, 65_544), 200_000])
def test_a_long_header_ends_where_it_ends(newline: bytes, size: int) -> None:
    head = b"A: " + b"x" * (size - 3 - 2 * len(newline)) + newline
    message = head + newline + b"body" + newline * 2 + b"more"
    parsed = parse(message)
    assert parsed.header_length == len(head) + len(newline)
    assert content(message, parsed.structure) == b"body" + newline * 2 + b"more"


@pytest.mark.parametrize("characters", ["ä", "я", "日", "😀"])
def test_a_preview_is_full_in_any_script(characters: str) -> None:
    from posthouse.mail.transfer import encode_text

    encoding, encoded = encode_text(characters * 2000)
    head = lines("Content-Type: text/plain; charset=utf-8", f"Content-Transfer-Encoding: {encoding}", "")
    assert parse(head + encoded).preview == characters * 256
