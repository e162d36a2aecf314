"""A fault run by command:

    python -m tests.crash.cluster [--minutes 10] [--seed N] [--faults a,b] [--engines postgres,s3]

It prints what happens as it happens, and the verdict; ends with 1 at a broken promise. What is
needed to read a failure stays in the directory that it names: history.jsonl, sink.jsonl and
what each process has said.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench import material
from bench.cluster import NAMES

from tests.crash.cluster.faults import catalogue
from tests.crash.cluster.run import Result, Run
from tests.crash.cluster.world import world


def main() -> int:
    known = catalogue()
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="0: each fault once, in order")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--faults", default="", help=f"of {', '.join(known)}; a part of a name chooses all with it")
    parser.add_argument("--engines", default=",".join(NAMES))
    parser.add_argument("--keep", action="store_true", help="keep the directory of a good run, too")
    given = parser.parse_args()
    wanted = [word for word in given.faults.split(",") if word]
    chosen = [one for name, one in known.items() if not wanted or any(word in name for word in wanted)]
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    directory = Path(tempfile.mkdtemp(prefix="posthouse-faults-", dir=material.DISK))
    directory.chmod(0o755)  # PostgreSQL runs as another user than root
    print(f"seed {seed}, in {directory}", flush=True)
    with world(directory, given.engines.split(","), seed=seed) as one:
        result = Run(one, lambda line: print(line, flush=True), seed=seed)(chosen, minutes=given.minutes)
    _show(result)
    if not result.wrong and not given.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if result.wrong else 0


def _show(result: Result) -> None:
    for name, why in result.skipped.items():
        print(f"skipped {name}: {why}")
    print(f"{result.sent} messages accepted: {dict(result.states)}; at the sink twice: {dict(result.twice)}")
    print(f"{result.received} letters received; requests and letters brought again: {result.asked_again}")
    print(f"{result.critical} critical messages judged in calm")
    for line in result.wrong[:40]:
        print(f"BROKEN {line}")
    print("The promise was broken." if result.wrong else f"{len(result.happenings)} faults, and every promise kept.")


if __name__ == "__main__":
    sys.exit(main())
