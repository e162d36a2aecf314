"""`/v1/messages` over HTTP: what is accepted, refused, replayed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from running import Running

from posthouse import errors, ids

MESSAGE: dict[str, Any] = {"from": "a@example.com", "to": ["b@example.org"], "subject": "s", "text": "t"}


def problem(reply: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert body["code"] == code, body
    assert body["request_id"] == reply.headers["x-request-id"]
    if pointer is not None:
        assert body["errors"][0]["pointer"] == pointer, body
    return body


def test_a_message_is_accepted_and_followed(api: Running) -> None:
    sent = api.alice.post("/v1/messages", json=MESSAGE)
    assert sent.status_code == 202
    path = f"/v1/messages/{sent.json()['id']}"
    assert api.alice.get(path).json()["recipients"][0]["address"] == "b@example.org"
    assert api.alice.get(path + "/events").json()["data"][0]["type"] == "accepted"
    assert api.alice.get(path + "/explain").json()["summary"]
    content = api.alice.get(path + "/content")
    assert content.headers["content-type"] == "message/rfc822"
    assert content.content.startswith(b"To: b@example.org")
    moved = api.alice.patch(path, json={"send_at": "2030-01-01T00:00:00Z"})
    assert moved.json()["send_at"].startswith("2030-01-01")
    assert api.alice.post(path + "/cancel").json()["status"] == "canceled"
    problem(api.alice.patch(path, json={"send_at": "2030-01-01T00:00:00Z"}), 409, "message_not_scheduled")


def test_every_answer_carries_the_headers(api: Running) -> None:
    for reply in (
        api.alice.post("/v1/messages", json=MESSAGE),
        api.alice.post("/v1/messages", json={}),
        api.alice.get("/v1/messages"),
        api.alice.get("/v1/messages/msg_x"),
    ):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["ratelimit-policy"].startswith('"messages";q=')
        assert reply.headers["ratelimit"].startswith('"messages";r=')
        assert int(reply.headers["ratelimit-remaining"]) <= int(reply.headers["ratelimit-limit"])


def test_a_request_id_is_taken_over_when_it_is_sensible(api: Running) -> None:
    assert api.alice.get("/v1/me", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for strange in ("a b", "x" * 65, '"'):
        assert api.alice.get("/v1/me", headers={"X-Request-Id": strange}).headers["x-request-id"] != strange


def test_a_retry_is_answered_like_the_first_time(api: Running) -> None:
    key = {"Idempotency-Key": "order 1042"}
    first = api.alice.post("/v1/messages", json=MESSAGE, headers=key)
    again = api.alice.post("/v1/messages", json=MESSAGE, headers=key)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    problem(api.alice.post("/v1/messages", json=MESSAGE | {"text": "u"}, headers=key), 409, "idempotency_key_reused")
    batch = {"messages": [MESSAGE]}
    problem(api.alice.post("/v1/messages/batch", json=batch, headers=key), 409, "idempotency_key_reused")
    assert api.bob.post("/v1/messages", json=MESSAGE, headers=key).json()["id"] != first.json()["id"]


def test_concurrent_duplicates_are_accepted_once(api: Running) -> None:
    def post(number: int) -> httpx.Response:
        return api.alice.post("/v1/messages", json=MESSAGE, headers={"Idempotency-Key": f"race {number // 8}"})

    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(post, range(80)))
    for group in range(10):
        accepted = {reply.json()["id"] for reply in replies[group * 8 : group * 8 + 8] if reply.status_code == 202}
        assert len(accepted) == 1
    for reply in replies:
        if reply.status_code != 202:
            problem(reply, 409, "idempotency_in_flight")
            assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize("key", ["", "x" * 257, "a\tb"])
def test_a_wrong_idempotency_key_is_refused(api: Running, key: str) -> None:
    headers = {"Idempotency-Key": key}
    problem(api.alice.post("/v1/messages", json=MESSAGE, headers=headers), 422, "idempotency_key_invalid")
    problem(
        api.alice.post("/v1/keys", json={"name": "x", "scopes": ["read"]}, headers=headers),
        422,
        "idempotency_key_invalid",
    )


def test_a_batch_has_a_result_for_each_item(api: Running) -> None:
    bad: list[Any] = [MESSAGE | {"to": []}, MESSAGE | {"nope": 1}, 7, MESSAGE | {"subject": "a\x00"}]
    reply = api.alice.post("/v1/messages/batch", json={"messages": [MESSAGE, *bad, MESSAGE]})
    assert reply.status_code == 202
    results = reply.json()["results"]
    assert [("id" in result) for result in results] == [True, False, False, False, False, True]
    pointers = [result["error"]["errors"][0]["pointer"] for result in results[1:5]]
    assert pointers == ["/messages/1/to", "/messages/2/nope", "/messages/3", "/messages/4/subject"]
    refused = api.alice.post("/v1/messages/batch", json={"messages": [MESSAGE, 7], "all_or_nothing": True})
    problem(refused, 422, "invalid_request", "/messages/1")


def test_ten_thousand_recipients_are_accepted_and_one_more_is_not(api: Running) -> None:
    recipients = [{"to": f"u{n}@example.org", "variables": {"n": n}} for n in range(10_000)]
    body = {"from": "a@example.com", "template": "news", "recipients": recipients}
    reply = api.alice.post("/v1/messages/batch", json=body)
    assert reply.status_code == 202
    assert len({result["id"] for result in reply.json()["results"]}) == 10_000
    over = api.alice.post("/v1/messages/batch", json=body | {"recipients": [*recipients, recipients[0]]})
    problem(over, 413, "too_many_messages", "/recipients")
    many = {"messages": [MESSAGE] * 1001}
    problem(api.alice.post("/v1/messages/batch", json=many), 413, "too_many_messages", "/messages")
    bad = body | {"recipients": [*recipients[:9998], {"to": "u\r\nBcc: x"}]}
    problem(api.alice.post("/v1/messages/batch", json=bad), 422, "invalid_request", "/recipients/9998/to")


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"recipients": []}, {"messages": [MESSAGE], "recipients": []}])
def test_an_empty_or_mixed_batch_is_refused(api: Running, body: dict[str, Any]) -> None:
    problem(api.alice.post("/v1/messages/batch", json=body), 422, "invalid_request")


def test_lists_go_on_by_cursor(api: Running) -> None:
    key = api.run(api.services.accounts.create_tenant("lister"))
    secret = api.run(api.services.accounts.create_key(key.id, "k", ["send", "read"])).secret
    client = api.client(secret)
    sent = [client.post("/v1/messages", json=MESSAGE | {"to": [f"u{n}@x.example"]}).json()["id"] for n in range(5)]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = client.get("/v1/messages", params=query).json()
        found += [view["id"] for view in page["data"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert found == sorted(sent)
    assert [view["id"] for view in client.get("/v1/messages", params={"to": "u3@x.example"}).json()["data"]] == [
        sent[3]
    ]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=201", "?limit"),
        ("cursor=!", "?cursor"),
        ("status=lost", "?status"),
        ("x=1", "?x"),
    ],
)
def test_a_wrong_query_is_pointed_at(api: Running, query: str, pointer: str) -> None:
    reply = api.alice.get(f"/v1/messages?{query}")
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == pointer


def test_a_rate_is_kept_and_told(api: Running) -> None:
    from posthouse.accounts.model import Limits

    accounts = api.services.accounts
    tenant = api.run(accounts.create_tenant("slow", Limits(rate_per_second=1, burst=3, daily_quota=0)))
    client = api.client(api.run(accounts.create_key(tenant.id, "k", ["send"])).secret)
    left = [client.post("/v1/messages", json=MESSAGE).headers["ratelimit-remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = client.post("/v1/messages", json=MESSAGE)
    problem(refused, 429, "rate_limited")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-remaining"] == "0"


def test_a_quota_is_kept(api: Running) -> None:
    from posthouse.accounts.model import Limits

    accounts = api.services.accounts
    tenant = api.run(accounts.create_tenant("small", Limits(1000, 1000, daily_quota=2)))
    client = api.client(api.run(accounts.create_key(tenant.id, "k", ["send"])).secret)
    assert client.post("/v1/messages/batch", json={"messages": [MESSAGE] * 3}).status_code == 429
    assert client.post("/v1/messages/batch", json={"messages": [MESSAGE] * 2}).status_code == 202
    refused = client.post("/v1/messages", json=MESSAGE)
    problem(refused, 429, "quota_exhausted")
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    assert client.get("/v1/me").json()["messages_today"] == 2


def test_what_fails_inside_is_not_told(api: Running) -> None:
    try:
        for failure, status, code in (
            (ZeroDivisionError("secret detail"), 500, "internal_error"),
            (errors.StorageUnavailable(detail="secret detail"), 503, "storage_unavailable"),
            (RecursionError("secret detail"), 400, "malformed_json"),
        ):
            api.messages.fail = failure
            reply = api.alice.post("/v1/messages", json=MESSAGE)
            problem(reply, status, code)
            assert "secret" not in reply.text
            assert ("retry-after" in reply.headers) == (status == 503)
    finally:
        api.messages.fail = None


def test_an_unknown_message_is_not_found(api: Running) -> None:
    for message_id in (ids.new("msg"), "msg_x", "x", "%00", "..", "msg_" + "z" * 5000):
        assert api.alice.get(f"/v1/messages/{message_id}").status_code == 404


def test_a_body_may_say_that_it_is_utf8(api: Running) -> None:
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    assert api.alice.post("/v1/messages", content=json.dumps(MESSAGE), headers=headers).status_code == 202
