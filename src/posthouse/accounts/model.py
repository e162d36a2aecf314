"""The accounts' frozen types. Times are microseconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from posthouse.errors import Forbidden
from posthouse.storage.queue.base import Lane


class Scope(StrEnum):
    """What an API key may do. Each stands alone; `operator` reaches over tenants."""

    SEND = "send"
    READ = "read"
    TEMPLATES = "templates"
    DOMAINS = "domains"
    SUPPRESSIONS = "suppressions"
    STREAMS = "streams"
    KEYS = "keys"
    MAIL = "mail"
    """Accounts, their mailboxes and what lies in them."""
    OPERATOR = "operator"


ALL_SCOPES = frozenset(Scope)
TENANT_SCOPES = ALL_SCOPES - {Scope.OPERATOR}


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's bounds, in messages."""

    rate_per_second: int = 1000
    burst: int = 10_000
    daily_quota: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str
    created_at: int
    suspended_at: int | None
    limits: Limits


Role = Literal["owner", "admin", "member", "viewer"]


@dataclass(frozen=True, slots=True)
class User:
    id: str
    tenant_id: str
    email: str
    name: str
    role: Role
    created_at: int
    has_password: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Without its secret, which nobody can read again; `hint` is its last four characters."""

    id: str
    tenant_id: str
    name: str
    hint: str
    scopes: frozenset[str]
    domain: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as every service above takes it."""

    tenant: Tenant
    key_id: str
    scopes: frozenset[str]
    domain: str | None = None
    """Set: the key may send from this domain only."""

    @property
    def operator(self) -> bool:
        return Scope.OPERATOR in self.scopes

    def need(self, *scopes: str) -> None:
        """Any of `scopes` will do.

        :raises Forbidden: code `scope_missing`.
        """
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(f"`{scope}`" for scope in scopes)
            raise Forbidden(f"This key lacks the scope {wanted}", code="scope_missing")


StreamKind = Literal["transactional", "broadcast"]


@dataclass(frozen=True, slots=True)
class Stream:
    """`max_age` in seconds: after that long without delivery a message bounces."""

    id: str
    tenant_id: str
    name: str
    kind: StreamKind
    lane: Lane
    max_age: int
    created_at: int
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
