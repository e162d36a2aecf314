"""Adding an ARC set to a message that goes on (RFC 8617 §5.1)."""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import sha256

from posthouse.mailauth import arc, dkim
from posthouse.mailauth.message import Message
from posthouse.mailauth.verify import Refused, read_signature

_COLUMNS = 75
# Of ours and of others; Authentication-Results and ARC's own are never signed (RFC 8617 §4.1.2).
_SIGNED = (*dkim.OVERSIGNED, *dkim.SIGNED, b"dkim-signature")
_MESSAGE = (
    b"ARC-Message-Signature: i=%d; a=%s; c=relaxed/relaxed; t=%d;\r\n d=%s;\r\n s=%s;\r\n h=%s;\r\n bh=%s;\r\n b="
)
_SEAL = b"ARC-Seal: i=%d; a=%s; t=%d; cv=%s;\r\n d=%s;\r\n s=%s;\r\n b="


def seal(raw: bytes, signer: dkim.Signer, results: bytes, status: str, at: int) -> bytes:
    """The three fields to put in front of `raw`, which is complete as it will be sent.

    Empty when the chain may not grow: it has 50 sets, or a hop before said that it is broken
    (RFC 8617 §5.1).

    :param results: what we saw: our authserv-id and results, folded, without the last line end
        (`results.payload`).
    :param status: of the chain as it arrived: `Arc.result`.
    :param at: seconds since 1970.
    :raises ValueError: the message has no From, or `status` is pass and there is no such chain.
    """
    message = Message(raw)
    if b"from" not in message.names:
        raise ValueError("a message without From cannot be sealed")
    instance, is_open = _next_instance(message)
    if not is_open:
        return b""
    body = sha256(dkim.canonical_body(memoryview(raw)[message.start :], "relaxed")).digest()
    own_results = b"ARC-Authentication-Results: i=%d; %s\r\n" % (instance, results)
    own_message = _signed(message, signer, instance, at, b2a_base64(body, newline=False))
    chain_status = _status(instance, status)
    open_seal = _SEAL % (
        instance, signer.algorithm.encode(), at, chain_status.encode(),
        signer.domain.encode(), signer.selector.encode(),
    )  # fmt: skip
    with_set = own_results + own_message + open_seal + b"\r\n" + raw[: message.start]
    whole = Message(with_set)
    # A broken chain's seal covers its own set only (RFC 8617 §5.1.2).
    earlier = [] if chain_status == "fail" else _earlier(whole, instance)
    digest = arc.seal_digests(whole, [*earlier, (0, 1, 2)])[-1]
    return open_seal + _folded(signer.sign_digest(digest)) + own_message + own_results


def _status(instance: int, status: str) -> str:
    if status == "fail":
        return "fail"
    return "none" if instance == 1 else "pass" if status == "pass" else "fail"


def _next_instance(message: Message) -> tuple[int, bool]:
    highest, broken = 0, False
    for index in message.places(arc.SEAL):
        try:
            found = read_signature(message, index)
            instance = int(found.get("i", "")[:3])
        except (Refused, ValueError):
            continue
        if instance > highest:
            highest, broken = instance, found.get("cv", "").lower() == "fail"
    return highest + 1, highest < arc.MAX_INSTANCE and not broken


def _earlier(message: Message, instance: int) -> list[tuple[int, int, int]]:
    """The sets that came before; the new one stands first and has no signature yet."""
    by_name = [
        {arc.instance_of(message, index): index for index in message.places(name)}
        for name in (arc.RESULTS, arc.MESSAGE, arc.SEAL)
    ]
    return [(by_name[0][i], by_name[1][i], by_name[2][i]) for i in range(1, instance)]


def _signed(message: Message, signer: dkim.Signer, instance: int, at: int, body_hash: bytes) -> bytes:
    fields = message.canonical("relaxed")
    listed: list[bytes] = []
    covered: list[bytes] = []
    for name in _SIGNED:
        places = message.places(name)
        listed += [name] * (len(places) + (name in dkim.OVERSIGNED))
        covered += [fields[index] for index in reversed(places)]
    own = _MESSAGE % (
        instance, signer.algorithm.encode(), at, signer.domain.encode(), signer.selector.encode(),
        dkim.folded_names(listed), body_hash,
    )  # fmt: skip
    hashed = b"arc-message-signature:" + own.partition(b": ")[2].replace(b"\r\n ", b" ")
    return own + _folded(signer.sign_digest(sha256(b"".join(covered) + hashed).digest()))


def _folded(signature: bytes) -> bytes:
    text = b2a_base64(signature, newline=False)
    return b"\r\n ".join([b"", *[text[i : i + _COLUMNS] for i in range(0, len(text), _COLUMNS)]]) + b"\r\n"
