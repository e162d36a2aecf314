"""A request and a reply as the endpoints see them, and the bounded reading of a body."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from types import coroutine
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from posthouse import errors
from posthouse.accounts import idempotency
from posthouse.accounts.limits import Standing
from posthouse.accounts.model import Caller
from posthouse.errors import Fault
from posthouse.outbound import reading
from posthouse.outbound.model import Idempotency

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[bytes, bytes]

JSON = b"application/json"
_MOST_PARAMETERS = 32
_HASH_IN_THREAD = 1 << 20  # octets


class ClientGone(Exception):
    """The client closed before its request was complete; nobody is there to answer."""


class UnsupportedMedia(errors.Malformed):
    code = "unsupported_media_type"
    status = 415
    title = "The body has to be application/json"


class TooSlow(errors.Malformed):
    code = "request_timeout"
    status = 408
    title = "The request did not arrive in time"


class Body(Generic[T]):
    """The type of a JSON body with its decoder, made once."""

    def __init__(self, kind: type[T], *, nul: bool = False, documented: tuple[type, ...] = ()) -> None:
        """
        :param nul: let NUL through, where parts are kept raw for a later reader.
        :param documented: the types to show instead, any of which will do.
        """
        self.kind = kind
        self.documented: tuple[type, ...] = documented or (kind,)
        self._decoder = msgspec.json.Decoder(kind)
        self._nul = nul

    def read(self, data: bytes) -> T:
        return reading.read(self._decoder, data, nul=self._nul)


class Query(Generic[T]):
    """The type of a query string: a Struct of strings, numbers and times; each at most once."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def read(self, text: bytes) -> T:
        """:raises Invalid: its faults point at `?name`."""
        values = _parameters(text)
        try:
            return msgspec.convert(values, self.kind, strict=False)
        except msgspec.ValidationError as error:
            found = reading.invalid(error)
            faults = tuple(Fault("?" + fault.pointer.lstrip("/"), fault.message) for fault in found.faults)
            raise errors.Invalid("A query parameter is not valid", faults=faults) from None


def refuse_parameters(text: bytes) -> None:
    """For an operation that has none."""
    for name in _parameters(text):
        raise _parameter(name, "This parameter is unknown")


def _parameters(text: bytes) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict"
        )
    except ValueError:
        raise errors.Malformed("The query string could not be read", code="malformed_query") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise _parameter(name, "This parameter is given twice")
        if "\r" in value or "\n" in value or "\x00" in value:
            raise _parameter(name, "This may not contain a line break or NUL")
        values[name] = value
    return values


def _parameter(name: str, message: str) -> errors.Invalid:
    return errors.Invalid(
        "A query parameter is not valid", faults=(Fault("?" + name[:100].replace("\x00", "�"), message),)
    )


