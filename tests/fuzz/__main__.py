"""The command: see the package."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.harness import Failure, fuzz, targets

_SLACK = 60.0  # seconds that a target may take beyond its share, to start and to report


def main() -> int:
    """1 when a target fails."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutation fuzzing.")
    parser.add_argument("name", choices=[*known, "all"])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="the same seed tries the same inputs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    if given.name == "all":
        return _all(known, given.seconds, seed, max(given.jobs, 1))
    try:
        started = time.process_time()
        tried = fuzz(known[given.name], given.seconds, seed)
        rate = tried / max(time.process_time() - started, 0.001)
    except Failure as failure:
        kept = Path(tempfile.gettempdir()) / f"fuzz-{given.name}-{hashlib.sha256(failure.data).hexdigest()[:12]}"
        kept.write_bytes(failure.data)
        told = traceback.format_exception(failure.__cause__) if failure.__cause__ else []
        print(f"{''.join(told)}{failure}, seed {seed}; the input is in {kept}", flush=True)
        return 1
    print(f"{given.name}: {tried:,} inputs, {rate:,.0f} a second of CPU, seed {seed}", flush=True)
    return 0


def _all(names: Iterable[str], seconds: float, seed: int, jobs: int) -> int:
    """Each target in a process of its own, `jobs` at once."""

    def run(name: str) -> int:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--seed", str(seed)]
        try:
            return subprocess.run(command, check=False, timeout=seconds + _SLACK).returncode
        except subprocess.TimeoutExpired:
            print(f"{name}: still not done, seed {seed}", flush=True)
            return 1

    with ThreadPoolExecutor(jobs) as pool:
        return int(any(list(pool.map(run, names))))


if __name__ == "__main__":
    sys.exit(main())
