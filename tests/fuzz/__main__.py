"""The command: see the package."""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import Failure, fuzz, targets


def main() -> int:
    """1 when a target fails."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutation fuzzing.")
    parser.add_argument("name", choices=[*known, "all"])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="the same seed tries the same inputs")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    failed = 0
    for name in known if arguments.name == "all" else [arguments.name]:
        try:
            print(f"{name}: {fuzz(known[name], arguments.seconds, seed):,} inputs, seed {seed}", flush=True)
        except Failure as failure:
            failed = 1
            kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{hashlib.sha256(failure.data).hexdigest()[:12]}"
            kept.write_bytes(failure.data)
            print(f"{failure}, seed {seed}; the input is in {kept}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
