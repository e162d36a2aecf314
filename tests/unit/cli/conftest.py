"""A command line over a stub of the application, in a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_app import Ran, Run, StubApp

from posthouse.cli import main
from posthouse.cli.session import app_for_tests


@pytest.fixture
def app() -> Iterator[StubApp]:
    stub = StubApp()
    app_for_tests.append(stub)
    yield stub
    app_for_tests.clear()


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without our variables."""
    for name in list(os.environ):
        if name.startswith("POSTHOUSE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data(empty: Path) -> Path:
    """A data directory that has been set up."""
    made = empty / "posthouse-data"
    made.mkdir()
    (made / "operator.key").write_text("ph_operator\n")
    (made / "secret.key").write_bytes(bytes(32))
    return made


@pytest.fixture
def run(app: StubApp, empty: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run_(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run_
