"""What came of the demo: the ledger beside the mailboxes, and signatures checked by hand.

It knows only the promises: what was answered 202 ends in one final state, what is called
delivered is in the recipient's mailbox, and nothing is there twice: the mail in flight at the
kill is sent again, with the same bytes, and taken for what it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

_FINAL = ("delivered", "bounced", "suppressed", "canceled", "failed")
_PASSES = (b"spf=pass", b"dkim=pass", b"dmarc=pass")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_B_VALUE = re.compile(rb"([;:\s]b=)[^;]*")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the answer 202 to the final state."""

    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Copy:
    """An email in somebody's mailbox. `mailboxes`: their names; `trace`: the header fields that
    were put before it on arrival."""

    address: str
    message_id: str
    mailboxes: tuple[str, ...] = ("Inbox",)
    trace: bytes = b""


@dataclass(slots=True)
class Tally:
    """Counts of recipients; `lost` and `unexplained` name message and address, and say what is wrong."""

    states: Counter[str] = field(default_factory=Counter[str])
    deferred: int = 0
    """Final now, after at least one "not now"."""
    stored: int = 0
    """Copies in mailboxes."""
    forwarded: int = 0
    """Of them: those that a mailbox here sent on to another."""
    authenticated: int = 0
    """Of them: those whose SPF, DKIM and DMARC passed on arrival."""
    junk: int = 0
    duplicates: int = 0
    lost: list[str] = field(default_factory=list[str])
    unexplained: list[str] = field(default_factory=list[str])
    latency: dict[str, Latency] = field(default_factory=dict[str, Latency])
    """By stream."""


def tally(accepted: Iterable[str], messages: Sequence[Mapping[str, Any]], copies: Sequence[Copy]) -> Tally:
    """Each recipient that the ledger calls delivered has the message in a mailbox, once, and
    nobody has anything else.

    :param accepted: ids that a 202 named.
    :param messages: the ledger, as `GET /v1/messages` tells it.
    """
    ledger = {message["id"]: message for message in messages}
    found = Tally(stored=len(copies))
    there = Counter((_id_of(copy.message_id), copy.address) for copy in copies)
    times: dict[str, list[float]] = {}
    expected: set[tuple[str, str]] = set()
    ours = set(accepted)
    for name in ours:
        if name not in ledger:
            found.states["missing"] += 1
            found.lost.append(name)
            continue
        for recipient in ledger[name]["recipients"]:
            _judge(found, ledger[name], recipient, there, times)
            if recipient["status"] == "delivered":
                expected.add((name, recipient["address"]))
    sent_on = Counter(
        recipient["address"]
        for name, message in ledger.items()
        for recipient in message["recipients"]
        if name not in ours and recipient["status"] == "delivered"
    )
    _surplus(found, there, expected, sent_on)
    found.authenticated = sum(all(word in copy.trace for word in _PASSES) for copy in copies)
    found.junk = sum("Junk" in copy.mailboxes for copy in copies)
    found.latency = {stream: _latency(sorted(values)) for stream, values in times.items()}
    return found


