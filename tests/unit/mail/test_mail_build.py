from __future__ import annotations

import email
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange_text import body_text, one_line

from posthouse.errors import Invalid
from posthouse.mail.address import Mailbox
from posthouse.mail.build import Attachment, Content, Headers, Skeleton, build

ANN = Mailbox("Ann Lee", "ann", "example.com")
BOB = Mailbox("", "bob", "example.org")
AT = datetime(2025, 7, 1, 9, 5, 3, tzinfo=UTC)
LOGO = Attachment("logo.png", "image/png", b"\x89PNG\r\n\x1a\n" * 40, content_id="logo")
FILE = Attachment("Отчёт.pdf", "application/pdf", bytes(range(256)) * 3)
INNER = b"From: a@b.example\nSubject: inner\n\nFrom the inside\n"


def headers(**changes: Any) -> Headers:
    values: dict[str, Any] = {
        "from_": ANN, "to": (BOB,), "subject": "Hello", "date": AT, "message_id": "<1@example.com>"
    }  # fmt: skip
    return Headers(**(values | changes))


def read(raw: bytes) -> EmailMessage:
    for line in raw.split(b"\r\n"):
        assert len(line) <= 998
        assert b"\r" not in line
        assert b"\n" not in line
    assert raw.endswith(b"\r\n")
    message = email.message_from_bytes(raw, policy=policy.default)
    assert not [part.defects for part in message.walk() if part.defects]
    return message


def shape(message: EmailMessage) -> Any:
    if message.is_multipart() and message.get_content_maintype() == "multipart":
        return [message.get_content_subtype(), *[shape(part) for part in message.iter_parts()]]
    return message.get_content_type()


def text_of(part: EmailMessage | None) -> str:
    assert part is not None
    return part.get_payload(decode=True).decode().replace("\r\n", "\n")


def as_read(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


SHAPES = [
    (Content(text="t"), "text/plain"),
    (Content(html="h"), "text/html"),
    (Content(), "text/plain"),
    (Content("t", "h"), ["alternative", "text/plain", "text/html"]),
    (Content("t", "h", (LOGO,)), ["alternative", "text/plain", ["related", "text/html", "image/png"]]),
    (Content(None, "h", (LOGO,)), ["related", "text/html", "image/png"]),
    (Content("t", None, (FILE,)), ["mixed", "text/plain", "application/pdf"]),
    (Content("t", None, (LOGO,)), ["mixed", "text/plain", "image/png"]),
    (Content(None, "h", (FILE,)), ["mixed", "text/html", "application/pdf"]),
    (Content(None, None, (FILE,)), ["mixed", "text/plain", "application/pdf"]),
    (
        Content("t", "h", (FILE, LOGO)),
        ["mixed", ["alternative", "text/plain", ["related", "text/html", "image/png"]], "application/pdf"],
    ),
]


@pytest.mark.parametrize(("content", "expected"), SHAPES)
def test_shapes(content: Content, expected: Any) -> None:
    message = read(build(headers(), content))
    assert shape(message) == expected
    assert [a.get_content() for a in message.walk() if a.get_filename() == "Отчёт.pdf"] in ([], [FILE.content])
    assert [a["content-id"] for a in message.walk() if a.get_filename() == "logo.png"] in ([], ["<logo>"])


def test_the_whole_message() -> None:
    reply_to = (Mailbox("Help, please", "help", "example.com"),)
    raw = build(headers(cc=(ANN, BOB), reply_to=reply_to, extra=(("X-Tag", "a"),)), Content("Hi\n.\n", "<p>Hi"))
    assert raw.decode() == (
        "From: Ann Lee <ann@example.com>\r\n"
        'Reply-To: "Help, please" <help@example.com>\r\n'
        "To: bob@example.org\r\n"
        "Cc: Ann Lee <ann@example.com>, bob@example.org\r\n"
        "Subject: Hello\r\n"
        "Date: Tue, 01 Jul 2025 09:05:03 +0000\r\n"
        "Message-ID: <1@example.com>\r\n"
        "X-Tag: a\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/alternative;\r\n"
        ' boundary="=_b73b37b65b4fd608fc2b423ba"\r\n'
        "\r\n"
        "--=_b73b37b65b4fd608fc2b423ba\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n"
        "\r\n"
        "Hi\r\n"
        "=2E\r\n"
        "\r\n"
        "--=_b73b37b65b4fd608fc2b423ba\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "<p>Hi\r\n"
        "--=_b73b37b65b4fd608fc2b423ba--\r\n"
    )


_ATTACHMENT = st.builds(
    Attachment,
    one_line.map(lambda s: s[:200]),
    st.sampled_from(["application/pdf", "text/csv; charset=utf-8", 'text/calendar; method=REQUEST; x="a;b"']),
    st.binary(max_size=300),
)


@settings(max_examples=150)
@given(
    st.none() | body_text,
    st.none() | body_text,
    st.lists(_ATTACHMENT, max_size=3),
    one_line,
    one_line.map(lambda s: s[:256]),
    st.binary(max_size=50),
    st.text(max_size=10),
)
def test_what_is_put_in_is_read_back(
    text: str | None, html: str | None, files: list[Attachment], subject: str, name: str, image: bytes, seed: str
) -> None:
    inline = (Attachment("i.png", "image/png", image, content_id="i@x"),) if html is not None else ()
    content = Content(text, html, (*files, *inline))
    raw = build(headers(subject=subject, from_=Mailbox(name, "ann", "example.com")), content, seed)
    message = read(raw)
    assert message.keys() == ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"] + (
        ["Content-Transfer-Encoding"] if not message.is_multipart() else []
    )
    assert message["subject"] == subject
    assert message["from"].addresses[0].addr_spec == "ann@example.com"
    assert message["date"].datetime == AT
    if text is not None or html is None:
        assert_same_text(text_of(message.get_body(("plain",))), text or "", message.is_multipart())
    if html is not None:
        assert_same_text(text_of(message.get_body(("html",))), html, message.is_multipart())
    leaves = [part for part in message.walk() if not part.is_multipart()]
    attached = [part for part in leaves if part.get_content_disposition() == "attachment"]
    assert [(p["content-disposition"].params.get("filename", ""), p.get_payload(decode=True)) for p in attached] == [
        (file.filename, file.content) for file in files
    ]
    assert [p.get_payload(decode=True) for p in leaves if p.get_content_disposition() == "inline"] == [
        file.content for file in inline
    ]
    bodies = (text is not None or html is None) + (html is not None)
    assert len(leaves) == bodies + len(files) + len(inline)
    assert raw == build(headers(subject=subject, from_=Mailbox(name, "ann", "example.com")), content, seed)


