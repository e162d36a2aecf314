"""Log lines: standard error, from a level on, one JSON object a line unless people look."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog
from stub_app import Run

from posthouse.cli.logs import configure


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def _error() -> Exception:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        return error


def test_a_line_is_one_json_object_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "auto")
    structlog.get_logger("x").warning("stage_fault", stage="render", jobs=3, text="a\nb", exc_info=_error())
    out, err = capsys.readouterr()
    assert out == ""
    line = json.loads(err)
    assert err.count("\n") == 1
    assert (line["event"], line["level"], line["stage"], line["jobs"]) == ("stage_fault", "warning", "render", 3)
    assert line["at"].endswith("Z")
    assert "ValueError" in line["exception"]


def test_the_level_holds_back(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "json")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").error("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


def test_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "console")
    structlog.get_logger("x").info("stopped", in_flight=0)
    err = capsys.readouterr().err
    assert "stopped" in err
    assert "in_flight=0" in err
    assert not err.startswith("{")


@pytest.mark.usefixtures("data")
def test_serve_takes_its_settings(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("serve", "--log-level", "error", "--log-format", "json").code == 0
    structlog.get_logger("x").warning("quiet")
    structlog.get_logger("x").error("loud")
    assert [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()] == ["loud"]
