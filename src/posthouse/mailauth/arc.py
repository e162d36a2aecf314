"""ARC: the chain of those who forwarded a message and what each of them saw (RFC 8617 §5.2).

1. The sets are collected: instances 1 to N, each with its three fields, once.
2. The newest message signature must verify: nobody changed the message since.
3. Every seal must verify: nobody changed the chain.
Older message signatures say how far back the message is unchanged; they decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from posthouse.mailauth import tags
from posthouse.mailauth.evidence import Arc
from posthouse.mailauth.lookup import Lookup
from posthouse.mailauth.message import Message
from posthouse.mailauth.names import printable
from posthouse.mailauth.verify import (
    Keys,
    Refused,
    Signature,
    algorithm_of,
    check_body,
    check_header,
    fetch_keys,
    place_of,
    read_signature,
    select_key,
    signature_of,
    without_signature,
)

MAX_INSTANCE = 50  # RFC 8617 §4.2.1
MAX_RESULTS = 4096  # characters of the first hop's results that are kept

RESULTS, MESSAGE, SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_RESULTS_INSTANCE = re.compile(
    rb"(?:\s|\([^()]*\))*i(?:\s|\([^()]*\))*=(?:\s|\([^()]*\))*([0-9]{1,2})(?:\s|\([^()]*\))*;"
)
_FOLDS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Seal:
    algorithm: str
    domain: str
    selector: str
    signature: bytes
    status: str
    """`cv=`: none, pass or fail."""


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One hop's fields, by index, and what they say."""

    results: int
    message: int
    seal: int
    signature: Signature | Refused
    sealed: Seal


async def verify(message: Message, lookup: Lookup) -> Arc:
    """The chain's result. What DNS did not answer for is fail, and `reason` says so: ARC knows no
    temporary result (RFC 8601 §2.7.4 has three words for it)."""
    if not has_chain(message):
        return Arc("none")
    try:
        chain = collect(message)
    except Refused as refusal:
        return Arc("fail", reason=str(refusal))
    sealers = tuple(one.sealed.domain for one in chain)
    try:
        oldest = await _verify(message, lookup, chain)
    except Refused as refusal:
        return Arc("fail", sealers, reason=str(refusal))
    return Arc("pass", sealers, oldest, first_results=_first_results(message, chain[0]))


def has_chain(message: Message) -> bool:
    names = message.names
    return SEAL in names or MESSAGE in names or RESULTS in names


def collect(message: Message) -> list[ArcSet]:
    """The sets, the first hop first, their form and order checked.

    :raises Refused:
    """
    if not message.complete:
        raise Refused("the header is too long")
    results = _by_instance(message, RESULTS)
    messages = _by_instance(message, MESSAGE)
    seals = _by_instance(message, SEAL)
    count = len(seals)
    wanted = set(range(1, count + 1))
    if not count or set(seals) != wanted or set(messages) != wanted or set(results) != wanted:
        raise Refused("the sets are not complete")
    chain = [
        ArcSet(results[i], messages[i], seals[i], _signature(message, messages[i]), _seal(message, seals[i]))
        for i in range(1, count + 1)
    ]
    if chain[-1].sealed.status == "fail":  # RFC 8617 §5.2 step 2
        raise Refused("a hop before found the chain broken")
    for instance, one in enumerate(chain, 1):
        if one.sealed.status != ("none" if instance == 1 else "pass"):
            raise Refused(f"cv= of instance {instance} is wrong")
    return chain


def seal_digests(message: Message, chain: Sequence[tuple[int, int, int]]) -> list[bytes]:
    """What each seal signs: all sets up to its own, relaxed (RFC 8617 §5.1.1).

    :param chain: indexes of each set's results, message signature and seal.
    """
    fields = message.canonical("relaxed")
    hasher = sha256()
    digests: list[bytes] = []
    for results, signature, seal in chain:
        hasher.update(fields[results] + fields[signature])
        own = hasher.copy()
        own.update(without_signature(fields[seal]).removesuffix(b"\r\n"))
        digests.append(own.digest())
        hasher.update(fields[seal])
    return digests


async def _verify(message: Message, lookup: Lookup, chain: Sequence[ArcSet]) -> int:
    """The oldest instance whose message signature holds, 0 when all hold. :raises Refused:"""
    newest = chain[-1].signature
    if isinstance(newest, Refused):
        raise Refused(f"the newest message signature: {newest}")
    # The newest key first: who invents a chain does not make us ask for a hundred.
    fetched = await fetch_keys(lookup, [(newest.domain, newest.selector)])
    await message.hash_body({newest.need})
    try:
        await message.work(_check_message, message, newest, fetched[newest.domain, newest.selector])
    except Refused as refusal:
        raise Refused(f"the newest message signature: {refusal}") from None
    older = [one.signature for one in chain[:-1] if isinstance(one.signature, Signature)]
    places = [(one.sealed.domain, one.sealed.selector) for one in chain]
    fetched |= await fetch_keys(lookup, places + [(one.domain, one.selector) for one in older])
    await message.hash_body({one.need for one in older})
    await message.work(_check_seals, message, chain, fetched)
    return await message.work(_oldest_pass, message, chain, fetched)


