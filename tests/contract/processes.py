"""Start a program of `tests.contract.workers`, and read what it acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def start(program: str, url: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.contract.workers", program, url, *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Kill it once it has said so many lines; all it ever said."""
    assert process.stdout is not None
    said = [line for line, _ in zip(process.stdout, range(lines), strict=False)]
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return [line.strip() for line in said]
