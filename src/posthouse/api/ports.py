"""What the API calls: the services, and the outbound flow's facade as a Protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from posthouse import clock as clocks
from posthouse.accounts.limits import Limiter
from posthouse.accounts.model import Caller
from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.clock import Clock
from posthouse.directory.service import Directory
from posthouse.domains.service import Domains
from posthouse.events.story import Explanation
from posthouse.inbound.importing import Importing
from posthouse.inbound.index import Indexing
from posthouse.inbound.journal import Journal
from posthouse.inbound.upkeep import Upkeep
from posthouse.mailbox.check import Check as Checker
from posthouse.mailbox.reading import Reading
from posthouse.mailbox.service import Mailboxes
from posthouse.outbound.model import (
    Answer,
    EventView,
    FanOutDraft,
    Filter,
    Idempotency,
    ManyDraft,
    MessageDraft,
    MessageView,
    Page,
)
from posthouse.storage.bus.base import Bus
from posthouse.storage.contents import Contents
from posthouse.storage.queue.base import Depth, Queue
from posthouse.storage.records.base import Records
from posthouse.storage.search.base import Search
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates

Check = Callable[[], Awaitable[None]]
"""Raises when a part does not answer."""


@dataclass(frozen=True, slots=True)
class RoleHealth:
    """`status`: ok (there is nothing to hold), idle, working, stuck. `held`: jobs in hand.
    `waited`: seconds that some are held without one being finished."""

    status: str
    held: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """`alive`: false when only a new process helps. `late`: seconds that the loop was late."""

    alive: bool = True
    late: float = 0.0
    roles: Mapping[str, RoleHealth] = field(default_factory=dict[str, RoleHealth])


class Messages(Protocol):
    """`outbound.Outbound`. Each raises the errors tree, with pointers into the body."""

    async def send(self, caller: Caller, draft: MessageDraft, *, idempotency: Idempotency | None) -> Answer: ...

    async def send_many(self, caller: Caller, draft: ManyDraft, *, idempotency: Idempotency | None) -> Answer: ...

    async def send_each(self, caller: Caller, draft: FanOutDraft, *, idempotency: Idempotency | None) -> Answer: ...

    async def list(self, caller: Caller, filter: Filter, /, *, cursor: str | None, limit: int) -> Page: ...  # noqa: A002 the facade's name

    async def get(self, caller: Caller, id: str, /) -> MessageView: ...  # noqa: A002 the facade's name

    async def events(self, caller: Caller, id: str, /) -> list[EventView]: ...  # noqa: A002 the facade's name

    async def explain(self, caller: Caller, id: str, /) -> Explanation: ...  # noqa: A002 the facade's name

    async def content(self, caller: Caller, id: str, /) -> bytes: ...  # noqa: A002 the facade's name

    async def cancel(self, caller: Caller, id: str, /) -> MessageView: ...  # noqa: A002 the facade's name

    async def reschedule(self, caller: Caller, id: str, /, send_at: datetime) -> MessageView: ...  # noqa: A002 the facade's name


@dataclass(frozen=True, slots=True)
class ClusterLane:
    """What a process has in hand of a stage and lane; `progressed_at` (µs): when it finished one last, or held none.
    `patience`: seconds without a finished one after which it is stuck."""

    stage: str
    lane: str
    held: int
    finished: int
    progressed_at: int
    patience: float


@dataclass(frozen=True, slots=True)
class ClusterProcess:
    """`here`: seen within seconds. `late`: seconds by which its loop was late lately."""

    id: str
    host: str
    pid: int
    roles: tuple[str, ...]
    version: str
    started_at: int
    seen_at: int
    here: bool
    late: float
    lanes: tuple[ClusterLane, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterLease:
    """`until` (µs, by the database's clock); `held`: that is still to come."""

    name: str
    holder: str
    fence: int
    until: int
    held: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """`stuck`: sentences about what does not go on."""

    processes: tuple[ClusterProcess, ...]
    depths: tuple[Depth, ...]
    leases: tuple[ClusterLease, ...]
    stuck: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mail:
    """The receiving side."""

    directory: Directory
    mailboxes: Mailboxes
    reading: Reading
    check: Checker
    search: Search
    bus: Bus
    contents: Contents
    indexing: Indexing
    journal: Journal
    importing: Importing
    upkeep: Upkeep


@dataclass(frozen=True, slots=True)
class Services:
    accounts: Accounts
    streams: Streams
    messages: Messages
    templates: Templates
    domains: Domains
    suppressions: Suppressions
    mail: Mail
    records: Records
    queue: Queue
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    """Asked by `/readyz`, by name."""
    clock: Clock = clocks.now
    limiter: Limiter | None = None
    """None: each process limits for itself."""
    health: Callable[[], Health] = Health
    cluster: Callable[[], Awaitable[Cluster]] | None = None
    """None: this process knows of no other."""
