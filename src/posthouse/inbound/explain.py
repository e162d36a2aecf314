"""A received message's story in sentences, oldest first, from its rows; and a refusal's.

Pure, and in the form of the sending flow's (`events.story`). What peers wrote is made
printable and bounded. Rows that do not read as they should (another version's, damaged) are
told as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from posthouse.clock import rfc3339
from posthouse.events.story import Explanation, Sentence
from posthouse.inbound.model import Evidence, Outcome, State, Verdict, Via
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf

T = TypeVar("T")
_MOST: Final = 200
"""Characters of a peer's text in one sentence."""
_MOST_REASONS: Final = 100
_BY: Final = {
    "mx": "SMTP from the world",
    "lmtp": "LMTP from a front server",
    "submission": "SMTP from a user of ours",
}
_SESSION: Final = {
    "helo_ip": "The server greeted with a bare IP address.",
    "helo_unresolvable": "The name that the server greeted with does not exist.",
    "early_talker": "The server spoke before it was its turn.",
    "helo_ours": "The server greeted with our own name.",
    "helo_unqualified": "The server greeted with no full host name.",
    "rdns_none": "The server's address has no name in DNS.",
    "rdns_unconfirmed": "The name of the server's address does not lead back to it.",
    "sender_null_mx": "The sender's domain takes no mail.",
    "sender_unresolvable": "The sender's domain does not exist.",
}


@dataclass(frozen=True, slots=True)
class Received:
    """A row of `inbound`; `evidence` and `verdict` as their JSON."""

    id: str
    received_at: int
    size: int
    reverse_path: str
    evidence: str
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of `inbound_rcpt`; `via` and `outcome` as their JSON, `account`: its address, ''
    for what only goes elsewhere."""

    address: str
    account: str
    state: str
    via: str
    done_at: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row of `refusal`: what was not taken, and what the peer was told."""

    id: str
    at: int
    peer: str
    helo: str
    reverse_path: str
    recipient: str
    stage: str
    reply: str
    reason: str
    evidence: str | None


def explain(message: Received, deliveries: Sequence[Delivery], now: int) -> Explanation:
    """The same rows tell the same story."""
    at = rfc3339(message.received_at)
    evidence = _read(message.evidence, Evidence)
    story = [Sentence(at, text) for text in _arrival(message, evidence)]
    if message.verdict is not None:
        story += [Sentence(at, text) for text in _verdict(message.verdict)]
    several = len(deliveries) > 1
    for one in deliveries:
        story += [
            Sentence(rfc3339(moment), text, _clean(one.address) if several else None)
            for moment, text in _delivery(one, message.received_at, now)
        ]
    return Explanation(message.id, _status(deliveries), _summary(deliveries), story)


def explain_refusal(refusal: Refusal) -> Explanation:
    """Why it was not taken, and what the sender was told."""
    at = rfc3339(refusal.at)
    why = _REFUSED.get(refusal.reason, _clean(refusal.reason))
    told = [f"Refused {_STAGES.get(refusal.stage, 'in the session')}: {why}."]
    evidence = _read(refusal.evidence, Evidence) if refusal.evidence else None
    where = f"{_clean(refusal.helo) or 'a server without a name'} [{_clean(refusal.peer)}]"
    sender = f"<{_clean(refusal.reverse_path)}>"
    first = f"{where} wanted to send mail from {sender} to <{_clean(refusal.recipient)}>."
    if evidence is not None:
        told += list(_evidence(evidence))
    told.append(f"The sender was told “{_clean(refusal.reply)}”. Nothing was kept; telling its author is up to them.")
    summary = f"Refused {rfc3339(refusal.at)}: {why}."
    return Explanation(refusal.id, "refused", summary, [Sentence(at, text) for text in (first, *told)])


_REFUSED: Final = {
    "unknown_recipient": "nobody here has the address",
    "malformed_recipient": "the recipient's address cannot exist here",
    "disabled": "the mailbox is disabled",
    "alias_loops": "the alias leads back to itself, or to too many",
    "relay": "mail for that domain is not received here",
    "mailbox_full": "the mailbox is full",
    "too_large": "the message is larger than the whole mailbox",
    "too_many_recipients": "the message has too many recipients",
    "srs_invalid": "the address is made like one of ours for mail that was sent on, and is none",
    "srs_not_notice": "the address takes only notices about mail that was sent on",
    "greylisted": "greylisting asks an unknown sender to come again",
    "listed": "a DNS list names the server or the sender",
    "unknown_sender": "the sender's domain takes no mail, or does not exist",
    "dmarc": "the policy of the domain in From asks to refuse it, and nothing proves it",
    "spam": "every account that it was for sees it as spam",
    "hops": "it has passed so many servers that it must be in a loop",
}
"""A refusal's reason, by code."""
_STAGES: Final = {
    "connect": "at the connection",
    "hello": "at the greeting",
    "mail": "at MAIL",
    "rcpt": "at RCPT",
    "data": "after the data",
}


