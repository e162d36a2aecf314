"""Before rendering: who of a claimed batch is still to be written to, and by which site.

In order, each for the whole batch: load the ledger rows; end what grew too old; find each
domain's destination; check suppression, the last thing before the attempt and never from a
cache; leave alone what goes to a site that is away or full, and large messages that memory has
no room for. What ends here is recorded here.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from posthouse.clock import SECOND, Clock
from posthouse.egress.destinations import Destinations
from posthouse.egress.model import Destination, NoDestination
from posthouse.egress.site import Site
from posthouse.egress.sites import Sites
from posthouse.events.types import Type
from posthouse.outbound import ledger
from posthouse.outbound import spec as specs
from posthouse.outbound.ledger import Due
from posthouse.outbound.mail_in_hand import InHand, LargeMail
from posthouse.outbound.model import State
from posthouse.outbound.settle import EVENT_OF, Entry, Outcome, Recorder
from posthouse.outbound.spec import Spec
from posthouse.outbound.verdict import RetryPolicy, of_silence
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.queue.base import Job
from posthouse.storage.records.base import Records, Tx
from posthouse.suppression.model import Suppression
from posthouse.suppression.service import Suppressions

_SPECS_KEPT = 2000
_SPECS_OCTETS = 32 * 1024 * 1024
"""Bounds of what is kept of submissions, in octets of their JSON."""
_LOCATE_SECONDS = 3.0
"""A batch waits this long for DNS; a domain that takes longer waits by itself."""


Found = tuple[dict[str, Spec], list[tuple[str, str]]]
"""Specs by id, and rows (id, JSON text) that are still to be read."""


class Specs:
    """Submissions by id; immutable, so kept until room is needed."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._kept: OrderedDict[str, tuple[Spec, int]] = OrderedDict()
        self._octets = 0

    async def find(self, tx: Tx, wanted: set[str]) -> Found:
        """In a transaction: those at hand, and the rows of the others."""
        kept = {name: held[0] for name in wanted if (held := self._kept.get(name)) is not None}
        missing = [name for name in wanted if name not in kept]
        rows = await ledger.specs(tx, missing) if missing else []
        return kept, [(row[0], row[1]) for row in rows]

    async def read(self, found: Found) -> dict[str, Spec]:
        """After it, by id: a large one lies in a blob."""
        kept, rows = found
        fresh = {name: await self._decode(text.encode()) for name, text in rows}
        for name, (spec, octets) in fresh.items():
            self._octets += octets - self._kept.pop(name, (spec, 0))[1]
            self._kept[name] = spec, octets
        while len(self._kept) > _SPECS_KEPT or self._octets > _SPECS_OCTETS:
            self._octets -= self._kept.popitem(last=False)[1][1]
        return kept | {name: spec for name, (spec, _) in fresh.items()}

    async def _decode(self, data: bytes) -> tuple[Spec, int]:
        if data.startswith(specs.ELSEWHERE_MARK):
            data = await self._blobs.get(specs.decode_elsewhere(data).blob)
        return specs.decode(data), len(data)


