"""Accept: from a connection to a durable message, or to a refusal that says what to do.

1. At connect, HELO and MAIL, DNS is asked about the peer, its name and the sender's domain;
   the answers are waited for only where they are needed.             checks.py, lists.py
2. At RCPT the address is known or refused. Lists that refuse, greylisting and quotas speak
   here, so that postmaster@ and abuse@ stay reachable.       recipients.py, greylist.py
3. At the end of data: hops, SPF, DKIM, ARC, DMARC, and what each recipient's domain makes
   of them.                                                     arrival.py, policy.py
4. Raw message, log and job are one durable write; then 250 with the id.      durable.py

Nothing behind this needs to run. What is refused is logged in the background, refusals.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from posthouse.clock import Clock
from posthouse.directory.resolve import Resolver
from posthouse.inbound.checks import Checks
from posthouse.inbound.durable import Durable
from posthouse.inbound.greylist import Greylist
from posthouse.inbound.house import Authenticate, House, Rules
from posthouse.inbound.lists import DnsList, Lists
from posthouse.inbound.refusals import Refusals
from posthouse.inbound.screen import Screen
from posthouse.inbound.session import Session
from posthouse.inbound.trace import authenticator, tracer
from posthouse.mail.srs import Srs
from posthouse.mailauth.lookup import Lookup
from posthouse.smtp.peer import Peer
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Queue
from posthouse.storage.records.base import Records


class Accept:
    """Made once a process. `begin` is what the gateway asks at each connection."""

    def __init__(
        self,
        *,
        records: Records,
        contents: Contents,
        queue: Queue,
        resolver: Resolver,
        lookup: Lookup,
        clock: Clock,
        wake: Callable[[], None],
        hostname: str,
        authserv_id: str | None = None,
        lists: Sequence[DnsList] = (),
        greylist_delay: float = 300.0,
        rules: Rules | None = None,
        srs: Srs | None = None,
        authenticate: Authenticate | None = None,
        screen: Screen | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param wake: called after each commit: the stage `store` has jobs.
        :param hostname: ours: in Received, in SPF's macros, and to know who greets with it.
        :param authserv_id: ours in Authentication-Results; None takes `hostname`.
        :param greylist_delay: seconds, where a domain has greylisting on.
        :param srs: of what is sent on, so that its bounces find the way back.
        :param screen: judges mail to domains that refuse spam; None: it goes to Junk there too.
        :param authenticate: None: `mailauth.authenticate` with this `lookup`.
        """
        asked = Lists(lists, lookup)
        self.refusals = Refusals(records, clock)
        self.greylist = Greylist(records, clock, delay=greylist_delay)
        self._checks = Checks(asked, lookup, hostname=hostname, monotonic=monotonic)
        self._durable = Durable(
            records,
            contents,
            queue,
            clock=clock,
            wake=wake,
            abreast=2 if records.capabilities.concurrent_writes else 1,
        )
        self._house = House(
            resolver,
            self._checks,
            self.greylist,
            self.refusals,
            self._durable,
            authenticate or authenticator(lookup, hostname),
            tracer(hostname, authserv_id or hostname),
            rules or Rules(),
            clock,
            srs,
            screen,
            asked.refusing,
        )

    def progress(self) -> dict[str, tuple[int, int]]:
        """Of the durable step."""
        return self._durable.progress()

    def begin(self, peer: Peer) -> Session:
        """A connection's conversation (`smtpd.conversation.Conversation`)."""
        return Session(self._house, peer)

    async def close(self) -> None:
        """What was handed over is written first."""
        await self._checks.close()
        await self._durable.close()
        await self.refusals.flush()
