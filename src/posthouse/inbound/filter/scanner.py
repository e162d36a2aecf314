"""Programs that are asked about a message: ClamAV's daemon; `hook.py` has what answers HTTP."""

from __future__ import annotations

from typing import Protocol

import msgspec

from posthouse.errors import TooLarge, Unavailable
from posthouse.net.clamd import Clamd


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A scanner's word. `unscanned`: why there is none; `holds`: Junk whatever the score is."""

    scanner: str
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    junk: bool = False
    virus: str | None = None
    unscanned: str | None = None
    required: bool = False

    @property
    def holds(self) -> bool:
        return self.junk or self.virus is not None or (self.required and self.unscanned is not None)


class Scanner(Protocol):
    async def scan(self, message: bytes) -> Finding:
        """In bounded time.

        :raises Unavailable: it does not answer and mail may not pass without it.
        """
        ...


class ClamdScanner:
    """:param required: raise while the daemon cannot be asked. A message larger than it takes
    would wait for ever: that one goes to Junk, with the reason."""

    def __init__(self, clamd: Clamd, *, required: bool = False) -> None:
        self._clamd = clamd
        self._required = required

    async def scan(self, message: bytes) -> Finding:
        try:
            virus = await self._clamd.scan(message)
        except TooLarge as error:
            return Finding("clamd", unscanned=error.public, required=self._required)
        except Unavailable as error:
            if self._required:
                raise
            return Finding("clamd", unscanned=error.public)
        return Finding("clamd", virus=virus)
