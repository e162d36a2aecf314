"""A message's story in sentences: from its rows, its request and its events, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from posthouse.accounts.model import Stream
from posthouse.clock import SECOND, rfc3339
from posthouse.domains.model import SigningKey
from posthouse.events.story import Explanation, Sentence
from posthouse.events.types import Event, Type
from posthouse.outbound.ledger import Line
from posthouse.outbound.model import FINAL, State
from posthouse.outbound.spec import Relayed, Spec
from posthouse.storage.queue.base import Lane

Data = dict[str, Any]
_data = msgspec.json.Decoder(Data).decode


def explain(
    lines: Sequence[Line],
    spec: Spec,
    events: Sequence[Event],
    stream: Stream | None,
    signers: Sequence[SigningKey],
    now: int,
) -> Explanation:
    """Pure: the same facts tell the same story."""
    addresses = {line.rcpt: line.address for line in lines}
    several = len(lines) > 1
    story = [Sentence(rfc3339(lines[0].created_at), text) for text in _beginning(lines[0], spec, stream, signers)]
    for event in events:
        if event.type == Type.ACCEPTED:
            continue
        story.append(Sentence(rfc3339(event.at), _told(event, spec), addresses.get(event.rcpt) if several else None))
    story.extend(_ahead(line, now, several) for line in lines if line.state not in FINAL)
    status = lines[0].state if not several else _counted(lines)
    return Explanation(lines[0].id, status, _summary(lines, events), story)


def _told(event: Event, spec: Spec) -> str:
    """Data that are not as they should be (another version's, damaged) are told as they are."""
    teller = _TELLERS.get(event.type)
    try:
        if teller is not None:
            return teller(_data(event.data) if event.data else {}, spec)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        pass
    return f"{event.type.capitalize()}: {event.data or 'without details'}."


def _beginning(line: Line, spec: Spec, stream: Stream | None, signers: Sequence[SigningKey]) -> list[str]:
    lane = Lane(line.lane).name.lower()
    kind = f" ({stream.kind})" if stream is not None else ""
    age = _span(line.expires_at - line.due_at)
    if spec.relayed is not None:
        return _relayed(spec.relayed, lane, spec.stream)
    texts = [
        f"Accepted through the API with key {spec.key_id}: on disk before the answer.",
        f"It is in lane {lane} because stream {spec.stream}{kind} says so; the stream's greatest age is {age}.",
    ]
    if spec.template is not None:
        texts.append(
            f"It is made from template {spec.template}, version {spec.template_version}, chosen when it was accepted."
        )
    if signers:
        names = " and ".join(f"{key.selector} ({key.algorithm})" for key in signers)
        texts.append(f"It is signed for {signers[0].domain} with {names}.")
    else:
        texts.append(f"It is not signed: {spec.from_[1].rpartition('@')[2]} has no active DKIM key.")
    if line.due_at > line.created_at:
        texts.append(f"It was to be sent at {rfc3339(line.due_at)}, not before.")
    return texts


def _relayed(relayed: Relayed, lane: str, stream: str) -> list[str]:
    what = {
        "forward": f"Forwarded: a copy of {relayed.origin}, which was received here.",
        "answer": f"An automatic answer to {relayed.origin}, which was received here.",
        "report": f"A report that {relayed.origin} could not be delivered.",
    }
    path = f"<{relayed.reverse_path}>" if relayed.reverse_path else "<>, so that nothing comes back"
    return [
        what.get(relayed.kind, f"Made from {relayed.origin}."),
        f"It is in lane {lane} of stream {stream}; its reverse-path is {path}.",
    ]


def _rendered(data: Data, spec: Spec) -> str:
    version = f" from version {data['version']} of {spec.template}" if data.get("version") else ""
    return f"Rendered and signed{version}: {data.get('size', 0)} octets."


def _delivered(data: Data, spec: Spec) -> str:
    attempt, took = data.get("attempt", 1), data.get("ms", 0)
    return f"Delivered on attempt {attempt}: {_peer(data)} took it over with {_reply(data)}, {took} ms."


def _bounced(data: Data, spec: Spec) -> str:
    cause = data.get("cause")
    if cause == "no_such_address":
        return f"Bounced: {_peer(data)} says the address does not exist: {_reply(data)}. It is suppressed from now on."
    if cause == "soft_bounce_limit":
        return f"Bounced: refused for now too often over too long, last by {_peer(data)} with {_reply(data)}."
    if cause == "too_old":
        return f"Bounced: still refused for now after {_span(data.get('max_age_s', 0) * SECOND)}, its greatest age."
    if cause == "null_mx":
        return "Bounced: the domain says in DNS that it takes no mail (null MX, RFC 7505)."
    if "host" in data:
        return f"Bounced: {_peer(data)} refused it for good with {_reply(data)}."
    return f"Bounced without an attempt: {_reply(data)}."


def _deferred(data: Data, spec: Spec) -> str:
    cause = data.get("cause")
    then = f" Next attempt at {rfc3339(data['next_at'])}." if data.get("next_at") else ""
    if cause == "site_unreachable":
        site, why = data.get("site"), data.get("detail")
        return f"Not attempted: {site} cannot be reached ({why}), so the whole site waits.{then}"
    if cause == "unknown_outcome":
        return f"{_peer(data)} was lost after the whole message was sent and before its answer; it may have it.{then}"
    if cause == "connection_lost":
        why = data.get("detail") or _reply(data)
        return f"The connection to {_peer(data)} was lost at {data.get('at')}: {why}.{then}"
    if "host" in data:
        return f"Attempt {data.get('attempt')}: {_peer(data)} refused it for now with {_reply(data)}.{then}"
    return f"Not attempted: {data.get('detail') or _reply(data)} ({cause}).{then}"


def _suppressed(data: Data, spec: Spec) -> str:
    since = rfc3339(data["since"]) if "since" in data else "earlier"
    why = f"{data.get('cause')}, by {data.get('source')}, since {since}, for {data.get('scope')}"
    return f"Not sent: the address is suppressed ({why})."


def _canceled(data: Data, spec: Spec) -> str:
    return f"Canceled through the API with key {data.get('key')}, before an attempt."


def _failed(data: Data, spec: Spec) -> str:
    if data.get("cause") == "too_old":
        age = _span(data.get("max_age_s", 0) * SECOND)
        return f"Failed: it passed its greatest age ({age}) before any server decided."
    return f"Failed: {data.get('detail') or data.get('cause')}."


def _rescheduled(data: Data, spec: Spec) -> str:
    return f"Put to {rfc3339(data['to'])} through the API with key {data.get('key')}."


def _recovered(data: Data, spec: Spec) -> str:
    return "No job carried it on any more, which should not happen; it was noticed, and its job was put again."


_TELLERS: dict[str, Callable[[Data, Spec], str]] = {
    Type.RENDERED: _rendered,
    Type.DELIVERED: _delivered,
    Type.BOUNCED: _bounced,
    Type.DEFERRED: _deferred,
    Type.SUPPRESSED: _suppressed,
    Type.CANCELED: _canceled,
    Type.FAILED: _failed,
    Type.RESCHEDULED: _rescheduled,
    Type.RECOVERED: _recovered,
}


def _peer(data: Data) -> str:
    if not data.get("host"):
        return "the peer"
    tls = f" over {data['tls']}" if data.get("tls") else " without TLS"
    return f"{data['host']} [{data.get('ip')}] (route {data.get('route')}){tls}"


def _reply(data: Data) -> str:
    reply = data.get("reply") or {}
    parts = [str(reply.get("code") or ""), reply.get("enhanced") or "", reply.get("text") or ""]
    return "“" + " ".join(part for part in parts if part) + "”"


def _ahead(line: Line, now: int, several: bool) -> Sentence:
    """What comes next for a recipient that is not final."""
    if line.next_at > now:
        text = f"It waits until {rfc3339(line.next_at)}."
    else:
        text = "It is due: being sent now, or waiting for its turn in its lane."
    return Sentence(rfc3339(now), text, line.address if several else None)


def _summary(lines: Sequence[Line], events: Sequence[Event]) -> str:
    if len(lines) > 1:
        return f"{len(lines)} recipients: {_counted(lines)}."
    line = lines[0]
    if line.state == State.DELIVERED:
        return f"Delivered to {line.address} {_span(line.updated_at - line.due_at)} after it was due."
    if line.state in FINAL:
        return f"{line.state.capitalize()}: {line.address} will not be tried again."
    tries = (
        f"after {line.attempts} attempt{'s' if line.attempts != 1 else ''}" if line.attempts else "not attempted yet"
    )
    return f"{line.state.capitalize()}, {tries}."


def _counted(lines: Sequence[Line]) -> str:
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.state] = counts.get(line.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _span(micros: int) -> str:
    seconds = micros / SECOND
    if seconds < 1:
        return f"{micros // 1000} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
