"""DKIM verification: RFC 6376 with RFC 8301 (no SHA-1, no small keys), RFC 8463 (Ed25519) and
RFC 8616 (internationalised domains).

A signature that is malformed, or whose key cannot be used, is permerror; one that does not
match, or is out of date, is fail; one with an algorithm or a key too weak is policy; when DNS
does not answer it is temperror. The parts serve ARC as well, whose message signatures differ
in a few tags.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

from posthouse.errors import DnsUnavailable
from posthouse.mailauth import keys, tags
from posthouse.mailauth.dkim import Canon
from posthouse.mailauth.evidence import Dkim
from posthouse.mailauth.keys import KeyFault, PublicKey
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.message import Message, Need
from posthouse.mailauth.names import normal, printable, within

MAX_SIGNATURES = 10
"""Of a message that are looked at, the first ones."""
MAX_FIELD = 65_536  # octets of one signature field

_SIGNATURE_TAG = re.compile(rb"((?:\A[^:]*:|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_IDENTITY = re.compile(r"(.*)@([^@]+)", re.DOTALL)
_CANONS: dict[str, Canon] = {"simple": "simple", "relaxed": "relaxed"}
_ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}

Keys = Sequence[PublicKey | KeyFault] | None
"""None: DNS did not answer."""


class Refused(ValueError):
    """A signature that is not verified. `result`: permerror, fail or policy."""

    def __init__(self, reason: str, result: str = "permerror") -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature field says, checked as far as it can be without its key."""

    index: int
    """Of its field."""
    algorithm: str
    domain: str
    selector: str
    signature: bytes
    body_hash: bytes
    header_canon: Canon
    body_canon: Canon
    names: tuple[bytes, ...]
    length: int | None
    tags: Mapping[str, str]
    """As they stand."""
    identity_domain: str | None = None
    """Of `i=`, when there is one."""

    @property
    def need(self) -> Need:
        return self.body_canon, self.length


async def verify(message: Message, lookup: Lookup, *, now: int) -> tuple[Dkim, ...]:
    """Each of the first ten signatures, in the order of their fields.

    :param now: seconds since 1970.
    """
    found = [_read(message, index, now) for index in message.places(b"dkim-signature")[:MAX_SIGNATURES]]
    waiting = [entry for entry in found if isinstance(entry, Signature)]
    if not waiting:
        return tuple(entry for entry in found if isinstance(entry, Dkim))
    fetched = await fetch_keys(lookup, [(entry.domain, entry.selector) for entry in waiting])
    await message.hash_body({entry.need for entry in waiting})
    results: list[Dkim] = []
    for entry in found:
        if isinstance(entry, Dkim):
            results.append(entry)
        else:
            results.append(await message.work(_judge, message, entry, fetched[entry.domain, entry.selector]))
    return tuple(results)


def unanswered(message: Message, now: int) -> tuple[Dkim, ...]:
    """What `verify` says when no key came in time."""
    found = [_read(message, index, now) for index in message.places(b"dkim-signature")[:MAX_SIGNATURES]]
    reason = "DNS did not answer in time"
    return tuple(
        entry if isinstance(entry, Dkim) else _evidence(entry, None, "temperror", reason, None) for entry in found
    )


async def fetch_keys(lookup: Lookup, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Keys]:
    """Each (domain, selector) asked once, all at the same time."""
    wanted = list(dict.fromkeys(places))
    if len(wanted) == 1:
        return {wanted[0]: await _fetch(lookup, *wanted[0])}
    return dict(zip(wanted, await asyncio.gather(*[_fetch(lookup, *place) for place in wanted]), strict=True))


async def _fetch(lookup: Lookup, domain: str, selector: str) -> Keys:
    try:
        return await keys.fetch(lookup, domain, selector)
    except DnsUnavailable:
        return None


def read_signature(message: Message, index: int) -> dict[str, str]:
    """A signature field's tags.

    :raises Refused:
    """
    value = message.value(index)
    if not message.complete:
        raise Refused("the header is too long")
    if len(value) > MAX_FIELD:
        raise Refused("the signature field is too long")
    try:
        return tags.parse(value.decode())
    except (tags.TagFault, UnicodeDecodeError) as fault:
        raise Refused(str(fault) if isinstance(fault, tags.TagFault) else "not UTF-8") from None


def signature_of(found: dict[str, str], index: int) -> Signature:
    """What DKIM and ARC's message signatures have in common.

    :raises Refused: a tag that is needed is missing or malformed, or From is not signed.
    """
    missing = [tag for tag in ("a", "b", "bh", "d", "h", "s") if not found.get(tag)]
    if missing:
        raise Refused(f"{missing[0]}= is missing")
    header, slash, body = tags.without_folds(found.get("c", "simple/simple")).partition("/")
    body = body if slash else "simple"
    if header not in _CANONS or body not in _CANONS:
        raise Refused("c= is unknown")
    names = _names(found["h"]) if len(found["h"]) <= 2048 else _names.__wrapped__(found["h"])
    if b"from" not in names:
        raise Refused("From is not signed")
    domain, selector = place_of(found)
    try:
        length = tags.number(found["l"], 76) if "l" in found else None
        return Signature(
            index, algorithm_of(found), domain, selector, tags.base64_value(found["b"]),
            tags.base64_value(found["bh"]), _CANONS[header], _CANONS[body], names, length, found,
        )  # fmt: skip
    except tags.TagFault as fault:
        raise Refused(str(fault)) from None


@lru_cache(maxsize=1024)
def _names(value: str) -> tuple[bytes, ...]:
    return tuple(name.strip(" \t\r\n").lower().encode() for name in value.split(":"))


