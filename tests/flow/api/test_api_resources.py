"""Templates, domains, suppressions, streams, keys, tenants, the queue and the house."""

from __future__ import annotations

from typing import Any

import pytest
from running import Running

from posthouse import clock
from posthouse.storage.queue.base import Job


def test_a_template_from_source_to_preview(api: Running) -> None:
    body = {"name": "welcome", "subject": "Hi {{ name }}", "html": "<p>{{ name }}</p>"}
    made = api.alice.post("/v1/templates", json=body)
    assert made.status_code == 201
    assert made.json()["published_version"] == 1
    assert api.alice.post("/v1/templates", json=body).json()["code"] == "template_exists"
    added = api.alice.post("/v1/templates/welcome/versions", json={"subject": "Yo {{ name }}", "text": "{{ name }}"})
    assert (added.status_code, added.json()["version"], added.json()["variables"]) == (201, 2, ["name"])
    assert api.alice.get("/v1/templates/welcome/versions/1").json()["html"] == "<p>{{ name }}</p>"
    for version in ("3", "0", "x", "99999999999999999999"):
        assert api.alice.get(f"/v1/templates/welcome/versions/{version}").status_code == 404
    filled = api.alice.post("/v1/templates/welcome/preview", json={"variables": {"name": "<Ann>"}}).json()
    assert (filled["subject"], filled["html"]) == ("Hi <Ann>", "<p>&lt;Ann&gt;</p>")
    assert api.alice.post("/v1/templates/welcome/publish", json={"version": 2}).json()["published_version"] == 2
    assert api.alice.post("/v1/templates/welcome/publish", json={"version": 3}).status_code == 404
    missing = api.alice.post("/v1/templates/welcome/preview", json={})
    assert missing.status_code == 422
    assert "name" in missing.json()["detail"]
    assert [v["version"] for v in api.alice.get("/v1/templates/welcome").json()["versions"]] == [2, 1]
    gone = api.alice.delete("/v1/templates/welcome")
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.alice.get("/v1/templates/welcome").status_code == 404


def test_a_broken_template_is_pointed_at(api: Running) -> None:
    reply = api.alice.post("/v1/templates", json={"name": "broken", "subject": "x", "html": "{% if %}"})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == "/html"
    name = api.alice.post("/v1/templates", json={"name": "Bad Name", "subject": "x", "text": "y"})
    assert name.json()["errors"][0]["pointer"] == "/name"


def test_a_domain_comes_with_its_records(api: Running) -> None:
    made = api.alice.post("/v1/domains", json={"name": "Bücher.example"})
    assert made.status_code == 201
    domain = made.json()
    assert domain["name"] == "xn--bcher-kva.example"
    assert {"ownership", "dkim-rsa", "dkim-ed25519", "spf", "dmarc"} <= {
        record["purpose"] for record in domain["records"]
    }
    assert "PRIVATE" not in made.text
    verified = api.alice.post("/v1/domains/Bücher.example/verify").json()
    assert verified["state"] == "pending"
    assert all(check["expected"] and "found" in check for check in verified["checks"])
    assert len(api.alice.post("/v1/domains/xn--bcher-kva.example/rotate").json()["dkim_keys"]) == 4
    for name in ("com", "a b.example", "", "1.2.3.4"):
        assert api.alice.post("/v1/domains", json={"name": name}).json()["errors"][0]["pointer"] == "/name"
    assert api.alice.delete("/v1/domains/xn--bcher-kva.example").status_code == 204
    assert api.alice.get("/v1/domains/not%20one").status_code == 404


