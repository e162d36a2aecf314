"""Drafts and their faults; what has none can be built."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.accounts.model import Stream
from posthouse.clock import DAY, SECOND
from posthouse.errors import Invalid
from posthouse.mail.build import Attachment, Skeleton
from posthouse.outbound.check import (
    MAX_HEADERS,
    MAX_METADATA,
    MAX_PART,
    MAX_TAGS,
    Bounds,
    Checked,
    check_fan_out,
    check_message,
    expires_at,
)
from posthouse.outbound.model import AttachmentDraft, FanOutDraft, MessageDraft, Party, RecipientDraft
from posthouse.rendering.process import _mailbox, _mailboxes

NOW = 1_800_000_000 * SECOND
STREAMS = {
    name: Stream(f"str_{name}", "ten_1", name, kind, lane, 72 * 3600, NOW)
    for name, kind, lane in (("transactional", "transactional", 1), ("broadcast", "broadcast", 2))
}
BOUNDS = Bounds(recipients=5, batch=10, fan_out=8, attachments=1000)
PLAIN: dict[str, Any] = {"from_": "Ann <ann@a.example>", "to": ["bob@b.example"], "subject": "Hi", "text": "Hello"}


def check(**changes: Any) -> Checked:
    return check_message(MessageDraft(**{**PLAIN, **changes}), STREAMS, BOUNDS, NOW)


def pointers(error: Invalid) -> list[str]:
    return [fault.pointer for fault in error.faults]


def attachment(**changes: Any) -> AttachmentDraft:
    given = {"filename": "a.pdf", "content": base64.b64encode(b"abc").decode(), "content_type": "application/pdf"}
    return AttachmentDraft(**{**given, **changes})


def test_a_plain_message() -> None:
    checked = check()
    assert checked.from_ == ("Ann", "ann@a.example")
    assert [(one.name, one.address) for one in checked.recipients] == [("", "bob@b.example")]
    assert (checked.stream.name, checked.due_at, checked.fan_out) == ("transactional", NOW, False)
    assert expires_at(checked.due_at, checked.stream) == NOW + 3 * DAY


def test_somebody_named_twice_gets_it_once() -> None:
    checked = check(to=["bob@b.example", "eve@b.example"], cc=["Bob <bob@B.example>"], bcc=[Party(email="x@b.example")])
    assert [one.address for one in checked.recipients] == ["bob@b.example", "eve@b.example", "x@b.example"]
    assert [address for _, address in (*checked.to, *checked.cc)] == ["bob@b.example", "eve@b.example", "bob@b.example"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"from_": "nobody"}, "/from"),
        ({"from_": Party(email="@")}, "/from/email"),
        ({"to": []}, "/to"),
        ({"to": ["fine@b.example", "a b@c"]}, "/to/1"),
        ({"to": [Party(email="x", name="y")]}, "/to/0/email"),
        ({"cc": ["x@"]}, "/cc/0"),
        ({"bcc": ["@x"]}, "/bcc/0"),
        ({"reply_to": [""]}, "/reply_to/0"),
        ({"to": [f"u{n}@b.example" for n in range(6)]}, "/to"),
        ({"subject": None}, "/subject"),
        ({"subject": "a\x07b"}, "/subject"),
        ({"text": None}, ""),
        ({"text": "a\x00b"}, "/text"),
        ({"html": "a\x1bb"}, "/html"),
        ({"text": "x" * (MAX_PART + 1)}, "/text"),
        ({"template": "t"}, "/subject"),
        ({"template": "t", "subject": None}, "/text"),
        ({"template": "t", "subject": None, "text": None, "html": "x"}, "/html"),
        ({"template_version": 2}, "/template_version"),
        ({"headers": {"X/~": "1"}}, "/headers/X~1~0"),
        ({"headers": {"Received": "x"}}, "/headers/Received"),
        ({"headers": {"X-A": "a\x01"}}, "/headers/X-A"),
        ({"headers": {"List-Id": "<a.example>", "list-id": "<b.example>"}}, "/headers"),
        ({"headers": {f"X-{n}": "1" for n in range(MAX_HEADERS + 1)}}, "/headers"),
        ({"attachments": [attachment(filename="")]}, "/attachments/0/filename"),
        ({"attachments": [attachment(filename="a\tb")]}, "/attachments/0/filename"),
        ({"attachments": [attachment(content_type="pdf")]}, "/attachments/0/content_type"),
        ({"attachments": [attachment(content_type="multipart/mixed")]}, "/attachments/0/content_type"),
        ({"attachments": [attachment(content_type="text/plain; name=a.txt")]}, "/attachments/0/content_type"),
        ({"attachments": [attachment(content_id="a b")]}, "/attachments/0/content_id"),
        ({"attachments": [attachment(content_id="x"), attachment(content_id="x")]}, "/attachments/1/content_id"),
        ({"attachments": [attachment(), attachment(content="*")]}, "/attachments/1/content"),
        ({"attachments": [attachment(content="QUJD\n")]}, "/attachments/0/content"),
        (
            {"attachments": [attachment(content_type="message/rfc822", content=base64.b64encode(b"a\0b").decode())]},
            "/attachments/0/content",
        ),
        ({"attachments": [attachment(content=base64.b64encode(bytes(600)).decode())] * 2}, "/attachments"),
        ({"attachments": [attachment()] * 101}, "/attachments"),
        ({"tags": ["fine", "a,b"]}, "/tags/1"),
        ({"tags": ["t"] * (MAX_TAGS + 1)}, "/tags"),
        ({"metadata": {"k": "v" * 501}}, "/metadata/k"),
        ({"metadata": {"a/b": "\x01"}}, "/metadata/a~1b"),
        ({"metadata": {str(n): "" for n in range(MAX_METADATA + 1)}}, "/metadata"),
        ({"variables": {"a": "x" * 300_000}}, "/variables"),
        ({"variables": {"a": "\x00"}}, "/variables"),
        ({"stream": "none"}, "/stream"),
        ({"send_at": datetime(2099, 1, 1, tzinfo=UTC)}, "/send_at"),
    ],
)
def test_each_fault_has_its_place(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(**changes)
    assert pointer in pointers(refused.value)


def test_all_faults_are_told_at_once_but_no_more_than_fifty() -> None:
    with pytest.raises(Invalid) as refused:
        check(from_="x", to=["y"], subject=None, tags=[","])
    assert set(pointers(refused.value)) == {"/from", "/to/0", "/subject", "/tags/0"}
    with pytest.raises(Invalid) as refused:
        check(to=["x"] * 500)
    assert len(refused.value.faults) == 50


def test_a_time_that_has_passed_is_now() -> None:
    assert check(send_at=datetime(1999, 1, 1, tzinfo=UTC)).due_at == NOW


def fan_out(recipients: list[RecipientDraft], **changes: Any) -> FanOutDraft:
    return FanOutDraft(**{"from_": "a@a.example", "subject": "s", "text": "t", "recipients": recipients, **changes})


def test_a_wrong_recipient_is_an_error_of_its_own_place() -> None:
    recipients = [
        RecipientDraft(to="Bo <b@b.example>", variables={"n": 1}, metadata={"own": "2"}),
        RecipientDraft(to="nobody"),
        RecipientDraft(to="c@b.example", metadata={"": "x"}),
        RecipientDraft(to="d@b.example"),
    ]
    checked, bad = check_fan_out(fan_out(recipients, metadata={"all": "1"}), STREAMS, BOUNDS, NOW)
    assert [one.address for one in checked.recipients] == ["b@b.example", "d@b.example"]
    assert msgspec.json.decode(checked.recipients[0].metadata or "") == {"all": "1", "own": "2"}
    assert msgspec.json.decode(checked.recipients[1].metadata or "") == {"all": "1"}
    assert checked.recipients[0].variables == '{"n":1}'
    assert {place: error.faults[0].pointer for place, error in bad.items()} == {
        1: "/recipients/1/to",
        2: "/recipients/2/metadata/",
    }


def test_a_fan_out_has_bounds_and_shared_faults_are_everybodys() -> None:
    some = [RecipientDraft(to=f"u{n}@b.example") for n in range(9)]
    for draft, pointer in (
        (fan_out(some), "/recipients"),
        (fan_out([]), "/recipients"),
        (fan_out(some[:1], subject=None), "/subject"),
    ):
        with pytest.raises(Invalid) as refused:
            check_fan_out(draft, STREAMS, BOUNDS, NOW)
        assert pointer in pointers(refused.value)


WORDS = st.text(max_size=30) | st.sampled_from(["é", "\t", "日本", "\u202e", "\x7f", "a" * 1200, "\x85", "\u2028", ""])
LINES = WORDS.map(lambda text: text.translate({10: None, 13: None, 0: None}))
ADDRESSES = st.sampled_from(
    ["a@a.example", "Ann <a@a.example>", '"q t" <q@a.example>', "ü@b.example", "x@ü.example", '"a b"@c.example', "bad"]
) | LINES.map(lambda name: Party(email="p@b.example", name=name))
PARTS = st.none() | WORDS
TYPES = ["text/plain", "a/b; c=d", "message/rfc822", "message/global", "x/y; NAME=z", "image/png"]
FILES = st.builds(
    AttachmentDraft,
    filename=LINES,
    content=st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()),
    content_type=st.sampled_from(TYPES),
    content_id=st.none() | st.sampled_from(["one", "two@x", "a b"]),
)
DRAFTS = st.builds(
    MessageDraft,
    from_=ADDRESSES,
    to=st.lists(ADDRESSES, min_size=1, max_size=3),
    cc=st.lists(ADDRESSES, max_size=1),
    reply_to=st.lists(ADDRESSES, max_size=1),
    subject=st.none() | LINES,
    html=PARTS,
    text=PARTS,
    headers=st.dictionaries(st.sampled_from(["X-A", "x-a", "List-Id", "X-Long", "Bcc"]), LINES, max_size=3),
    attachments=st.lists(FILES, max_size=3),
    tags=st.lists(LINES, max_size=2),
    metadata=st.dictionaries(LINES, LINES, max_size=2),
    variables=st.dictionaries(LINES, st.none() | st.integers() | st.floats() | LINES | st.lists(LINES), max_size=2),
)


@given(DRAFTS)
@settings(max_examples=250, deadline=None)
def test_what_has_no_fault_can_be_built(draft: MessageDraft) -> None:
    """Whatever comes in, the answer is a fault with a pointer or a message that a mail program reads."""
    try:
        checked = check_message(draft, STREAMS, BOUNDS, NOW)
    except Invalid as error:
        assert error.faults
        return
    skeleton = Skeleton(from_=_mailbox(checked.from_), reply_to=_mailboxes(checked.reply_to), extra=checked.headers)
    data = skeleton.fill(
        to=_mailboxes(checked.to),
        cc=_mailboxes(checked.cc),
        subject=checked.subject,
        date=datetime.fromtimestamp(NOW // SECOND, UTC),
        message_id="<1@a.example>",
        text=checked.text,
        html=checked.html,
        attachments=[
            Attachment(one.filename, one.content_type, one.content, one.content_id) for one in checked.attachments
        ],
        seed="1",
    )
    read = message_from_bytes(data, policy=policy.SMTPUTF8)
    assert len(read.get_all("To", [])) == 1
    assert sum(part.get_content_disposition() is not None for part in read.walk()) == len(checked.attachments)
    assert msgspec.json.decode(checked.variables) is not None
