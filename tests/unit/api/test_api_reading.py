"""JSON to types: what is wrong, and where."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse import errors
from posthouse.api.http import refuse_parameters
from posthouse.outbound import reading
from posthouse.outbound.model import MessageDraft

_decoder = msgspec.json.Decoder(MessageDraft)
_GOOD: dict[str, Any] = {"from": "a@example.com", "to": ["b@example.com"]}


def _fault(change: dict[str, Any] | bytes) -> tuple[str, str]:
    data = change if isinstance(change, bytes) else json.dumps(_GOOD | change).encode()
    with pytest.raises(errors.Invalid) as caught:
        reading.read(_decoder, data)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0].pointer, caught.value.faults[0].message


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"to": [1]}, "/to/0"),
        ({"to": ["a@b.c", {"email": "a@b.c", "nam": "x"}]}, "/to/1/nam"),
        ({"to": [{"name": "x"}]}, "/to/0/email"),
        ({"to": "a@b.c"}, "/to"),
        ({"sender": "x"}, "/sender"),
        ({"a/b~c": "x"}, "/a~1b~0c"),
        ({"template_version": 0}, "/template_version"),
        ({"template_version": 2**31}, "/template_version"),
        ({"send_at": "2026-01-01T00:00:00"}, "/send_at"),
        ({"send_at": "tomorrow"}, "/send_at"),
        ({"attachments": [{"filename": "a", "content": "eA==", "size": 1}]}, "/attachments/0/size"),
        ({"headers": {"X-A": "fine", "X-B": "a\r\nBcc: x@y.z"}}, "/headers/X-B"),
        ({"headers": {"X-A\n": "fine"}}, "/headers/X-A\n"),
        ({"headers": {"X-A": 1}}, "/headers/X-A"),
        ({"metadata": {"a": "b", "c": {"d": "e"}}}, "/metadata/c"),
        ({"html": "a\x00b"}, "/html"),
        ({"variables": {"a": [{"b~": "x\x00"}]}}, "/variables/a/0/b~0"),
        ({"variables": []}, "/variables"),
    ],
)
def test_a_fault_points_at_its_field(change: dict[str, Any], pointer: str) -> None:
    assert _fault(change)[0] == pointer


@pytest.mark.parametrize(
    "field", ["from", "subject", "template", "stream", "reply_to", "to", "cc", "bcc", "tags", "filename", "content_id"]
)
@pytest.mark.parametrize("character", ["\r", "\n", "\x00"])
@pytest.mark.parametrize("shape", ["{}end", "{}", "start{}"])
def test_a_line_has_no_line_break_and_no_nul(field: str, character: str, shape: str) -> None:
    text: Any = shape.format(character)
    pointer = f"/{field}"
    if field in ("reply_to", "to", "cc", "bcc", "tags"):
        text, pointer = [text], pointer + "/0"
    change = {field: text}
    if field in ("filename", "content_id"):
        change = {"attachments": [{"filename": "a", "content": "eA==", field: text}]}
        pointer = f"/attachments/0/{field}"
    assert _fault(change) == (pointer, "This may not contain a line break or NUL")


def test_a_missing_field_is_pointed_at() -> None:
    assert _fault(b'{"to":[]}') == ("/from", "This field is needed")
    assert _fault(b"[]") == ("", "Expected object, got array")


def test_a_base_is_put_in_front() -> None:
    with pytest.raises(errors.Invalid) as caught:
        reading.read(_decoder, b'{"from":1,"to":[]}', base="/messages/7")
    assert caught.value.faults[0].pointer == "/messages/7/from"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"from":', "ends too early"),
        (b'{\n  "from": "a" "to"}', "line 2, column"),
        (b'{"from":"a\nb"}', "byte 10"),
        (b'{"from":"\xff"}', "UTF-8"),
        (b'{"from":"\\ud800","to":[]}', "malformed"),
        (b"{} {}", "field"),
        (b'{"from":"a","to":[],"variables":{"a":' + b"[" * 100_000, "deeply"),
    ],
)
def test_what_is_no_json_says_where(data: bytes, said: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        reading.read(_decoder, data)
    text = caught.value.public + "".join(fault.message for fault in caught.value.faults)
    assert said in text


def test_a_time_that_is_none_is_told_how_one_looks() -> None:
    with pytest.raises(errors.Invalid) as caught:
        reading.read(_decoder, json.dumps(_GOOD | {"send_at": "tomorrow"}).encode())
    (fault,) = caught.value.faults
    assert fault.pointer == "/send_at"
    assert "2027-01-31T08:00:00Z" in fault.message


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    draft = reading.read(_decoder, json.dumps(_GOOD | {"text": "\\u0000"}).encode())
    assert draft.text == "\\u0000"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        reading.read(_decoder, data)
    except errors.Invalid as error:
        assert error.public


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_fields = st.sampled_from([f.encode_name for f in msgspec.structs.fields(MessageDraft)])


@given(st.dictionaries(_fields | st.text(max_size=6), _json, max_size=6))
def test_a_pointer_leads_to_something_in_the_body(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    try:
        reading.read(_decoder, data)
    except errors.Invalid as error:
        for fault in error.faults:
            _follow(body, fault.pointer)


def _follow(body: Any, pointer: str) -> None:
    """To its parent: the last step may be what is missing."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps[:-1]:
        body = body[int(step)] if isinstance(body, list) else body[step]
    assert not steps or isinstance(body, dict | list)


@pytest.mark.parametrize("skipped", [b'"\xff"', b'"\\ud800"', b"1e999999", b'"\\q"'])
def test_what_the_type_passes_over_is_read_too_when_there_may_be_a_nul(skipped: bytes) -> None:
    class Some(msgspec.Struct):
        a: str = ""

    data = b'{"a":"\\u0000","b":%s}' % skipped
    with pytest.raises(errors.Malformed):
        reading.read(msgspec.json.Decoder(Some), data)


def test_a_nul_in_the_name_of_a_parameter_is_not_repeated() -> None:
    with pytest.raises(errors.Invalid) as caught:
        refuse_parameters(b"a%00b=1")
    assert caught.value.faults[0].pointer == "?a\ufffdb"
