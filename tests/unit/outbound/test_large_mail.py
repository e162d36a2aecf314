"""What large messages may take of memory."""

from __future__ import annotations

from posthouse.outbound.mail_in_hand import LARGE, LARGE_IN_HAND, InHand, LargeMail
from posthouse.outbound.spec import AttachmentRef, Spec, weight
from posthouse.storage.queue.base import Job, Lane

SPEC = Spec(from_=("", "a@a.example"), stream="s", key_id="k")
HALF = LARGE_IN_HAND // 2


def mail(lane: Lane = Lane.BULK) -> InHand:
    return InHand(Job("render", lane, "ten_1", 0, "msg_1"), SPEC)


def test_large_messages_wait_for_room_and_small_ones_never() -> None:
    large = LargeMail()
    one, two, three = mail(), mail(), mail()
    assert large.take(one, HALF)
    assert large.take(two, HALF)
    assert not large.take(three, HALF)
    assert large.take(three, LARGE - 1)
    assert large.take(mail(Lane.CRITICAL), HALF), "each lane has its own"
    del one
    assert large.take(three, HALF), "let go, wherever it was"


def test_one_alone_is_never_too_large() -> None:
    large = LargeMail()
    one = mail()
    assert large.take(one, 10 * LARGE_IN_HAND)
    assert not large.take(mail(), LARGE)


def test_the_weight_is_that_of_the_built_message() -> None:
    files = (AttachmentRef("a", "b/c", None, "k", 1000), AttachmentRef("a", "b/c", None, "k", 500))
    assert weight(SPEC) == 0
    built = weight(Spec(from_=("", "a@a.example"), stream="s", key_id="k", html="x" * 10, text="yy", attachments=files))
    assert 2000 < built < 2200
