"""What came of the demo: the ledger beside the sink's log, and signatures checked by hand.

It knows only the promises: what was answered 202 ends in one final state, what is called
delivered is at the sink, and nothing is there twice but what was in flight at the kill.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from posthouse.smtpd.sink.journal import Entry

_FINAL = ("delivered", "bounced", "suppressed", "canceled", "failed")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_B_VALUE = re.compile(rb"([;:\s]b=)[^;]*")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the answer 202 to the final state."""

    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(slots=True)
class Tally:
    """Counts of messages; `lost` and `unexplained` are ids and say what is wrong."""

    states: Counter[str] = field(default_factory=Counter[str])
    deferred: int = 0
    """Final now, after at least one "not now"."""
    at_sink: int = 0
    duplicates: int = 0
    lost: list[str] = field(default_factory=list[str])
    unexplained: list[str] = field(default_factory=list[str])
    latency: dict[str, Latency] = field(default_factory=dict[str, Latency])
    """By stream."""
    story: str | None = None
    """A message worth explaining: delivered at the second attempt."""


def read_log(path: Path) -> list[Entry]:
    """Every answer of the sink."""
    return msgspec.json.Decoder(Entry).decode_lines(path.read_bytes())


def tally(accepted: Iterable[str], messages: Sequence[Mapping[str, Any]], log: Sequence[Entry]) -> Tally:
    """
    :param accepted: ids that a 202 named.
    :param messages: the ledger, as `GET /v1/messages` tells it, of one recipient each.
    """
    arrived = Counter(_id_of(entry.message_id) for entry in log if entry.outcome.startswith("250"))
    ledger = {message["id"]: message for message in messages}
    found = Tally(at_sink=arrived.total(), duplicates=arrived.total() - len(arrived))
    times: dict[str, list[float]] = {}
    for name in accepted:
        message = ledger.get(name)
        state = message["status"] if message else "missing"
        found.states[state] += 1
        if message is None or state not in _FINAL or (state == "delivered" and name not in arrived):
            found.lost.append(name)
            continue
        recipient = message["recipients"][0]
        found.deferred += recipient["attempts"] > 1
        if state == "delivered":
            times.setdefault(message["stream"], []).append(_between(message["created_at"], recipient["updated_at"]))
            if recipient["attempts"] > 1 and found.story is None:
                found.story = name
    found.unexplained = [name for name in arrived if name not in ledger]
    found.latency = {stream: _latency(sorted(values)) for stream, values in times.items()}
    return found


def _id_of(message_id: str) -> str:
    """`<0197…@domain>` → `msg_0197…`"""
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
