"""What an answer means for a recipient: delivered, bounced, suppressed too, or tried again when.

Pure: a reply (RFC 5321 §4.2, RFC 3463) or the lack of one, the retry policy and the row's
history in; a `Verdict` out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from posthouse.clock import SECOND
from posthouse.outbound.model import State
from posthouse.smtp.reply import Reply

NO_SUCH_ADDRESS = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10"})
"""Enhanced codes that say the address does not exist (RFC 3463 §3.2, RFC 7505 §4)."""

_NO_SUCH_TEXT = re.compile(
    r"user unknown|unknown user|no such (user|recipient|mailbox|address|person)"
    r"|(user|recipient|mailbox|address|account) (was |is )?"
    r"(not found|does ?n.t exist|does not exist|unknown|invalid|not exist)"
    r"|invalid (recipient|mailbox|user)"
    r"|no mailbox here|not a (valid|known) (user|mailbox|recipient)|mailbox unavailable.*does not exist",
    re.IGNORECASE,
)
_NOT_THE_ADDRESS = re.compile(
    r"spam|block|blacklist|policy|relay|denied|spf|dkim|dmarc|reputation|quota|full|size", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds, but for `jitter` (a part of the pause) and `soft_attempts`."""

    first: float = 300.0
    """Past the usual greylisting times."""
    factor: float = 2.0
    cap: float = 4 * 3600.0
    jitter: float = 0.2
    soft_attempts: int = 3
    soft_window: float = 48 * 3600.0
    """A recipient refused for now at least `soft_attempts` times over this long is bounced."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`cause` is a word for machines, `next_at` (µs) is set for a deferral only."""

    state: State
    cause: str
    next_at: int = 0
    suppress: bool = False


def retry_at(policy: RetryPolicy, attempts: int, now: int, chance: Callable[[], float] = random.random) -> int:
    """When to try again after the `attempts`-th attempt: exponential, capped, jittered both ways."""
    pause = min(policy.first * policy.factor ** max(0, min(attempts, 64) - 1), policy.cap)
    spread = 1 + policy.jitter * (2 * chance() - 1)
    return now + int(pause * spread * SECOND)


def of_reply(
    reply: Reply, *, at_rcpt: bool, attempts: int, created_at: int, expires_at: int, now: int, policy: RetryPolicy
) -> Verdict:
    """A peer answered.

    :param at_rcpt: the reply is to RCPT TO, so it is about this address alone.
    :param attempts: with this one.
    """
    if reply.ok:
        return Verdict(State.DELIVERED, "accepted")
    if reply.permanent:
        gone = at_rcpt and is_no_such_address(reply)
        return Verdict(State.BOUNCED, "no_such_address" if gone else "refused", suppress=gone)
    if attempts >= policy.soft_attempts and now - created_at >= policy.soft_window * SECOND:
        return Verdict(State.BOUNCED, "soft_bounce_limit")
    return of_silence("refused_for_now", attempts=attempts, expires_at=expires_at, now=now, policy=policy)


def of_silence(
    cause: str, *, attempts: int, expires_at: int, now: int, policy: RetryPolicy, not_before: int = 0
) -> Verdict:
    """No peer decided: try again, but never past the message's age."""
    if now >= expires_at:
        return Verdict(State.FAILED, "too_old")
    next_at = max(retry_at(policy, attempts, now), not_before)
    return Verdict(State.DEFERRED, cause, next_at=min(next_at, expires_at))


def is_no_such_address(reply: Reply) -> bool:
    """By the enhanced code first, then by the words that servers without one use."""
    if reply.enhanced in NO_SUCH_ADDRESS:
        return True
    if reply.enhanced is not None and not reply.enhanced.startswith(("5.0.", "5.1.", "5.2.1", "5.4.1")):
        return False
    text = reply.text
    return reply.code in (550, 551, 553) and bool(_NO_SUCH_TEXT.search(text)) and not _NOT_THE_ADDRESS.search(text)