def _arrival(message: Received, evidence: Evidence | None) -> Iterator[str]:
    sender = f"<{_clean(message.reverse_path)}>"
    if evidence is None:
        yield f"Received from {sender}, {message.size} octets. Its evidence cannot be read: {_clean(message.evidence)}"
        return
    host = _clean(evidence.host) if evidence.host else "a server without a confirmed name"
    tls = f"over {_clean(evidence.tls)}" if evidence.tls else "without TLS"
    yield (
        f"Received by {_BY.get(evidence.listener, _clean(evidence.listener))}: {host} [{_clean(evidence.peer)}], which "
        f"greeted as {_clean(evidence.helo)}, {tls}; envelope sender {sender}, {message.size} octets. "
        "On disk before the answer 250."
    )
    yield from _evidence(evidence)


def _evidence(evidence: Evidence) -> Iterator[str]:
    if evidence.greylisted:
        yield "Greylisting had put it off, and it came again."
    for flaw in evidence.flaws[:20]:
        if flaw == "helo_ours" and _is_loopback(evidence.peer):
            continue  # this machine may
        yield _SESSION.get(flaw, f"Something in the session was odd ({_clean(flaw)}).")
    for hit in evidence.listings[:20]:
        says = f", which says “{_clean(hit.text)}”" if hit.text else ""
        kind = "speaks against" if hit.weight > 0 else "speaks for"
        yield f"The DNS list {_clean(hit.zone)} {kind} it ({_clean(hit.value)}, weight {hit.weight:g}){says}."
    if evidence.listener == "lmtp":
        yield "SPF, DKIM and DMARC are the front server's to check."
    else:
        yield from _authentication(evidence.auth)
    if evidence.dmarc_override:
        yield f"DMARC was not followed: {_sentence(evidence.dmarc_override)}"
    if evidence.junk:
        yield f"Policy sends it to Junk whatever the filter says: {_sentence(evidence.junk)}"


def _is_loopback(peer: str) -> bool:
    return peer == "::1" or peer.startswith("127.")


def _authentication(auth: Authentication) -> Iterator[str]:
    yield _spf(auth.spf)
    if not auth.dkim:
        yield "DKIM: it carries no signature."
    for signature in auth.dkim[:10]:
        yield _dkim(signature)
    yield _dmarc(auth.dmarc)
    if auth.arc.result != "none":
        yield _arc(auth.arc)


_SPF: Final = {
    "none": "{0} says nothing about its servers",
    "neutral": "{0} says neither yes nor no about this server",
    "pass": "{0} allows this server to send for it",
    "fail": "{0} does not allow this server to send for it",
    "softfail": "{0} says that this server should not send for it",
    "temperror": "DNS did not answer for {0}",
    "permerror": "the record of {0} is wrong",
}


def _spf(spf: Spf) -> str:
    known = _SPF.get(spf.result, "the result for {0} is " + _clean(spf.result))
    by = f" ({_clean(spf.mechanism)})" if spf.mechanism else ""
    return f"SPF ({spf.result}): {known.format(_clean(spf.domain) or 'the sender')}{by}.{_because(spf.reason)}"


def _dkim(signature: Dkim) -> str:
    name = f"the signature of {_clean(signature.domain)} ({_clean(signature.selector)})"
    if signature.result == "pass":
        covered = signature.covered
        limit = f", but only the first {covered} octets of the body are covered" if covered is not None else ""
        return f"DKIM (pass): {name} is valid{limit}{', and its key is for tests' if signature.testing else ''}."
    return f"DKIM ({_clean(signature.result)}): {name} is not accepted.{_because(signature.reason)}"


def _dmarc(dmarc: Dmarc) -> str:
    domain = _clean(dmarc.domain) or "the author's domain"
    if dmarc.result == "pass":
        by = " and ".join(
            word for word, aligned in (("SPF", dmarc.aligned_spf), ("DKIM", dmarc.aligned_dkim)) if aligned
        )
        return f"DMARC (pass): it is from {domain}{f', proved by {by}' if by else ''}."
    if dmarc.result == "fail":
        asks = {"reject": "to refuse such mail", "quarantine": "to put such mail aside"}.get(
            dmarc.policy, "for nothing"
        )
        return f"DMARC (fail): nothing proves that it is from {domain}, which asks {asks}.{_because(dmarc.reason)}"
    if dmarc.result == "none":
        return f"DMARC (none): {domain} has no policy."
    return f"DMARC ({_clean(dmarc.result)}): no result for {domain}.{_because(dmarc.reason)}"


