"""Errors as RFC 9457 problems. `type` is stable: `/problems/` and the error's code."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from posthouse import errors
from posthouse.api.http import Reply

PROBLEM = b"application/problem+json"
_DEFAULT_RETRY = 2.0
_MOST_FAULTS = 100


class NotAllowed(errors.Malformed):
    code = "method_not_allowed"
    status = 405
    title = "This resource does not have that method"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This resource has {', '.join(allowed)}")
        self.allowed = allowed


class FaultView(msgspec.Struct, frozen=True):
    pointer: Annotated[str, Meta(description="RFC 6901 pointer into the body, or `?name` of a query parameter")]
    message: Annotated[str, Meta(description="What is wrong there")]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem."""

    type: Annotated[str, Meta(description="Stable: `/problems/` and the code")]
    title: Annotated[str, Meta(description="The kind of problem, in words")]
    status: Annotated[int, Meta(description="The HTTP status again")]
    detail: Annotated[str, Meta(description="What went wrong this time")]
    code: Annotated[str, Meta(description="Stable, for programs")]
    errors: Annotated[list[FaultView], Meta(description="The places in the request that are wrong")] = []
    instance: Annotated[str, Meta(description="The path that was asked")] = ""
    request_id: Annotated[str, Meta(description="As in `X-Request-Id`; tell it when you ask for help")] = ""


_encode = msgspec.json.Encoder().encode


def problem(error: errors.Error, *, path: str = "", request_id: str = "") -> Problem:
    """`detail` of the error stays inside; only its public text goes out."""
    return Problem(
        type=f"/problems/{error.code}",
        title=type(error).title,
        status=error.status,
        detail=error.public,
        code=error.code,
        errors=[FaultView(fault.pointer, fault.message) for fault in error.faults[:_MOST_FAULTS]],
        instance=path[:500],
        request_id=request_id,
    )


def reply(error: errors.Error, *, path: str = "", request_id: str = "") -> Reply:
    headers: list[tuple[bytes, bytes]] = []
    wait = error.retry_after
    if wait is None and error.status == 503:
        wait = _DEFAULT_RETRY
    if wait is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(wait))).encode()))
    if isinstance(error, errors.Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="posthouse"'))
    if isinstance(error, NotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    body = _encode(problem(error, path=path, request_id=request_id))
    return Reply(error.status, body, PROBLEM, tuple(headers))