class Prepare:
    def __init__(
        self,
        records: Records,
        specs_kept: Specs,
        suppressions: Suppressions,
        destinations: Destinations,
        sites: Sites,
        recorder: Recorder,
        retry: RetryPolicy,
        clock: Clock,
    ) -> None:
        self._records = records
        self._specs = specs_kept
        self._suppressions = suppressions
        self._destinations = destinations
        self._sites = sites
        self._recorder = recorder
        self._retry = retry
        self._clock = clock
        self._large = LargeMail()

    async def __call__(self, jobs: Sequence[Job]) -> list[InHand]:
        """Those that are to be rendered now.

        :raises StorageUnavailable: nothing was decided; the jobs come back.
        """
        dues, found_specs = await self._load(jobs)
        now = self._clock()
        wanted = [due for due in dues if due.next_at <= now < due.expires_at]
        found = await self._locate({_domain(due.address) for due in wanted})
        stopped = await self._suppressions.find_many([(due.tenant_id, due.address, due.stream_id) for due in wanted])
        by_message: dict[str, list[Due]] = {}
        for due in dues:
            by_message.setdefault(due.id, []).append(due)
        in_hand: list[InHand] = []
        ended: list[asyncio.Future[bool]] = []
        for job in jobs:
            mail, outcomes = self._sort(job, by_message.get(job.id, []), found_specs, found, stopped, now)
            if mail.groups:
                in_hand.append(mail)
                mail.open = len(mail.groups)
            if outcomes or not mail.groups:
                ended.append(self._recorder.record(_entry(mail, outcomes)))
        if not in_hand and ended:
            await asyncio.gather(*ended)
        return in_hand

    async def _load(self, jobs: Sequence[Job]) -> tuple[list[Due], dict[str, Spec]]:
        ids = [job.id for job in jobs]

        async def work(tx: Tx) -> tuple[list[Due], Found]:
            dues = await ledger.load(tx, ids)
            return dues, await self._specs.find(tx, {due.submission_id for due in dues})

        dues, found = await self._records.read(work)
        return dues, await self._specs.read(found)

    async def _locate(self, domains: set[str]) -> Mapping[str, Destination | NoDestination]:
        """Domains whose DNS is slow are left out: they are asked for on."""
        found = {domain: known for domain in domains if (known := self._destinations.known(domain)) is not None}
        rest = domains - found.keys()
        if rest:
            tasks = {asyncio.ensure_future(self._destinations.locate(domain)): domain for domain in rest}
            done, _ = await asyncio.wait(tasks, timeout=_LOCATE_SECONDS)
            found.update((tasks[task], task.result()) for task in done)
        return found

    def _sort(
        self,
        job: Job,
        dues: Sequence[Due],
        found_specs: Mapping[str, Spec],
        found: Mapping[str, Destination | NoDestination],
        stopped: Mapping[tuple[str, str, str], Suppression],
        now: int,
    ) -> tuple[InHand, list[Outcome]]:
        """One message's recipients: into groups by site, or to an outcome of their own."""
        if not dues:
            return InHand(job, _NOTHING), []
        mail = InHand(job, found_specs[dues[0].submission_id])
        outcomes: list[Outcome] = []
        groups: dict[str, tuple[Site, list[Due]]] = {}
        for due in dues:
            if now < due.next_at:
                mail.waits_until.append(due.next_at)
                continue
            placed = self._place(due, found, stopped, now)
            if isinstance(placed, Site):
                groups.setdefault(placed.destination.site, (placed, []))[1].append(due)
            else:
                outcomes.append(placed)
        if groups and not self._large.take(mail, specs.weight(mail.spec)):
            later = now + int(random.uniform(2, 6) * SECOND)  # noqa: S311
            outcomes += [_put_back(due, now, later) for _, held in groups.values() for due in held]
            groups = {}
        mail.groups = list(groups.values())
        mail.waits_until.extend(outcome.next_at for outcome in outcomes if outcome.next_at)
        return mail, outcomes

    def _place(
        self,
        due: Due,
        found: Mapping[str, Destination | NoDestination],
        stopped: Mapping[tuple[str, str, str], Suppression],
        now: int,
    ) -> Site | Outcome:
        if now >= due.expires_at:
            return too_old(due, now)
        suppression = stopped.get((due.tenant_id, due.address, due.stream_id))
        if suppression is not None:
            return _suppressed(due, suppression, now)
        destination = found.get(_domain(due.address))
        if destination is None:
            return _put_back(due, now, now + 5 * SECOND)
        if isinstance(destination, NoDestination):
            return self._nowhere(due, destination, now)
        return self._at(self._sites.of(destination), due, now)

    def _at(self, site: Site, due: Due, now: int) -> Site | Outcome:
        if site.suspended_until > now:
            return site_away(due, site.destination.site, site.reason, site.suspended_until, now)
        if site.room(due.lane) <= 0:
            return _put_back(due, now, now + site.wait_for_room(due.lane))
        return site

    def _nowhere(self, due: Due, why: NoDestination, now: int) -> Outcome:
        reply = {"code": why.code, "enhanced": why.enhanced, "text": why.text}
        if why.permanent:
            data = {"cause": why.cause, "reply": reply}
            return Outcome(
                due, State.BOUNCED, now, due.attempts + 1, 0, event=Type.BOUNCED, data=_json(data), reply=_json(reply)
            )
        verdict = of_silence(
            why.cause, attempts=due.attempts + 1, expires_at=due.expires_at, now=now, policy=self._retry
        )
        data = {"cause": why.cause, "reply": reply, "next_at": verdict.next_at}
        return Outcome(
            due, verdict.state, now, due.attempts + 1, verdict.next_at, event=EVENT_OF[verdict.state], data=_json(data)
        )


_NOTHING = Spec(from_=("", ""), stream="", key_id="")


def _entry(mail: InHand, outcomes: list[Outcome]) -> Entry:
    return Entry(
        mail.job,
        outcomes,
        again_at=min(mail.waits_until, default=None),
        open=bool(mail.groups),
        relayed=mail.spec.relayed is not None,
    )


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _json(data: object) -> str:
    return msgspec.json.encode(data).decode()


def too_old(due: Due, now: int) -> Outcome:
    """A peer that kept saying "not now" bounced it; without any answer it failed."""
    state, event = (State.BOUNCED, Type.BOUNCED) if due.answered else (State.FAILED, Type.FAILED)
    data = {"cause": "too_old", "max_age_s": (due.expires_at - due.due_at) // SECOND}
    return Outcome(due, state, now, due.attempts, 0, event=event, data=_json(data))


def _suppressed(due: Due, suppression: Suppression, now: int) -> Outcome:
    data = {
        "cause": suppression.reason,
        "source": suppression.source,
        "since": suppression.created_at,
        "scope": suppression.stream_id or "all streams",
    }
    return Outcome(due, State.SUPPRESSED, now, due.attempts, 0, event=Type.SUPPRESSED, data=_json(data))


def _put_back(due: Due, now: int, until: int) -> Outcome:
    return Outcome(due, State.QUEUED if due.attempts == 0 else State.DEFERRED, now, due.attempts, until)


def site_away(due: Due, site: str, reason: str, until: int, now: int) -> Outcome:
    """The site is suspended, whoever the mail is for: no attempt is counted."""
    until = min(until, due.expires_at)
    data = {"cause": "site_unreachable", "site": site, "detail": reason, "next_at": until}
    return Outcome(due, State.DEFERRED, now, due.attempts, until, event=Type.DEFERRED, data=_json(data))
