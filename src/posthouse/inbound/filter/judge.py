"""The filter: a batch of messages in, a verdict for each and for each recipient out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import structlog

from posthouse.directory.model import AccountSettings
from posthouse.inbound.filter.facts import TextReader
from posthouse.inbound.filter.lists import DomainLists
from posthouse.inbound.filter.look import UNLEARNED, Classifier, Look, look
from posthouse.inbound.filter.personal import Pair, asked, person
from posthouse.inbound.filter.scanner import Finding, Scanner
from posthouse.inbound.filter.weigh import Judged, common, personal
from posthouse.inbound.model import Arrival, Listing, Verdict
from posthouse.mail.parsed import Parsed

log = structlog.get_logger(__name__)

Correspondents = Callable[[Sequence[Pair]], Awaitable[AbstractSet[Pair]]]
"""Which of these (account, address) pairs stand in `correspondent`: one read for a batch."""

_AT_ONCE = 32
"""Messages looked at before other tasks get their turn: about 3 ms."""


class Filter:
    """:param read: `mail.parse.text`.
    :param correspondents: asked once for a batch.
    :param lists: block lists of domains; None: none.
    :param scanners: each is asked about each message.
    :param bound: the score that makes junk (`receive.junk_score`).
    """

    def __init__(
        self,
        read: TextReader,
        correspondents: Correspondents,
        *,
        lists: DomainLists | None = None,
        scanners: Sequence[Scanner] = (),
        classifier: Classifier | None = None,
        bound: float = 5.0,
    ) -> None:
        self._read = read
        self._correspondents = correspondents
        self._lists = lists
        self._scanners = tuple(scanners)
        self._classifier = classifier or UNLEARNED
        self._bound = bound

    async def judge(
        self, batch: Sequence[tuple[Arrival, Parsed | Look | None]], accounts: Mapping[int, AccountSettings]
    ) -> list[Judged]:
        """In the batch's order. DNS, scanners and the correspondents are asked side by side.

        :param batch: each as it was parsed, or what was seen of it elsewhere; None: that failed.
        :param accounts: settings of the recipients' accounts; one that is missing has none.
        :raises Unavailable: a scanner that must be asked does not answer, or the records do not.
        """
        seen: list[Look | None] = []
        for at, (arrival, one) in enumerate(batch):
            if at and at % _AT_ONCE == 0 and isinstance(one, Parsed):
                await asyncio.sleep(0)
            seen.append(self._look(arrival, one) if isinstance(one, Parsed) else one)
        arrivals = [arrival for arrival, _ in batch]
        listed, known, findings = await self._ask(arrivals, seen)
        return [
            self._judged(arrival, one, listed, known, found, accounts)
            for arrival, one, found in zip(arrivals, seen, findings, strict=True)
        ]

    def _look(self, arrival: Arrival, parsed: Parsed) -> Look | None:
        """None when our own code failed: that must not hold the mail, nor its batch."""
        try:
            return look(arrival, parsed, self._read, self._classifier)
        except Exception:
            log.exception("filter failed", inbound=arrival.id)
            return None

    async def _ask(
        self, arrivals: Sequence[Arrival], seen: Sequence[Look | None]
    ) -> tuple[dict[str, tuple[Listing, ...]], AbstractSet[Pair], list[list[Finding]]]:
        pairs = {
            pair: None
            for arrival, one in zip(arrivals, seen, strict=True)
            if one is not None
            for recipient in arrival.recipients
            for pair in asked(recipient.account, one)
        }
        known: AbstractSet[Pair] = frozenset()
        if self._lists is None and not self._scanners:
            known = await self._correspondents(list(pairs)) if pairs else known
            return {}, known, [[] for _ in arrivals]
        try:
            async with asyncio.TaskGroup() as group:
                listed = group.create_task(self._listed(seen))
                scans = [[group.create_task(one.scan(arrival.raw)) for one in self._scanners] for arrival in arrivals]
                known = await self._correspondents(list(pairs)) if pairs else known
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return listed.result(), known, [[scan.result() for scan in scanned] for scanned in scans]

    async def _listed(self, seen: Sequence[Look | None]) -> dict[str, tuple[Listing, ...]]:
        if self._lists is None:
            return {}
        return await self._lists.ask(domain for one in seen if one is not None for domain in one.domains)

    def _judged(
        self,
        arrival: Arrival,
        seen: Look | None,
        listed: Mapping[str, tuple[Listing, ...]],
        known: AbstractSet[Pair],
        findings: Sequence[Finding],
        accounts: Mapping[int, AccountSettings],
    ) -> Judged:
        policy = arrival.evidence.junk
        if seen is None:
            shared = common(None, (), (), findings, policy, self._bound)
            return Judged(shared, (shared,) * len(arrival.recipients))
        hits = [(domain, hit) for domain in seen.domains for hit in listed.get(domain, ())] if listed else []
        shared = common(seen, arrival.evidence.listings, hits, findings, policy, self._bound)
        held = policy is not None or any(finding.holds for finding in findings)
        verdicts: list[Verdict] = []
        for recipient in arrival.recipients:
            if not recipient.account:
                verdicts.append(shared)
                continue
            settings = accounts.get(recipient.account)
            one = person(recipient.account, settings, seen, arrival.reverse_path, known)
            verdicts.append(personal(shared, one, held, self._bound, recipient.via.junk))
        return Judged(shared, tuple(verdicts))
