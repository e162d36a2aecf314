"""What is asked of an installation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from posthouse.errors import Misconfigured

DAY = 86_400.0
BUSY = 2.5
"""The busiest hour's rate by the day's mean, where a workload gives no rate itself."""
LEAST, MOST = 1e-6, 1e15
"""Of what a field may be besides 0: queueing squares and divides."""


def _of(default: float, unit: str, about: str) -> Any:
    return field(default=default, metadata={"unit": unit, "about": about})


@dataclass(frozen=True, slots=True)
class Workload:
    """Every field is a number; `metadata` of a field has its `unit` and what it is `about`."""

    messages_per_day: float = _of(0, "messages", "Mails sent a day, one for each recipient.")
    sustained_per_second: float = _of(
        0, "messages/s", "Rate that lasts; 0: the busiest hour has 2.5 times the day's mean."
    )
    burst_per_second: float = _of(0, "messages/s", "Rate at which a burst is submitted; 0: none.")
    burst_seconds: float = _of(600, "s", "How long the burst lasts.")
    drain_seconds: float = _of(0, "s", "From its beginning until all of it is delivered; 0: half as long again.")
    recipients: float = _of(1, "messages", "Recipients of one request: 1, or up to 10,000 in a batch.")
    body_octets: float = _of(8_000, "bytes", "A mail as it goes over the wire, without attachments.")
    attachment_share: float = _of(0.0, "of mails", "Mails that have an attachment.")
    attachment_octets: float = _of(200_000, "bytes", "Size of an attachment.")
    critical_share: float = _of(0.05, "of mails", "Mails of the lane critical.")
    transactional_share: float = _of(0.35, "of mails", "Mails of the lane transactional; the rest is bulk.")
    received_per_day: float = _of(0, "messages", "Mails received a day.")
    mailboxes: float = _of(0, "accounts", "Accounts that receive.")
    sockets: float = _of(0, "connections", "Open connections that wait for news.")
    retention_days: float = _of(30, "days", "How long the ledger of sent mail is kept.")
    kept_days: float = _of(365, "days", "How long a received mail stays in its mailbox.")

    def __post_init__(self) -> None:
        for one in fields(self):
            if not math.isfinite(value := getattr(self, one.name)) or value < 0:
                raise Misconfigured(f"{one.name}: needs a number that is not negative", code="bad_workload")
            if value and not LEAST <= value <= MOST:
                raise Misconfigured(f"{one.name}: needs 0, or {LEAST:g} to {MOST:g}", code="bad_workload")
        for name in ("attachment_share", "critical_share", "transactional_share"):
            if getattr(self, name) > 1:
                raise Misconfigured(f"{name}: needs a number from 0 to 1", code="bad_workload")
        if self.critical_share + self.transactional_share > 1:
            raise Misconfigured("critical_share and transactional_share are more than all mails", code="bad_workload")
        if self.recipients < 1:
            raise Misconfigured("recipients: needs a number of 1 or more", code="bad_workload")
        if self.burst_per_second and self.burst_per_second < self.steady:
            raise Misconfigured("burst_per_second: is below the sustained rate", code="bad_workload")
        if self.burst_per_second and not self.burst_seconds:
            raise Misconfigured("burst_seconds: a burst lasts longer than nothing", code="bad_workload")
        if 0 < self.drain_seconds < self.burst_seconds:
            raise Misconfigured("drain_seconds: a burst cannot be gone before it has come", code="bad_workload")

    @property
    def steady(self) -> float:
        """Mails sent a second in the busiest hour."""
        return self.sustained_per_second or self.messages_per_day / DAY * BUSY

    @property
    def daily(self) -> float:
        """Mails sent a day: as given, or what the lasting rate and a burst a day come to."""
        if self.messages_per_day:
            return self.messages_per_day
        return self.sustained_per_second * DAY + self.burst_per_second * self.burst_seconds

    @property
    def peak(self) -> float:
        return max(self.steady, self.burst_per_second)

    @property
    def drain(self) -> float:
        """Seconds from the burst's beginning until all of it shall be delivered."""
        return self.drain_seconds or 1.5 * self.burst_seconds

    @property
    def received(self) -> float:
        """Mails received a second in the busiest hour."""
        return self.received_per_day / DAY * BUSY

    @property
    def octets(self) -> float:
        """Of a mail on the wire, in the mean; an attachment is a third larger in base64."""
        return self.body_octets + self.attachment_share * self.attachment_octets * 4 / 3

    def lanes(self) -> dict[str, float]:
        """Shares by lane, the most urgent first."""
        rest = max(0.0, 1 - self.critical_share - self.transactional_share)
        return {"critical": self.critical_share, "transactional": self.transactional_share, "bulk": rest}


EXAMPLES: dict[str, tuple[str, Workload]] = {
    "campaign": (
        "12,000/s sustained, bursts of 165,000/s for ten minutes: a campaign of 100 M in 15 minutes",
        Workload(
            sustained_per_second=12_000,
            burst_per_second=165_000,
            burst_seconds=600,
            drain_seconds=900,
            recipients=1000,
            retention_days=7,
            critical_share=0.01,
            transactional_share=0.06,
        ),
    ),
    "daily": (
        "100 M mails a day, most of them transactional",
        Workload(messages_per_day=100e6, recipients=1, transactional_share=0.75, attachment_share=0.05),
    ),
    "mailboxes": (
        "1 billion mails a day into 500 M mailboxes, with 50 M open connections",
        Workload(received_per_day=1e9, mailboxes=500e6, sockets=50e6, body_octets=20_000, attachment_share=0.1),
    ),
}
"""By name: what it is about, and the workload."""


def described() -> list[Field[float]]:
    return list(fields(Workload))


def workload(given: Mapping[str, object], base: Workload | None = None) -> Workload:
    """
    :param base: what is not given is taken from there.
    :raises Misconfigured: code `bad_workload`: an unknown name, or a value that is no number in its range.
    """
    known = {one.name for one in fields(Workload)}
    values: dict[str, float] = {}
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise Misconfigured(
                f"{name[:60]}: is nothing that a workload has" + (f"; {near[0]}?" if near else ""), code="bad_workload"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Misconfigured(f"{name}: needs a number", code="bad_workload")
        values[name] = float(value)
    before = {one.name: getattr(base, one.name) for one in fields(Workload)} if base else {}
    return Workload(**{**before, **values})