def test_suppressions_one_and_many(api: Running) -> None:
    one = api.alice.post("/v1/suppressions", json={"address": "Ann@Example.org", "evidence": "asked"})
    assert one.status_code == 201
    assert one.json()["data"][0]["address"] == "ann@example.org"
    many = [{"address": f"u{n}@many.example", "stream": "broadcast", "reason": "unsubscribe"} for n in range(3)]
    added = api.alice.post("/v1/suppressions", json={"suppressions": many}).json()["data"]
    assert [entry["stream"] for entry in added] == ["broadcast"] * 3
    assert (
        api.alice.get("/v1/suppressions", params={"address": "ANN@example.org"}).json()["data"][0]["evidence"]
        == "asked"
    )
    page = api.alice.get("/v1/suppressions", params={"stream": "broadcast", "limit": 2}).json()
    rest = api.alice.get("/v1/suppressions", params={"stream": "broadcast", "limit": 2, "cursor": page["next"]}).json()
    assert len(page["data"]) + len(rest["data"]) == 3
    assert api.alice.get("/v1/suppressions/u1@many.example").status_code == 404
    assert api.alice.get("/v1/suppressions/u1@many.example", params={"stream": "broadcast"}).status_code == 200
    assert api.alice.delete("/v1/suppressions/ann@example.org").status_code == 200
    assert api.alice.delete("/v1/suppressions/ann@example.org").status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"address": "nobody"}, "/address"),
        ({"address": "a@b.example", "reason": "dislike"}, "/reason"),
        ({"address": "a@b.example", "stream": "none"}, "/stream"),
        ({"address": "a@b.example", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"suppressions": [{"address": "a@b.example"}, {"address": "nobody"}]}, "/suppressions/1/address"),
        ({"suppressions": [{"address": "a@b.example", "stream": "none"}]}, "/suppressions/0/stream"),
        ({"suppressions": []}, "/suppressions"),
    ],
)
def test_a_wrong_suppression_is_pointed_at(api: Running, body: dict[str, Any], pointer: str) -> None:
    reply = api.alice.post("/v1/suppressions", json=body)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["pointer"] == pointer


def test_a_complaint_stays_but_for_an_operator(api: Running) -> None:
    for client, status in ((api.alice, 409), (api.operator, 200)):
        client.post("/v1/suppressions", json={"address": "cross@example.org", "reason": "complaint"})
        assert client.delete("/v1/suppressions/cross@example.org").status_code == status


def test_streams(api: Running) -> None:
    names = {stream["name"] for stream in api.bob.get("/v1/streams").json()["data"]}
    assert {"critical", "transactional", "broadcast"} <= names
    made = api.bob.post("/v1/streams", json={"name": "receipts", "max_age": 3600, "settings": {"pool": "a"}}).json()
    assert (made["lane"], made["max_age"], made["settings"]) == ("transactional", 3600, {"pool": "a"})
    assert api.bob.patch("/v1/streams/receipts", json={"lane": "bulk"}).json()["lane"] == "bulk"
    assert api.bob.post("/v1/streams", json={"name": "receipts"}).json()["code"] == "stream_exists"
    wrong = api.bob.post("/v1/streams", json={"name": "news", "kind": "broadcast", "lane": "critical"})
    assert wrong.json()["errors"][0]["pointer"] == "/lane"


def test_a_secret_is_shown_once_even_to_a_retry(api: Running) -> None:
    request: dict[str, Any] = {"json": {"name": "once", "scopes": ["read"]}, "headers": {"Idempotency-Key": "key once"}}
    first = api.alice.post("/v1/keys", **request)
    again = api.alice.post("/v1/keys", **request)
    assert again.headers["idempotent-replayed"] == "true"
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert "secret" in first.json()
    assert "secret" not in again.json()
    keys = api.alice.get("/v1/keys", params={"limit": 200})
    assert first.json()["secret"] not in keys.text


def test_what_failed_is_not_replayed(api: Running) -> None:
    headers = {"Idempotency-Key": "not yet"}
    body = {"name": "later", "kind": "broadcast", "lane": "critical"}
    assert api.alice.post("/v1/streams", json=body, headers=headers).status_code == 422
    assert api.alice.post("/v1/streams", json=body | {"lane": "bulk"}, headers=headers).status_code == 201


