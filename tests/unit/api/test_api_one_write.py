"""Answers in one write, and those that go uvicorn's way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from posthouse.api.server import OneWrite


class _Cycle(SimpleNamespace):
    """What `OneWrite` touches of uvicorn's cycle."""

    def __init__(self, **changed: Any) -> None:
        self.written: list[bytes] = []
        self.sent: list[dict[str, Any]] = []
        self.events: list[str] = []
        values: dict[str, Any] = {
            "keep_alive": True,
            "disconnected": False,
            "response_started": False,
            "response_complete": False,
            "default_headers": [(b"date", b"now")],
            "scope": {"method": "POST"},
            "flow": SimpleNamespace(write_paused=False),
            "transport": SimpleNamespace(write=self.written.append),
            "message_event": SimpleNamespace(set=lambda: self.events.append("set")),
            "on_response": lambda: self.events.append("complete"),
        }
        super().__init__(**(values | changed))

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def _start(status: int = 202, *headers: tuple[bytes, bytes], length: bytes = b"2") -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-length", length), *headers]}


async def _send(cycle: _Cycle, *messages: dict[str, Any]) -> None:
    whole = OneWrite(cast(RequestResponseCycle, cycle))
    for message in messages:
        await whole.send(message)


BODY = {"type": "http.response.body", "body": b"ok"}


async def test_head_and_body_are_one_write() -> None:
    cycle = _Cycle()
    await _send(cycle, _start(), BODY)
    assert cycle.written == [b"HTTP/1.1 202 Accepted\r\ndate: now\r\ncontent-length: 2\r\n\r\nok"]
    assert (cycle.response_started, cycle.response_complete) == (True, True)
    assert cycle.events == ["set", "complete"]
    assert cycle.sent == []


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
async def test_a_header_value_cannot_break_the_line(value: bytes) -> None:
    cycle = _Cycle()
    with pytest.raises(RuntimeError):
        await _send(cycle, _start(202, (b"x-request-id", value)), BODY)
    assert cycle.written == []


@pytest.mark.parametrize(
    ("cycle", "start", "body"),
    [
        (_Cycle(), _start(413), BODY),
        (_Cycle(keep_alive=False), _start(), BODY),
        (_Cycle(disconnected=True), _start(), BODY),
        (_Cycle(scope={"method": "HEAD"}), _start(), BODY),
        (_Cycle(flow=SimpleNamespace(write_paused=True)), _start(), BODY),
        (_Cycle(), _start(length=b"3"), BODY),
        (_Cycle(), _start(), BODY | {"more_body": True}),
    ],
    ids=["error", "closing", "gone", "head", "paused", "length", "more"],
)
async def test_the_rest_goes_the_usual_way(cycle: _Cycle, start: dict[str, Any], body: dict[str, Any]) -> None:
    await _send(cycle, start, body)
    assert cycle.sent == [start, body]
    assert cycle.written == []


async def test_later_parts_of_a_body_follow() -> None:
    cycle = _Cycle()
    first = BODY | {"more_body": True}
    await _send(cycle, _start(length=b"4"), first, BODY)
    assert cycle.sent == [_start(length=b"4"), first, BODY]
