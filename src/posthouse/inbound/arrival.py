"""The end of data: what a message proves, what policy makes of it, and its durable write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from mmap import mmap

import msgspec
from prometheus_client import Counter

from posthouse import ids
from posthouse.directory.model import Resolution, Spam, Target
from posthouse.inbound import policy, recipients, screen
from posthouse.inbound.checks import Facts
from posthouse.inbound.durable import Entry, RcptRow
from posthouse.inbound.house import Hop, House
from posthouse.inbound.model import UNASKED, Evidence, Via
from posthouse.inbound.refusals import Refusal
from posthouse.inbound.trace import closed
from posthouse.mailauth.evidence import Arc, Authentication, Dmarc, Spf
from posthouse.smtp.command import Hello, Mail
from posthouse.smtp.peer import Peer, Tls
from posthouse.smtp.reply import Reply

ACCEPTED = Counter("posthouse_received_total", "Messages acknowledged.", ["listener"])

_encode = msgspec.json.Encoder().encode
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MOST_HEADER = 1 << 20
"""Octets looked through for the end of the header; there is none sensible beyond."""

_NOTHING_ASKED = Authentication(
    Spf("none", "", reason=UNASKED),
    Spf("none", "", scope="helo", reason=UNASKED),
    (),
    Dmarc("none", "", reason=UNASKED),
    Arc("none", reason=UNASKED),
)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A transaction whose message is whole. `rcpts`: as in RCPT, with what each leads to."""

    peer: Peer
    hello: Hello
    tls: Tls | None
    mail: Mail
    rcpts: tuple[tuple[str, Resolution], ...]
    facts: Facts
    greylisted: bool


class _Judged(msgspec.Struct, gc=False):
    """One recipient: refused with a reply, or taken, to Junk with a sentence."""

    path: str
    found: Resolution
    refused: tuple[Reply, str] | None = None
    junk: str = ""


async def receive(house: House, envelope: Envelope, message: bytes | mmap) -> Sequence[Reply]:
    """One reply over SMTP, over LMTP one for each recipient. :raises StorageUnavailable:"""
    judged = [_Judged(path, found) for path, found in envelope.rcpts]
    if hops(message, house.rules.hops) > house.rules.hops:
        text = f"More than {house.rules.hops} Received fields: the message goes in circles; look for a forwarding loop"
        evidence = _evidence(envelope, _NOTHING_ASKED)
        for one in judged:
            one.refused = (Reply(554, "5.4.6", (text,)), "hops")
    else:
        evidence = await _authenticated(house, envelope, message)
        _judge(house, evidence, judged, len(message))
        await _screen(house, envelope, message, evidence, judged)
    taken = _taken(envelope, judged)
    accepted = await _keep(house, envelope, taken, evidence, message) if taken else None
    return _replies(house, envelope, evidence, judged, accepted)


def _evidence(envelope: Envelope, auth: Authentication, excused: str | None = None) -> Evidence:
    facts, tls = envelope.facts, envelope.tls
    return Evidence(
        envelope.peer.address,
        envelope.hello.domain,
        facts.host,
        auth,
        f"{tls.version} {tls.cipher}" if tls is not None else None,
        envelope.peer.listener,
        facts.listings,
        facts.flaws,
        envelope.greylisted,
        excused,
    )


async def _authenticated(house: House, envelope: Envelope, message: bytes | mmap) -> Evidence:
    if envelope.peer.listener == "lmtp" or envelope.peer.trusted:
        return _evidence(envelope, _NOTHING_ASKED)
    auth = await house.authenticate(
        message,
        peer=envelope.peer.address,
        helo=envelope.hello.domain,
        reverse_path=envelope.mail.reverse_path,
        now=house.clock(),
    )
    return _evidence(envelope, auth, policy.override(auth, house.rules.trusted))


def _judge(house: House, evidence: Evidence, judged: Sequence[_Judged], size: int) -> None:
    for one in judged:
        verdict = policy.dmarc(evidence.auth, one.found.settings.dmarc, evidence.dmarc_override)
        one.junk = verdict.junk
        if verdict.refuse:
            one.refused = (Reply(550, "5.7.1", (verdict.refuse,)), "dmarc")
        else:
            one.refused = recipients.no_room(one.found, size)


async def _screen(
    house: House, envelope: Envelope, message: bytes | mmap, evidence: Evidence, judged: Sequence[_Judged]
) -> None:
    """Spam is refused where the domain says so, and all the accounts that it leads to see it so."""
    asking = [one for one in judged if one.refused is None and _refuses_spam(one.found)]
    if house.screen is None or not asking or len(message) > screen.MOST:
        return
    whom = [(target.tenant_id, one.path, target.account) for one in asking for target in one.found.targets]
    verdicts = iter(await house.screen(bytes(message), evidence, envelope.mail.reverse_path, whom))
    for one in asking:
        seen = [next(verdicts) for _ in one.found.targets]
        if all(verdict.junk for verdict in seen):
            worst = max(seen[0].reasons, key=lambda reason: reason.score, default=None)
            why = f"; above all: {worst.text}" if worst is not None else ""
            text = f"The message looks like spam ({seen[0].score:g} points){why}"
            one.refused = (Reply(550, "5.7.1", (_spoken(text),)), "spam")


