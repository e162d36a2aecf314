"""deploy/compose.yaml: our rules for every container, settings that exist, engines as in scripts/services."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from manifests import DEPLOY, ROOT, compose, loaded, secrets

from posthouse.config.schema import ROLES
from posthouse.config.units import seconds

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = [name for name, one in SERVICES.items() if one["image"].startswith("posthouse:")]
ONCE = {"init", "s3-volume"}
SCRIPTS = ROOT / "scripts" / "services"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_pinned(name: str) -> None:
    one = SERVICES[name]
    image, _, tag = one["image"].partition(":")
    assert re.fullmatch(r"[a-z]+(/[a-z0-9]+)?", image), "a plain name, without a registry"
    assert re.match(r"v?\d+\.\d+", tag), "a version, and no latest"
    limits = one["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert one["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert one["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_rights_it_does_not_need(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert not one.get("privileged")
    if name == "s3-volume":  # gives a directory away, without a network, and ends
        assert one["cap_add"] == ["CHOWN"]
        assert one["network_mode"] == "none"
    else:
        assert "cap_add" not in one
        assert int(one["user"].partition(":")[0]) > 0


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONCE])
def test_whoever_stays_is_asked_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(check["timeout"]) <= seconds(check["interval"])  # type: ignore[operator]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_and_mounted_is_there(name: str) -> None:
    one, whole = SERVICES[name], compose()
    for other, how in one.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert how["condition"] == wanted
        assert other in SERVICES
    assert set(one.get("secrets", [])) <= whole["secrets"].keys()
    assert {mount.partition(":")[0] for mount in one.get("volumes", [])} <= whole["volumes"].keys()
    assert set(one.get("networks", [])) <= whole["networks"].keys()


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_settings(name: str, tmp_path: Path) -> None:
    one = SERVICES[name]
    given = {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in one["environment"].items()}
    made = secrets(tmp_path / "secrets")
    settings = loaded(given, {"/run/secrets": made}, tmp_path)
    for key, value in given.items():
        if key.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in one["secrets"]
    password = (made / "postgres_password").read_text()
    assert settings.records.url == f"postgresql://posthouse:{password}@postgres:5432/posthouse"
    assert settings.bus.url == f"redis://default:{(made / 'redis_password').read_text()}@redis:6379/0"
    assert str(settings.queue.url).startswith("kafka://kafka:")
    assert settings.search.url == "http://opensearch:9200"
    assert settings.blobs.secret_key is not None
    assert settings.blobs.secret_key.get_secret_value() == (made / "s3_secret_key").read_text()
    assert not settings.embedded
    assert one["stop_grace_period"] and seconds(one["stop_grace_period"]) >= 2 * settings.worker.drain_timeout  # type: ignore[operator]
    if name not in ONCE:
        assert (settings.http.host, settings.http.health_port) == ("0.0.0.0", 8026)


def test_every_role_is_served_once() -> None:
    served = [
        role for name in OURS for role in SERVICES[name]["environment"].get("POSTHOUSE_ROLES", "").split(",") if role
    ]
    assert sorted(served) == sorted(ROLES)


def test_ports_lead_to_what_listens() -> None:
    api, mx = SERVICES["api"], SERVICES["mx"]
    assert api["ports"] == [f"127.0.0.1:8025:{api['environment']['POSTHOUSE_HTTP__PORT']}"]
    assert mx["ports"] == [f"25:{mx['environment']['POSTHOUSE_RECEIVE__MX'].partition(':')[2]}"]
    for engine in ("postgres", "redis", "kafka", "s3", "opensearch"):
        assert "ports" not in SERVICES[engine]
        assert SERVICES[engine]["networks"] == ["engines"]
    assert compose()["networks"]["engines"] == {"internal": True}


def test_secrets_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    made = secrets(tmp_path / "secrets")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in made.iterdir()}
    assert before.keys() == compose()["secrets"].keys()
    assert {path.read_text() for path in secrets(made).iterdir()} == set(before.values())
    assert len({before["postgres_password"], before["redis_password"], before["s3_secret_key"]}) == 3
    assert all(len(before[name]) >= 30 for name in ("postgres_password", "redis_password", "s3_secret_key"))


def script(name: str) -> str:
    return (SCRIPTS / f"{name}.sh").read_text()


def test_engines_have_the_versions_of_the_tests() -> None:
    assert SERVICES["kafka"]["image"].endswith(":" + re.findall(r"KAFKA_VERSION:-([\d.]+)", script("kafka"))[0])
    opensearch = re.findall(r"OPENSEARCH_VERSION:-([\d.]+)", script("opensearch"))[0]
    assert opensearch.startswith(SERVICES["opensearch"]["image"].partition(":")[2])
    assert SERVICES["s3"]["image"].endswith(":" + re.findall(r"S3_VERSION:-(v[\d.]+)", script("s3"))[0])


_PLACES = {"process.roles", "node.id", "listeners", "advertised.listeners", "log.dirs", "controller.listener.names"}


def test_kafka_is_set_as_in_the_tests() -> None:
    (block,) = re.findall(r"server\.properties\" <<CONF\n(.*?)\nCONF", script("kafka"), re.DOTALL)
    found = dict(line.split("=", 1) for line in block.splitlines() if line and not line.startswith("#"))
    environment = SERVICES["kafka"]["environment"]
    for name, value in found.items():
        # Listeners are where it lies; the tests have one more, with TLS and a login.
        if name not in _PLACES and not name.startswith(("controller.quorum", "listener.")):
            assert environment["KAFKA_" + name.upper().replace(".", "_")] == value, name
    heap = re.findall(r"KAFKA_HEAP:-(\w+)", script("kafka"))[-1]
    assert environment["KAFKA_HEAP_OPTS"] == f"-Xms{heap} -Xmx{heap}"
    assert environment["KAFKA_LOG_FLUSH_INTERVAL_MESSAGES"] == "1", "one node: acknowledged is on disk"


def test_postgresql_is_set_as_in_the_tests() -> None:
    (block,) = re.findall(r"<<CONF\n(.*?)\nCONF", script("postgres"), re.DOTALL)
    found = dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in block.splitlines())
    command = SERVICES["postgres"]["command"]
    for name, value in found.items():
        if name not in {"listen_addresses", "unix_socket_directories"}:
            assert f"{name}={value}" in command
    assert "fsync=on" in command


def test_redis_is_set_as_in_the_tests() -> None:
    (block,) = re.findall(r"redis\.conf\" <<CONF\n(.*?)\nCONF", script("redis"), re.DOTALL)
    (command,) = SERVICES["redis"]["command"]
    for line in block.splitlines():
        name, _, value = line.partition(" ")
        if name not in {"bind", "port", "dir", "daemonize"}:
            assert f"--{name} {value}" in command


def test_opensearch_is_set_as_in_the_tests() -> None:
    environment, text = SERVICES["opensearch"]["environment"], script("opensearch")
    settings = dict(re.findall(r"\b((?:discovery|action|node)\.[a-z_.]+)=([\w,-]+)", text))
    assert len(settings) >= 4
    for name, value in settings.items():
        assert environment[name] == value, name
    heap = re.findall(r"OPENSEARCH_HEAP:-(\w+)", text)[-1]
    assert environment["OPENSEARCH_JAVA_OPTS"] == f"-Xms{heap} -Xmx{heap}"


def test_s3_is_started_as_in_the_tests() -> None:
    (command,) = SERVICES["s3"]["command"]
    for flag in ("--region us-east-1", "--keep-alive", "--health /health", "--versioning-dir"):
        assert flag in script("s3").replace("\\\n   ", "").replace('"', "") or flag in script("s3")
        assert flag in command


def test_the_dockerfile_builds_from_the_lock_and_leaves_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert len(set(stages)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", stages[0])
    assert "--require-hashes -r requirements.lock" in text
    assert text.index("pip install --require-hashes") < text.index("COPY src")
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "pip install" not in last
    allowed = (ROOT / ".dockerignore").read_text()
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert f"!{name}" in allowed
            assert (ROOT / name).exists()
