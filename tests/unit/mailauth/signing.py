"""Signatures with any tags, right or wrong, for what verifiers must say of them."""

from __future__ import annotations

from base64 import b64encode
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from posthouse.mailauth import dkim
from posthouse.mailauth.digest import body_hashes
from posthouse.mailauth.message import Message
from posthouse.mailauth.verify import Signature, header_digest

DOMAIN = "example.com"
RAW = (
    b"From: Ann <ann@example.com>\r\nTo: bob@example.org\r\nSubject: Hello\r\n there\r\n"
    b"Date: Tue, 01 Jul 2025 09:05:03 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nHi  Bob\t\r\n\r\nAnn \r\n\r\n\r\n"
)
AT = 1_751_360_703


def keys(algorithm: dkim.Algorithm = "rsa-sha256", number: int = 0) -> tuple[dkim.PrivateKey, str]:
    """A private key and its DNS record, always the same; `number` tells several apart."""
    return _keys(algorithm, number)


@cache
def _keys(algorithm: dkim.Algorithm, _number: int) -> tuple[dkim.PrivateKey, str]:
    pem, public = dkim.generate_key(algorithm)
    return dkim.load_private_key(pem), dkim.dns_record(algorithm, public)


@cache
def weak_record() -> str:
    """An RSA key of 768 bits; nobody has its other half."""
    key = rsa.RSAPublicNumbers(65537, (1 << 767) + 1).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return dkim.dns_record("rsa-sha256", b64encode(der).decode())


def signer(algorithm: dkim.Algorithm = "rsa-sha256", domain: str = DOMAIN) -> dkim.Signer:
    return dkim.Signer(domain, algorithm.partition("-")[0], keys(algorithm)[0])


def zone(*domains: str) -> dict[str, dict[str, list[str]]]:
    return {
        f"{algorithm.partition('-')[0]}._domainkey.{domain}": {"TXT": [keys(algorithm)[1]]}
        for domain in domains or (DOMAIN,)
        for algorithm in ("rsa-sha256", "ed25519-sha256")
    }


def craft(
    raw: bytes = RAW, key: dkim.PrivateKey | None = None, *, name: bytes = b"DKIM-Signature", **changes: str | None
) -> bytes:
    """`raw` with a signature in front; a tag of None is left out, `digest` replaces the hash."""
    key = key or keys()[0]
    algorithm = "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256"
    tags: dict[str, str | None] = {
        "v": "1", "a": algorithm, "c": "relaxed/relaxed", "d": DOMAIN, "s": "rsa", "t": str(AT),
        "h": "From:To:Subject:Date:Message-ID",
    }  # fmt: skip
    tags.update(changes)
    header, _, body = (tags["c"] or "simple/simple").partition("/")
    canons: dict[str, dkim.Canon] = {"relaxed": "relaxed", "simple": "simple"}
    canon, body_canon = canons.get(header, "simple"), canons.get(body, "simple")
    digits = tags.get("l") or ""
    length = min(int(digits), 10**6) if digits.isdigit() else None
    tags.setdefault("bh", b64encode(body_hashes(raw, Message(raw).start, body_canon, {length})[0][length]).decode())
    tags.setdefault("b", "")
    field = name + b": " + "; ".join(f"{k}={v}" for k, v in tags.items() if v is not None).encode()
    message = Message(field + b"\r\n" + raw)
    names = tuple(part.strip().lower().encode() for part in (tags["h"] or "").split(":"))
    digest = header_digest(message, Signature(0, "", "", "", b"", b"", canon, body_canon, names, None, {}))
    signature = dkim.Signer(DOMAIN, "s", key).sign_digest(digest)
    return field.replace(b" b=", b" b=" + b64encode(signature)) + b"\r\n" + raw