class Call:
    """One request, as an endpoint sees it. `caller` is set where the operation needs a key."""

    __slots__ = ("_caller", "data", "headers", "operation_id", "path", "query_string", "standing")

    def __init__(self, operation_id: str, path: Mapping[str, str], headers: Headers, query_string: bytes) -> None:
        self.operation_id = operation_id
        self.path = path
        """The values of the path's parameters."""
        self.headers = headers
        self.query_string = query_string
        self.data = b""
        self.standing: Standing | None = None
        """Set by what took from the caller's rate."""
        self._caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        assert self._caller is not None
        return self._caller

    @caller.setter
    def caller(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def known_caller(self) -> Caller | None:
        return self._caller

    async def idempotency(self, *, slow: bool = False) -> Idempotency | None:
        """The key of `Idempotency-Key`, with a hash of what it is used for.

        :param slow: a hash that costs too much to guess from.
        :raises Invalid: code `idempotency_key_invalid`.
        """
        header = self.headers.get(b"idempotency-key")
        if header is None:
            return None
        key = idempotency.check_key(header.decode("latin-1"))
        prefix = "\0".join((self.operation_id, *self.path.values(), "")).encode()
        if slow:
            return Idempotency(key, await asyncio.to_thread(_slow_hash, key, prefix, self.data))
        if len(self.data) < _HASH_IN_THREAD:
            return Idempotency(key, hashlib.sha256(prefix + self.data).hexdigest())
        return Idempotency(key, await asyncio.to_thread(_hash, prefix, self.data))


def _hash(prefix: bytes, data: bytes) -> str:
    hasher = hashlib.sha256(prefix)
    hasher.update(data)
    return hasher.hexdigest()


def _slow_hash(key: str, prefix: bytes, data: bytes) -> str:
    """scrypt with 16 MB, as passwords are kept."""
    salt = hashlib.sha256(key.encode()).digest()
    return hashlib.scrypt(hashlib.sha256(prefix + data).digest(), salt=salt, n=1 << 14, r=8, p=1, dklen=32).hex()


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    keep: bytes | None = None
    """Stands for the body on a replay, where the body holds a secret."""


async def read_body(receive: Receive, headers: Headers, *, limit: int, seconds: float) -> bytes:
    """The whole body, bounded in octets and in time, whatever its Content-Length says.

    :raises UnsupportedMedia: not JSON, or compressed.
    :raises TooLarge: over `limit`; up to twice as much is read away first, so that the client is
        done writing and reads the answer.
    :raises TooSlow:
    :raises ClientGone:
    """
    kind = headers.get(b"content-type")
    if kind != JSON:
        _check_kind(kind, headers)
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        raise UnsupportedMedia("A compressed body is not accepted")
    declared = headers.get(b"content-length", b"0")
    if len(declared) > 18 or int(declared) > limit:
        if b"expect" not in headers:
            await _drain(receive, 2 * limit)
        raise _too_large(limit)
    reading_it = _read(receive, limit)
    try:
        awaited = reading_it.send(None)
    except StopIteration as done:  # all of it was here: no timer for the usual request
        return cast("bytes", done.value)
    try:
        async with asyncio.timeout(seconds):
            return await _resume(reading_it, awaited)
    except TimeoutError:
        raise TooSlow(f"The whole request has to arrive within {seconds:g} s") from None


@coroutine
def _resume(started: Coroutine[Any, Any, bytes], awaited: Any) -> Generator[Any, Any, bytes]:
    """Awaits what has run up to `awaited` already."""
    while True:
        try:
            sent = yield awaited
        except BaseException as error:
            step = partial(started.throw, error)
        else:
            step = partial(started.send, sent)
        try:
            awaited = step()
        except StopIteration as done:
            return cast("bytes", done.value)


async def _read(receive: Receive, limit: int) -> bytes:
    event = await receive()
    if event["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = event.get("body", b"")
    if not event.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    parts = [body]
    size = len(body)
    while event.get("more_body", False):
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        body = event.get("body", b"")
        size += len(body)
        if size > limit:
            parts.clear()
            await _drain(receive, limit)
            raise _too_large(limit)
        parts.append(body)
    return b"".join(parts)


async def _drain(receive: Receive, most: int, seconds: float = 2.0) -> None:
    """Read away up to `most` octets."""
    try:
        async with asyncio.timeout(seconds):
            while most > 0:
                event = await receive()
                if not event.get("more_body", False):
                    return
                most -= len(event.get("body", b""))
    except TimeoutError:
        return


def _check_kind(kind: bytes | None, headers: Headers) -> None:
    if kind is None and headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
        return  # An empty body has no type; that it is empty is for the decoder to say.
    parts = [part.strip().lower() for part in (kind or b"").split(b";")]
    if parts[0] != JSON or any(p.startswith(b"charset=") and p.strip(b'"')[8:].strip(b'"') != b"utf-8" for p in parts):
        raise UnsupportedMedia


def _too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"A request body has at most {limit} octets", code="body_too_large")