def _arc(arc: Arc) -> str:
    sealers = ", ".join(_clean(one) for one in arc.sealers[:10])
    state = "is whole" if arc.result == "pass" else "is broken"
    return f"ARC ({_clean(arc.result)}): the chain of seals by {sealers or 'nobody'} {state}.{_because(arc.reason)}"


def _verdict(text: str) -> Iterator[str]:
    verdict = _read(text, Verdict)
    if verdict is None:
        yield f"Its verdict cannot be read: {_clean(text)}"
        return
    points = "point" if abs(verdict.score) == 1 else "points"
    yield f"The filter gave it {verdict.score:g} {points}{': it is junk' if verdict.junk else ''}."
    for reason in verdict.reasons[:_MOST_REASONS]:
        yield f"{reason.score:+g} ({_clean(reason.rule)}): {_clean(reason.text)}"
    if verdict.virus is not None:
        yield f"A scanner found {_clean(verdict.virus)} in it."
    if verdict.scanner is not None:
        yield f"A scanner was not asked or did not answer: {_sentence(verdict.scanner)}"


def _delivery(one: Delivery, received_at: int, now: int) -> Iterator[tuple[int, str]]:
    via = _read(one.via, Via) or Via()
    way = _way(one, via)
    if way:
        yield received_at, way
    if one.state == State.ACCEPTED:
        yield now, "It waits to be filtered and stored; it is safe on disk."
        return
    at = received_at if one.done_at is None else one.done_at
    outcome = _read(one.outcome, Outcome) if one.outcome else None
    if outcome is None:
        yield at, f"{_clean(one.state).capitalize()}: {_clean(one.outcome or 'without details')}."
        return
    yield at, _ended(one, via, outcome)
    for reason in outcome.reasons[:_MOST_REASONS]:
        yield at, _sentence(reason)


def _way(one: Delivery, via: Via) -> str:
    steps = [one.address, *(alias for alias in via.aliases if alias != one.address)]
    end = via.forward or one.account
    if end and end != steps[-1]:
        steps.append(end)
    tag = f" The tag “{_clean(via.tag)}” was taken off." if via.tag else ""
    if len(steps) == 1 and not tag:
        return ""
    return f"The address leads to {' → '.join(_clean(step) for step in steps[:20])}.{tag}"


def _ended(one: Delivery, via: Via, outcome: Outcome) -> str:
    if one.state == State.STORED:
        places = ", ".join(_clean(name) for name in outcome.mailboxes[:20]) or "no mailbox"
        marks = f", marked {', '.join(_clean(word) for word in outcome.keywords[:20])}" if outcome.keywords else ""
        return (
            f"Stored for {_clean(one.account)} in {places} as email {outcome.email} of thread {outcome.thread}{marks}."
        )
    if one.state == State.DISCARDED:
        return f"Thrown away by a rule of {_clean(one.account)}."
    if one.state == State.FORWARDED:
        return f"Handed to the sending flow for {_clean(via.forward) or 'another address'}; nothing is kept here."
    return "It could not be stored or forwarded, and is not tried again."


def _status(deliveries: Sequence[Delivery]) -> str:
    states = {one.state: 0 for one in deliveries}
    if len(states) == 1:
        return next(iter(states))
    return _counted(deliveries)


def _counted(deliveries: Sequence[Delivery]) -> str:
    counts: dict[str, int] = {}
    for one in deliveries:
        counts[one.state] = counts.get(one.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or State.ACCEPTED


def _summary(deliveries: Sequence[Delivery]) -> str:
    if len(deliveries) != 1:
        return f"{len(deliveries)} recipients: {_counted(deliveries)}."
    (one,) = deliveries
    if one.state == State.ACCEPTED:
        return f"Accepted for {_clean(one.address)}: it waits to be stored."
    outcome = _read(one.outcome, Outcome) if one.outcome else None
    where = f" in {', '.join(_clean(name) for name in outcome.mailboxes[:5])}" if outcome and outcome.mailboxes else ""
    return f"{_clean(one.state).capitalize()}{where}: {_clean(one.account or one.address)}."


def _read(text: str | None, kind: type[T]) -> T | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        return None


def _because(reason: str) -> str:
    return f" {_sentence(reason)}" if reason else ""


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    clean = _clean(text).strip()
    if not clean:
        return ""
    return clean[0].upper() + clean[1:] + ("" if clean[-1] in ".!?…”" else ".")


def _clean(text: str) -> str:
    short = text[:_MOST]
    if not short.isprintable():
        short = "".join(char if char.isprintable() else "�" for char in short)
    return short + "…" if len(text) > _MOST else short