def assert_same_text(found: str, given_: str, is_part: bool) -> None:
    given_ = as_read(given_)
    assert found == given_ or (not is_part and found == given_ + "\n")


def test_boundaries_of_an_earlier_message_do_no_harm() -> None:
    content = Content("first", "<p>first")
    for _ in range(5):
        raw = build(headers(), content)
        nested = raw.decode()
        content = Content(nested, nested, (Attachment("m.eml", "message/rfc822", raw),))
        message = read(build(headers(), content))
        assert shape(message) == ["mixed", ["alternative", "text/plain", "text/html"], "message/rfc822"]
        assert text_of(message.get_body(("plain",))) == as_read(nested)
        attached = next(iter(message.iter_attachments()))
        assert attached.get_content().as_bytes().replace(b"\r\n", b"\n") == raw.replace(b"\r\n", b"\n")


def test_attached_messages_are_not_encoded() -> None:
    raw = build(headers(), Content("t", None, (Attachment("m.eml", "message/rfc822", INNER),)))
    assert b"Content-Transfer-Encoding: 7bit\r\nContent-Disposition: attachment" in raw
    assert INNER.replace(b"\n", b"\r\n") in raw
    raw = build(headers(), Content("t", None, (Attachment("m.eml", "message/rfc822", INNER + "é".encode()),)))
    assert raw.count(b"Content-Transfer-Encoding: 8bit") == 2
    assert read(raw)["content-transfer-encoding"] == "8bit"
    for bad in (b"a\0b", b"x" * 999):
        with pytest.raises(Invalid):
            build(headers(), Content("t", None, (Attachment("m.eml", "message/rfc822", bad),)))


@pytest.mark.parametrize(
    "changes",
    [
        {"content_type": "image"},
        {"content_type": "image/png\r\nX: y"},
        {"content_type": "image/png; a=b\r\n\r\nbody"},
        {"content_type": "multipart/mixed"},
        {"content_type": "image/png; name=x"},
        {"content_type": "image/png; a"},
        {"content_type": ""},
        {"content_id": "a b"},
        {"content_id": "a>\r\nX: y"},
        {"content_id": ""},
        {"filename": "a\r\nX: y"},
        {"filename": "a\0"},
        {"filename": "a" * 256},
    ],
)
def test_bad_attachments_are_refused(changes: dict[str, str]) -> None:
    attachment = Attachment(**({"filename": "a", "content_type": "image/png", "content": b""} | changes))  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        build(headers(), Content("t", "h", (attachment,)))


def test_counts_and_doubles_are_refused() -> None:
    for attachments in ((LOGO, LOGO), (FILE,) * 257):
        with pytest.raises(Invalid):
            build(headers(), Content("t", "h", attachments))


def test_skeleton_gives_the_same_bytes_as_build() -> None:
    skeleton = Skeleton(from_=ANN, reply_to=(BOB,), extra=(("X-A", "1"),))
    filled = skeleton.fill(
        to=(BOB,), subject="Hello", date=AT, message_id="<1@example.com>", text="t", html="h", extra=()
    )
    assert filled == build(headers(reply_to=(BOB,), extra=(("X-A", "1"),)), Content("t", "h"))


def test_fields_of_one_recipient() -> None:
    skeleton = Skeleton(from_=ANN, extra=(("Feedback-ID", "a:b"),))
    once = {"to": (BOB,), "subject": "s", "date": AT, "message_id": "<1@example.com>", "text": "t"}
    message = read(skeleton.fill(**once, extra=(("List-Unsubscribe", "<https://a.example/u/1>"),)))  # type: ignore[arg-type]
    assert message["list-unsubscribe"] == "<https://a.example/u/1>"
    assert message["feedback-id"] == "a:b"
    for extra in ((("Feedback-ID", "c:d"),), (("Bcc", "x@y.example"),), (("X-A", "1\r\nBcc: x@y.example"),)):
        with pytest.raises(Invalid):
            skeleton.fill(**once, extra=extra)  # type: ignore[arg-type]


@given(st.text("\r\nab: ", max_size=20))
def test_line_ends_add_no_field(value: str) -> None:
    value = f"x{value}\nBcc: eve@example.com"
    for changes in (
        {"subject": value},
        {"message_id": f"<{value}@a.b>"},
        {"to": (Mailbox(value, "a", "b.c"),)},
        {"from_": Mailbox("", value, "b.c")},
        {"extra": (("X-A", value),)},
        {"extra": ((value, "a"),)},
    ):
        with pytest.raises(Invalid):
            build(headers(**changes), Content("t"))