def test_an_operator_makes_and_suspends_a_tenant(api: Running) -> None:
    tenant = api.operator.post("/v1/tenants", json={"name": "fresh", "rate_per_second": 5}).json()
    assert (tenant["rate_per_second"], tenant["daily_quota"]) == (5, 0)
    assert api.operator.post("/v1/tenants", json={"name": "fresh"}).json()["code"] == "tenant_exists"
    path = f"/v1/tenants/{tenant['id']}"
    secret = api.operator.post(path + "/keys", json={"name": "first", "scopes": ["send", "keys"]}).json()["secret"]
    client = api.client(secret)
    assert client.get("/v1/me").json()["tenant"]["name"] == "fresh"
    changed = api.operator.patch(path, json={"burst": 7, "suspended": True}).json()
    assert (changed["burst"], changed["rate_per_second"]) == (7, 5)
    assert changed["suspended_at"]
    assert client.get("/v1/me").json()["code"] == "tenant_suspended"
    assert "suspended_at" not in api.operator.patch(path, json={"suspended": False}).json()
    assert client.get("/v1/me").status_code == 200
    wrong = api.operator.patch(path, json={"rate_per_second": 0})
    assert wrong.json()["errors"][0]["pointer"] == "/rate_per_second"
    own = api.operator.get("/v1/me").json()["tenant"]["id"]
    assert api.operator.patch(f"/v1/tenants/{own}", json={"suspended": True}).json()["code"] == "own_tenant"


def test_an_operator_sees_the_queue_and_sets_jobs_aside(api: Running) -> None:
    later = clock.now() + clock.HOUR
    jobs = [Job("send", 1, "ten_x", later, f"msg_{n}", payload="p") for n in range(3)]
    api.run(api.services.queue.put(jobs))
    (depth,) = [one for one in api.operator.get("/v1/queue").json()["depths"] if one["stage"] == "send"]
    assert (depth["lane"], depth["delayed"]) == ("transactional", 3)
    bury = {"ids": ["msg_0", "msg_1", "msg_none"], "reason": "looked at"}
    assert api.operator.post("/v1/queue/bury", json=bury).json() == {"changed": 2}
    shown = api.operator.get("/v1/queue").json()
    assert {(job["id"], job["reason"]) for job in shown["buried"]} == {("msg_0", "looked at"), ("msg_1", "looked at")}
    assert [one["buried"] for one in shown["depths"] if one["stage"] == "send"] == [2]
    assert api.operator.post("/v1/queue/retry", json={"ids": ["msg_0"]}).json() == {"changed": 1}
    assert api.operator.post("/v1/queue/retry", json={"all": True}).json() == {"changed": 1}
    for body in ({}, {"ids": ["x"], "all": True}):
        assert api.operator.post("/v1/queue/retry", json=body).status_code == 422
    depths = api.operator.get("/v1/queue").json()["depths"]
    assert [one["ready"] for one in depths if one["stage"] == "send"] == [2]


def test_a_leased_job_is_not_set_aside(api: Running) -> None:
    queue = api.services.queue
    api.run(queue.put([Job("held", 0, "ten_x", clock.now(), "msg_held")]))
    assert len(api.run(queue.claim("held", 0, 1, lease=60))) == 1
    reply = api.operator.post("/v1/queue/bury", json={"ids": ["msg_held"], "reason": "x"})
    assert reply.json() == {"changed": 0}


def test_health_readiness_and_metrics(api: Running) -> None:
    assert api.anyone.get("/healthz").json()["status"] == "ok"
    ready = api.anyone.get("/readyz").json()
    assert (ready["status"], ready["checks"]) == ("ready", {"records": "ok"})
    figures = api.anyone.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain")
    assert 'posthouse_http_requests_total{operation="get_health",status="200"}' in figures.text
    assert api.anyone.head("/healthz").content == b""


def test_a_check_that_fails_is_named(api: Running) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("secret")

    checks: Any = api.services.checks
    checks["dns"] = broken
    try:
        reply = api.anyone.get("/readyz")
    finally:
        del checks["dns"]
    assert reply.status_code == 503
    answer = reply.json()
    assert (answer["status"], answer["checks"]) == ("unready", {"records": "ok", "dns": "failed"})


def test_the_documentation_is_there(api: Running) -> None:
    assert api.anyone.get("/openapi.json").json()["openapi"] == "3.1.0"
    page = api.anyone.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "style-src" in page.headers["content-security-policy"]
