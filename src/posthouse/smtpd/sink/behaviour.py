"""What an address asks the sink to do.

The local part up to a `+` is the order; domain and suffix are free. Unknown words are plain
addresses and are accepted.

    bounce@  bounce-552@  bounce-550-5.7.1@   refused at RCPT (550 5.1.1)
    defer@  defer-2@  defer-450-4.2.0@        451 4.3.0 always, or the first 2 times
    full@                                     452 4.2.2
    greylist@  greylist-30@                   451 4.7.1 until so many seconds after the first try
    slow@  slow-5@  slow-final-5@             waits at RCPT, or before the final reply
    spam@                                     550 5.7.1 after the data
    tls@                                      530 5.7.0 without TLS
    drop@  drop-data@  drop-final@            closes at RCPT, at DATA, before the final reply
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from posthouse.smtp.reply import Reply

Stage = Literal["rcpt", "data", "final"]
Kind = Literal["refuse", "slow", "greylist", "tls", "drop"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """`reply` for the kinds that refuse; `times`: how often, 0 for always; `seconds`: None for
    the sink's usual time."""

    kind: Kind
    stage: Stage = "rcpt"
    reply: Reply | None = None
    times: int = 0
    seconds: float | None = None


def _refuse(code: int, enhanced: str, text: str, stage: Stage = "rcpt") -> Behaviour:
    return Behaviour("refuse", stage, Reply(code, enhanced, (text,)))


_BOUNCE = _refuse(550, "5.1.1", "No such mailbox, as the address asked")
_DEFER = _refuse(451, "4.3.0", "Try again later, as the address asked")
GREYLISTED = Reply(451, "4.7.1", ("Greylisted, try again soon",))
NEEDS_TLS = Reply(530, "5.7.0", ("Must issue a STARTTLS command first",))
_FIXED = {
    "bounce": _BOUNCE,
    "defer": _DEFER,
    "full": _refuse(452, "4.2.2", "Mailbox full, as the address asked"),
    "greylist": Behaviour("greylist"),
    "slow": Behaviour("slow"),
    "slow-final": Behaviour("slow", "final"),
    "spam": _refuse(550, "5.7.1", "Looks like spam, as the address asked", "final"),
    "tls": Behaviour("tls"),
    "drop": Behaviour("drop"),
    "drop-rcpt": Behaviour("drop"),
    "drop-data": Behaviour("drop", "data"),
    "drop-final": Behaviour("drop", "final"),
}
WORDS = ("bounce", "defer", "full", "greylist", "slow", "spam", "tls", "drop")
_CODE = re.compile(r"(bounce|defer)-([45][0-5][0-9])(?:-([45]\.[0-9]{1,3}\.[0-9]{1,3}))?")
_TIMES = re.compile(r"defer-([1-9][0-9]?)")
_SECONDS = re.compile(r"(greylist|slow|slow-final)-([0-9]{1,4}(?:\.[0-9]{1,3})?)")
_MAX_SECONDS = 3600.0


def named(word: str) -> Behaviour | None:
    """The behaviour that a word asks for; None for any other word."""
    word = word.lower()
    if word in _FIXED:
        return _FIXED[word]
    if match := _TIMES.fullmatch(word):
        return Behaviour("refuse", reply=_DEFER.reply, times=int(match[1]))
    if match := _SECONDS.fullmatch(word):
        plain = _FIXED[match[1]]
        return Behaviour(plain.kind, plain.stage, seconds=min(float(match[2]), _MAX_SECONDS))
    if (match := _CODE.fullmatch(word)) and (match[3] is None or match[3][0] == match[2][0]):
        enhanced = match[3] or f"{match[2][0]}.0.0"
        return _refuse(int(match[2]), enhanced, "As the address asked")
    return None


class Behaviours:
    """Addresses to behaviours, with a mix for the plain ones.

    :param mix: `"bounce=2%,defer=5%,slow-1=1%"`. Which address gets which is drawn once and
        for all from the seed and the address, so a run can be repeated; `defer` in a mix
        means the first time only, so that all mail arrives in the end.
    :raises ValueError: the mix cannot be read, or is over 100 %.
    """

    def __init__(self, mix: str = "", seed: int = 0) -> None:
        shares = [_share(part) for part in mix.split(",") if part.strip()]
        self._bounds = list(accumulate(share for _, share in shares))
        self._drawn: list[Behaviour | None] = [*(behaviour for behaviour, _ in shares), None]
        self._seed = zlib.crc32(str(seed).encode())
        self.mixed = bool(shares)
        if self._bounds and self._bounds[-1] > 100.0 + 1e-9:
            raise ValueError("a mix is at most 100 % in all")

    def of(self, address: str) -> Behaviour | None:
        """None: accept."""
        local = address.rpartition("@")[0] or address
        behaviour = named(local.partition("+")[0])
        if behaviour is None and self.mixed:
            return self.draw(address.encode())
        return behaviour

    def draw(self, address: bytes) -> Behaviour | None:
        """From the mix alone."""
        # A CRC is linear, so two seeds would give shifted draws: multiply to break that.
        point = (zlib.crc32(address, self._seed) * 2654435761 + self._seed) % 1_000_003 / 10_000.03
        return self._drawn[bisect(self._bounds, point)]


def _share(part: str) -> tuple[Behaviour, float]:
    word, equals, share = part.strip().partition("=")
    try:
        percent = float(share.removesuffix("%"))
    except ValueError:
        percent = -1.0
    behaviour = named("defer-1" if word == "defer" else word)
    if behaviour is None or not equals or not 0 <= percent <= 100:
        raise ValueError(f"not a share of a mix: {part.strip()!r} (bounce=2%)")
    return behaviour, percent