def _check_message(message: Message, signature: Signature, found: Keys) -> None:
    candidates = select_key(found, signature.algorithm)
    if check_body(message, signature):
        raise Refused("l= leaves a part of the body unsigned", "fail")
    check_header(message, signature, candidates)


def _check_seals(message: Message, chain: Sequence[ArcSet], fetched: dict[tuple[str, str], Keys]) -> None:
    digests = seal_digests(message, [(one.results, one.message, one.seal) for one in chain])
    for instance in range(len(chain), 0, -1):
        sealed = chain[instance - 1].sealed
        try:
            candidates = select_key(fetched[sealed.domain, sealed.selector], sealed.algorithm)
        except Refused as refusal:
            raise Refused(f"seal {instance}: {refusal}") from None
        if not any(key.verifies(sealed.signature, digests[instance - 1]) for key in candidates):
            raise Refused(f"seal {instance} does not verify")


def _oldest_pass(message: Message, chain: Sequence[ArcSet], fetched: dict[tuple[str, str], Keys]) -> int:
    for instance in range(len(chain) - 1, 0, -1):
        signature = chain[instance - 1].signature
        try:
            if isinstance(signature, Refused):
                raise signature
            _check_message(message, signature, fetched[signature.domain, signature.selector])
        except Refused:
            return instance + 1
    return 0


def _by_instance(message: Message, name: bytes) -> dict[int, int]:
    places = message.places(name)
    if len(places) > MAX_INSTANCE:
        raise Refused(f"there are more than {MAX_INSTANCE} sets")
    found: dict[int, int] = {}
    for index in places:
        instance = instance_of(message, index)
        if not 1 <= instance <= MAX_INSTANCE:
            raise Refused("an instance is not 1 to 50")
        if instance in found:
            raise Refused("an instance stands twice")
        found[instance] = index
    return found


def instance_of(message: Message, index: int) -> int:
    """:raises Refused: the field has none."""
    read = _results_instance if message.names[index] == RESULTS else _tagged_instance
    return read(message, index)


def _results_instance(message: Message, index: int) -> int:
    found = _RESULTS_INSTANCE.match(message.value(index)[:998])
    if found is None:
        raise Refused("authentication results have no instance")
    return int(found[1])


def _tagged_instance(message: Message, index: int) -> int:
    value = read_signature(message, index).get("i", "")
    try:
        return tags.number(value, 2)
    except tags.TagFault:
        raise Refused("a signature has no instance") from None


def _signature(message: Message, index: int) -> Signature | Refused:
    """Only the newest one's faults decide, so they are kept."""
    try:
        found = read_signature(message, index)
        signature = signature_of(found, index)
        _check_tags(found)
    except Refused as refusal:
        return refusal
    if SEAL in signature.names:  # made after it (RFC 8617 §4.1.2); some sign the results with it
        return Refused("a seal is signed")
    return signature


def _check_tags(found: dict[str, str]) -> None:
    """What signatures and seals share. Values are read with their case (RFC 6376 §3.2), `v=` is
    ignored (RFC 8617 §4.1.2). :raises Refused:"""
    if found["a"] != found["a"].lower():
        raise Refused("a= is unknown")
    if "q" in found and "dns/txt" not in [method.strip() for method in found["q"].split(":")]:
        raise Refused("q= names no method that we know")
    try:
        for tag in found.keys() & {"t", "x"}:
            tags.number(found[tag])
    except tags.TagFault as fault:
        raise Refused(str(fault)) from None


def _seal(message: Message, index: int) -> Seal:
    found = read_signature(message, index)
    missing = [tag for tag in ("a", "b", "cv", "d", "s") if not found.get(tag)]
    if missing:
        raise Refused(f"a seal has no {missing[0]}=")
    if "h" in found:  # RFC 8617 §4.1.3
        raise Refused("a seal has h=")
    _check_tags(found)
    status = found["cv"]
    if status not in {"none", "pass", "fail"}:
        raise Refused("a seal's cv= is unknown")
    domain, selector = place_of(found)
    try:
        return Seal(algorithm_of(found), domain, selector, tags.base64_value(found["b"]), status)
    except tags.TagFault as fault:
        raise Refused(str(fault)) from None


def _first_results(message: Message, first: ArcSet) -> str:
    value = message.value(first.results).decode("ascii", "replace").partition(";")[2]
    return printable(_FOLDS.sub(" ", value).strip(), MAX_RESULTS)
