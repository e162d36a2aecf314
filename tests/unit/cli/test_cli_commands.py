"""Each command: what it asks the API, what it shows people, what it gives programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from stub_app import Request, Run, StubApp

from posthouse.cli import client as client_module
from posthouse.cli import send as send_module
from posthouse.cli.client import Client
from posthouse.cli.output import Output

pytestmark = pytest.mark.usefixtures("data")

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "status": "delivered",
    "from": "ann@example.com",
    "subject": "Hello\x1b[31m\nthere",
    "stream": "transactional",
    "lane": "transactional",
    "created_at": "2026-11-22T12:00:00.000000Z",
    "send_at": "2026-11-22T12:00:00.000000Z",
    "expires_at": "2026-11-25T12:00:00.000000Z",
    "recipients": [
        {
            "address": "bob@example.org",
            "status": "delivered",
            "attempts": 1,
            "updated_at": "2026-11-22T12:00:01.000000Z",
            "reply": {"code": 250, "enhanced": "2.0.0", "text": "ok \x1b[2Jqueued"},
        }
    ],
}


def page(*items: dict[str, Any], cursor: str | None = None) -> tuple[int, Any]:
    return 200, {"data": list(items), "next": cursor}


def test_message_list_shows_a_table_or_json(run: Run, app: StubApp) -> None:
    app.answers["GET /v1/messages"] = page(MESSAGE)
    ran = run("message", "list", "--status", "delivered", "--since", "2026-11-22T00:00:00Z")
    assert ran.code == 0
    assert "msg_1" in ran.out
    assert "bob@example.org" in ran.out
    assert app.requests[-1].query == {"status": "delivered", "since": "2026-11-22T00:00:00Z", "limit": "20"}
    assert app.requests[-1].headers["authorization"] == "Bearer ph_operator"
    assert run("message", "list", "--json").json == [MESSAGE]


def test_what_servers_and_users_wrote_cannot_reach_the_terminal_raw(run: Run, app: StubApp) -> None:
    app.answers["GET /v1/messages"] = page(MESSAGE)
    app.answers["GET /v1/messages/msg_1"] = 200, MESSAGE
    for arguments in (("message", "list"), ("message", "show", "msg_1")):
        ran = run(*arguments)
        assert ran.code == 0
        assert "\x1b" not in ran.out
        assert "\N{REPLACEMENT CHARACTER}[" in ran.out


def test_lists_follow_the_cursor_up_to_the_limit(run: Run, app: StubApp) -> None:
    def answer(request: Request) -> tuple[int, Any]:
        start = int(request.query.get("cursor", "0"))
        items = [{"name": f"t{i}"} for i in range(start, start + int(request.query["limit"]))]
        return page(*items, cursor=str(start + len(items)))

    app.answers["GET /v1/templates"] = answer
    found = run("template", "list", "--limit", "450", "--json").json
    assert [one["name"] for one in found] == [f"t{i}" for i in range(450)]
    assert [request.query["limit"] for request in app.requests] == ["200", "200", "50"]


def test_an_empty_list_says_so(run: Run, app: StubApp) -> None:
    app.answers["GET /v1/domains"] = page()
    ran = run("domain", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "posthouse domain add" in ran.err
    assert run("domain", "list", "--json").json == []


def test_explain_tells_the_story_in_both_places(run: Run, app: StubApp) -> None:
    told = {"id": "msg_1", "status": "delivered", "summary": "Delivered.", "story": [{"at": "T", "text": "Accepted."}]}
    app.answers["GET /v1/messages/msg_1/explain"] = 200, told
    for arguments in (("explain", "msg_1"), ("message", "explain", "msg_1")):
        ran = run(*arguments)
        assert ran.out == "Delivered.\nT  Accepted.\n"
    assert run("explain", "msg_1", "--json").json == told


def test_message_verbs(run: Run, app: StubApp) -> None:
    app.answers["POST /v1/messages/msg_1/cancel"] = 200, MESSAGE
    app.answers["PATCH /v1/messages/msg_1"] = 200, MESSAGE
    app.answers["GET /v1/messages/msg_1/content"] = 200, b"Subject: x\r\n\r\n\xff"
    app.answers["GET /v1/messages/msg_1/events"] = page({"at": "T", "type": "accepted", "stage": "submit"})
    assert run("message", "cancel", "msg_1").code == 0
    assert run("message", "reschedule", "msg_1", "2027-01-01T00:00:00Z").code == 0
    assert app.requests[-1].body == {"send_at": "2027-01-01T00:00:00Z"}
    assert run("message", "content", "msg_1").out.startswith("Subject: x\r\n\r\n")
    assert "accepted" in run("message", "events", "msg_1").out


def test_an_id_cannot_change_the_path(run: Run, app: StubApp) -> None:
    assert run("message", "show", "../keys?x=1").code == 1
    assert app.requests[-1].path.startswith("/v1/messages/")
    assert app.requests[-1].query == {}


class TestSend:
    def test_from_flags(self, run: Run, app: StubApp, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(b"%PDF")
        (tmp_path / "v.json").write_text('{"name": "Bob", "n": 1}')
        app.answers["POST /v1/messages"] = 202, {"id": "msg_1", "status": "queued", "recipients": []}
        ran = run(
            *("send", "--from", "Ann <ann@example.com>", "--to", "b@example.org", "--to", "c@example.org"),
            *("--template", "welcome", "--var", "name=Bert", "--var", "n=2", "--vars", str(tmp_path / "v.json")),
            *("--attach", str(tmp_path / "a.pdf"), "--header", "X-Ref=1=2", "--tag", "t", "--idempotency-key", "k1"),
        )
        assert (ran.code, ran.out) == (0, "msg_1 queued\n")
        assert "when `posthouse serve` runs" in ran.err
        request = app.requests[-1]
        assert request.headers["idempotency-key"] == "k1"
        assert request.body == {
            "from": "Ann <ann@example.com>",
            "to": ["b@example.org", "c@example.org"],
            "template": "welcome",
            "variables": {"name": "Bert", "n": 2},
            "attachments": [{"filename": "a.pdf", "content_type": "application/pdf", "content": "JVBERg=="}],
            "headers": {"X-Ref": "1=2"},
            "tags": ["t"],
        }

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (("--attach", "missing.pdf"), "missing.pdf: No such file"),
            (("--html", "missing.html"), "missing.html: No such file"),
            (("--header", "X"), "write NAME=VALUE"),
            (("--var", "=1"), "write NAME=VALUE"),
        ],
    )
    def test_a_wrong_flag_is_usage(self, run: Run, app: StubApp, flags: tuple[str, ...], told: str) -> None:
        ran = run("send", "--from", "a@b.c", "--to", "d@e.f", "--subject", "s", "--text", "t", *flags)
        assert ran.code == 2
        assert told in ran.err
        assert app.requests == []

    def test_a_refusal_shows_each_place(self, run: Run, app: StubApp) -> None:
        errors = [{"pointer": "/to/0", "message": "is no address"}]
        refused = {"code": "invalid_request", "detail": "The request is not valid", "errors": errors}
        app.answers["POST /v1/messages"] = 422, refused
        ran = run("send", "--from", "a@b.c", "--to", "nobody", "--subject", "s", "--text", "t")
        assert ran.code == 1
        assert ran.err == "Error: The request is not valid (invalid_request)\n  /to/0: is no address\n"
        as_json = run("send", "--from", "a@b.c", "--to", "nobody", "--subject", "s", "--text", "t", "--json")
        assert as_json.out == ""
        assert json.loads(as_json.err)["errors"] == errors

    def test_waiting_without_a_server_says_that_nothing_sends(
        self, run: Run, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(send_module, "_SERVER_LIMIT", 0.2)
        app.answers["POST /v1/messages"] = 202, {"id": "msg_1", "status": "queued", "recipients": []}
        ran = run("send", "--from", "a@b.c", "--to", "d@e.f", "--subject", "s", "--text", "t", "--wait")
        assert ran.code == 1
        assert "posthouse serve" in ran.err

    def test_waiting_finds_a_server_that_starts_a_moment_later(
        self, run: Run, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app.answers["POST /v1/messages"] = 202, {"id": "msg_1", "status": "queued", "recipients": []}
        answers = iter([None, None, None, "http://127.0.0.1:9", "http://127.0.0.1:9"])
        follow = list[str]()

        async def later(settings: object) -> str | None:
            return next(answers)

        async def followed(out: object, client: Client, id: str, limit: float) -> None:  # noqa: A002 - the API's name
            follow.append(f"{id} at {client.where}")

        monkeypatch.setattr(client_module, "serving", later)
        monkeypatch.setattr(send_module, "_follow", followed)
        ran = run("send", "--from", "a@b.c", "--to", "d@e.f", "--subject", "s", "--text", "t", "--wait")
        assert ran.code == 0
        assert follow == ["msg_1 at http://127.0.0.1:9"]

    async def test_a_bad_end_is_told_with_its_reason(self, capfd: pytest.CaptureFixture[str]) -> None:
        failed = {**MESSAGE, "status": "failed", "recipients": [{"address": "bob@example.org", "status": "failed"}]}
        story = [{"at": "2026-11-22T12:00:00.000000Z", "text": text} for text in ("Accepted.", "Failed: no `order`.")]

        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json={"story": story} if request.url.path.endswith("/explain") else failed)

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://x") as http:
            with pytest.raises(typer.Exit):
                await send_module._follow(  # pyright: ignore[reportPrivateUsage] - the waiting alone
                    Output(), Client(http, "http://x"), "msg_1", 5.0
                )
        told = capfd.readouterr().err
        assert "Failed: no `order`." in told
        assert "Accepted." not in told
        assert "posthouse explain msg_1" in told


def test_a_job_that_is_not_there_is_not_a_success(run: Run, app: StubApp) -> None:
    app.answers["POST /v1/queue/retry"] = 200, {"changed": 1}
    ran = run("queue", "retry", "job_1", "job_2")
    assert ran.code == 1
    assert "1 job put back." in ran.out
    assert "1 of 2" in ran.err
    assert run("queue", "retry", "--all").code == 0


def test_events_are_readable(run: Run, app: StubApp) -> None:
    reply = {"code": 451, "enhanced": "4.3.0", "text": "later"}
    event = {"at": "2026-11-22T12:00:00.123456Z", "type": "deferred", "stage": "send", "recipient": "bob@example.org"}
    app.answers["GET /v1/messages/msg_1/events"] = page({**event, "data": {"attempt": 1, "reply": reply}})
    out = run("message", "events", "msg_1").out
    assert "2026-11-22T12:00:00.123Z" in out
    assert "attempt=1 reply=“451 4.3.0 later”" in out


def test_a_message_that_is_not_filled_yet_shows_its_template(run: Run, app: StubApp) -> None:
    app.answers["GET /v1/messages"] = page({**MESSAGE, "subject": None, "template": "welcome"})
    assert "(template welcome)" in run("message", "list").out
    assert "2026-11-22T12:00:00Z" in run("message", "list").out


def test_domain_add_prints_a_zone(run: Run, app: StubApp) -> None:
    record = {
        "purpose": "dkim-rsa",
        "type": "TXT",
        "name": "ph1._domainkey.example.com",
        "value": "v=DKIM1; p=AB",
        "strings": '"v=DKIM1; p=A" "B"',
        "required": True,
        "note": "Signs.",
    }
    app.answers["POST /v1/domains"] = 201, {"name": "example.com", "state": "pending", "records": [record]}
    ran = run("domain", "add", "example.com")
    assert 'ph1._domainkey.example.com. IN TXT "v=DKIM1; p=A" "B"' in ran.out.split("\n")
    assert "posthouse domain check example.com" in ran.err


@pytest.mark.parametrize(("state", "ok", "code"), [("verified", True, 0), ("pending", False, 1), ("pending", None, 1)])
def test_domain_check_exits_by_state(run: Run, app: StubApp, state: str, ok: bool | None, code: int) -> None:
    check = {"purpose": "spf", "name": "example.com", "ok": ok, "expected": "v=spf1", "found": "nothing", "at": 1}
    app.answers["POST /v1/domains/example.com/verify"] = 200, {"name": "example.com", "state": state, "checks": [check]}
    ran = run("domain", "check", "example.com")
    assert ran.code == code
    assert f"example.com is {state}." in ran.out
    assert ("expected v=spf1" in ran.out) == (not ok)


class TestTemplates:
    def test_create_publishes(self, run: Run, app: StubApp, tmp_path: Path) -> None:
        (tmp_path / "w.html").write_text("<p>Hi {{ name }}</p>")
        app.answers["POST /v1/templates"] = 201, {"name": "welcome", "published_version": 1}
        ran = run("template", "create", "welcome", "--subject", "Hi", "--html", str(tmp_path / "w.html"))
        assert ran.out == "welcome version 1 is published.\n"
        content = {"subject": "Hi", "html": "<p>Hi {{ name }}</p>"}
        assert app.requests[-1].body == {"name": "welcome", "publish": True, **content}

    def test_update_and_preview(self, run: Run, app: StubApp, tmp_path: Path) -> None:
        (tmp_path / "w.txt").write_text("Hi")
        app.answers["POST /v1/templates/welcome/versions"] = 201, {"version": 2, "warnings": ["no unsubscribe"]}
        app.answers["POST /v1/templates/welcome/preview"] = 200, {"subject": "S", "html": "<p>", "text": "T"}
        ran = run("template", "update", "welcome", "--subject", "Hi", "--text", str(tmp_path / "w.txt"))
        assert ran.out == "welcome version 2, not published.\n"
        assert "no unsubscribe" in ran.err
        assert run("template", "preview", "welcome", "--var", "n=1", "--part", "html").out == "<p>\n"
        assert app.requests[-1].body == {"variables": {"n": 1}}
        assert "SUBJECT\nS" in run("template", "preview", "welcome").out

    def test_no_part_is_usage(self, run: Run) -> None:
        ran = run("template", "create", "welcome", "--subject", "Hi")
        assert ran.code == 2
        assert "--html" in ran.err


def test_keys(run: Run, app: StubApp) -> None:
    app.answers["POST /v1/keys"] = 201, {"id": "key_1", "secret": "ph_secret", "name": "ci"}
    app.answers["GET /v1/keys"] = page({"id": "key_1", "name": "ci", "scopes": ["send"], "revoked_at": None})
    app.answers["DELETE /v1/keys/key_1"] = 200, {}
    ran = run("key", "create", "ci", "--scope", "send", "--domain", "example.com")
    assert ran.out == "ph_secret\n"
    assert app.requests[-1].body == {"name": "ci", "scopes": ["send"], "domain": "example.com"}
    listed = run("key", "list").out
    assert "active" in listed
    assert "ph_secret" not in listed
    app.answers["POST /v1/tenants/ten_2/keys"] = 201, {"id": "key_2", "secret": "ph_other"}
    assert run("key", "create", "first", "--tenant", "ten_2").out == "ph_other\n"
    assert run("key", "revoke", "key_1").out == "key_1 is revoked.\n"


def test_tenants(run: Run, app: StubApp) -> None:
    tenant = {"id": "ten_1", "name": "acme", "rate_per_second": 10, "burst": 20, "daily_quota": 0}
    app.answers["POST /v1/tenants"] = 201, tenant
    app.answers["GET /v1/tenants"] = page(tenant)
    app.answers["PATCH /v1/tenants/ten_1"] = 200, tenant
    assert "--tenant ten_1" in run("tenant", "create", "acme", "--rate", "10").err
    assert app.requests[-1].body == {"name": "acme", "rate_per_second": 10}
    assert "acme" in run("tenant", "list").out
    assert run("tenant", "update", "ten_1", "--daily-quota", "0").code == 0
    assert app.requests[-1].body == {"daily_quota": 0}
    assert run("tenant", "update", "ten_1", "--suspend").code == 0
    assert app.requests[-1].body == {"suspended": True}
    assert run("tenant", "update", "ten_1").code == 2


def test_suppressions(run: Run, app: StubApp) -> None:
    app.answers["POST /v1/suppressions"] = 201, {}
    app.answers["GET /v1/suppressions"] = page({"address": "a@b.c", "reason": "manual"})
    app.answers["DELETE /v1/suppressions/a+b@c.d"] = 200, {}
    assert run("suppression", "add", "a@b.c", "--note", "asked").code == 0
    assert app.requests[-1].body == {"address": "a@b.c", "reason": "manual", "evidence": "asked"}
    assert "manual" in run("suppression", "list", "--address", "a@b.c").out
    assert run("suppression", "remove", "a+b@c.d").code == 0


def test_queue(run: Run, app: StubApp) -> None:
    depths = [{"stage": "send", "lane": "critical", "ready": 3, "delayed": 1, "buried": 1, "oldest_due_at": None}]
    buried = [
        {"id": "msg_1", "stage": "send", "lane": "bulk", "attempts": 9, "reason": "worker died", "buried_at": "T"}
    ]
    app.answers["GET /v1/queue"] = 200, {"depths": depths, "buried": buried}
    app.answers["POST /v1/queue/retry"] = 200, {"changed": 1}
    app.answers["POST /v1/queue/bury"] = 200, {"changed": 2}
    listed = run("queue", "list").out
    assert "critical" in listed
    assert "worker died" in listed
    assert run("queue", "retry", "--all").out == "1 job put back.\n"
    assert app.requests[-1].body == {"all": True}
    assert run("queue", "bury", "a", "b", "--reason", "poison").out == "2 jobs buried.\n"
    assert run("queue", "retry").code == 2
    assert run("queue", "retry", "a", "--all").code == 2
