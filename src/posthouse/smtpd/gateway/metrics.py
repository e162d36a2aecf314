"""What a gateway counts, for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

CONNECTIONS = Counter(
    "posthouse_gateway_connections_total",
    "Connections by outcome: accepted, full, network (too many from one), proxy (bad header), early (talked first).",
    ["listener", "outcome"],
)
OPEN = Gauge("posthouse_gateway_sessions", "Sessions open now.", ["listener"])
ENDED = Counter(
    "posthouse_gateway_sessions_ended_total",
    "Sessions that we ended: idle, slow, old, choked, stopping.",
    ["listener", "reason"],
)
MESSAGES = Counter(
    "posthouse_gateway_messages_total",
    "Messages that came whole, by outcome: accepted, deferred, refused; lost when no answer could be given.",
    ["listener", "outcome"],
)
OCTETS = Counter("posthouse_gateway_octets_total", "Octets of messages that came whole.", ["listener"])
TLS = Counter("posthouse_gateway_tls_total", "TLS handshakes, by version; failed for those that were.", ["version"])
SECONDS = Histogram(
    "posthouse_gateway_end_seconds",
    "From a whole message to its outcome.",
    ["listener"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0),
)
SPOOLED = Counter("posthouse_gateway_spooled_total", "Bodies that went to a file.")
NO_ROOM = Counter("posthouse_gateway_no_room_total", "Transactions answered 452 4.3.1.", ["reason"])


@dataclass(frozen=True, slots=True)
class Meters:
    """The children of one kind of listener, looked up once."""

    accepted: Counter
    deferred: Counter
    refused: Counter
    lost: Counter
    octets: Counter
    seconds: Histogram
    open: Gauge

    @classmethod
    def of(cls, kind: str) -> Meters:
        by_outcome = {name: MESSAGES.labels(kind, name) for name in ("accepted", "deferred", "refused", "lost")}
        return cls(**by_outcome, octets=OCTETS.labels(kind), seconds=SECONDS.labels(kind), open=OPEN.labels(kind))
