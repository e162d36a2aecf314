"""The standard email package as judge, on messages that are well-formed."""

from __future__ import annotations

import email
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.message import EmailMessage, MIMEPart
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.fuzz.target_parse import check

from posthouse.mail.address import mailbox
from posthouse.mail.build import Attachment, Content, Headers, build
from posthouse.mail.parse import content, parse, text
from posthouse.mail.parsed import Part

_WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn")),
    min_size=1,
    max_size=12,
)
phrases = st.lists(_WORDS, min_size=1, max_size=6).map(" ".join)
names = st.one_of(phrases, st.sampled_from(("Lee, Ann", 'A "B" C', "a@b", "(x)", "Ä; Ö: Ü", "=?x?", "O'Neil, Dr.")))
bodies = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.just("\n"), max_size=300)
dates = st.integers(31_536_000, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
addresses = st.sampled_from(("ann@example.com", "b.c+d@example.org", "x_y@sub.example.net"))
files = st.lists(
    st.builds(
        Attachment,
        st.sampled_from(("a.txt", "Отчёт за год и ещё длиннее, чем одна строка.pdf", "x y (1).bin", "naïve 'x'.doc")),
        st.sampled_from(("application/octet-stream", "text/plain; charset=utf-8", "image/png", "application/pdf")),
        st.binary(max_size=400),
        st.sampled_from((None, "cid@example.com")),
    ),
    max_size=3,
    unique_by=lambda each: each.content_id or each.filename,
)


def as_shown(value: str) -> str:
    return unicodedata.normalize("NFC", value)


def tree(message: Any) -> Any:
    if message.get_content_maintype() == "multipart" or message.get_content_type() == "message/rfc822":
        return [message.get_content_type(), *[tree(part) for part in message.get_payload()]]
    return message.get_content_type(), message.get_payload(decode=True)


def own_tree(raw: bytes, part: Part) -> Any:
    if part.children:
        return [part.type, *[own_tree(raw, child) for child in part.children]]
    return part.type, content(raw, part)


def agree(raw: bytes) -> EmailMessage:
    peer = email.message_from_bytes(raw, policy=policy.default)
    parsed = parse(raw)
    assert own_tree(raw, parsed.structure) == tree(peer)
    assert parsed.subject == as_shown(str(peer["Subject"] or ""))
    for name, found in (("From", parsed.from_), ("To", parsed.to), ("Cc", parsed.cc)):
        theirs = peer[name].addresses if peer[name] is not None else ()
        # The judge keeps the blank between two encoded words of a name (RFC 2047 §6.2 does not).
        assert [(each.name.replace(" ", ""), each.address) for each in found] == [
            (as_shown(each.display_name).replace(" ", ""), each.addr_spec) for each in theirs
        ]
    when = peer["Date"].datetime
    assert parsed.date == int(when.timestamp()) * 1_000_000
    assert timedelta(minutes=parsed.date_offset) == (when.utcoffset() or timedelta())
    assert not set(parsed.flaws) - {"utf8_header"}
    check(raw)
    return peer


@settings(max_examples=80, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(phrases, st.lists(st.tuples(names, addresses), min_size=1, max_size=4), bodies, bodies | st.none(), files, dates)
def test_what_we_build(
    subject: str, people: list[tuple[str, str]], plain: str, html: str | None, attached: list[Attachment], at: datetime
) -> None:
    to = tuple(mailbox(address, name) for name, address in people)
    raw = build(
        Headers(from_=to[0], to=to, subject=subject, date=at, message_id="<1@example.com>"),
        Content(text=plain, html=html, attachments=tuple(attached)),
    )
    peer = agree(raw)
    parsed = parse(raw)
    assert [(each.name, each.address) for each in parsed.to] == [(as_shown(name), address) for name, address in people]
    assert parsed.message_id == "1@example.com"
    shown = peer.get_body(("plain",))
    assert isinstance(shown, MIMEPart)
    [first, *_] = [part for part in leaves(parsed.structure) if part.id in parsed.text]
    assert text(raw, first, 10_000) == shown.get_content().replace("\r\n", "\n")
    names_found = [part.name for part in leaves(parsed.structure) if part.name]
    assert names_found == [part.get_filename() for part in peer.walk() if part.get_filename()]


def leaves(part: Part) -> list[Part]:
    return [part] if not part.children else [leaf for child in part.children for leaf in leaves(child)]


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(phrases, names, bodies, files, dates, st.integers(-720, 720), st.booleans())
def test_what_the_standard_library_builds(
    subject: str, name: str, body: str, attached: list[Attachment], at: datetime, zone: int, forwarded: bool
) -> None:
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = email.headerregistry.Address("Ann", "ann", "example.com")  # type: ignore[attr-defined]
    message["To"] = email.headerregistry.Address(name.replace('"', ""), "bob", "example.org")  # type: ignore[attr-defined]
    message["Subject"] = subject
    message["Date"] = at.astimezone(timezone(timedelta(minutes=zone)))
    message["Message-ID"] = "<2@example.com>"
    message.set_content(body)
    if len(body) % 2:
        message.add_alternative("<p>" + body, subtype="html")
    for each in attached:
        message.add_attachment(each.content, maintype="application", subtype="x", filename=each.filename)
    if forwarded:
        outer = EmailMessage(policy=policy.SMTP)
        for field in ("From", "To", "Date", "Message-ID"):
            outer[field] = message[field]
        outer["Subject"] = f"Fwd: {subject}"
        outer.set_content("see below")
        outer.add_attachment(message)
        message = outer
    agree(message.as_bytes())


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=400)
    | st.text('\r\n:-b= ;/<>@"abcdefContent-Typemultipart/mixedboundary', max_size=400).map(str.encode)
)
def test_any_octets(data: bytes) -> None:
    check(data)
