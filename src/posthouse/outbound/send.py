"""The send stage: signed messages → parcels at their sites → an outcome for each recipient.

The site's connection makes the transaction and awaits `_settle`, which turns the peer's
replies into verdicts and has them on disk before that connection goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from posthouse.clock import SECOND, Clock
from posthouse.egress.model import Attempt, Parcel
from posthouse.egress.site import Site
from posthouse.outbound.ledger import Due
from posthouse.outbound.mail_in_hand import InHand
from posthouse.outbound.model import State
from posthouse.outbound.prepare import site_away, too_old
from posthouse.outbound.render import NotRendered, Rendered
from posthouse.outbound.settle import EVENT_OF, Outcome, Recorder
from posthouse.outbound.verdict import RetryPolicy, Verdict, of_reply, of_silence
from posthouse.smtp.outcome import Delivery, Stage
from posthouse.smtp.reply import Reply
from posthouse.storage.queue.base import Job

STALE_AFTER = 10 * SECOND
"""µs: a parcel that waited longer at its site is not sent but looked at anew, so that the
suppression check is never older than this."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Group:
    """What a parcel's settling needs to know."""

    mail: InHand
    dues: Sequence[Due]
    site: Site


class Send:
    def __init__(
        self, recorder: Recorder, retry: RetryPolicy, clock: Clock, *, lease_end: Callable[[Job], int]
    ) -> None:
        """:param lease_end: of a job as we know it (µs). Nothing is sent after it: a process that
        was stopped past its leases (SIGSTOP, a suspended machine) sends nothing that another
        has taken over, whether it was rendered before or after the pause."""
        self._recorder = recorder
        self._lease_end = lease_end
        self._retry = retry
        self._clock = clock

    def __call__(self, batch: Sequence[Rendered | NotRendered]) -> None:
        """Hands over to the sites; outcomes are recorded as they come."""
        for item in batch:
            if isinstance(item, NotRendered):
                self._fail(item)
                continue
            mail = item.mail
            for site, dues in mail.groups:
                site.put(self._parcel(mail, site, dues, item.data))

    def _parcel(self, mail: InHand, site: Site, dues: Sequence[Due], data: bytes) -> Parcel:
        recipients = tuple(due.address for due in dues)
        relayed = mail.spec.relayed
        reverse_path = mail.spec.from_[1] if relayed is None else relayed.reverse_path
        utf8 = relayed is not None and relayed.utf8
        return Parcel(
            lane=mail.job.lane,
            reverse_path=reverse_path,
            recipients=recipients,
            data=data,
            smtputf8=utf8 or not (reverse_path.isascii() and all(map(str.isascii, recipients))),
            deadline=min(dues[0].expires_at, self._clock() + STALE_AFTER, self._lease_end(mail.job)),
            settle=self._settle,
            context=_Group(mail, dues, site),
        )

    def _fail(self, item: NotRendered) -> None:
        now = self._clock()
        failure = item.failure
        for _, dues in item.mail.groups:
            outcomes = [self._unrendered(due, failure.code, failure.text, failure.temporary, now) for due in dues]
            self._recorder.record(item.mail.end(outcomes))

    def _unrendered(self, due: Due, cause: str, text: str, temporary: bool, now: int) -> Outcome:
        if temporary:
            verdict = of_silence(
                cause, attempts=due.attempts + 1, expires_at=due.expires_at, now=now, policy=self._retry
            )
        else:
            verdict = Verdict(State.FAILED, cause)
        data = {"cause": cause, "detail": text} | ({"next_at": verdict.next_at} if verdict.next_at else {})
        return Outcome(
            due,
            verdict.state,
            now,
            due.attempts + 1,
            verdict.next_at,
            stage="render",
            event=EVENT_OF[verdict.state],
            data=_encode(data).decode(),
        )

    async def _settle(self, parcel: Parcel, attempt: Attempt) -> None:
        group: _Group = parcel.context
        if attempt.delivery is None:
            outcomes = [self._not_attempted(due, group.site, attempt) for due in group.dues]
        else:
            outcomes = self._answered(group, attempt, attempt.delivery)
        await self._recorder.record(group.mail.end(outcomes))

    def _not_attempted(self, due: Due, site: Site, attempt: Attempt) -> Outcome:
        now = attempt.ended_at
        if now >= due.expires_at:
            return too_old(due, now)
        if attempt.site_retry_at is not None:
            return site_away(due, site.destination.site, attempt.detail, attempt.site_retry_at, now)
        return Outcome(due, State.DEFERRED if due.attempts else State.QUEUED, now, due.attempts, now)

    def _answered(self, group: _Group, attempt: Attempt, delivery: Delivery) -> list[Outcome]:
        """The replies, recipient by recipient: the peer's, or ours where it gave none."""
        common = _about(group, attempt, delivery)
        return [self._outcome(due, place, delivery, attempt.ended_at, common) for place, due in enumerate(group.dues)]

    def _outcome(self, due: Due, place: int, delivery: Delivery, now: int, common: dict[str, Any]) -> Outcome:
        attempts = due.attempts + 1
        reply, failure = delivery.replies[place], delivery.failure
        ours = place in delivery.ours
        silent = ours and failure is not None and failure.local
        if silent:
            cause = "unknown_outcome" if delivery.unknown else "connection_lost"
            verdict = of_silence(cause, attempts=attempts, expires_at=due.expires_at, now=now, policy=self._retry)
        else:
            verdict = of_reply(
                reply,
                at_rcpt=_is_at_rcpt(reply, delivery),
                attempts=attempts,
                created_at=due.due_at,
                expires_at=due.expires_at,
                now=now,
                policy=self._retry,
            )
        said = {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}
        data = {**common, "attempt": attempts, "cause": verdict.cause, "reply": said}
        if verdict.next_at:
            data["next_at"] = verdict.next_at
        if failure is not None and failure.detail:
            data["detail"] = failure.detail
        return Outcome(
            due,
            verdict.state,
            now,
            attempts,
            verdict.next_at,
            event=EVENT_OF[verdict.state],
            data=_encode(data).decode(),
            reply=None if ours else _encode(said).decode(),
            suppress=f"{reply.code} {reply.enhanced or ''} {reply.text}" if verdict.suppress and not ours else None,
        )


def _is_at_rcpt(reply: Reply, delivery: Delivery) -> bool:
    """Whether the reply is to RCPT TO: then it is about this address alone."""
    if delivery.final is not None:
        return reply is not delivery.final
    return delivery.stage is Stage.RCPT


def _about(group: _Group, attempt: Attempt, delivery: Delivery) -> dict[str, Any]:
    peer = delivery.peer
    return {
        "route": group.site.destination.route.name,
        "host": peer.host,
        "ip": peer.ip,
        "tls": peer.tls,
        "at": delivery.stage.value,
        "ms": (attempt.ended_at - attempt.started_at) // 1000,
    }
