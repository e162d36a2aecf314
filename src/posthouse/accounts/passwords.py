"""Users' passwords: scrypt, with its cost beside the hash so that it can be raised later.

Hashing takes tens of milliseconds and 32 MiB; call it in a thread.
"""

from __future__ import annotations

import base64
import hmac
import os

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_N, _R, _P = 2**15, 8, 1  # RFC 7914 §2; OWASP's minimum of comparable strength
_LENGTH = 32
_MOST_N = 2**20
MAX_LENGTH = 1024
"""Characters; more is refused before any work."""


def hash_password(password: str) -> str:
    """`scrypt$n$r$p$salt$hash`"""
    salt = os.urandom(16)
    return f"scrypt${_N}${_R}${_P}${_text(salt)}${_text(_derive(password, salt, _N, _R, _P))}"


def verify_password(password: str, stored: str) -> bool:
    """False as well for a stored text that is not one of ours."""
    parts = stored.split("$")
    if len(parts) != 6 or parts[0] != "scrypt" or len(password) > MAX_LENGTH:
        return False
    try:
        n, r, p = (int(part) for part in parts[1:4])
        salt, expected = (base64.b64decode(part, validate=True) for part in parts[4:])
        if n > _MOST_N:
            return False
        return hmac.compare_digest(_derive(password, salt, n, r, p), expected)
    except ValueError:
        return False


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=_LENGTH, n=n, r=r, p=p).derive(password.encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
