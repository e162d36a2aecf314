"""What replies mean (RFC 5321 §4.2, RFC 3463), and when the next attempt is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.clock import HOUR, SECOND
from posthouse.outbound.model import State
from posthouse.outbound.verdict import RetryPolicy, is_no_such_address, of_reply, of_silence, retry_at
from posthouse.smtp.reply import Reply

NOW = 1_800_000_000 * SECOND
POLICY = RetryPolicy()


def judge(reply: Reply, *, at_rcpt: bool = True, attempts: int = 1, age: int = 0, left: int = 72 * HOUR):
    return of_reply(
        reply,
        at_rcpt=at_rcpt,
        attempts=attempts,
        created_at=NOW - age,
        expires_at=NOW + left,
        now=NOW,
        policy=POLICY,
    )


def test_success_is_delivered() -> None:
    assert judge(Reply(250, "2.0.0", ("ok",))).state is State.DELIVERED


def test_unknown_address_at_rcpt_is_bounced_and_suppressed() -> None:
    verdict = judge(Reply(550, "5.1.1", ("No such user",)))
    assert (verdict.state, verdict.cause, verdict.suppress) == (State.BOUNCED, "no_such_address", True)


def test_the_same_words_after_the_data_suppress_nobody() -> None:
    """After DATA the reply is about the message, perhaps about another recipient."""
    verdict = judge(Reply(550, "5.1.1", ("No such user",)), at_rcpt=False)
    assert (verdict.state, verdict.suppress) == (State.BOUNCED, False)


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (550, "5.7.1", "user unknown or blocked by policy"),
        (550, None, "5.7.1-less: message blocked as spam"),
        (552, "5.2.2", "mailbox full"),
        (554, None, "relay access denied for unknown user"),
        (550, None, "SPF check: user not found in record"),
    ],
)
def test_policy_and_quota_do_not_suppress(code: int, enhanced: str | None, text: str) -> None:
    verdict = judge(Reply(code, enhanced, (text,)))
    assert (verdict.state, verdict.suppress) == (State.BOUNCED, False)


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (550, None, "User unknown"),
        (550, None, "<x@y>: Recipient address rejected: mailbox not found"),
        (551, None, "No such user here"),
        (550, "5.1.10", "RecipientNotFound; Recipient not found by SMTP address lookup"),
        (550, "5.0.0", "account does not exist"),
    ],
)
def test_words_of_servers_without_codes(code: int, enhanced: str | None, text: str) -> None:
    assert is_no_such_address(Reply(code, enhanced, (text,)))


def test_refused_for_now_is_tried_again_after_the_first_pause() -> None:
    verdict = judge(Reply(451, "4.7.1", ("greylisted",)))
    assert verdict.state is State.DEFERRED
    assert NOW + 240 * SECOND <= verdict.next_at <= NOW + 360 * SECOND


def test_soft_failures_bounce_only_when_there_are_enough_over_long_enough() -> None:
    reply = Reply(452, "4.2.2", ("full",))
    assert judge(reply, attempts=9, age=47 * HOUR).state is State.DEFERRED
    assert judge(reply, attempts=2, age=60 * HOUR).state is State.DEFERRED
    late = judge(reply, attempts=3, age=48 * HOUR)
    assert (late.state, late.cause) == (State.BOUNCED, "soft_bounce_limit")


def test_no_attempt_is_planned_past_the_greatest_age() -> None:
    assert judge(Reply(451), attempts=12, left=SECOND).next_at == NOW + SECOND
    silent = of_silence("site_unreachable", attempts=1, expires_at=NOW, now=NOW, policy=POLICY)
    assert (silent.state, silent.cause) == (State.FAILED, "too_old")


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_the_cap_and_stay_jittered(attempts: int, chance: float) -> None:
    pause = (retry_at(POLICY, attempts, NOW, lambda: chance) - NOW) / SECOND
    plain = min(POLICY.first * POLICY.factor ** (min(attempts, 64) - 1), POLICY.cap)
    assert plain * 0.8 - 1 <= pause <= plain * 1.2 + 1


@given(st.integers(200, 599), st.sampled_from([None, "4.0.0", "5.1.1", "5.7.1", "2.0.0"]), st.text(max_size=200))
def test_every_reply_has_a_verdict(code: int, enhanced: str | None, text: str) -> None:
    verdict = judge(Reply(code, enhanced, (text,)))
    assert (verdict.state is State.DEFERRED) == bool(verdict.next_at)
    assert not verdict.suppress or code >= 500