def _spoken(text: str) -> str:
    """For a reply: ASCII, and within a line (RFC 5321 §4.5.3.1.5)."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:400]


def _refuses_spam(found: Resolution) -> bool:
    return (
        found.settings.spam is Spam.REFUSE
        and not found.duty
        and bool(found.targets)
        and all(target.account for target in found.targets)
    )


def _taken(envelope: Envelope, judged: Sequence[_Judged]) -> list[_Judged]:
    """Over SMTP there is one answer for all: who would refuse takes it when another does,
    into Junk if DMARC was the reason, and beyond the quota if that was."""
    taken = [one for one in judged if one.refused is None]
    if not taken or envelope.peer.listener == "lmtp":
        return taken
    for one in judged:
        if one.refused is not None and one.refused[1] == "dmarc":
            one.junk += " Refusing it was not possible, since another recipient of the same message accepts it."
    return list(judged)


async def _keep(
    house: House, envelope: Envelope, taken: Sequence[_Judged], evidence: Evidence, message: bytes | mmap
) -> str:
    id_ = ids.new("inb")
    now = house.clock()
    common = taken[0].junk if len({one.junk for one in taken}) == 1 else ""
    if common:
        evidence = msgspec.structs.replace(evidence, junk=common)
    hop = Hop(
        id_,
        now,
        evidence.peer,
        evidence.host,
        evidence.helo,
        envelope.hello.verb,
        envelope.tls,
        envelope.mail.smtputf8,
        envelope.mail.reverse_path,
        taken[0].path if len(taken) == 1 else "",
        evidence.auth,
    )
    rows = _rows(taken, common=common)
    trace = closed(house.trace(hop), message)
    entry = Entry(id_, now, envelope.mail.reverse_path, _encode(evidence).decode(), trace, rows)
    accepted = await house.durable.keep(entry, message)
    _count(envelope.peer.listener)
    return accepted


def _rows(taken: Sequence[_Judged], *, common: str) -> tuple[RcptRow, ...]:
    """Each account, and each address elsewhere, once, by the first recipient that leads there."""
    rows: dict[tuple[int, str], RcptRow] = {}
    for one in taken:
        junk = one.junk if not common else ""
        for target in one.found.targets:
            key = (target.account, target.forward)
            if key not in rows:
                rows[key] = RcptRow(target.tenant_id, one.path, target.account, _via(target, junk))
    return tuple(rows.values())


def _via(target: Target, junk: str) -> str:
    if not (target.via or target.tag or target.forward or junk):
        return "{}"
    return _encode(Via(target.via, target.tag, target.forward, junk or None)).decode()


@lru_cache(maxsize=8)
def _counter(listener: str) -> Counter:
    return ACCEPTED.labels(listener)


def _count(listener: str) -> None:
    _counter(listener).inc()


def _replies(
    house: House, envelope: Envelope, evidence: Evidence, judged: Sequence[_Judged], accepted: str | None
) -> list[Reply]:
    good = Reply(250, "2.0.0", (f"Ok: queued as {accepted}",))
    if envelope.peer.listener != "lmtp":
        if accepted is not None:
            return [good]
        # All refuse: the first to do so for good speaks for all.
        speaker = next((one for one in judged if one.refused and one.refused[0].permanent), judged[0])
        return [_refused(house, envelope, evidence, speaker)]
    return [good if one.refused is None else _refused(house, envelope, evidence, one) for one in judged]


def _refused(house: House, envelope: Envelope, evidence: Evidence, one: _Judged) -> Reply:
    assert one.refused is not None
    reply, reason = one.refused
    return house.refusals.note(
        Refusal(
            one.found.tenant_id,
            evidence.peer,
            evidence.helo,
            envelope.mail.reverse_path,
            one.path,
            "data",
            reason,
            _encode(evidence).decode(),
        ),
        reply,
    )


def hops(message: bytes | mmap, most: int) -> int:
    """Received fields of the header, when they may be more than `most`; counting ends beyond it."""
    end = message.find(b"\r\n\r\n", 0, _MOST_HEADER)
    head = message[: end if end >= 0 else _MOST_HEADER]
    if head.lower().count(b"received") <= most:
        return 0  # whatever they are: few enough
    found = 0
    for _ in _RECEIVED.finditer(head):
        found += 1
        if found > most:
            break
    return found
