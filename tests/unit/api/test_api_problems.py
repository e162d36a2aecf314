from __future__ import annotations

import json
from typing import Any

import pytest

from posthouse import errors
from posthouse.api import problems
from posthouse.api.http import TooSlow, UnsupportedMedia
from posthouse.errors import Fault


def _every(kind: type[errors.Error]) -> list[type[errors.Error]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _every(below))]


def _shown(error: errors.Error) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    reply = problems.reply(error, path="/v1/x", request_id="r1")
    assert reply.content_type == b"application/problem+json"
    body = json.loads(reply.body)
    assert body["status"] == reply.status == error.status
    return body, dict(reply.headers)


@pytest.mark.parametrize("kind", [kind for kind in _every(errors.Error) if kind.__module__ == "posthouse.errors"])
def test_every_error_is_a_problem(kind: type[errors.Error]) -> None:
    body, _ = _shown(kind())
    assert body["type"] == f"/problems/{kind.code}"
    assert body["title"] == kind.title
    assert body["code"] == kind.code
    assert (body["instance"], body["request_id"]) == ("/v1/x", "r1")


def test_the_detail_stays_inside() -> None:
    body, _ = _shown(errors.StorageUnavailable(detail="disk /dev/sda1 is full"))
    assert "sda1" not in json.dumps(body)


def test_faults_are_shown_with_their_pointers_and_bounded() -> None:
    faults = tuple(Fault(f"/to/{n}", "This is wrong") for n in range(1000))
    body, _ = _shown(errors.Invalid("Three words here", faults=faults))
    assert body["errors"][1] == {"pointer": "/to/1", "message": "This is wrong"}
    assert len(body["errors"]) == 100
    assert body["detail"] == "Three words here"


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (errors.Limited(retry_after=0.2), b"retry-after", b"1"),
        (errors.Limited(retry_after=1.2), b"retry-after", b"2"),
        (errors.StorageUnavailable(), b"retry-after", b"2"),
        (errors.Unauthorized(), b"www-authenticate", b'Bearer realm="posthouse"'),
        (problems.NotAllowed(("GET", "HEAD")), b"allow", b"GET, HEAD"),
        (TooSlow(), b"connection", b"close"),
        (errors.TooLarge(), b"connection", b"close"),
    ],
)
def test_headers_that_belong_to_a_status(error: errors.Error, name: bytes, value: bytes) -> None:
    assert _shown(error)[1][name] == value


def test_no_header_where_none_belongs() -> None:
    assert _shown(errors.NotFound())[1] == {}
    assert _shown(UnsupportedMedia())[1] == {}


def test_a_hostile_path_is_escaped_and_cut() -> None:
    body = problems.reply(errors.NotFound(), path='/"\r\n' + "x" * 5000).body
    assert len(body) < 1500
    assert b"\r\n" not in body
    assert json.loads(body)["instance"].startswith('/"\r\n')
