"""One door: no key, a key without the scope, and another tenant's key, at every operation."""

from __future__ import annotations

import re
from typing import Any

import pytest
from letters import Letter
from running import Running

from posthouse import ids
from posthouse.accounts.model import ALL_SCOPES, TENANT_SCOPES, Scope
from posthouse.api.app import OPERATIONS
from posthouse.api.operations import Operation

_KEYED = [operation for operation in OPERATIONS if operation.scopes is not None]
_SCOPED = [operation for operation in _KEYED if operation.scopes]
_OWNED = [
    operation
    for operation in _SCOPED
    if "{" in operation.path and operation.scopes is not None and Scope.OPERATOR not in operation.scopes
]


def _path(operation: Operation, values: dict[str, str] | None = None) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: (values or {}).get(match[1], "x"), operation.path)


def _id(operation: Operation) -> str:
    return operation.id


@pytest.mark.parametrize("operation", _KEYED, ids=_id)
def test_without_a_key_nothing_is_told(api: Running, operation: Operation) -> None:
    for headers in ({}, {"Authorization": "Bearer ph_wrong"}, {"Authorization": "Basic eDp5"}):
        reply = api.anyone.request(operation.method, _path(operation), json=operation.example, headers=headers)
        assert reply.status_code == 401
        assert reply.json()["code"] == "unauthorized"
        assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("operation", _SCOPED, ids=_id)
def test_without_the_scope_nothing_is_done(api: Running, operation: Operation) -> None:
    assert operation.scopes is not None
    tenant = api.run(api.services.accounts.create_tenant(f"scope {operation.id}"))
    others = ALL_SCOPES - operation.scopes
    client = api.client(api.run(api.services.accounts.create_key(tenant.id, "k", others)).secret)
    reply = client.request(operation.method, _path(operation), json=operation.example)
    assert reply.status_code == 403, reply.text
    assert reply.json()["code"] == "scope_missing"


@pytest.fixture(scope="module")
def alices(api: Running) -> dict[str, dict[str, str]]:
    """Alice's things by tag of their operations: values for the paths."""
    message = api.alice.post("/v1/messages", json={"from": "a@example.com", "to": ["b@example.org"]}).json()["id"]
    key = api.alice.post("/v1/keys", json={"name": "x", "scopes": ["read"]}).json()["id"]
    made: list[tuple[str, dict[str, Any]]] = [
        ("/v1/templates", {"name": "alices", "subject": "Hello", "text": "Hello"}),
        ("/v1/domains", {"name": "alice.example"}),
        ("/v1/suppressions", {"address": "alices@example.org"}),
        ("/v1/streams", {"name": "alices", "kind": "transactional"}),
        ("/v1/mail-domains", {"name": "alices.example"}),
        ("/v1/accounts", {"address": "alice@alices.example"}),
        ("/v1/aliases", {"address": "info@alices.example", "targets": ["alice@alices.example"]}),
    ]
    for path, body in made:
        assert api.alice.post(path, json=body).status_code == 201
    tenant = api.alice.get("/v1/me").json()["tenant"]["id"]
    letter = Letter(api, "alice@alices.example")
    mine = {"account": letter.account, "mailbox": "inbox", "email": str(letter.email), "thread": str(letter.thread)}
    arrived, refused = letter.arrived(tenant), letter.refused(tenant)
    return {
        "Mail domains": {"name": "alices.example"},
        "Accounts": {"account": letter.account},
        "Aliases": {"address": "info@alices.example"},
        "Mailboxes": mine,
        "Emails": mine | {"part": "1"},
        "Threads": mine,
        "Import": mine,
        "Inbound": {"id": arrived},
        "Refusals": {"id": refused},
        "Messages": {"id": message},
        "Keys": {"id": key},
        "Templates": {"name": "alices", "version": "1"},
        "Domains": {"name": "alice.example"},
        "Suppressions": {"address": "alices@example.org"},
        "Streams": {"name": "alices"},
    }


@pytest.mark.parametrize("operation", _OWNED, ids=_id)
def test_another_tenants_thing_does_not_exist(
    api: Running, alices: dict[str, dict[str, str]], operation: Operation
) -> None:
    reply = api.bob.request(operation.method, _path(operation, alices[operation.tag]), json=operation.example)
    assert reply.status_code == 404, reply.text
    unknown = _path(
        operation,
        {"id": ids.new("msg"), "name": "none.example", "version": "1", "address": "no@x.example"}
        | {"account": "acc_none", "mailbox": "1", "email": "1", "thread": "1", "part": "1"},
    )
    missing = api.bob.request(operation.method, unknown, json=operation.example)
    assert missing.status_code == 404
    assert missing.json()["code"] == reply.json()["code"]


@pytest.mark.parametrize("operation", [one for one in _OWNED if one.method == "GET"], ids=_id)
def test_ones_own_thing_does(api: Running, alices: dict[str, dict[str, str]], operation: Operation) -> None:
    reply = api.alice.get(_path(operation, alices[operation.tag]))
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.id.startswith("list_") and "{" not in one.path], ids=_id
)
def test_lists_show_ones_own_only(api: Running, alices: dict[str, dict[str, str]], operation: Operation) -> None:
    if operation.tag == "Tenants":
        return
    mark = next(iter(alices[operation.tag].values()))
    assert mark in api.alice.get(operation.path).text
    assert mark not in api.bob.get(operation.path).text


def test_a_tenant_reaches_no_operator_operation(api: Running) -> None:
    tenant_id = api.alice.get("/v1/me").json()["tenant"]["id"]
    for operation in OPERATIONS:
        if operation.scopes == {Scope.OPERATOR}:
            path = _path(operation, {"id": tenant_id})
            assert api.alice.request(operation.method, path, json=operation.example).status_code == 403


def test_a_key_gives_away_no_more_than_it_has(api: Running) -> None:
    secret = api.alice.post("/v1/keys", json={"name": "k", "scopes": ["keys", "read"]}).json()["secret"]
    client = api.client(secret)
    for scope in ("send", "operator"):
        refused = client.post("/v1/keys", json={"name": "k", "scopes": [scope]})
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert client.post("/v1/keys", json={"name": "k", "scopes": ["read"]}).status_code == 201


def test_a_bound_key_stays_with_its_domain(api: Running) -> None:
    api.alice.post("/v1/domains", json={"name": "bound.example"})
    api.alice.post("/v1/domains", json={"name": "free.example"})
    body = {"name": "k", "scopes": sorted(TENANT_SCOPES), "domain": "bound.example"}
    client = api.client(api.alice.post("/v1/keys", json=body).json()["secret"])
    assert client.post("/v1/domains", json={"name": "new.example"}).status_code == 403
    assert client.post("/v1/domains/free.example/verify").status_code == 404
    assert client.delete("/v1/domains/free.example").status_code == 404
    assert client.post("/v1/domains/bound.example/verify").status_code == 200
    assert client.post("/v1/keys", json={"name": "k", "scopes": ["send"]}).json()["code"] == "key_bound"


def test_a_revoked_key_is_refused_at_once(api: Running) -> None:
    made = api.alice.post("/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
    client = api.client(made["secret"])
    assert client.get("/v1/me").status_code == 200
    revoked = api.alice.delete(f"/v1/keys/{made['id']}")
    assert revoked.json()["revoked_at"]
    assert "secret" not in revoked.json()
    assert client.get("/v1/me").status_code == 401
