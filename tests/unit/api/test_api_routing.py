from __future__ import annotations

import base64
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse import errors
from posthouse.accounts.limits import Standing
from posthouse.api import cursors, docs_page, openapi
from posthouse.api.app import OPERATIONS
from posthouse.api.edge import rate_headers
from posthouse.api.endpoints.messages import QUERY
from posthouse.api.http import refuse_parameters
from posthouse.api.operations import Router
from posthouse.api.problems import NotAllowed


def test_every_operation_is_found_by_its_own_path() -> None:
    router = Router(OPERATIONS)
    for operation in OPERATIONS:
        path = re.sub(r"\{(\w+)\}", r"\1-1", operation.path)
        found, parameters = router.find(operation.method, path)
        assert found is operation
        assert parameters == {name: f"{name}-1" for name in re.findall(r"\{(\w+)\}", operation.path)}


def test_head_is_a_get_and_others_are_told_what_there_is() -> None:
    router = Router(OPERATIONS)
    assert router.find("HEAD", "/v1/me")[0].id == "get_me"
    with pytest.raises(NotAllowed) as caught:
        router.find("PUT", "/v1/messages")
    assert caught.value.allowed == ("GET", "HEAD", "POST")


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/", "/v1/messages/", "/v1/messages/a/b/c", "/V1/messages", "//v1/me"]
)
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        Router(OPERATIONS).find("GET", path)
    assert caught.value.code == "path_not_found"


def test_one_path_and_method_is_one_operation() -> None:
    with pytest.raises(ValueError, match="two operations"):
        Router([*OPERATIONS, OPERATIONS[0]])


@given(st.text(max_size=60))
def test_a_cursor_comes_back(position: str) -> None:
    if "\x00" not in position:
        assert cursors.decode("keys", cursors.encode("keys", position)) == position


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_a_cursor_that_we_did_not_give_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        cursors.decode("keys", text)
    assert caught.value.code == "cursor_invalid"


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(errors.Invalid):
        cursors.decode("keys", cursors.encode("tenants", "x"))
    with pytest.raises(errors.Invalid):
        cursors.decode("keys", cursors.encode("keys", "a\x00b"))
    with pytest.raises(errors.Invalid):
        cursors.decode("keys", "A" * 100_000)


def test_a_query_is_read_into_its_type() -> None:
    query = QUERY.read(b"limit=5&since=2026-01-01T00%3A00%3A00Z&status=bounced&to=a%2Bb%40example.com")
    assert (query.limit, query.status, query.to) == (5, "bounced", "a+b@example.com")
    assert query.since is not None
    assert query.since.year == 2026


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (b"limit=0", "?limit"),
        (b"limit=201", "?limit"),
        (b"limit=x", "?limit"),
        (b"limit=1&limit=2", "?limit"),
        (b"nope=1", "?nope"),
        (b"since=yesterday", "?since"),
        (b"since=2026-01-01T00:00:00", "?since"),
        (b"status=lost", "?status"),
        (b"to=a%0d%0ab", "?to"),
        (b"tag=a%00", "?tag"),
    ],
)
def test_a_wrong_query_points_at_its_parameter(text: bytes, pointer: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        QUERY.read(text)
    assert caught.value.faults[0].pointer == pointer


@given(st.binary(max_size=80))
def test_any_query_string_is_read_or_refused(text: bytes) -> None:
    try:
        QUERY.read(text)
        refuse_parameters(text)
    except errors.Invalid as error:
        assert error.public


def test_rate_headers_say_the_same_twice() -> None:
    shown = dict(rate_headers(Standing(limit=100, remaining=7, reset=10, window=12)))
    assert shown == {
        b"ratelimit-policy": b'"messages";q=100;w=12',
        b"ratelimit": b'"messages";r=7;t=10',
        b"ratelimit-limit": b"100",
        b"ratelimit-remaining": b"7",
        b"ratelimit-reset": b"10",
    }


def test_the_document_describes_every_operation_with_its_problems() -> None:
    document = openapi.document(OPERATIONS, version="1")
    shown = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert {one["operationId"] for one in shown} == {operation.id for operation in OPERATIONS}
    text = msgspec.json.encode(document).decode()
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert reference in document["components"]["schemas"]
    for one in shown:
        assert one["summary"]
        assert len(one["responses"]) > 2
        if "requestBody" in one:
            assert "example" in one["requestBody"]["content"]["application/json"]
    assert "(?![" not in text


def test_examples_are_what_the_types_take() -> None:
    for operation in OPERATIONS:
        if operation.example is not None:
            assert operation.body is not None
            operation.body.read(msgspec.json.encode(operation.example))
            kinds = operation.body.documented
            assert any(_takes(kind, operation.example) for kind in kinds), operation.id
        if operation.answer_example is not None:
            msgspec.convert(operation.answer_example, operation.answer)


def test_the_page_shows_every_operation_and_fetches_nothing() -> None:
    page = docs_page.render(openapi.document(OPERATIONS, version="<1>")).decode()
    for operation in OPERATIONS:
        assert f'id="{operation.id}"' in page
    assert "<1>" not in page
    assert not re.search(r'(?:src|href)="(?!#|/)', page)
    assert "<script" not in page


def _takes(kind: type, example: object) -> bool:
    try:
        msgspec.convert(example, kind)
    except msgspec.ValidationError:
        return False
    return True
