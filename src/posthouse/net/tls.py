"""TLS for clients: what a route asks for, and the contexts for it. TLS 1.2 is the least."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from posthouse.errors import Misconfigured


class TlsMode(StrEnum):
    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS when it is offered, with any certificate (RFC 7435); plain text when not."""
    REQUIRED = "required"
    """STARTTLS or nothing."""
    IMPLICIT = "implicit"
    """From the first byte (RFC 8314 §3.3, port 465)."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """`verify`: with REQUIRED and IMPLICIT the certificate must be valid for `server_name`
    (the host when None); `ca_file` replaces the system's authorities."""

    mode: TlsMode = TlsMode.OPPORTUNISTIC
    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None

    @property
    def verified(self) -> bool:
        return self.verify and self.mode in {TlsMode.REQUIRED, TlsMode.IMPLICIT}

    def context(self) -> ssl.SSLContext:
        """Made once for each kind. The first verifying one reads the authorities (some 20 ms).

        :raises Misconfigured: `ca_file` cannot be read.
        """
        return _verifying(self.ca_file) if self.verified else _accepting()


@lru_cache(maxsize=64)
def _verifying(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Misconfigured(
            f"The file of certificate authorities cannot be read: {ca_file}", detail=str(error)
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@lru_cache(maxsize=1)
def _accepting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Against the alternative, plain text, small keys are a gain.
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    return context
