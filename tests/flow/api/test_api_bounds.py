"""What is too large, too slow, garbled or hostile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from running import Running

from posthouse.api.app import OPERATIONS
from posthouse.api.edge import Options
from posthouse.api.operations import Operation
from posthouse.api.server import MAX_HEAD, BoundedProtocol

LIMIT = 200_000
MESSAGE: dict[str, Any] = {"from": "a@example.com", "to": ["b@example.org"], "subject": "s", "text": "t"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with tight bounds."""
    options = Options(max_body=LIMIT, body_seconds=0.5)
    patch = pytest.MonkeyPatch()
    patch.setattr(BoundedProtocol, "head_seconds", 0.4)
    with Running(tmp_path_factory.mktemp("small"), options) as running:
        yield running
    patch.undo()


def _talk(api: Running, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Write the pieces, then read to the end."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as peer:
        for piece in pieces:
            try:
                peer.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(pause)
        answer = b""
        while piece := peer.recv(65536):
            answer += piece
        return answer


def _head(api: Running, *fields: str, path: str = "/v1/messages") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {api.alice_key}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


JSON = "Content-Type: application/json"
CLOSE = "Connection: close"


def _filled(size: int) -> bytes:
    empty = json.dumps(MESSAGE | {"text": ""}).encode()
    return json.dumps(MESSAGE | {"text": "x" * (size - len(empty))}).encode()


def test_a_body_at_the_limit_is_taken_and_one_octet_more_is_not(small: Running) -> None:
    headers = {"Content-Type": "application/json"}
    for size, status in ((LIMIT, 202), (LIMIT + 1, 413), (10 * LIMIT, 413)):
        reply = small.alice.post("/v1/messages", content=_filled(size), headers=headers)
        assert reply.status_code == status
    assert reply.json()["code"] == "body_too_large"


def test_a_body_without_a_length_is_bounded_while_it_is_read(small: Running) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    reply = small.alice.post("/v1/messages", content=pieces(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 413
    good = iter([_filled(1000)])
    assert (
        small.alice.post("/v1/messages", content=good, headers={"Content-Type": "application/json"}).status_code == 202
    )


def test_an_endless_body_is_cut_off(small: Running) -> None:
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    answer = _talk(small, _head(small, JSON, "Transfer-Encoding: chunked"), *[chunk] * 500)
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", ["999999999999", "9" * 300])
def test_a_huge_declared_length_is_refused_without_reading(small: Running, length: str) -> None:
    answer = _talk(small, _head(small, JSON, f"Content-Length: {length}", "Expect: 100-continue"))
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
    assert b"100 Continue" not in answer


def test_a_slow_body_is_given_up(small: Running) -> None:
    answer = _talk(small, _head(small, JSON, "Content-Length: 100"), *[b" "] * 4, pause=0.2)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in answer


def test_a_slow_head_is_given_up(small: Running) -> None:
    answer = _talk(small, b"POST /v1/messages HTTP/1.1\r\n", *[b"X: y\r\n"] * 4, pause=0.25)
    assert answer.startswith(b"HTTP/1.1 408")
    assert _talk(small).startswith(b"HTTP/1.1 408"), "a connection that says nothing"


def test_an_idle_connection_between_requests_is_left_alone(small: Running) -> None:
    with httpx.Client(base_url=small.base, trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        time.sleep(1)
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("fields", [["X-Large: " + "x" * (3 * MAX_HEAD)], [f"X-{n}: {'y' * 100}" for n in range(2000)]])
def test_a_large_head_is_refused(small: Running, fields: list[str]) -> None:
    assert _talk(small, _head(small, *fields)).startswith(b"HTTP/1.1 431")


def test_a_large_head_in_small_pieces_is_refused(small: Running) -> None:
    pieces = [b"POST /v1/messages HTTP/1.1\r\nX: ", *[b"y" * 8192] * 20]
    assert _talk(small, *pieces).startswith(b"HTTP/1.1 431")


def test_a_large_body_right_behind_its_head_is_no_large_head(small: Running) -> None:
    body = _filled(LIMIT)
    answer = _talk(small, _head(small, JSON, CLOSE, f"Content-Length: {len(body)}") + body)
    assert answer.startswith(b"HTTP/1.1 202")


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_what_is_no_http_gets_a_problem_and_the_door(small: Running, start: bytes) -> None:
    answer = _talk(small, start)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_that_goes_away_does_no_harm(small: Running) -> None:
    for sent in (b"", b"POST ", _head(small, JSON, "Content-Length: 100") + b"{"):
        with socket.create_connection(("127.0.0.1", small.port)) as peer:
            peer.sendall(sent)
    assert small.alice.get("/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/jsonx"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "identity"}, 202),
    ],
)
def test_only_plain_json_is_read(api: Running, headers: dict[str, str], status: int) -> None:
    reply = api.alice.post("/v1/messages", content=json.dumps(MESSAGE), headers=headers)
    assert reply.status_code == status, reply.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"{", "too early"),
        (b'{"from": "a",\n "to" []}', "line 2, column 7"),
        (b"\xff\xfe", "malformed"),
        (b'{"variables":' + b'{"a":' * 50_000, "deep"),
    ],
)
def test_wrong_json_says_where(api: Running, body: bytes, said: str) -> None:
    reply = api.alice.post("/v1/messages", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["detail"]


_WITH_BODY = [operation for operation in OPERATIONS if operation.example is not None]


def _strings(value: Any, pointer: str = "") -> Iterator[str]:
    if isinstance(value, str):
        yield pointer
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _strings(entry, f"{pointer}/{key}")


def _spoiled(value: Any, pointer: str, text: str) -> Any:
    """A copy with `text` put into the string at the pointer."""
    copy = json.loads(json.dumps(value))
    steps = pointer.split("/")[1:]
    place = copy
    for step in steps[:-1]:
        place = place[int(step)] if isinstance(place, list) else place[step]
    last: Any = int(steps[-1]) if isinstance(place, list) else steps[-1]
    place[last] = place[last][:3] + text + place[last][3:]
    return copy


_FREE_TEXT = {"/html", "/text", "/evidence", "/variables/name", "/recipients/0/variables/name"}


@pytest.mark.parametrize(
    ("operation", "pointer"),
    [(operation, pointer) for operation in _WITH_BODY for pointer in _strings(operation.example)],
    ids=lambda value: value.id if isinstance(value, Operation) else value,
)
@pytest.mark.parametrize("character", ["\r", "\n", "\x00"])
def test_cr_lf_and_nul_in_every_field(api: Running, operation: Operation, pointer: str, character: str) -> None:
    if character != "\x00" and pointer in _FREE_TEXT:
        return
    if operation.id in ("publish_template", "add_template_version", "preview_template"):
        api.operator.post("/v1/templates", json={"name": "x", "subject": "s", "text": "t"})
    body = _spoiled(operation.example, pointer, character)
    path = operation.path.replace("{name}", "x").replace("{id}", "x")
    reply = api.operator.request(operation.method, path, json=body)
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["pointer"] == pointer
    assert character not in reply.text
