"""How a sink is set up. Picklable, so that several processes can share one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from posthouse.smtp.offer import EXTENSIONS, Limits, Offer

KeepAs = Literal["eml", "mbox", "maildir"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`port` 0 picks a free one. `off` names extensions of `EXTENSIONS`. `mix` is like
    `"bounce=2%,defer=5%"`, drawn by address from `seed`. `latency` in seconds, before each
    reply. `greylist` and `slow`: seconds when the address does not say. `keep` is a directory
    (or the mbox file); `log` a file that lines are appended to. `memory`: messages kept in
    `Sink.messages`, the newest, at most `memory_octets` together. `keep_every` N keeps each
    N-th message only (not those in memory).

    `check`: plain messages on the fast path are searched for bare CR, bare LF, NUL and long
    lines too (6 µs for 8 KB). The others always are. Without it `octets` count stuffed dots.
    """

    host: str = "127.0.0.1"
    port: int = 0
    hostname: str = "sink.localhost"
    tls: bool = True
    lmtp: bool = False
    off: frozenset[str] = frozenset()
    mix: str = ""
    seed: int = 0
    latency: float = 0.0
    check: bool = True
    greylist: float = 1.0
    slow: float = 2.0
    keep: Path | None = None
    keep_as: KeepAs = "eml"
    keep_every: int = 1
    log: Path | None = None
    memory: int = 1000
    memory_octets: int = 64 * 1024 * 1024
    reuse_port: bool = False
    limits: Limits = field(default_factory=lambda: Limits(errors=100, idle=1000, refusals=10_000))

    def offer(self) -> Offer:
        """:raises ValueError: `off` names something else than an extension."""
        unknown = self.off - set(EXTENSIONS)
        if unknown:
            raise ValueError(f"not an extension: {', '.join(sorted(unknown))}")
        return Offer(self.hostname, starttls=self.tls, lmtp=self.lmtp, **dict.fromkeys(self.off, False))  # pyright: ignore[reportArgumentType] - only flags are in EXTENSIONS
