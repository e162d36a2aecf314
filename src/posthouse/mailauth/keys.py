"""Public keys from DNS: `selector._domainkey.domain` (RFC 6376 §3.6, RFC 8463 §4, RFC 8301)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from posthouse.mailauth import tags
from posthouse.mailauth.lookup import Lookup

MIN_RSA_BITS = 1024  # RFC 8301 §3.2
MAX_RSA_BITS = 8192  # what a verification may cost
MAX_RECORD = 4096  # octets
MAX_RECORDS = 4  # of one name that are tried (RFC 6376 §6.1.2)

_PKCS1 = PKCS1v15()
_PREHASHED = Prehashed(SHA256())


@dataclass(frozen=True, slots=True)
class PublicKey:
    key: RSAPublicKey | Ed25519PublicKey
    bits: int
    testing: bool = False
    """`t=y`"""
    strict: bool = False
    """`t=s`: `i=` names no subdomain."""

    @property
    def kind(self) -> str:
        return "rsa" if isinstance(self.key, RSAPublicKey) else "ed25519"

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """:param digest: SHA-256 of what was signed; Ed25519 signs the digest (RFC 8463 §3)."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PKCS1, _PREHASHED)
            else:
                self.key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeyFault:
    """Why there is no key. `weak`: there is one, too small to be believed."""

    reason: str
    weak: bool = False


async def fetch(lookup: Lookup, domain: str, selector: str) -> list[PublicKey | KeyFault]:
    """What is published, in the answer's order, at least one entry.

    :param domain: and `selector`: normal names.
    :raises DnsUnavailable:
    """
    answer = await lookup.txt(f"{selector}._domainkey.{domain}")
    if not answer.records:
        return [KeyFault("there is no key")]
    return [parse_key(record) for record in answer.records[:MAX_RECORDS]]


@lru_cache(maxsize=2048)
def parse_key(record: bytes) -> PublicKey | KeyFault:
    """A key record's text."""
    if len(record) > MAX_RECORD:
        return KeyFault("the key record is too long")
    try:
        found = tags.parse(record.decode())
        problem = _unfit(found)
        return problem or _read(found)
    except (tags.TagFault, UnicodeDecodeError):
        return KeyFault("the key record is malformed")


def _unfit(found: dict[str, str]) -> KeyFault | None:
    if found.get("v", "DKIM1") != "DKIM1" or ("v" in found and next(iter(found)) != "v"):
        return KeyFault("the key record has another version")
    if "p" not in found:
        return KeyFault("the key record has no key")
    if not tags.without_folds(found["p"]):
        return KeyFault("the key is revoked")
    hashes = _list(found.get("h", "sha256"))
    if "sha256" not in hashes:
        return KeyFault("the key is not for sha256")
    if not {"*", "email"} & set(_list(found.get("s", "*"))):
        return KeyFault("the key is not for mail")
    return None


def _read(found: dict[str, str]) -> PublicKey | KeyFault:
    kind, data = found.get("k", "rsa"), tags.base64_value(found["p"])
    if kind not in {"rsa", "ed25519"}:
        return KeyFault("the key's type is unknown")
    try:
        key = load_der_public_key(data) if kind == "rsa" else Ed25519PublicKey.from_public_bytes(data)
    except (ValueError, UnsupportedAlgorithm):
        return KeyFault(f"the key is no {kind} key")
    flags = _list(found.get("t", ""))
    testing, strict = "y" in flags, "s" in flags
    if isinstance(key, RSAPublicKey):
        return _bounded(key) or PublicKey(key, key.key_size, testing, strict)
    if kind == "rsa" or not isinstance(key, Ed25519PublicKey):
        return KeyFault(f"the key is no {kind} key")
    return PublicKey(key, 256, testing, strict)


def _bounded(key: RSAPublicKey) -> KeyFault | None:
    if key.key_size < MIN_RSA_BITS:
        return KeyFault(f"the RSA key has only {key.key_size} bits", weak=True)
    return KeyFault("the RSA key is too large") if key.key_size > MAX_RSA_BITS else None


def _list(value: str) -> list[str]:
    return [part.strip(" \t\r\n") for part in value.split(":")]
