"""What the API logs and writes beside its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import Running
from structlog.testing import capture_logs

from posthouse import errors
from posthouse.api.background import Background
from posthouse.api.edge import Options


@pytest.fixture
def logging_api(tmp_path: Path) -> Any:
    with Running(tmp_path, Options(access_log=True)) as running:
        yield running


def test_a_line_tells_who_and_what_and_nothing_personal(logging_api: Running) -> None:
    body = {"from": "ann@example.com", "to": ["bob@example.org"], "subject": "very private"}
    with capture_logs() as lines:
        reply = logging_api.alice.post("/v1/messages", json=body)
        logging_api.anyone.get("/v1/nowhere?token=hidden")
    sent, lost = lines
    assert (sent["operation"], sent["status"]) == ("send_message", 202)
    assert sent["request_id"] == reply.headers["x-request-id"]
    assert sent["tenant"].startswith("ten_")
    assert sent["ms"] > 0
    assert (lost["operation"], lost["status"], lost["tenant"]) == ("none", 404, None)
    for hidden in ("ann@", "bob@", "private", "hidden", logging_api.alice_key):
        assert hidden not in str(lines)


def test_a_failure_of_ours_is_logged_with_its_cause(api: Running) -> None:
    api.messages.fail = errors.StorageUnavailable(detail="the disk is full")
    try:
        with capture_logs() as lines:
            reply = api.alice.post("/v1/messages", json={"from": "a@example.com", "to": ["b@example.org"]})
    finally:
        api.messages.fail = None
    assert [(line["code"], line["detail"]) for line in lines] == [("storage_unavailable", "the disk is full")]
    assert lines[0]["request_id"] == reply.json()["request_id"]


def test_when_a_key_was_used_is_written_by_the_housekeeping(api: Running) -> None:
    me = api.bob.get("/v1/me").json()
    api.run(Background(api.services).round())
    key = api.run(api.services.accounts.access_key(me["tenant"]["id"], me["key_id"]))
    assert key.last_used_at is not None


def test_the_housekeeping_outlives_a_failure_of_storage(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> int:
        raise errors.StorageUnavailable(detail="gone")

    api.bob.get("/v1/me")
    monkeypatch.setattr(api.services.accounts, "write_last_used", away)
    with capture_logs() as lines:
        api.run(Background(api.services).round())
    assert lines[0]["log_level"] == "warning"
    monkeypatch.undo()
    api.run(Background(api.services).round())
