"""Precedence, provenance, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.config import Configuration, Environment, Settings, load
from posthouse.errors import Misconfigured


def loaded(tmp_path: Path, toml: str = "", **rest: object) -> Configuration:
    if toml:
        (tmp_path / "posthouse.toml").write_text(toml)
    return load(**{"environ": {}, "cwd": tmp_path, **rest})  # type: ignore[arg-type]


def wrong(tmp_path: Path, toml: str = "", **rest: object) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        loaded(tmp_path, toml, **rest)
    return caught.value


def test_flags_go_before_variables_before_the_file_before_defaults(tmp_path: Path) -> None:
    toml = "[http]\nport = 1\nhost = '0.0.0.0'\nbacklog = 7\n"
    environ = {"POSTHOUSE_HTTP__PORT": "2", "POSTHOUSE_HTTP__HOST": "::1"}
    made = loaded(tmp_path, toml, environ=environ, flags={"http.port": 3}, labels={"http.port": "--port"})
    assert (made.settings.http.port, made.settings.http.host, made.settings.http.backlog) == (3, "::1", 7)
    sources = {value.setting.name: (value.source.kind, value.source.at) for value in made.values()}
    assert sources["http.port"] == ("flag", "--port")
    assert sources["http.host"] == ("variable", "POSTHOUSE_HTTP__HOST")
    assert sources["http.backlog"] == ("file", str(tmp_path / "posthouse.toml"))
    assert sources["http.max_body"] == ("default", "")


def test_a_flag_that_was_not_given_and_an_empty_variable_count_as_not_set(tmp_path: Path) -> None:
    made = loaded(tmp_path, environ={"POSTHOUSE_HTTP__PORT": ""}, flags={"http.port": None})
    assert made.settings.http.port == 8025


def test_the_first_file_found_is_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "posthouse.toml").write_text("hostname = 'in.data'")
    environ = {"POSTHOUSE_DATA_DIR": str(data)}
    assert loaded(tmp_path, environ=environ).settings.hostname == "in.data"
    assert loaded(tmp_path, "hostname = 'here'", environ=environ).settings.hostname == "here"
    (tmp_path / "by-variable.toml").write_text("hostname = 'by.variable'")
    environ["POSTHOUSE_CONFIG"] = "by-variable.toml"
    assert loaded(tmp_path, environ=environ).settings.hostname == "by.variable"
    (tmp_path / "by-flag.toml").write_text("hostname = 'by.flag'")
    made = loaded(tmp_path, environ=environ, file=Path("by-flag.toml"))
    assert (made.settings.hostname, made.file) == ("by.flag", tmp_path / "by-flag.toml")


def test_a_named_file_that_is_missing_is_said_so(tmp_path: Path) -> None:
    assert "There is no configuration file" in wrong(tmp_path, file=Path("missing.toml")).public


@pytest.mark.parametrize(
    ("toml", "environ", "meant"),
    [
        ("[http]\nprot = 1", {}, "http.port"),
        ("[htpp]\nport = 1", {}, "[http]"),
        ("port = 1", {}, "http.port"),
        ("[retry]\ncapp = 1", {}, "retry.cap"),
        ("", {"POSTHOUSE_HTTP_PORT": "1"}, "POSTHOUSE_HTTP__PORT"),
        ("", {"POSTHOUSE_RETRY__FRIST": "1"}, "POSTHOUSE_RETRY__FIRST"),
    ],
)
def test_an_unknown_setting_stops_with_what_was_meant(
    tmp_path: Path, toml: str, environ: dict[str, str], meant: str
) -> None:
    text = wrong(tmp_path, toml, environ=environ).public
    assert "there is no such setting" in text
    assert f"did you mean {meant}?" in text


def test_an_unknown_setting_with_nothing_near_points_to_the_list(tmp_path: Path) -> None:
    assert "`posthouse config` lists them all" in wrong(tmp_path, "zzzzqqqq = 1").public


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("http.port", "eighty", "needs a whole number (the default is 8025)"),
        ("http.port", 70000, "needs to be less than or equal to 65535"),
        ("http.port", True, "needs a value, not true or false"),
        ("send.tls", "requird", "did you mean required?"),
        ("retry.first", "5 parsecs", 'such as "90s"'),
        ("retry.first", 0, "greater than 0"),
        ("retry.first", float("nan"), "(the default is 5 min)"),
        ("retry.jitter", 1.5, "less than 1"),
        ("http.max_body", "1 furlong", 'such as "512KiB"'),
        ("records.url", "mysql://h/d", "begins with sqlite: or postgresql:"),
        ("hostname", "a b", "fully qualified"),
        ("hostname", "a\r\nRSET", "fully qualified"),
        ("hostname", 'a"b', "fully qualified"),
        ("hostname", "", "fully qualified"),
        ("roles", "api,snd", "did you mean send?"),
        ("roles", [], "too few"),
        ("log.access", "maybe", "needs true or false"),
        ("limits.batch", 0, "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_stops_with_name_value_source_and_fix(tmp_path: Path, name: str, value: object, fix: str) -> None:
    text = wrong(tmp_path, flags={name: value}).public
    assert text.startswith(name)
    assert f"(--set {name})" in text
    assert fix in text
    assert "\r" not in text


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    caught = wrong(tmp_path, "[http]\nport = 'x'\n[send]\nconections = 3\n", environ={"POSTHOUSE_LIMITS__BATCH": "0"})
    assert len(caught.public.split("\n")) == len(caught.faults) == 3
    assert {fault.pointer for fault in caught.faults} == {"/http/port", "/send/conections", "/limits/batch"}


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    text = wrong(tmp_path, "[http]\nport = \n").public
    assert str(tmp_path / "posthouse.toml") in text
    assert "line 2" in text


@pytest.mark.parametrize("content", [b"\xff\xfe", b"# " + b"x" * (1 << 20)])
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "posthouse.toml").write_bytes(content)
    assert "posthouse.toml" in wrong(tmp_path).public


def test_durations_and_sizes_are_read_with_units(tmp_path: Path) -> None:
    toml = "[http]\nmax_body = '5 MiB'\n[retry]\nfirst = '90s'\ncap = '2 h'\n[dns]\ntimeout = 0.5"
    made = loaded(tmp_path, toml).settings
    assert (made.http.max_body, made.retry.first, made.retry.cap) == (5 * 2**20, 90, 7200)
    assert made.dns.timeout == 0.5


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_as_a_duration_is_a_number_or_a_clear_refusal(text: str) -> None:
    try:
        made = load(flags={"retry.first": text}, environ={}, cwd=Path("/nonexistent"))
    except Misconfigured as refused:
        assert refused.public.startswith("retry.first")
    else:
        assert made.settings.retry.first > 0


def test_paths_are_relative_to_where_they_were_written(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "p.toml").write_text("data_dir = 'd'\n[[routes]]\nkind = 'relay'\nhosts = ['h:1']\nca_file = 'ca.pem'\n")
    made = loaded(tmp_path, file=Path("there/p.toml")).settings
    assert made.data_dir == there / "d"
    assert made.records.url == f"sqlite:///{there / 'd' / 'posthouse.db'}"
    assert made.blobs.url == f"file://{there / 'd' / 'blobs'}"
    assert made.secret_key_file == there / "d" / "secret.key"
    assert made.routes[0].ca_file == there / "ca.pem"
    assert loaded(tmp_path, flags={"data_dir": Path("d")}).settings.data_dir == tmp_path / "d"


def test_settings_made_directly_are_complete(tmp_path: Path) -> None:
    made = Settings(data_dir=tmp_path)
    assert made.records.url == f"sqlite:///{tmp_path / 'posthouse.db'}"
    assert made.embedded
    assert made.http.port == 8025


def test_settings_are_frozen(tmp_path: Path) -> None:
    made = loaded(tmp_path).settings
    with pytest.raises(ValueError, match="frozen"):
        made.http.port = 1  # type: ignore[misc]


class TestRoutes:
    def test_from_a_file(self, tmp_path: Path) -> None:
        toml = "[[routes]]\ndomains = ['*.example']\nkind = 'static'\nhosts = ['127.0.0.1:2525']\n[[routes]]\n"
        first, second = loaded(tmp_path, toml).settings.routes
        assert (first.domains, first.kind, first.hosts) == (("*.example",), "static", ("127.0.0.1:2525",))
        assert (second.domains, second.kind, second.port, second.tls) == (("*",), "mx", 25, None)

    def test_from_a_variable(self, tmp_path: Path) -> None:
        routes = [{"kind": "relay", "hosts": "a:1, b:2"}]
        made = loaded(tmp_path, environ={"POSTHOUSE_ROUTES": json.dumps(routes)})
        assert made.settings.routes[0].hosts == ("a:1", "b:2")

    @pytest.mark.parametrize(
        ("route", "name", "fix"),
        [
            ({"kind": "relay"}, "routes[0]", "needs `hosts`"),
            ({"hosts": ["h:1"]}, "routes[0]", "`hosts` needs kind"),
            ({"kind": "rely", "hosts": ["h"]}, "routes[0].kind", "did you mean relay?"),
            ({"kind": "relay", "hosts": ["h"], "password": "hunter2"}, "routes[0]", "need `username`"),
            ({"host": ["h"]}, "routes[0].host", "did you mean hosts?"),
            ("mx", "routes[0]", "needs a table"),
        ],
    )
    def test_a_wrong_one_is_named(self, tmp_path: Path, route: object, name: str, fix: str) -> None:
        text = wrong(tmp_path, environ={"POSTHOUSE_ROUTES": json.dumps([route])}).public
        assert text.startswith(f"{name} = ")
        assert fix in text
        assert "hunter2" not in text

    def test_a_variable_that_is_not_json(self, tmp_path: Path) -> None:
        assert "JSON list" in wrong(tmp_path, environ={"POSTHOUSE_ROUTES": "[oops"}).public


class TestSecrets:
    ENVIRON: ClassVar = {
        "POSTHOUSE_RECORDS__URL": "postgresql://ann:hunter2@db/posthouse",
        "POSTHOUSE_BLOBS__SECRET_KEY": "hunter2",
        "POSTHOUSE_ROUTES": json.dumps([{"kind": "relay", "hosts": ["h"], "username": "ann", "password": "hunter2"}]),
    }

    def test_show_nowhere(self, tmp_path: Path) -> None:
        made = loaded(tmp_path, environ=self.ENVIRON)
        shown = [(value.shown, json.dumps(value.value)) for value in made.values()]
        assert "hunter2" not in repr(made) + str(made.settings) + repr(shown)
        values = {value.setting.name: value.shown for value in made.values()}
        assert values["records.url"] == "postgresql://ann:***@db/posthouse"
        assert values["blobs.secret_key"] == "********"
        assert "password=********" in values["routes"]

    def test_are_there_for_who_needs_them(self, tmp_path: Path) -> None:
        made = loaded(tmp_path, environ=self.ENVIRON).settings
        assert str(made.records.url) == "postgresql://ann:hunter2@db/posthouse"
        assert made.blobs.secret_key is not None
        assert made.blobs.secret_key.get_secret_value() == "hunter2"

    @pytest.mark.parametrize(
        "url", ["mysql://u:hunter2@h", "postgresql:u:hunter2@h/d", "http://[u:hunter2@h", "postgres://u:hun@hunter2@h"]
    )
    def test_show_in_no_error(self, tmp_path: Path, url: str) -> None:
        environ = {"POSTHOUSE_RECORDS__URL": url, "POSTHOUSE_HTTP__PORT": "x"}
        assert "hunter2" not in wrong(tmp_path, environ=environ).public


def test_the_environment_of_the_command_line_hides_its_key() -> None:
    read = Environment.read({"POSTHOUSE_API_KEY": "ph_x", "POSTHOUSE_URL": "http://h", "POSTHOUSE_DEBUG": "0"})
    assert (read.api_key, read.url, read.debug, read.config) == ("ph_x", "http://h", False, None)
    assert "ph_x" not in repr(read)
    assert Environment.read({"POSTHOUSE_DEBUG": "1"}).debug


@pytest.mark.parametrize("value", ["5", "1.5", "true", "[1]", "{ a = 1 }", "1979-05-27"])
def test_a_data_directory_that_is_no_path_is_told(tmp_path: Path, value: str) -> None:
    assert "data_dir" in wrong(tmp_path, f"data_dir = {value}\n").public


def test_the_home_of_nobody_stays_as_it_is_written(tmp_path: Path) -> None:
    made = loaded(tmp_path, "data_dir = '~no-such-user/data'\n")
    assert made.settings.data_dir == tmp_path / "~no-such-user/data"
