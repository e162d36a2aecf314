"""A sentence for everything that was decided; odd rows never break the story."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.clock import SECOND, rfc3339
from posthouse.events.story import Explanation
from posthouse.inbound.explain import Delivery, Received, Refusal, explain, explain_refusal
from posthouse.inbound.model import Evidence, Listing, Outcome, Reason, State, Verdict, Via
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf

AT = 1_800_000_000 * SECOND
NOW = AT + 60 * SECOND
AUTH = Authentication(
    Spf("fail", "a.example", mechanism="-all", reason="no mechanism matched"),
    Spf("none", "h.example", "helo"),
    (Dkim("pass", "b.example", "s1", covered=7), Dkim("fail", "c.example", "s2", reason="the body was changed")),
    Dmarc("fail", "a.example", policy="reject", disposition="reject"),
    Arc("pass", ("l.example",)),
)
EVIDENCE = Evidence(
    peer="192.0.2.7", helo="mail.a.example", host="mx.a.example", auth=AUTH, tls="TLSv1.3",
    listings=(Listing("bl.example", "127.0.0.2", 3.0, "see our page"),), flaws=("helo_ip", "new_flaw"), greylisted=True,
    dmarc_override="a trusted list sealed it", junk="the domain puts such mail aside",
)  # fmt: skip
VERDICT = Verdict(6.5, True, (Reason("link_address", 2.0, "A link leads to a bare IP address: 192[.]0[.]2[.]9."),
                              Reason("dmarc_pass", -0.5, "Proved.")), virus="Eicar", scanner="it did not answer in time")  # fmt: skip


def js(value: object) -> str:
    return msgspec.json.encode(value).decode()


def row(evidence: Evidence = EVIDENCE, verdict: Verdict | None = VERDICT) -> Received:
    return Received("inb_1", AT, 6000, "ann@a.example", js(evidence), None if verdict is None else js(verdict))


def to(state: State = State.STORED, outcome: Outcome | None = None, **via: Any) -> Delivery:
    done = None if state == State.ACCEPTED else AT + SECOND
    return Delivery(
        "info@ours.example", "bob@ours.example", state, js(Via(**via)), done, js(outcome) if outcome else None
    )


STORED = Outcome(State.STORED, 17, 4, ("Junk",), ("$junk",), ("rule “Work” fired", "The thread is that of <1@x>."))


def told(explanation: Explanation) -> str:
    return "\n".join(one.text for one in explanation.story)


@pytest.mark.parametrize(
    "words",
    [
        "SMTP from the world: mx.a.example [192.0.2.7], which greeted as mail.a.example, over TLSv1.3",
        "<ann@a.example>, 6000 octets",
        "Greylisting had put it off",
        "greeted with a bare IP address",
        "odd (new_flaw)",
        "bl.example speaks against it (127.0.0.2, weight 3), which says “see our page”",
        "SPF (fail): a.example does not allow this server to send for it (-all). No mechanism matched.",
        "the signature of b.example (s1) is valid, but only the first 7 octets",
        "DKIM (fail): the signature of c.example (s2) is not accepted. The body was changed.",
        "DMARC (fail): nothing proves that it is from a.example, which asks to refuse such mail.",
        "ARC (pass): the chain of seals by l.example is whole.",
        "DMARC was not followed: A trusted list sealed it.",
        "Policy sends it to Junk whatever the filter says: The domain puts such mail aside.",
        "The filter gave it 6.5 points: it is junk.",
        "+2 (link_address): A link leads to a bare IP address",
        "-0.5 (dmarc_pass): Proved.",
        "A scanner found Eicar in it.",
        "A scanner was not asked or did not answer: It did not answer in time.",
        "The address leads to info@ours.example → team@ours.example → bob@ours.example. The tag “x” was taken off.",
        "Stored for bob@ours.example in Junk as email 17 of thread 4, marked $junk.",
        "Rule “Work” fired.",
        "The thread is that of <1@x>.",
    ],
)
def test_everything_decided_has_its_sentence(words: str) -> None:
    story = explain(row(), [to(outcome=STORED, aliases=("team@ours.example",), tag="x")], NOW)
    assert words in told(story)
    assert story.status == "stored"
    assert story.summary == "Stored in Junk: bob@ours.example."


@pytest.mark.parametrize(
    ("delivery", "words"),
    [
        (to(State.ACCEPTED), "waits to be filtered and stored"),
        (to(State.DISCARDED, Outcome(State.DISCARDED)), "Thrown away by a rule of bob@ours.example"),
        (to(State.FORWARDED, Outcome(State.FORWARDED), forward="b@else.example"), "sending flow for b@else.example"),
        (to(State.FAILED, Outcome(State.FAILED, reasons=("the account is gone",))), "The account is gone."),
        (to(State.STORED), "Stored: without details."),
    ],
)
def test_how_it_ended(delivery: Delivery, words: str) -> None:
    story = explain(row(verdict=None), [delivery], NOW)
    assert words in told(story)
    assert "The filter" not in told(story)


def test_what_waits_is_told_as_of_now_and_the_rest_as_of_then() -> None:
    story = explain(row(), [to(State.ACCEPTED)], NOW)
    assert story.story[0].at == rfc3339(AT)
    assert story.story[-1].at == rfc3339(NOW)


def test_several_recipients_are_named_and_counted() -> None:
    story = explain(row(), [to(outcome=STORED), to(State.ACCEPTED)], NOW)
    assert story.status == "1 stored, 1 accepted"
    assert story.summary == "2 recipients: 1 stored, 1 accepted."
    assert {one.recipient for one in story.story} == {None, "info@ours.example"}


@pytest.mark.parametrize(
    ("result", "words"),
    [("none", "says nothing"), ("pass", "allows this server"), ("softfail", "should not"), ("neutral", "neither"),
     ("temperror", "did not answer"), ("permerror", "is wrong"), ("odd", "the result for a.example is odd")],
)  # fmt: skip
def test_spf_in_words(result: str, words: str) -> None:
    auth = msgspec.structs.replace(AUTH, spf=Spf(result, "a.example"))
    assert words in told(explain(row(msgspec.structs.replace(EVIDENCE, auth=auth)), [to()], NOW))


@pytest.mark.parametrize(
    ("dmarc", "words"),
    [
        (Dmarc("pass", "a.example", aligned_dkim=True, aligned_spf=True), "from a.example, proved by SPF and DKIM"),
        (Dmarc("none", "a.example"), "has no policy"),
        (Dmarc("temperror", "a.example"), "no result"),
        (Dmarc("fail", "a.example", policy="quarantine"), "put such mail aside"),
    ],
)
def test_dmarc_in_words(dmarc: Dmarc, words: str) -> None:
    auth = msgspec.structs.replace(AUTH, dmarc=dmarc, dkim=(), arc=Arc("none"))
    text = told(explain(row(msgspec.structs.replace(EVIDENCE, auth=auth)), [to()], NOW))
    assert words in text
    assert "no signature" in text
    assert "\nARC (" not in text


def test_a_front_server_checks_for_itself() -> None:
    text = told(explain(row(msgspec.structs.replace(EVIDENCE, listener="lmtp", tls=None)), [to()], NOW))
    assert "LMTP from a front server" in text
    assert "front server's to check" in text
    assert "SPF (" not in text


def test_a_refusal_says_why_and_what_the_sender_was_told() -> None:
    refusal = Refusal("rfs_1", AT, "192.0.2.7", "h.example", "a@b.example", "x@ours.example", "rcpt",
                      "550 5.1.1 No such address (rfs_1)", "the address does not exist", js(EVIDENCE))  # fmt: skip
    story = explain_refusal(refusal)
    assert story.status == "refused"
    for words in (
        "at RCPT: the address does not exist",
        "“550 5.1.1 No such address (rfs_1)”",
        "SPF (fail)",
        "<x@ours.example>",
    ):
        assert words in told(story)


def test_peers_text_is_printable_and_bounded() -> None:
    nasty = "\x1b[31m\u202e\r\n<script>" + "x" * 5000
    evidence = msgspec.structs.replace(EVIDENCE, helo=nasty, flaws=(nasty,), junk=nasty)
    stories = [
        explain(Received("inb_1", AT, 1, nasty, js(evidence), nasty), [to(outcome=STORED, tag=nasty)], NOW),
        explain_refusal(Refusal("rfs_1", AT, nasty, nasty, nasty, nasty, nasty, nasty, nasty, nasty)),
    ]
    for story in stories:
        assert all(one.text.isprintable() and len(one.text) < 1600 for one in story.story)
        assert story.summary.isprintable()


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.text(max_size=10))
def test_odd_rows_are_told_as_they_are(evidence: str, verdict: str, outcome: str, state: str) -> None:
    story = explain(
        Received("inb_1", AT, 1, "", evidence, verdict), [Delivery("a", "", state, outcome, None, outcome)], NOW
    )
    assert all(one.text.isprintable() for one in story.story)
    explain_refusal(Refusal("rfs_1", AT, "", "", "", "", state, outcome, verdict, evidence))


@pytest.mark.parametrize(("peer", "told_so"), [("127.0.0.1", False), ("::1", False), ("192.0.2.7", True)])
def test_only_a_stranger_lies_with_our_name(peer: str, told_so: bool) -> None:
    evidence = msgspec.structs.replace(EVIDENCE, peer=peer, flaws=("helo_ours",))
    assert ("greeted with our own name" in told(explain(row(evidence), [to()], NOW))) is told_so


def test_one_point_is_no_points() -> None:
    assert "gave it 1 point." in told(explain(row(verdict=Verdict(1.0, False, ())), [to()], NOW))


@pytest.mark.parametrize(
    ("code", "words"), [("unknown_recipient", "nobody here has the address"), ("new_one", "new_one")]
)
def test_a_refusal_says_why_in_words(code: str, words: str) -> None:
    refusal = Refusal("rfs_1", AT, "192.0.2.7", "h.example", "a@b.example", "x@ours.example", "rcpt", "550", code, None)
    found = explain_refusal(refusal)
    assert found.summary.endswith(f": {words}.")
    assert f"Refused at RCPT: {words}." in told(found)
