"""ARC chains made from tags, right or wrong, each signed as it stands: only what a case changes can
be what is wrong with it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from posthouse.mailauth import arc, dkim
from posthouse.mailauth.digest import body_hashes
from posthouse.mailauth.message import Message
from posthouse.mailauth.verify import Signature, header_digest

from .signing import AT, RAW, keys

DOMAIN = "example.org"
Tags = Mapping[str, str | None]
"""Changes: a tag's value, None for none of it. `+text` is put in front of the tags as it is."""
_RESULTS = "i={}; mx.example.org; spf=pass smtp.mailfrom=example.com; dkim=none"
_CANONS: dict[str, dkim.Canon] = {"simple": "simple", "relaxed": "relaxed"}


def chain(
    hops: int = 1,
    *,
    ams: Mapping[int, Tags] | None = None,
    seal: Mapping[int, Tags] | None = None,
    results: Mapping[int, str] | None = None,
    raw: bytes = RAW,
) -> bytes:
    """:param ams, seal, results: what differs, by instance; of results the whole value."""
    places: list[tuple[int, int, int]] = []
    for hop in range(1, hops + 1):
        value = (results or {}).get(hop, _RESULTS.format(hop))
        raw = f"ARC-Authentication-Results: {value}\r\n".encode() + raw
        raw = _message_signature(raw, hop, (ams or {}).get(hop, {}))
        places = [(a + 3, b + 3, c + 3) for a, b, c in places]
        raw = _seal(raw, hop, (seal or {}).get(hop, {}), places)
        places.append((2, 1, 0))
    return raw


def _message_signature(raw: bytes, hop: int, changes: Tags) -> bytes:
    tags: dict[str, str | None] = {
        "i": str(hop), "a": "rsa-sha256", "c": "relaxed/relaxed", "d": DOMAIN, "s": "rsa", "t": str(AT),
        "h": "from:to:subject:date", "bh": None,
    }  # fmt: skip
    canon, _, body = (changes.get("c", tags["c"]) or "relaxed/relaxed").partition("/")
    body_canon = _CANONS.get(body, "simple")
    hashed = body_hashes(raw, Message(raw).start, body_canon, {None})[0][None]
    tags["bh"] = b64encode(hashed).decode()
    field = _field("ARC-Message-Signature", tags, changes)
    message = Message(field + b"\r\n" + raw)
    names = tuple(part.strip().lower().encode() for part in (changes.get("h", tags["h"]) or "").split(":"))
    signed = Signature(0, "", "", "", b"", b"", _CANONS.get(canon, "simple"), body_canon, names, None, {})
    return _signed(field, header_digest(message, signed)) + raw


def _seal(raw: bytes, hop: int, changes: Tags, places: Sequence[tuple[int, int, int]]) -> bytes:
    tags: dict[str, str | None] = {
        "i": str(hop), "a": "rsa-sha256", "cv": "none" if hop == 1 else "pass", "d": DOMAIN, "s": "rsa", "t": str(AT),
    }  # fmt: skip
    field = _field("ARC-Seal", tags, changes)
    message = Message(field + b"\r\n" + raw)
    return _signed(field, arc.seal_digests(message, [*places, (2, 1, 0)])[-1]) + raw


def _field(name: str, tags: dict[str, str | None], changes: Tags) -> bytes:
    extra = "".join(one.removeprefix("+") for one in changes if one.startswith("+"))
    whole = tags | {tag: value for tag, value in changes.items() if not tag.startswith("+")} | {"b": ""}
    return f"{name}: {extra}{'; '.join(f'{tag}={value}' for tag, value in whole.items() if value is not None)}".encode()


def _signed(field: bytes, digest: bytes) -> bytes:
    signature = b64encode(dkim.Signer(DOMAIN, "rsa", keys()[0]).sign_digest(digest))
    head, found, tail = field.rpartition(b"; b=")
    assert found
    return head + found + signature + tail + b"\r\n"
