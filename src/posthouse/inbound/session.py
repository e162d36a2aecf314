"""One connection, as the gateway's shell asks about it. See accept.py for the story.

What is known is answered at once, without a task; only what needs DNS or storage waits.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from mmap import mmap

import structlog

from posthouse.directory.model import Resolution, Status
from posthouse.errors import Unavailable
from posthouse.inbound import recipients
from posthouse.inbound.arrival import Envelope, receive
from posthouse.inbound.checks import NONE, Begun, Facts
from posthouse.inbound.house import House
from posthouse.inbound.refusals import Refusal
from posthouse.mail.srs import is_srs
from posthouse.smtp.command import Hello, Mail, Rcpt
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply

log = structlog.get_logger("accept")

AWAY = Reply(451, "4.3.0", ("The message could not be stored just now; nothing was accepted; try again soon",))
_TOO_MANY = Reply(452, "4.5.3", ("These recipients are too many for one message; send the rest in another",))
_EARLY = Facts(flaws=("early_talker",))
_FAULT = Reply(451, "4.3.0", ("Something failed on our side; nothing was accepted; try again soon",))


class Session:
    """`smtpd.conversation.Conversation`, by structure: this room lies below the shell's."""

    __slots__ = (
        "_began",
        "_early",
        "_greylisted",
        "_hello",
        "_helo",
        "_house",
        "_mail",
        "_peer",
        "_rcpts",
        "_sender",
        "_targets",
        "_tls",
        "_what_peer",
    )

    def __init__(self, house: House, peer: Peer) -> None:
        self._house = house
        self._peer = peer
        self._hello: Hello | None = None
        self._tls: Tls | None = None
        self._what_peer: Begun = NONE
        self._helo: Begun = NONE
        self._early: Begun = NONE
        self._sender: Begun = NONE
        self._began = 0.0
        self._clear()

    def _clear(self) -> None:
        self._mail: Mail | None = None
        self._rcpts: list[tuple[str, Resolution]] = []
        self._targets = 0
        self._greylisted = False

    # -- the conversation -----------------------------------------------------------------

    def connected(self) -> None:
        self._began = time.monotonic()
        if self._from_world:
            self._what_peer = self._house.checks.peer(self._peer.address)

    def early(self) -> None:
        if self._from_world:
            self._early = _EARLY

    def hello(self, command: Hello, tls: Tls | None) -> None:
        self._clear()
        self._hello, self._tls = command, tls
        self._began = time.monotonic()
        if self._from_world:
            self._helo = self._house.checks.helo(command.domain)

    def mail(self, command: Mail) -> None:
        self._clear()
        self._mail = command
        if self._from_world:
            self._began = time.monotonic()
            self._sender = self._house.checks.sender(command.reverse_path)

    def rcpt(self, command: Rcpt) -> Reply | Awaitable[Reply | None] | None:
        path = command.forward_path
        found = self._house.resolver.known(path)
        if found is None or (found.status is Status.FOUND and self._must_wait(found)):
            return self._rcpt_later(path, found)
        return self._admit(path, found)

    async def end(self, message: bytes | mmap) -> Sequence[Reply]:
        rcpts = self._rcpts
        several = len(rcpts) if self._peer.listener == "lmtp" else 1
        try:
            assert self._mail is not None and self._hello is not None
            envelope = Envelope(
                peer=self._peer,
                hello=self._hello,
                tls=self._tls,
                mail=self._mail,
                rcpts=tuple(rcpts),
                facts=self._known() or await self._facts(),
                greylisted=self._greylisted,
            )
            return await receive(self._house, envelope, message)
        except Unavailable as error:
            log.warning("accept_put_off", code=error.code, detail=error.detail)
            return [AWAY] * several
        except Exception:
            log.exception("accept_failed")
            return [_FAULT] * several
        finally:
            self._clear()

    def reset(self) -> None:
        self._clear()

    def lost(self) -> None:
        self._clear()

    # -- a recipient -----------------------------------------------------------------------

    @property
    def _from_world(self) -> bool:
        """Not from our own front server, whose client is not known here and was checked there."""
        return self._peer.listener != "lmtp" and not self._peer.trusted

    def _must_wait(self, found: Resolution) -> bool:
        """DNS or the records have a say in this recipient."""
        if found.duty or not self._from_world:
            return False
        return found.settings.greylist or self._house.refusing or self._house.rules.unknown_senders

    def _admit(self, path: str, found: Resolution) -> Reply | None:
        assert self._mail is not None
        house = self._house
        if house.srs is not None and is_srs(path):
            leads = recipients.returned(found, path, self._mail.reverse_path, house.srs, house.clock())
            if not isinstance(leads, Resolution):
                return self._refuse(path, found, *leads)
            found = leads
        flaw = recipients.refusal(found, self._mail.size or 0)
        if flaw is not None:
            return self._refuse(path, found, *flaw)
        self._targets += len(found.targets)
        if self._targets > self._house.rules.targets:
            self._targets -= len(found.targets)
            return self._refuse(path, found, _TOO_MANY, "too_many_recipients")
        self._rcpts.append((path, found))
        return None

    async def _rcpt_later(self, path: str, found: Resolution | None) -> Reply | None:
        try:
            if found is None:
                found = await self._house.resolver.resolve(path)
            if found.status is Status.FOUND and self._must_wait(found):
                flaw = await self._judge(found)
                if flaw is not None:
                    return self._refuse(path, found, *flaw)
            return self._admit(path, found)
        except Unavailable as error:
            log.warning("rcpt_put_off", code=error.code, detail=error.detail)
            return AWAY
        except Exception:
            log.exception("rcpt_failed")
            return _FAULT

    async def _judge(self, found: Resolution) -> tuple[Reply, str] | None:
        facts = self._known() or await self._facts()
        listing = facts.refused
        if listing is not None:
            why = f": {listing.text}" if listing.text else ""
            text = f"{listing.value} is listed by {listing.zone}{why}; ask there to be removed, or write to postmaster@"
            return Reply(550, "5.7.1", (text,)), "listed"
        if self._house.rules.unknown_senders and {"sender_unresolvable", "sender_null_mx"} & set(facts.flaws):
            text = "The sender's domain takes no mail, so it could not be answered; send from one that does"
            return Reply(550, "5.1.8", (text,)), "unknown_sender"
        if found.settings.greylist and not facts.allowed:
            return await self._greylist(found)
        return None

    async def _greylist(self, found: Resolution) -> tuple[Reply, str] | None:
        assert self._mail is not None
        wait = await self._house.greylist.wait(self._peer.address, self._mail.reverse_path, found.address)
        if wait is None:
            self._greylisted = True
            return None
        seconds = max(1, round(wait))
        unit = "second" if seconds == 1 else "seconds"
        text = f"This sender is new here; try again in {seconds} {unit}, as mail servers do"
        return Reply(451, "4.7.1", (text,)), "greylisted"

    def _refuse(self, path: str, found: Resolution, reply: Reply, reason: str) -> Reply:
        return self._house.refusals.note(
            Refusal(
                found.tenant_id,
                self._peer.address,
                self._hello.domain if self._hello is not None else "",
                self._mail.reverse_path if self._mail is not None else "",
                path,
                "rcpt",
                reason,
            ),
            reply,
        )

    # -- what DNS knows --------------------------------------------------------------------

    def _known(self) -> Facts | None:
        """Of the peer, its name and the sender together, when all is there."""
        peer, helo, sender = self._what_peer, self._helo, self._sender
        if isinstance(peer, Facts) and isinstance(helo, Facts) and isinstance(sender, Facts):
            return _together((peer, helo, sender, self._early))
        return None

    async def _facts(self) -> Facts:
        """As `_known`; what is not there in time is not known, and not waited for again."""
        wait, ends = self._house.checks.wait, self._began + self._house.rules.patience
        self._what_peer = await wait(self._what_peer, ends - time.monotonic())
        self._helo = await wait(self._helo, ends - time.monotonic())
        self._sender = await wait(self._sender, ends - time.monotonic())
        return _together((self._what_peer, self._helo, self._sender, self._early))


@lru_cache(maxsize=1024)
def _together(facts: tuple[Facts, ...]) -> Facts:
    known = [one for one in facts if one is not NONE]
    if len(known) <= 1:
        return known[0] if known else NONE
    listings = tuple(listing for one in known for listing in one.listings)
    allowed = any(listing.weight < 0 for listing in listings)
    return Facts(
        next((one.host for one in known if one.host), None),
        tuple(flaw for one in known for flaw in one.flaws),
        listings,
        None if allowed else next((one.refused for one in known if one.refused), None),
    )
