"""Clients of other people that the tests need."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "services"


@cache
def _missing(tool: str) -> str:
    """Why it cannot be had; '' when it is there, or is now."""
    command = ["bash", str(_SCRIPTS / f"{tool}.sh"), "install"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return ran.stderr.strip() or "it cannot be installed" if ran.returncode else ""


def need(tool: str) -> None:
    """Installs it where that can be done; where it cannot, the test is skipped, but never in CI."""
    why = _missing(tool)
    if why and os.environ.get("CI") != "true":
        pytest.skip(f"{tool}: {why}")
    assert not why, why
