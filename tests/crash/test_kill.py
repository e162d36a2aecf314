"""SIGKILL at random moments of submit, render and send: what was answered 202 is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.ordeal import ordeal


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.timeout(180)
def test_killed_on_sqlite(tmp_path: Path, seed: int) -> None:
    result = ordeal(tmp_path, kills=12, seed=seed)
    assert result.wrong == []
    assert result.accepted > 100
    assert result.verdict.states["bounced"] > 0


@pytest.mark.timeout(180)
def test_killed_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    result = ordeal(tmp_path, kills=6, seed=99, records=postgres_url)
    assert result.wrong == []
    assert result.accepted > 50
