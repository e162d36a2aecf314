"""A longer ordeal, by command: `python -m tests.crash.long --minutes 10 [--records postgresql://…]`.

Every round is a fresh database, twenty kills and the judgement; it ends with status 1 at the
first broken promise, and says which seed shows it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.ordeal import ordeal


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.long", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=15, help="in one round; a message is set aside after 20 claims")
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    parser.add_argument("--records", default="", help="postgresql://… of an empty database, for one round only")
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    kills = accepted = duplicates = 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="posthouse-crash-") as directory:
            result = ordeal(Path(directory), kills=given.kills, seed=seed, records=given.records, longest=2.5)
        kills, accepted = kills + result.kills, accepted + result.accepted
        duplicates += result.verdict.duplicates
        print(
            f"seed {seed}: {result.accepted} accepted, {dict(result.verdict.states)}, twice {result.verdict.duplicates}"
        )
        if result.wrong:
            print("\n".join(result.wrong[:20]))
            return 1
        if given.records:
            break
        seed += 1
    print(f"{kills} kills, {accepted} messages accepted, none lost, {duplicates} twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