def place_of(found: dict[str, str]) -> tuple[str, str]:
    """`d=` and `s=` as DNS has them (RFC 8616 §3). :raises Refused:"""
    domain, selector = normal(found["d"]), normal(found["s"])
    if domain is None or selector is None:
        raise Refused("d= or s= is no domain name")
    return domain, selector


def algorithm_of(found: dict[str, str]) -> str:
    """:raises Refused: policy for SHA-1 (RFC 8301 §3.1), permerror for what nobody knows."""
    algorithm = found["a"].lower()
    if algorithm == "rsa-sha1":
        raise Refused("rsa-sha1 is not accepted", "policy")
    if algorithm not in _ALGORITHMS:
        raise Refused("a= is unknown")
    return algorithm


def without_signature(field: bytes) -> bytes:
    """A signature field with an empty `b=` (RFC 6376 §3.7)."""
    return _SIGNATURE_TAG.sub(rb"\1", field, count=1)


def header_digest(message: Message, signature: Signature) -> bytes:
    """SHA-256 of the fields that `h=` names, of a name the last one first, and of the signature's
    own field (RFC 6376 §3.7, §5.4.2)."""
    fields = message.canonical(signature.header_canon)
    left: dict[bytes, list[int]] = {}
    chosen: list[bytes] = []
    for name in signature.names:
        places = left.get(name)
        if places is None:
            places = left[name] = [index for index in message.places(name) if index != signature.index]
        if places:
            chosen.append(fields[places.pop()])
    chosen.append(without_signature(fields[signature.index]).removesuffix(b"\r\n"))
    return sha256(b"".join(chosen)).digest()


def select_key(found: Keys, algorithm: str) -> list[PublicKey]:
    """The keys that may have made a signature.

    :raises Refused: none; what stands first says why.
    """
    if found is None:
        raise Refused("DNS did not answer for the key", "temperror")
    kind = _ALGORITHMS[algorithm]
    fit = [key for key in found if isinstance(key, PublicKey) and key.kind == kind]
    if fit:
        return fit
    first = found[0]
    if isinstance(first, PublicKey):
        raise Refused("the key is of another type")
    raise Refused(first.reason, "policy" if first.weak else "permerror")


def _read(message: Message, index: int, now: int) -> Signature | Dkim:
    found: dict[str, str] = {}
    try:
        found = read_signature(message, index)
        return _checked(found, index, now)
    except Refused as refusal:
        return Dkim(
            refusal.result,
            printable(found.get("d", "")),
            printable(found.get("s", "")),
            algorithm=printable(found.get("a", ""), 32),
            signature=printable(tags.without_folds(found.get("b", "")), 8),
            reason=str(refusal),
        )


def _checked(found: dict[str, str], index: int, now: int) -> Signature:
    """RFC 6376 §6.1.1."""
    if found.get("v") != "1":
        raise Refused("v= is not 1")
    signature = signature_of(found, index)
    if "q" in found and "dns/txt" not in [method.strip(" \t\r\n") for method in found["q"].split(":")]:
        raise Refused("q= names no method that we know")
    identity: str | None = None
    if "i" in found:
        parts = _IDENTITY.fullmatch(found["i"])
        identity = normal(tags.without_folds(parts[2])) if parts is not None else None
        if identity is None or not within(identity, signature.domain):
            raise Refused("i= is not within d=")
    try:
        made = tags.number(found["t"]) if "t" in found else None
        ends = tags.number(found["x"]) if "x" in found else None
    except tags.TagFault as fault:
        raise Refused(str(fault)) from None
    if ends is not None and made is not None and ends <= made:
        raise Refused("x= is not after t=")
    if ends is not None and ends < now:
        raise Refused("the signature has expired", "fail")
    return replace(signature, identity_domain=identity) if identity is not None else signature


def check_body(message: Message, signature: Signature) -> int:
    """The octets of the canonical body that `l=` leaves out. :raises Refused:"""
    computed, total = message.body_hash(signature.need)
    length = total if signature.length is None else signature.length
    if length > total:
        raise Refused("l= is longer than the body", "fail")
    if computed != signature.body_hash:
        raise Refused("the body was changed", "fail")
    return total - length


def check_header(message: Message, signature: Signature, candidates: Sequence[PublicKey]) -> PublicKey:
    """The key that made the signature. :raises Refused:"""
    digest = header_digest(message, signature)
    for key in candidates:
        if key.verifies(signature.signature, digest):
            return key
    raise Refused("the header was changed, or another key signed", "fail")


def _judge(message: Message, signature: Signature, found: Keys) -> Dkim:
    result, reason, key, left_out = "pass", "", None, 0
    try:
        candidates = select_key(found, signature.algorithm)
        key = candidates[0]
        left_out = check_body(message, signature)
        key = check_header(message, signature, candidates)
        _check_identity(signature, key)
        reason = f"l= leaves {left_out} octets of the body unsigned" if left_out else ""
    except Refused as refusal:
        result, reason = refusal.result, str(refusal)
    return _evidence(signature, key, result, reason, signature.length if left_out else None)


def _check_identity(signature: Signature, key: PublicKey) -> None:
    if key.strict and signature.identity_domain not in {None, signature.domain}:  # RFC 6376 §3.6.1
        raise Refused("i= names a subdomain, which the key forbids")


def _evidence(signature: Signature, key: PublicKey | None, result: str, reason: str, covered: int | None) -> Dkim:
    found = signature.tags
    return Dkim(
        result,
        signature.domain,
        signature.selector,
        algorithm=signature.algorithm,
        identity=printable(tags.without_folds(found["i"])) if "i" in found else None,
        key_bits=key.bits if key is not None else 0,
        covered=covered,
        testing=key is not None and key.testing,
        signature=tags.without_folds(found["b"])[:8],
        reason=reason,
    )
