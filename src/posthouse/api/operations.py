"""The API as data: every operation with what it takes, gives and needs. The router, the
checks at the edge and `/openapi.json` all read the same table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posthouse import errors
from posthouse.accounts.limits import Limiter
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.ports import Services
from posthouse.api.problems import NotAllowed


@dataclass(frozen=True, slots=True)
class Context:
    """What every endpoint is given beside its call."""

    services: Services
    limiter: Limiter


Handler = Callable[[Context, Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    """With parameters in braces, each a whole segment."""
    summary: str
    handler: Handler
    tag: str
    scopes: frozenset[str] | None
    """Any of them will do; empty: any key; None: no key is needed."""
    description: str = ""
    body: Body[Any] | None = None
    query: Query[Any] | None = None
    answer: Any = None
    """The type of the answer's JSON, for the documentation."""
    media: str = "application/json"
    status: int = 200
    once: bool = False
    """A POST that creates: the edge keeps its answer under the `Idempotency-Key`."""
    secret: bool = False
    """Its body may hold a password: what is kept of it under the key cannot be guessed from."""
    idempotent: bool = False
    """It takes an `Idempotency-Key`, and keeps the answer itself."""
    largest: int = 0
    """Octets of its body, where they may be more than of others."""
    limited: bool = False
    """Every answer tells the caller's standing in the rate limit."""
    example: Any = None
    answer_example: Any = None
    problems: tuple[int, ...] = ()
    """Statuses beyond those that follow from the fields above."""


class Router:
    """Exact paths by one look-up; those with parameters by their number of segments."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._exact: dict[str, dict[str, Operation]] = {}
        self._patterns: dict[int, list[tuple[tuple[str, ...], dict[str, Operation]]]] = {}
        for operation in operations:
            methods = self._methods(operation.path)
            if operation.method in methods:
                raise ValueError(f"two operations: {operation.method} {operation.path}")
            methods[operation.method] = operation

    def find(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
        """:raises NotFound: code `path_not_found`. :raises NotAllowed:"""
        methods, parameters = self._exact.get(path), _NONE
        if methods is None:
            methods, parameters = self._match(path)
        operation = methods.get("GET" if method == "HEAD" else method)
        if operation is None:
            allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
            raise NotAllowed(tuple(allowed))
        return operation, parameters

    def _match(self, path: str) -> tuple[dict[str, Operation], Mapping[str, str]]:
        segments = path.split("/")
        for pattern, methods in self._patterns.get(len(segments), ()):
            parameters = _parameters(pattern, segments)
            if parameters is not None:
                return methods, parameters
        raise errors.NotFound("There is nothing at this path", code="path_not_found")

    def _methods(self, path: str) -> dict[str, Operation]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        pattern = tuple(path.split("/"))
        candidates = self._patterns.setdefault(len(pattern), [])
        for other, methods in candidates:
            if other == pattern:
                return methods
        methods = {}
        candidates.append((pattern, methods))
        return methods


_NONE: Mapping[str, str] = {}


def _parameters(pattern: tuple[str, ...], segments: list[str]) -> Mapping[str, str] | None:
    found: dict[str, str] = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            found[part[1:-1]] = segment
        elif part != segment:
            return None
    return found
