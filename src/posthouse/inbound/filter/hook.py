"""A scanner that answers HTTP. Apart from the others: its client takes a tenth of a second to import."""

from __future__ import annotations

from typing import Annotated, Final

import httpx
import msgspec

from posthouse.errors import Unavailable
from posthouse.inbound.filter.scanner import Finding
from posthouse.net.gate import Gate

MOST_ANSWER: Final = 65_536
"""Octets of a scanner's answer."""

_Sentence = Annotated[str, msgspec.Meta(max_length=1000)]


class _Answer(msgspec.Struct, frozen=True):
    score: float = 0.0
    reasons: list[_Sentence] = []
    junk: bool = False


class HttpScanner:
    """Posts the raw message (`message/rfc822`) to a URL; the answer is JSON,
    `{"score": 2.5, "reasons": ["…"], "junk": false}`, each of them optional.

    The operator names the URL, so it may lie in a private network. No redirect is followed and
    no proxy of the environment is used.

    :param timeout: seconds for the whole exchange.
    :param most: octets of the largest message that is sent; larger ones count as unscanned.
    """

    def __init__(
        self, url: str, *, timeout: float = 10.0, most: int = 40_000_000, connections: int = 8, required: bool = False
    ) -> None:
        self._url = url
        self._most = most
        self._required = required
        self._gate = Gate(connections, timeout)
        self._client = httpx.AsyncClient(
            timeout=timeout, trust_env=False, follow_redirects=False, limits=httpx.Limits(max_connections=connections)
        )

    async def scan(self, message: bytes) -> Finding:
        if len(message) > self._most:
            return Finding("hook", unscanned="it is larger than the scanner takes", required=self._required)
        try:
            answer = await self._gate.run(lambda: self._ask(message))
        except Unavailable as error:
            if self._required:
                raise
            return Finding("hook", unscanned=error.public)
        return Finding("hook", score=answer.score, reasons=tuple(answer.reasons), junk=answer.junk)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, message: bytes) -> _Answer:
        headers = {"Content-Type": "message/rfc822", "Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        try:
            async with self._client.stream("POST", self._url, content=message, headers=headers) as response:
                if response.status_code != 200:
                    raise Unavailable(f"it answered with status {response.status_code}")
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MOST_ANSWER:
                        raise Unavailable("its answer is too long")
            return msgspec.json.decode(bytes(body), type=_Answer)
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}"[:300]) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unavailable("its answer is not the JSON that is asked for", detail=str(error)[:300]) from error
