"""Start, set-up, settings, and how failures end: a code and a line, never a traceback."""

from __future__ import annotations

import errno
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from stub_app import Request, Run, StubApp

import posthouse.cli.client as client_module
from posthouse.cli.client import connect
from posthouse.config import Environment, load
from posthouse.errors import Conflict, Misconfigured, StorageUnavailable, Unauthorized

NOWHERE = Environment(None, None, None, False)


class TestConfigCommand:
    def test_shows_value_source_and_meaning(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POSTHOUSE_HTTP__PORT", "8030")
        monkeypatch.setenv("POSTHOUSE_BLOBS__SECRET_KEY", "hunter2")
        ran = run("config")
        line = next(line for line in ran.out.split("\n") if line.startswith("http.port"))
        assert line.split()[:3] == ["http.port", "8030", "POSTHOUSE_HTTP__PORT"]
        assert "Port to listen on" in line
        assert "hunter2" not in ran.out
        values = {one["name"]: one for one in run("config", "--json").json}
        assert values["http.port"]["value"] == 8030
        assert values["blobs.secret_key"]["value"] == "********"

    def test_one_section_and_only_what_changed(self, run: Run) -> None:
        values = run("config", "retry", "--json").json
        assert {one["name"].split(".")[0] for one in values} == {"retry"}
        changed = run("config", "--changed", "--set", "retry.first=10s", "--json").json
        assert [(one["name"], one["value"]) for one in changed] == [("retry.first", 10)]
        assert run("config", "retri").code == 1

    def test_a_wrong_setting_is_exit_code_2(self, run: Run) -> None:
        ran = run("config", "--set", "http.port=x")
        assert ran.code == 2
        assert ran.err.startswith("Error: http.port = x (--set http.port): needs a whole number")
        assert run("config", "--set", "nonsense").code == 2


class TestInit:
    def answers(self, app: StubApp) -> None:
        made: list[dict[str, Any]] = []

        def create(request: Request) -> tuple[int, Any]:
            made.append({"id": "key_1", "name": request.body["name"], "secret": "ph_first"})
            return 201, made[-1]

        def listed(request: Request) -> tuple[int, Any]:
            return 200, {"data": [{"id": one["id"], "name": one["name"]} for one in made], "next": None}

        app.answers["GET /v1/me"] = 200, {}
        app.answers["GET /v1/keys"] = listed
        app.answers["POST /v1/keys"] = create

    def test_makes_everything_and_can_be_repeated(self, run: Run, app: StubApp, empty: Path) -> None:
        self.answers(app)
        ran = run("init", "--tenant", "acme", "--hostname", "mail.example.com")
        assert ran.code == 0
        assert "ph_first" in ran.out
        assert "posthouse serve" in ran.out
        data = empty / "posthouse-data"
        assert stat.S_IMODE((data / "operator.key").stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert (data / "operator.key").read_text() == "ph_operator1\n"
        assert tomllib.loads((data / "posthouse.toml").read_text()) == {"hostname": "mail.example.com"}
        again = run("init", "--tenant", "acme")
        assert again.code == 0
        assert "ph_first" not in again.out
        assert app.bootstrapped == ["acme"]

    def test_replaces_an_operator_key_that_no_longer_works(self, run: Run, app: StubApp, data: Path) -> None:
        self.answers(app)
        app.keys.clear()
        assert run("init").code == 0
        assert (data / "operator.key").read_text() == "ph_operator1\n"

    def test_prints_the_records_of_a_domain_new_or_not(self, run: Run, app: StubApp) -> None:
        self.answers(app)
        record = {"purpose": "spf", "type": "TXT", "name": "example.com", "value": "v=spf1 -all"}
        domain = {"name": "example.com", "state": "pending", "records": [record]}
        app.answers["POST /v1/domains"] = 201, domain
        assert "example.com. IN TXT v=spf1 -all" in run("init", "--domain", "example.com").out
        app.answers["POST /v1/domains"] = 409, {"code": "domain_exists", "detail": "It is there"}
        app.answers["GET /v1/domains/example.com"] = 200, domain
        assert "example.com. IN TXT v=spf1 -all" in run("init", "--domain", "example.com").out


class TestServe:
    def test_runs_and_leaves_its_address_while_it_does(self, run: Run, app: StubApp, data: Path) -> None:
        ran = run("serve", "--port", "0", "--roles", "api,send")
        assert ran.code == 0
        assert app.started.waited
        assert app.settings[0].roles == ("api", "send")
        assert app.settings[0].http.port == 0
        assert "http://127.0.0.1:1" in ran.err
        assert app.settings[0].routes == ()
        assert not (data / "serve.json").exists()

    @pytest.mark.usefixtures("data")
    def test_everything_can_go_to_a_sink(self, run: Run, app: StubApp) -> None:
        assert run("serve", "--sink", "127.0.0.1:2525").code == 0
        (route,) = app.settings[0].routes
        assert (route.kind, route.domains, route.hosts) == ("static", ("*",), ("127.0.0.1:2525",))

    @pytest.mark.usefixtures("empty")
    def test_needs_init(self, run: Run) -> None:
        ran = run("serve")
        assert ran.code == 2
        assert "posthouse init" in ran.err

    @pytest.mark.parametrize(
        ("failure", "code", "told"),
        [
            (OSError(errno.EADDRINUSE, "address already in use"), 1, "choose another with --port"),
            (Conflict("Another serve owns the database.", code="already_running"), 1, "owns the database"),
            (Misconfigured("secret.key is missing."), 2, "secret.key"),
            (StorageUnavailable(detail="private"), 1, "Storage does not answer"),
        ],
    )
    @pytest.mark.usefixtures("data")
    def test_what_stops_the_start_is_said(
        self, run: Run, app: StubApp, failure: Exception, code: int, told: str
    ) -> None:
        app.failure = failure
        ran = run("serve")
        assert ran.code == code
        assert told in ran.err
        assert "private" not in ran.err
        assert "Traceback" not in ran.err


class TestFailures:
    def test_usage(self, run: Run) -> None:
        ran = run("message", "lst")
        assert ran.code == 2
        assert "Did you mean" in ran.err
        assert run("message", "show").code == 2

    @pytest.mark.usefixtures("data")
    def test_a_defect_is_a_line_and_with_debug_a_traceback(
        self, run: Run, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app.failure = ZeroDivisionError("division")
        ran = run("key", "list")
        assert ran.code == 1
        assert "ZeroDivisionError" in ran.err
        assert "Traceback" not in ran.err
        monkeypatch.setenv("POSTHOUSE_DEBUG", "1")
        assert "Traceback" in run("key", "list").err

    @pytest.mark.usefixtures("data")
    def test_an_interrupt(self, run: Run, app: StubApp) -> None:
        app.failure = KeyboardInterrupt()  # type: ignore[assignment]
        assert run("key", "list").code == 130

    @pytest.mark.usefixtures("data")
    def test_a_limit_says_when(self, run: Run, app: StubApp) -> None:
        app.answers["GET /v1/keys"] = 429, {"code": "rate_limited", "detail": "Too many requests"}
        ran = run("key", "list")
        assert (ran.code, ran.err) == (1, "Error: Too many requests (rate_limited)\nTry again in 7 s.\n")

    @pytest.mark.usefixtures("empty")
    def test_without_init(self, run: Run) -> None:
        ran = run("key", "list")
        assert ran.code == 2
        assert "posthouse init" in ran.err

    def test_version_and_help(self, run: Run) -> None:
        assert run("--version").out.startswith("posthouse ")
        assert "Usage" in run("--help").out


class TestConnect:
    async def test_the_operator_key_stays_on_this_machine(self, data: Path) -> None:
        settings = load(environ={}).settings
        with pytest.raises(Unauthorized, match="--key"):
            async with connect(settings, NOWHERE, url="https://mail.example.com"):
                pass
        async with connect(settings, NOWHERE, url="http://127.0.0.1:9") as client:
            assert client.http.headers["authorization"] == "Bearer ph_operator"
        async with connect(settings, NOWHERE, url="https://mail.example.com", key="ph_mine") as client:
            assert client.http.headers["authorization"] == "Bearer ph_mine"

    async def test_a_server_that_serves_here_is_used(
        self, data: Path, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (data / "serve.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": 1}))
        settings = load(environ={}).settings
        async with connect(settings, NOWHERE, app=app) as client:
            assert client.where == "in this process"  # nothing answers there

        async def healthy(self: httpx.AsyncClient, url: str) -> httpx.Response:
            return httpx.Response(200)

        monkeypatch.setattr(client_module.httpx.AsyncClient, "get", healthy)
        async with connect(settings, NOWHERE, app=app) as client:
            assert client.where == "http://127.0.0.1:9"

    def test_a_server_that_is_away_is_said_so(self, run: Run, data: Path) -> None:
        ran = run("key", "list", "--url", "http://127.0.0.1:9")
        assert ran.code == 1
        assert "posthouse serve" in ran.err

    async def test_a_server_that_is_just_starting_is_waited_for(
        self, data: Path, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app.failure = Misconfigured("The database is in use.", code="database_in_use")
        answers = iter([None, None, "http://127.0.0.1:9"])

        async def later(settings: object) -> str | None:
            return next(answers)

        monkeypatch.setattr(client_module, "serving", later)
        async with connect(load(environ={}).settings, NOWHERE, app=app) as client:
            assert client.where == "http://127.0.0.1:9"

    def test_a_server_that_never_answers_is_said_so(
        self, run: Run, data: Path, app: StubApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app.failure = Misconfigured("The database is in use.", code="database_in_use")
        monkeypatch.setattr(client_module, "_START_LIMIT", 0.2)
        ran = run("key", "list")
        assert ran.code == 1
        assert "does not answer" in ran.err

    async def test_a_damaged_serve_file_is_ignored(self, data: Path, app: StubApp) -> None:
        for text in ("", "[]", '{"url": 3}', '{"url": "http://["}'):
            (data / "serve.json").write_text(text)
            async with connect(load(environ={}).settings, NOWHERE, app=app) as client:
                assert client.where == "in this process"


def test_no_command_shows_the_help_and_nothing_else(run: Run) -> None:
    ran = run()
    assert ran.code == 2
    assert "Usage" in ran.out
    assert ran.err == ""
