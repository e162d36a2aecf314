"""What a sink has seen."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, field

from posthouse.smtp.reply import Reply


class Counts(Struct):
    """Whole numbers since the start or the last reset; times in seconds since 1970.

    `accepted`: messages answered with 250, `octets` of them, `recipients` of them.
    `refused`: recipients and messages, by reply code. `dropped`: connections that the sink
    cut on purpose. `open`: connections now.
    """

    accepted: int = 0
    recipients: int = 0
    octets: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    dropped: int = 0
    connections: int = 0
    open: int = 0
    tls: int = 0
    first_at: float = 0.0
    last_at: float = 0.0

    def accept(self, recipients: int, octets: int, at: float) -> None:
        self.accepted += 1
        self.recipients += recipients
        self.octets += octets
        self.last_at = at
        if not self.first_at:
            self.first_at = at

    def refuse(self, reply: Reply) -> None:
        self.refused[code_of(reply)] += 1

    @property
    def per_second(self) -> float:
        """Messages a second between the first and the last one accepted."""
        span = self.last_at - self.first_at
        return (self.accepted - 1) / span if self.accepted > 1 and span > 0 else 0.0

    def reset(self) -> None:
        """Start anew; the connections open now stay counted as open."""
        self.accepted = self.recipients = self.octets = self.dropped = self.connections = self.tls = 0
        self.refused = Counter()
        self.first_at = self.last_at = 0.0

    def report(self) -> dict[str, object]:
        """For JSON."""
        return {
            "accepted": self.accepted,
            "recipients": self.recipients,
            "octets": self.octets,
            "refused": dict(sorted(self.refused.items())),
            "refused_total": self.refused.total(),
            "dropped": self.dropped,
            "connections": self.connections,
            "open": self.open,
            "tls": self.tls,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "per_second": round(self.per_second, 1),
        }


def add(parts: list[Counts]) -> Counts:
    """The sum over processes; the span is from the earliest first to the latest last."""
    total = Counts()
    for part in parts:
        total.accepted += part.accepted
        total.recipients += part.recipients
        total.octets += part.octets
        total.refused.update(part.refused)
        total.dropped += part.dropped
        total.connections += part.connections
        total.open += part.open
        total.tls += part.tls
    total.first_at = min((part.first_at for part in parts if part.first_at), default=0.0)
    total.last_at = max((part.last_at for part in parts), default=0.0)
    return total


def code_of(reply: Reply) -> str:
    """`550 5.1.1`"""
    return f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)
