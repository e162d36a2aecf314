"""The verbs of the sending flow, as the edges call them: send, look, explain, take back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from posthouse import ids
from posthouse.accounts import idempotency
from posthouse.accounts.model import Caller
from posthouse.accounts.streams import Streams
from posthouse.clock import DAY, Clock, from_datetime
from posthouse.errors import Conflict, Error, Fault, Invalid, NotFound, TooLarge
from posthouse.events import log as event_log
from posthouse.events.story import Explanation
from posthouse.events.types import Event, Type
from posthouse.outbound import ledger
from posthouse.outbound.ahead import Recorded
from posthouse.outbound.answers import accepted_single, batch_answer, below, event_view, problem, together, view
from posthouse.outbound.check import FURTHEST, Bounds, Checked, check_fan_out, check_message, expires_at
from posthouse.outbound.compose import Compose, Composed
from posthouse.outbound.explain import explain
from posthouse.outbound.ledger import Line
from posthouse.outbound.model import (
    FINAL,
    Answer,
    EventView,
    FanOutDraft,
    Filter,
    Idempotency,
    ManyDraft,
    MessageDraft,
    MessageView,
    Page,
    State,
)
from posthouse.outbound.prepare import Found, Specs
from posthouse.outbound.reading import read
from posthouse.outbound.render import Render
from posthouse.outbound.spec import Spec
from posthouse.outbound.submit import RENDER, Submission, Submit
from posthouse.rendering.process import Failure
from posthouse.storage.queue.base import Job, Queue
from posthouse.storage.records.base import Records, Tx

_encode = msgspec.json.Encoder().encode
_item = msgspec.json.Decoder(MessageDraft)


class Outbound:
    def __init__(
        self,
        records: Records,
        queue: Queue,
        streams: Streams,
        compose: Compose,
        submit: Submit,
        render: Render,
        specs: Specs,
        bounds: Bounds,
        clock: Clock,
        in_flight: Callable[[str], bool] | None,
        recorded: Recorded | None = None,
        lagging: Records | None = None,
    ) -> None:
        """
        :param in_flight: whether this process works on a message, when no other can; else None.
        :param recorded: where the ledger follows the acknowledgment: readers of a fresh message wait for it.
        :param lagging: for lists; may be behind `records`, which is taken without it.
        """
        self._recorded = recorded
        self._works_on = in_flight
        self._records = records
        self._lagging = lagging or records
        self._queue = queue
        self._streams = streams
        self._compose = compose
        self._submit = submit
        self._render = render
        self._specs = specs
        self._bounds = bounds
        self._clock = clock
        self._in_flight = idempotency.InFlight()

    # Sending.

    async def send(self, caller: Caller, draft: MessageDraft, *, idempotency: Idempotency | None) -> Answer:
        """:raises Invalid: with pointers; Conflict, Limited, StorageUnavailable."""
        with self._hold(caller, idempotency):
            if (again := await self._replay(caller, idempotency)) is not None:
                return again
            streams = await self._streams.of(caller.tenant.id)
            checked = check_message(draft, streams, self._bounds, self._clock())
            composed = await self._compose(caller, checked)
            answer = Answer(202, _encode(accepted_single(composed, checked)))
            return await self._accept(caller, [composed], answer, idempotency)

    async def send_each(self, caller: Caller, draft: FanOutDraft, *, idempotency: Idempotency | None) -> Answer:
        """One content, many recipients: `results` in their order, each an id or an error."""
        with self._hold(caller, idempotency):
            if (again := await self._replay(caller, idempotency)) is not None:
                return again
            streams = await self._streams.of(caller.tenant.id)
            checked, bad = check_fan_out(draft, streams, self._bounds, self._clock())
            if bad and (draft.all_or_nothing or not checked.recipients):
                raise together(bad)
            composed = await self._compose(caller, checked)
            names = iter(composed.message_ids)
            state = composed.state.value
            results: list[dict[str, Any]] = [
                problem(bad[place]) if place in bad else {"id": next(names), "status": state}
                for place in range(len(draft.recipients))
            ]
            answer = Answer(202, _encode(batch_answer(results, len(bad))))
            return await self._accept(caller, [composed], answer, idempotency)

    async def send_many(self, caller: Caller, draft: ManyDraft, *, idempotency: Idempotency | None) -> Answer:
        """Independent messages: `results` in their order, each an id or an error."""
        if len(draft.messages) > self._bounds.batch:
            raise TooLarge(
                f"A batch has at most {self._bounds.batch} messages",
                faults=(Fault("/messages", f"{len(draft.messages)} messages are too many."),),
            )
        if not draft.messages:
            raise Invalid(faults=(Fault("/messages", "At least one message is needed."),))
        with self._hold(caller, idempotency):
            if (again := await self._replay(caller, idempotency)) is not None:
                return again
            results = await self._compose_many(caller, draft)
            bad = {place: result for place, result in enumerate(results) if isinstance(result, Error)}
            good = [result for result in results if not isinstance(result, Error)]
            if bad and (draft.all_or_nothing or not good):
                raise together(bad)
            items = [
                problem(one) if isinstance(one, Error) else {"id": one.message_ids[0], "status": one.state.value}
                for one in results
            ]
            answer = Answer(202, _encode(batch_answer(items, len(bad))))
            return await self._accept(caller, good, answer, idempotency)

    async def _compose_many(self, caller: Caller, draft: ManyDraft) -> list[Composed | Error]:
        streams = await self._streams.of(caller.tenant.id)
        now = self._clock()
        checked = [
            self._check_item(raw, f"/messages/{place}", streams, now) for place, raw in enumerate(draft.messages)
        ]
        fine = [one for one in checked if isinstance(one, Checked)]
        composed = iter(await self._compose.many(caller, fine))
        return [
            below(next(composed), f"/messages/{place}") if isinstance(one, Checked) else one
            for place, one in enumerate(checked)
        ]

    def _check_item(self, raw: msgspec.Raw, at: str, streams: Any, now: int) -> Checked | Error:
        try:
            return check_message(read(_item, bytes(raw)), streams, self._bounds, now)
        except Invalid as error:
            return below(error, at)

    async def _accept(
        self, caller: Caller, composed: Sequence[Composed], answer: Answer, key: Idempotency | None
    ) -> Answer:
        """The answer to give: this one, or the one that an unfinished request of this key was to have."""
        first = None
        if key is not None:
            first = idempotency.First(
                caller.tenant.id, key.key, key.body_hash, self._clock(), answer.status, answer.body
            )
        messages = [row for one in composed for row in one.messages]
        first_answer = await self._submit(
            Submission(
                caller.tenant.id,
                caller.tenant.limits.daily_quota,
                Counter(row[5] for row in messages),
                [one.shared for one in composed],
                messages,
                len(messages),
                first,
            )
        )
        return answer if first_answer is None else Answer(answer.status, first_answer, replayed=True)

    def _hold(self, caller: Caller, key: Idempotency | None) -> Any:
        return nullcontext() if key is None else self._in_flight.hold(caller.tenant.id, key.key)

    async def _replay(self, caller: Caller, key: Idempotency | None) -> Answer | None:
        """The first answer to this key, if there was one.

        :raises Conflict: code `idempotency_key_reused`.
        """
        if key is None:
            return None
        now = self._clock()

        async def work(tx: Tx) -> dict[str, idempotency.Stored]:
            return await idempotency.lookup(tx, caller.tenant.id, [key.key], now=now)

        stored = (await self._records.read(work)).get(key.key)
        if stored is None:
            return None
        if idempotency.replay(stored, key.body_hash).status == idempotency.CLAIMED:
            return None
        return Answer(stored.status, stored.answer, replayed=True)

    # Looking.

    async def access(self, caller: Caller, message_id: str) -> tuple[list[Line], Spec]:
        """The one door to a message.

        :raises NotFound: code `message_not_found`, for another tenant's as well.
        """

        async def work(tx: Tx) -> tuple[list[Line], Found]:
            lines = await ledger.get(tx, caller.tenant.id, message_id)
            return lines, await self._specs.find(tx, {line.submission_id for line in lines})

        lines, found = await self._records.read(work)
        if not lines and await self._comes(caller, message_id):
            lines, found = await self._records.read(work)
        if not lines:
            raise NotFound("There is no message with this id", code="message_not_found")
        return lines, (await self._specs.read(found))[lines[0].submission_id]

    async def _comes(self, caller: Caller, message_id: str) -> bool:
        """Waits for a fresh message that the ledger does not hold yet; at once for any other.

        :raises Unavailable: code `message_being_recorded`.
        """
        if self._recorded is None or not self._recorded.may_come(message_id):
            return False

        async def there() -> bool:
            return bool(await self._records.read(lambda tx: ledger.get(tx, caller.tenant.id, message_id)))

        return await there() or await self._recorded.wait(there)

    async def get(self, caller: Caller, message_id: str) -> MessageView:
        lines, spec = await self.access(caller, message_id)
        return view(lines, spec)

    async def list(self, caller: Caller, wanted: Filter, *, cursor: str | None, limit: int) -> Page:
        """Newest first. `cursor` is the last message's id of the page before."""
        if wanted.stream is not None:
            stream = (await self._streams.of(caller.tenant.id)).get(wanted.stream)
            if stream is None:
                return Page([], None)
            wanted = replace(wanted, stream=stream.id)

        async def work(tx: Tx) -> tuple[list[str], list[Line], Found]:
            names = await ledger.page(tx, caller.tenant.id, wanted, before=cursor, limit=limit + 1)
            lines = await ledger.get_many(tx, caller.tenant.id, names[:limit])
            return names, lines, await self._specs.find(tx, {line.submission_id for line in lines})

        names, lines, unread = await self._lagging.read(work)
        found = await self._specs.read(unread)
        by_id: dict[str, list[Line]] = {name: [] for name in names[:limit]}
        for line in lines:
            by_id[line.id].append(line)
        data = [view(of_one, found[of_one[0].submission_id]) for of_one in by_id.values() if of_one]
        return Page(data, names[limit - 1] if len(names) > limit else None)

    async def events(self, caller: Caller, message_id: str) -> list[EventView]:
        lines, _ = await self.access(caller, message_id)
        addresses = {line.rcpt: line.address for line in lines}
        return [
            event_view(event, addresses.get(event.rcpt, "")) for event in await self._events(self._lagging, message_id)
        ]

    async def explain(self, caller: Caller, message_id: str) -> Explanation:
        lines, spec = await self.access(caller, message_id)
        streams = {stream.id: stream for stream in (await self._streams.of(caller.tenant.id)).values()}
        keys = await self._render.signers(caller.tenant.id, spec)
        return explain(
            lines,
            spec,
            await self._events(self._records, message_id),
            streams.get(lines[0].stream_id),
            keys,
            self._clock(),
        )

    async def content(self, caller: Caller, message_id: str) -> bytes:
        """The message as it is sent: rendered and signed again, which gives the same bytes
        while the domain's keys are the same.

        :raises Invalid: it cannot be rendered; with the reason.
        """
        lines, spec = await self.access(caller, message_id)
        result = await self._render.one(spec, await self._records.read(lambda tx: ledger.first(tx, lines[0].id)))
        if isinstance(result, Failure):
            raise Invalid(f"The message cannot be rendered: {result.text}", code=result.code)
        return result

    async def _events(self, records: Records, message_id: str) -> list[Event]:
        async def work(tx: Tx) -> list[Event]:
            return await event_log.of_message(tx, message_id)

        return await records.read(work)

    # Taking back.

    async def cancel(self, caller: Caller, message_id: str) -> MessageView:
        """Nothing of it will be sent any more.

        :raises Conflict: code `message_in_flight`: an attempt is being made now;
            `message_final`: it has ended already.
        """
        await self._comes(caller, message_id)
        now = self._clock()

        async def work(tx: Tx) -> None:
            lines = await self._waiting(tx, caller, message_id)
            await ledger.cancel(tx, caller.tenant.id, message_id, now)
            open_lines = [line for line in lines if line.state not in FINAL]
            await event_log.append(tx, _api_events(open_lines, Type.CANCELED, now, {"key": caller.key_id}))

        await self._records.write(work)
        return await self.get(caller, message_id)

    async def reschedule(self, caller: Caller, message_id: str, send_at: datetime) -> MessageView:
        """Another time for a message that no attempt was made at.

        :raises Conflict: as `cancel`, and `message_attempted`.
        """
        now = self._clock()
        try:
            due_at = max(from_datetime(send_at), now)
        except ValueError:
            raise Invalid(faults=(Fault("/send_at", "A time needs a zone."),)) from None
        if due_at > now + FURTHEST:
            raise Invalid(faults=(Fault("/send_at", f"At most {FURTHEST // DAY} days ahead."),))
        await self._comes(caller, message_id)
        streams = {stream.id: stream for stream in (await self._streams.of(caller.tenant.id)).values()}

        async def work(tx: Tx) -> None:
            lines = await self._waiting(tx, caller, message_id, must_wait=True)
            if any(line.attempts for line in lines):
                raise Conflict("An attempt was made already", code="message_attempted")
            first = lines[0]
            await ledger.reschedule(
                tx,
                caller.tenant.id,
                message_id,
                State.SCHEDULED if due_at > now else State.QUEUED,
                due_at=due_at,
                expires_at=expires_at(due_at, streams[first.stream_id]),
                at=now,
            )
            await self._queue.put([Job(RENDER, first.lane, caller.tenant.id, due_at, message_id)], tx=tx)
            await event_log.append(tx, _api_events(lines, Type.RESCHEDULED, now, {"key": caller.key_id, "to": due_at}))

        await self._records.write(work)
        return await self.get(caller, message_id)

    async def _waiting(self, tx: Tx, caller: Caller, message_id: str, *, must_wait: bool = False) -> list[Line]:
        """The message's rows, with its waiting job taken out of the queue.

        :param must_wait: refuse where the job cannot be taken out, whether it is worked on or not:
            a message never has two jobs.
        """
        lines = await ledger.get(tx, caller.tenant.id, message_id)
        if not lines:
            raise NotFound("There is no message with this id", code="message_not_found")
        open_lines = [line for line in lines if line.state not in FINAL]
        if not open_lines:
            raise Conflict(f"The message is {lines[0].state} already", code="message_final")
        due = min(line.next_at for line in open_lines)
        first = lines[0]
        job = Job(RENDER, first.lane, caller.tenant.id, due, message_id)
        taken = await self._queue.withdraw([job], tx=tx)
        # A job that was handed back or freed by a restart is due at another time; it ends by
        # itself when it finds nothing open.
        if not taken and (must_wait or self._works_on is None or self._works_on(message_id)):
            raise Conflict("An attempt is being made now; look again in a moment", code="message_in_flight")
        return lines


def _api_events(lines: Sequence[Line], kind: Type, now: int, data: dict[str, Any]) -> list[event_log.Line]:
    text = _encode(data).decode()
    return [
        (line.id, line.rcpt, event_id, now, kind.value, "api", text)
        for line, event_id in zip(lines, ids.many("evt", len(lines)), strict=True)
    ]
