"""A sentence for every event and cause; odd data never break the story."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.accounts.model import Stream
from posthouse.clock import DAY, SECOND, rfc3339
from posthouse.domains.model import SigningKey
from posthouse.events.story import Explanation
from posthouse.events.types import Event, Type
from posthouse.outbound.explain import explain
from posthouse.outbound.ledger import Line
from posthouse.outbound.spec import Spec

NOW = 1_800_000_000 * SECOND
SPEC = Spec(
    from_=("Ann", "ann@a.example"), stream="transactional", key_id="key_1", template="hello", template_version=3
)
STREAM = Stream("str_1", "ten_1", "transactional", "transactional", 1, 72 * 3600, NOW)
SIGNERS = [SigningKey("a.example", "s1", "rsa-sha256", b""), SigningKey("a.example", "s2", "ed25519-sha256", b"")]
PEER = {
    "host": "mx.b.example",
    "ip": "192.0.2.1",
    "route": "mx",
    "tls": "TLSv1.3",
    "at": "rcpt",
    "ms": 12,
    "attempt": 2,
}
REPLY = {"code": 550, "enhanced": "5.1.1", "text": "no <b>such</b> user"}


def line(rcpt: int = 0, state: str = "delivered", next_at: int = 0, attempts: int = 1) -> Line:
    return Line(
        "msg_1", rcpt, "sub_1", "str_1", 1, f"u{rcpt}@b.example", None, state, NOW, NOW, NOW + 3 * DAY,
        NOW + SECOND, attempts, None, next_at, None,
    )  # fmt: skip


def tell(kind: str, data: object, *lines: Line, now: int = NOW) -> Explanation:
    text = None if data is None else msgspec.json.encode(data).decode()
    event = Event("msg_1", 0, "evt_1", NOW + SECOND, kind, "send", text)
    return explain(lines or (line(),), SPEC, [event], STREAM, SIGNERS, now)


def sentence(kind: str, data: object) -> str:
    return tell(kind, data).story[4].text


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (Type.RENDERED, {"size": 900, "version": 3}, ("version 3 of hello", "900 octets")),
        (Type.DELIVERED, {**PEER, "reply": REPLY}, ("attempt 2", "mx.b.example [192.0.2.1]", "TLSv1.3", "12 ms")),
        (Type.BOUNCED, {**PEER, "cause": "no_such_address", "reply": REPLY}, ("does not exist", "5.1.1", "suppressed")),
        (Type.BOUNCED, {**PEER, "cause": "refused", "reply": REPLY}, ("refused it for good", "no <b>such</b> user")),
        (Type.BOUNCED, {**PEER, "cause": "soft_bounce_limit", "reply": REPLY}, ("too often",)),
        (Type.BOUNCED, {"cause": "too_old", "max_age_s": 259_200}, ("72 h",)),
        (Type.BOUNCED, {"cause": "null_mx", "reply": REPLY}, ("RFC 7505",)),
        (Type.BOUNCED, {"cause": "no_such_domain", "reply": REPLY}, ("without an attempt", "550 5.1.1")),
        (Type.DEFERRED, {"cause": "site_unreachable", "site": "mx:b", "detail": "refused", "next_at": NOW}, ("mx:b",)),
        (Type.DEFERRED, {**PEER, "cause": "unknown_outcome", "next_at": NOW}, ("may have it", rfc3339(NOW))),
        (Type.DEFERRED, {**PEER, "cause": "connection_lost", "detail": "reset"}, ("lost at rcpt", "reset")),
        (Type.DEFERRED, {**PEER, "cause": "refused_for_now", "reply": REPLY}, ("refused it for now", "Attempt 2")),
        (Type.DEFERRED, {"cause": "dns_unavailable", "reply": REPLY, "next_at": NOW}, ("dns_unavailable",)),
        (
            Type.SUPPRESSED,
            {"cause": "bounce", "source": "smtp:msg_0", "since": NOW, "scope": "all streams"},
            ("bounce", "smtp:msg_0", rfc3339(NOW), "all streams"),
        ),
        (Type.CANCELED, {"key": "key_9"}, ("key_9",)),
        (Type.FAILED, {"cause": "too_old", "max_age_s": 60}, ("60.0 s",)),
        (Type.FAILED, {"cause": "render_failed", "detail": "name is not defined"}, ("name is not defined",)),
        (Type.RESCHEDULED, {"key": "key_9", "to": NOW}, (rfc3339(NOW), "key_9")),
    ],
)
def test_every_event_and_cause_has_its_sentence(kind: str, data: object, words: tuple[str, ...]) -> None:
    text = sentence(kind, data)
    assert all(word in text for word in words), text
    assert text.endswith(".")
    assert "None" not in text


def test_every_type_is_told() -> None:
    for kind in Type:
        story = tell(kind, {}).story
        assert len(story) == (4 if kind is Type.ACCEPTED else 5), kind


def test_the_beginning_says_why_it_is_where_it_is() -> None:
    texts = " ".join(one.text for one in tell(Type.RENDERED, {}).story[:4])
    for word in ("key_1", "lane transactional", "72 h", "template hello, version 3", "s1 (rsa-sha256) and s2"):
        assert word in texts
    plain = Spec(from_=("", "a@a.example"), stream="s", key_id="k")
    texts = " ".join(one.text for one in explain([line()], plain, [], None, [], NOW).story)
    assert "not signed: a.example has no active DKIM key" in texts


def test_what_comes_next_and_the_summary() -> None:
    waiting = tell(Type.DEFERRED, {}, line(state="deferred", next_at=NOW + 60 * SECOND))
    assert f"waits until {rfc3339(NOW + 60 * SECOND)}" in waiting.story[-1].text
    assert waiting.summary == "Deferred, after 1 attempt."
    due = tell(Type.DEFERRED, {}, line(state="queued", next_at=NOW, attempts=0))
    assert "It is due" in due.story[-1].text
    assert due.summary == "Queued, not attempted yet."
    assert tell(Type.DELIVERED, {}).summary == "Delivered to u0@b.example 1.0 s after it was due."
    assert "will not be tried again" in tell(Type.BOUNCED, {}, line(state="bounced")).summary
    several = tell(Type.DELIVERED, {}, line(), line(1, "bounced"), line(2))
    assert several.summary == "3 recipients: 2 delivered, 1 bounced."
    assert several.story[4].recipient == "u0@b.example"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["cause", "reply", "next_at", "since", "to", "key", "size", "version", "max_age_s", "host", "ip", "ms", "at"]
CAUSES = ["too_old", "no_such_address", "site_unreachable", "connection_lost", "unknown_outcome", "null_mx"]


@given(
    st.sampled_from([*Type, "unheard of"]),
    JSON | st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(CAUSES), max_size=6),
)
@settings(max_examples=400, deadline=None)
def test_odd_data_never_break_the_story(kind: str, data: object) -> None:
    """Rows of another version, or damaged ones."""
    told = tell(kind, data, line(), line(1, "deferred", next_at=NOW + SECOND))
    assert all(isinstance(one.text, str) and one.text for one in told.story)
    assert msgspec.json.encode(told)


def test_data_that_are_not_json() -> None:
    event = Event("msg_1", 0, "evt_1", NOW, Type.DELIVERED, "send", "{")
    assert len(explain([line()], SPEC, [event], STREAM, SIGNERS, NOW).story) == 5


def test_times_in_an_event_are_told_as_everywhere() -> None:
    from posthouse.events.types import Event
    from posthouse.outbound.answers import event_view

    at = 1_800_000_000 * 1_000_000
    event = Event("msg_1", 0, "evt_1", at, "deferred", "send", f'{{"next_at":{at},"attempt":1}}')
    assert event_view(event, "a@b.example").data == {"next_at": "2027-01-15T08:00:00.000000Z", "attempt": 1}
