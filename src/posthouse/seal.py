"""Secrets at rest: AES-256-GCM under a master key that lies in a file beside the data.

A sealed value is `0x01 ‖ key id (4) ‖ nonce (12) ‖ ciphertext and tag`. What it belongs to
(`dkim_key:<id>`) is authenticated with it, so a value copied into another row does not open.
The file holds one key a line, base64, the current one first; older ones only open. NIST
SP 800-38D §8.3 bounds random nonces to 2³² values a key, which no table of secrets reaches.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from posthouse.errors import Corrupt, Misconfigured

KEY_OCTETS = 32
_VERSION = b"\x01"
_ID = slice(1, 5)
_NONCE = slice(5, 17)
_HEAD = 17


class Seal:
    """Seals with the first key, opens with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """:raises Misconfigured: no key, or one that is not 32 octets."""
        if not keys or any(len(key) != KEY_OCTETS for key in keys):
            raise Misconfigured(f"a master key has {KEY_OCTETS} octets, and one is needed")
        self._keys = tuple(keys)
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._current = _key_id(keys[0])

    def seal(self, secret: bytes, about: str) -> bytes:
        """:param about: what the secret belongs to; the same text opens it."""
        nonce = os.urandom(12)
        return _VERSION + self._current + nonce + self._ciphers[self._current].encrypt(nonce, secret, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """
        :raises Misconfigured: sealed with a key that is not in the file.
        :raises Corrupt: not a sealed value, altered, or of another row.
        """
        if len(sealed) < _HEAD + 16 or sealed[:1] != _VERSION:
            raise Corrupt(detail=f"{about}: not a sealed value")
        cipher = self._ciphers.get(sealed[_ID])
        if cipher is None:
            raise Misconfigured(f"the master key file lacks the key {sealed[_ID].hex()}, which sealed {about}")
        try:
            return cipher.decrypt(sealed[_NONCE], sealed[_HEAD:], about.encode())
        except InvalidTag:
            raise Corrupt(detail=f"{about}: the sealed value was altered or belongs to another row") from None

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Keys of 32 octets for something that is only checked here, one of each master key, the
        current one first."""
        about = b"posthouse derived key\0" + purpose.encode()
        return tuple(hmac.digest(key, about, "sha256") for key in self._keys)

    def is_current(self, sealed: bytes) -> bool:
        """False: sealed with an older key, worth sealing again."""
        return sealed[_ID] == self._current


def _key_id(key: bytes) -> bytes:
    return sha256(b"posthouse master key id\0" + key).digest()[:4]


def load(path: Path) -> Seal:
    """
    :raises Misconfigured: the file is missing, readable by others, or holds no key.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the master key file {path} cannot be read: {error}") from None
    if mode & 0o077:
        raise Misconfigured(f"the master key file {path} can be read by others; run: chmod 600 {path}")
    try:
        return Seal([base64.b64decode(line, validate=True) for line in lines])
    except binascii.Error:
        raise Misconfigured(f"the master key file {path} holds a line that is not base64") from None


def load_or_create(path: Path) -> Seal:
    """Makes the file (0600, fsynced) when there is none. An existing one is never written.

    :raises Misconfigured: as `load`; or the file cannot be made.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return load(path)
    except OSError as error:
        raise Misconfigured(f"the master key file {path} cannot be made: {error}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_OCTETS)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)
    return load(path)


def rotate(path: Path) -> Seal:
    """A new current key; the old ones stay, to open what they sealed. Written beside and renamed.

    :raises Misconfigured: as `load`.
    """
    load(path)
    fresh = base64.b64encode(os.urandom(KEY_OCTETS)).decode()
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{fresh}\n{path.read_text('ascii')}")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_directory(path.parent)
    return load(path)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
