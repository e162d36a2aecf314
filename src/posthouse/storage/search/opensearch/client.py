"""One request to OpenSearch: bounded in time, tried again where that helps, its failures ours.

Every request that is made through here may be made twice without harm.
"""

from __future__ import annotations

import asyncio
import io
import logging
import random
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec
from opensearchpy import AIOHttpConnection, AsyncOpenSearch
from opensearchpy.exceptions import ConnectionError as NoConnection
from opensearchpy.exceptions import OpenSearchException, TransportError
from opensearchpy.serializer import JSONSerializer

from posthouse import errors
from posthouse.storage.search.base import unavailable
from posthouse.storage.search.opensearch.address import Address

TRIES = 3
_FIRST_PAUSE = 0.2
"""Seconds; doubled each time, of which at least half is waited."""
_CONNECTIONS = 16
_BUSY = frozenset({408, 429, 502, 503, 504})
_OURS = frozenset({400, 404, 409, 413})
"""Answers that tell the caller something; any other is the server's trouble."""
_SHOWN = 300

_encode = msgspec.json.Encoder().encode
# It would write each failure down, with parts of the request; we tell them once, as our own.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)


class Refused(Exception):
    """The server will not do it. `kind`: its name for the reason, as `index_not_found_exception`."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        self.status = status
        self.kind = kind
        self.reason = reason[:_SHOWN]
        super().__init__(f"{status} {kind}: {self.reason}")


class _Json(JSONSerializer):
    def loads(self, s: str) -> Any:
        return msgspec.json.decode(s)

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, (bytes, str)) else _encode(data)


class _Connection(AIOHttpConnection):
    async def perform_request(self, method: str, url: str, *args: Any, body: Any = None, **named: Any) -> Any:
        """A large body as a file, which aiohttp sends in pieces instead of all at once."""
        if args:  # (params, body), as the transport gives them
            params, body, *rest = args
            args = (params, *rest)
            if rest:
                raise TypeError("more positional arguments than known")
            return await super().perform_request(method, url, params, _file(body), **named)
        return await super().perform_request(method, url, body=_file(body), **named)


def _file(body: Any) -> Any:
    return io.BytesIO(body) if isinstance(body, bytes) else body


class Client:
    def __init__(self, address: Address) -> None:
        """Connects with the first request.

        :raises Misconfigured: the file of certificates cannot be read.
        """
        self._client = AsyncOpenSearch(
            hosts=[{"host": address.host, "port": address.port}],
            http_auth=(address.user, address.password) if address.user else None,
            connection_class=_Connection,
            serializer=_Json(),
            max_retries=0,
            maxsize=_CONNECTIONS,
            **_tls(address),
        )

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        seconds: float = 30.0,
        tries: int = TRIES,
    ) -> Any:
        """Its answer, decoded.

        :param seconds: for all tries together.
        :raises Refused: 400, 404, 409 or 413.
        :raises StorageUnavailable: `search_unavailable`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._tried(method, path, body, dict(params or {}), seconds, tries)
        except TimeoutError:
            raise unavailable(f"OpenSearch: no answer in {seconds:g} s") from None

    async def _tried(
        self, method: str, path: str, body: Any, params: dict[str, str], seconds: float, tries: int
    ) -> Any:
        for attempt in range(tries):
            try:
                return await self._client.transport.perform_request(
                    method, path, params=dict(params), body=body, timeout=seconds
                )
            except NoConnection as error:
                failure = unavailable(f"OpenSearch: {_said(error)}")
            except TransportError as error:
                refused = _refused(error)
                if refused.status in _OURS:
                    raise refused from None
                failure = unavailable(f"OpenSearch: {refused}")
                if refused.status not in _BUSY:
                    raise failure from None
            except (OpenSearchException, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise unavailable(f"OpenSearch: {_said(error)}") from None
            if attempt + 1 == tries:
                raise failure
            await pause(attempt)
        raise AssertionError("at least one try")

    async def close(self) -> None:
        await self._client.close()


async def pause(attempt: int) -> None:
    """Longer each time, and not the same for all who wait."""
    await asyncio.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load only


def _tls(address: Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    try:
        context = ssl.create_default_context(cafile=address.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise errors.Misconfigured(
            f"search.url: the certificates in {address.ca} cannot be read", code="search_url", detail=str(error)
        ) from error
    return {"use_ssl": True, "ssl_context": context}


def _refused(error: TransportError) -> Refused:
    status = error.status_code if isinstance(error.status_code, int) else 0
    return Refused(status, str(error.error)[:_SHOWN], _reason(error.info))


def _reason(info: Any) -> str:
    try:
        return str(info["error"]["reason"])
    except (TypeError, KeyError):
        return ""


def _said(error: Exception) -> str:
    """Of a connection's failure the cause alone: the rest is the same for all."""
    cause = error.args[1] if isinstance(error, TransportError) and len(error.args) > 1 else error
    return f"{cause or type(error).__name__}"[:_SHOWN]