def worth_telling(accepted: Iterable[str], messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """A message whose story is worth a look: delivered at the second attempt, if there is one."""
    ours = set(accepted)
    delivered = [one for one in messages if one["status"] == "delivered" and one["id"] in ours]
    again = (one for one in delivered if one["recipients"][0]["attempts"] > 1)
    return next(again, delivered[0] if delivered else None)


def _judge(
    found: Tally,
    message: Mapping[str, Any],
    recipient: Mapping[str, Any],
    there: Mapping[tuple[str, str], int],
    times: dict[str, list[float]],
) -> None:
    name, address, state = message["id"], recipient["address"], recipient["status"]
    found.states[state] += 1
    found.deferred += recipient["attempts"] > 1
    if state not in _FINAL or (state == "delivered" and not there.get((name, address))):
        found.lost.append(f"{name} to {address}")
    elif state == "delivered":
        times.setdefault(message["stream"], []).append(_between(message["created_at"], recipient["updated_at"]))


def _surplus(
    found: Tally, there: Mapping[tuple[str, str], int], expected: Set[tuple[str, str]], sent_on: Counter[str]
) -> None:
    """What is in a mailbox beyond the first copy of what the ledger sent there: forwarded by
    another mailbox, twice, or from nowhere."""
    for (name, address), count in there.items():
        if (name, address) in expected:
            found.duplicates += count - 1
        elif count <= sent_on[address]:
            sent_on[address] -= count
            found.forwarded += count
        else:
            found.unexplained.append(f"{name} to {address}")
    found.lost.extend(f"forwarded to {address}" for address, count in sent_on.items() if count)


def _id_of(message_id: str) -> str:
    """`0197…@domain` → `msg_0197…`"""
    return "msg_" + message_id.strip("<> ").partition("@")[0]


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _latency(ordered: Sequence[float]) -> Latency:
    def at(part: float) -> float:
        return ordered[min(int(len(ordered) * part), len(ordered) - 1)]

    return Latency(at(0.5), at(0.95), at(0.99), ordered[-1])


def public_keys(domain: Mapping[str, Any]) -> dict[str, str]:
    """Selector → the DNS record to publish, from `GET /v1/domains/{name}`."""
    return {
        record["name"].partition("._domainkey.")[0]: record["value"]
        for record in domain["records"]
        if "._domainkey." in record["name"]
    }


def count_verified(messages: Iterable[bytes], keys: Mapping[str, str]) -> tuple[int, int]:
    """(messages whose every signature is good, messages)."""
    results = [verified(message, keys) for message in messages]
    return sum(results), len(results)


def verified(message: bytes, keys: Mapping[str, str]) -> bool:
    """Whether a message is signed and each DKIM-Signature is good, by the published keys alone
    (RFC 6376 §6.1, for relaxed headers and a simple body)."""
    head, _, body = message.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", head)
    signatures = [one for one in fields if one.lower().startswith(b"dkim-signature:")]
    return bool(signatures) and all(_is_good(one, fields, body, keys) for one in signatures)


def _is_good(signature: bytes, fields: Sequence[bytes], body: bytes, keys: Mapping[str, str]) -> bool:
    tags = _tags(signature.partition(b":")[2])
    if tags.get("c") != "relaxed/simple" or tags.get("s") not in keys:
        return False
    simple = body.rstrip(b"\r\n") + b"\r\n"
    if b64decode(tags["bh"]) != sha256(simple).digest():
        return False
    waiting: dict[str, list[bytes]] = {}
    for one in fields:
        if one is not signature:
            waiting.setdefault(one.partition(b":")[0].strip().decode().lower(), []).append(one)
    # §5.4.2: a name that stands twice takes the fields from the bottom up; one too many takes none.
    named = [name.strip().lower() for name in tags["h"].split(":")]
    signed = [_relaxed(waiting[name].pop()) for name in named if waiting.get(name)]
    signed.append(_relaxed(_B_VALUE.sub(rb"\1", signature)).removesuffix(b"\r\n"))
    return _matches(tags, b"".join(signed), _tags(keys[tags["s"]].encode()))


def _relaxed(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return name.strip().lower() + b":" + _BLANKS.sub(b" ", value).strip() + b"\r\n"


def _tags(text: bytes) -> dict[str, str]:
    pairs = (part.partition(b"=") for part in text.split(b";"))
    return {
        name.strip().decode(): _BLANKS.sub(b" " if name.strip() == b"h" else b"", value).strip().decode()
        for name, equals, value in pairs
        if equals
    }


def _matches(tags: Mapping[str, str], signed: bytes, record: Mapping[str, str]) -> bool:
    key, value = b64decode(record["p"]), b64decode(tags["b"])
    try:
        if record.get("k") == "ed25519":
            Ed25519PublicKey.from_public_bytes(key).verify(value, sha256(signed).digest())  # RFC 8463 §3
            return True
        public = load_der_public_key(key)
        assert isinstance(public, RSAPublicKey)
        public.verify(value, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
