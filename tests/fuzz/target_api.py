"""What the HTTP API takes: bodies, query strings, cursors, drafts; and the settings file. Only our own errors are raised."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from posthouse.accounts.model import Stream
from posthouse.api import cursors
from posthouse.api.endpoints import (
    accounts,
    arrivals,
    conversations,
    emails,
    imports,
    messages,
    suppressions,
    templates,
)
from posthouse.config.load import load
from posthouse.errors import Error, Fault, Invalid, Malformed, Misconfigured
from posthouse.mail.address import parse_mailbox
from posthouse.outbound.check import Bounds, Checked, check_fan_out, check_message
from posthouse.smtp.path import is_mailbox

_NOW = 1_800_000_000_000_000
_STREAMS = {"transactional": Stream("str_1", "ten_1", "transactional", "transactional", 1, 72 * 3600, _NOW)}
_BOUNDS = Bounds(recipients=5, batch=10, fan_out=8, attachments=1000)
_BODIES = (
    messages.MESSAGE,
    messages.MANY,
    messages.FAN_OUT,
    messages.BATCH,
    accounts.DRAFT,
    accounts.CHANGE,
    suppressions.EITHER,
    imports.DRAFT,
    emails.CHANGE,
    templates.DRAFT,
)
_QUERIES = (messages.QUERY, conversations.SEARCH, arrivals.ARRIVALS, emails.QUERY)
_MESSAGE = {
    "from": "Ann <ann@a.example>",
    "to": ["bob@b.example", {"email": "dö@c.example", "name": "Dö"}],
    "cc": [],
    "reply_to": ["x@y.example"],
    "subject": "Hi {{ name }}",
    "text": "Hello",
    "html": "<p>Hello</p>",
    "headers": {"X-Own": "value", "List-Id": "<l.example>"},
    "attachments": [{"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain", "content_id": "x"}],
    "tags": ["a b"],
    "variables": {"name": "Bob", "deep": [[[[{"a": None}]]]], "n": 1e300},
    "metadata": {"k": "v"},
    "send_at": "2027-01-16T08:00:00+01:00",
}
_MAIL = json.dumps(_MESSAGE).encode()
_FAN = {key: value for key, value in _MESSAGE.items() if key not in {"to", "cc"}} | {
    "recipients": [{"to": "a@b.example", "variables": {"x": 1}}, {"to": "bad", "metadata": {"k": "w"}}]
}
CORPUS: tuple[bytes, ...] = (
    b"",
    _MAIL,
    json.dumps(_FAN).encode(),
    b'{"messages":[' + _MAIL + b"," + _MAIL.replace(b"bob@b.example", b"no address") + b"]}",
    b'{"suppressions":[{"address":"a@b.example","reason":"complaint"}]}',
    b'{"address":"ann@a.example","rules":[{"name":"r","when":{"test":"spam"},"then":[{"do":"read"}]}],"vacation":null}',
    b'{"subject":"\\u0000","to":["\\ud800"],"from":"\xff"}',
    b"[" * 3000 + b"]" * 3000,
    b'{"variables":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}",
    b"limit=10&cursor=" + cursors.encode("messages", "123").encode() + b"&status=queued&since=2027-01-01T00:00:00Z",
    b"q=from%3Aann+%22a+b%22&limit=&x=%00&q=twice",
    cursors.encode("messages", "msg_1").encode(),
    b'[smtp]\nport = 2525\n[deliver]\nroutes = [{ domain = "x.example", host = "[::1]:25" }]\n[limits]\nmessage = "25 MB"\n',
    b'data_dir = "."\nnone.such = 1\n[[http]]\nport = "x"\n',
    b"[a]\n" * 50 + b"\xff = 1",
)


def check(data: bytes) -> None:
    """As the body and the query of each kind of request, then as a settings file."""
    for body in _BODIES:
        _read(body, data)
    for query in _QUERIES:
        _read(query, data)
    _check_cursor(data.decode("latin-1"))
    _check_message(data)
    _check_fan_out(data)
    _check_settings(data)


def _read(reader: Any, data: bytes) -> Any:
    """None when it is refused."""
    try:
        return reader.read(data)
    except (Invalid, Malformed) as error:
        _check_error(error)
        return None


def _check_error(error: Error) -> None:
    assert 400 <= error.status < 500
    assert len(error.public) < 1000
    for fault in error.faults:
        assert isinstance(fault, Fault)
        assert len(fault.message) <= 1000
        assert "\0" not in fault.pointer + fault.message
        json.dumps(fault.pointer, ensure_ascii=False).encode()


def _check_cursor(text: str) -> None:
    try:
        position = cursors.decode("messages", text)
    except Invalid as error:
        _check_error(error)
        return
    assert position is not None
    assert cursors.decode("messages", cursors.encode("messages", position)) == position


def _check_message(data: bytes) -> None:
    draft = _read(messages.MESSAGE, data)
    if draft is None:
        return
    assert messages.MESSAGE.read(msgspec.json.encode(draft)) == draft
    try:
        checked = check_message(draft, _STREAMS, _BOUNDS, _NOW)
    except Error as error:
        _check_error(error)
        return
    assert 1 <= len(checked.recipients) <= _BOUNDS.recipients
    _check_checked(checked)


def _check_fan_out(data: bytes) -> None:
    draft = _read(messages.FAN_OUT, data)
    if draft is None:
        return
    try:
        checked, bad = check_fan_out(draft, _STREAMS, _BOUNDS, _NOW)
    except Error as error:
        _check_error(error)
        return
    assert len(checked.recipients) + len(bad) == len(draft.recipients) <= _BOUNDS.fan_out
    for error in bad.values():
        _check_error(error)
    _check_checked(checked)


def _check_checked(checked: Checked) -> None:
    """What has no fault can be built and sent."""
    for recipient in checked.recipients:
        assert is_mailbox(recipient.address)
        assert parse_mailbox(recipient.address).address == recipient.address
    assert checked.due_at >= _NOW
    assert sum(len(one.content) for one in checked.attachments) <= _BOUNDS.attachments
    assert all(str(text).isprintable() for pair in checked.headers for text in pair)
    msgspec.json.decode(checked.variables)


@cache
def _file() -> Path:
    return Path(_directory().name) / "posthouse.toml"


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="posthouse-fuzz-")


def _check_settings(data: bytes) -> None:
    path = _file()
    path.write_bytes(data)
    try:
        found = load(file=path, environ={}, cwd=path.parent)
    except Misconfigured as error:
        assert error.public
        return
    assert found.file == path
    assert found.settings.data_dir.is_absolute()
    assert all(value.source.kind in {"file", "default"} for value in found.values())
