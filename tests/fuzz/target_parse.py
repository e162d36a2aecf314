"""The MIME parser: it never raises, ranges lie inside each other, and a map reads as bytes do."""

from __future__ import annotations

import mmap

from posthouse.mail.parse import FLAWS, content, decode_words, header_fields, parse, search_text, text
from posthouse.mail.parsed import Parsed, Part, part_of

_HEAD = (
    b"Received: from a.example (b [192.0.2.1])\r\n\tby c; Mon, 02 Jan 2023 10:00:00 +0000\r\n"
    b'From: "Lee, Ann" <ann@example.com>\r\nTo: Pals: Bob <bob@example.org>, c@d.e (Carl);, =?utf-8?q?D=C3=B6?= <d@e.f>\r\n'
    b"Subject: =?utf-8?b?V8O2cmxk?= =?iso-8859-1?q?=E4_b?=\r\n x\r\nDate: Mon, 02 Jan 23 10:00 EST (comment)\r\n"
    b"Message-ID: <a@b>\r\nReferences: <1@x> <2@x>\r\nIn-Reply-To: <2@x>\r\nList-Id: A list <l.example>\r\n"
    b"MIME-Version: 1.0\r\n"
)
CORPUS: tuple[bytes, ...] = (
    b"",
    b"\r\n",
    b"no header at all\r\n",
    _HEAD + b"\r\nHello\r\n",
    b"From ann Mon Jan  2 10:00:00 2023\n" + _HEAD.replace(b"\r\n", b"\n") + b"\nHello\n",
    _HEAD
    + b'Content-Type: multipart/mixed; boundary="=_b"\r\n\r\npreamble\r\n--=_b\r\n'
    + b"Content-Type: multipart/alternative; boundary=inner\r\n\r\n--inner\r\nContent-Type: text/plain; charset=utf-8; "
    + b"format=flowed; delsp=yes\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nW=C3=B6rld \r\nof=\r\n it\r\n"
    + b"--inner\r\nContent-Type: text/html\r\n\r\n<html><head><style>x</style></head><body "
    + b"style='display: none'>a&amp;b&#8364;<!-- c --><b>d</b></body>\r\n--inner--\r\n--=_b\r\n"
    + b"Content-Type: application/octet-stream; name*0*=utf-8''%C3; name*1*=%A4.bin\r\nContent-Transfer-Encoding: "
    + b"base64\r\nContent-Disposition: attachment; filename=a.bin\r\nContent-ID: <x@y>\r\n\r\nAAECAwQF\r\nBgc=\r\n--=_b\r\n"
    + b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/digest; boundary=d\r\n\r\n"
    + b"--d\r\n\r\nSubject: one\r\n\r\nx\r\n--d\r\n\r\nSubject: two\r\n\r\ny\r\n--d--\r\n--=_b--\r\nepilogue\r\n",
    b"Content-Type: text/plain; charset=x\nContent-Transfer-Encoding: x-uuencode\n\nbegin 644 a\n#0V%T\n`\nend\n",
    b"Content-Type: multipart/mixed\n\n--guess\nContent-Type: text/plain\n\nx\n--guess--\n",
    b"Content-Type: text/html; charset=utf-16\n\n<\0p\0>\0",
    b"Subject: x\rFrom: a@b\r\rbody\r",
    b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (i, i) for i in range(120)),
    b"Content-Type: message/rfc822\n\n" * 120,
)


def check(data: bytes) -> None:
    """Everything that the parser offers, on one message."""
    parsed = parse(data)
    assert parsed.size == len(data)
    assert set(parsed.flaws) <= set(FLAWS)
    _check_place(parsed.structure, 0, len(data))
    ids = [part.id for part in _walked(parsed.structure)]
    assert len(set(ids)) == len(ids)
    for part in _walked(parsed.structure):
        assert part_of(parsed.structure, part.id) is part
    for shown in (*parsed.text, *parsed.html, *parsed.attachments):
        part = part_of(parsed.structure, shown)
        assert part is not None
        if not part.children:
            assert len(content(data, part)) <= 2 * part.length + 64
            assert len(text(data, part, 100)) <= 100
    _check_texts(parsed)
    assert len(search_text(data, parsed, most=1000)) <= 1000
    for name, value, start, end in header_fields(data):
        assert data[start:end].startswith(name)
        assert len(decode_words(value)) <= 4000
    if data:
        with mmap.mmap(-1, len(data)) as mapped:
            mapped[:] = data
            assert parse(mapped) == parsed
            assert content(mapped, parsed.structure) == content(data, parsed.structure)
            assert search_text(mapped, parsed, most=1000) == search_text(data, parsed, most=1000)


def _check_place(part: Part, start: int, end: int) -> None:
    assert start <= part.header <= part.header + part.header_length == part.body <= part.body + part.length <= end
    assert part.size >= 0
    before = part.body
    for child in part.children:
        assert child.header >= before
        _check_place(child, before, part.body + part.length)
        before = child.body + child.length


def _check_texts(parsed: Parsed) -> None:
    texts = [
        parsed.subject,
        parsed.preview,
        parsed.message_id or "",
        *parsed.in_reply_to,
        *parsed.references,
        parsed.list_id or "",
    ]
    for addr in (*parsed.from_, *parsed.sender, *parsed.to, *parsed.cc, *parsed.bcc, *parsed.reply_to):
        texts += [addr.name, addr.address, addr.group or ""]
    texts += [parsed.auto_submitted or "", parsed.precedence or "", parsed.thread_index or ""]
    for part in _walked(parsed.structure):
        texts += [part.name or "", part.cid or "", part.charset or "", part.language or "", part.location or ""]
        texts += [part.type, part.encoding, part.disposition or ""]
    for each in texts:
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in each), each
        each.encode()
    assert len(parsed.preview) <= 256


def _walked(part: Part) -> list[Part]:
    found = [part]
    for child in part.children:
        found += _walked(child)
    return found
