"""The certificate that STARTTLS shows, read again when its files change."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import structlog

from posthouse.errors import Misconfigured

log = structlog.get_logger("gateway")

_LOOK_EVERY = 1.0  # seconds
Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """:param certificate: PEM with the chain. :param key: PEM; None when it is in the same file.

    :raises Misconfigured: they cannot be read or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key or certificate
        try:
            self._stamp = self._now()
            self._context = self._load()
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise Misconfigured(f"The certificate cannot be used: {certificate}", detail=str(error)) from error
        self._looked = time.monotonic()

    def context(self) -> ssl.SSLContext:
        """The newest good one: files that are half written or wrong leave the last one at work."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._look()
        return self._context

    def _look(self) -> None:
        try:
            stamp = self._now()
            if stamp == self._stamp:
                return
            self._context = self._load()
            self._stamp = stamp
            log.info("gateway.certificate_read")
        except (OSError, ValueError) as error:
            log.warning("gateway.certificate_unusable", error=type(error).__name__)

    def _now(self) -> Stamp:
        states = [path.stat() for path in (self._certificate, self._key)]
        return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # instead of asking on the terminal
