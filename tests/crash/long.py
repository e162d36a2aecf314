"""A longer ordeal, by command: `python -m tests.crash.long --minutes 10 [--records postgresql://…]`.

Every round is a fresh database, fifteen kills and the judgement; it ends with status 1 at the
first broken promise, and says which seed shows it again. `--flow` says what is tried: sending,
receiving, or receiving with power cuts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import ordeal as sending
from tests.crash import receive_ordeal as receiving
from tests.crash.powerloss.ordeal import power_cuts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.long", description=__doc__)
    parser.add_argument("--flow", choices=("send", "receive", "power"), default="send")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=15, help="in one round; a message is set aside after 20 claims")
    parser.add_argument("--seed", type=int, default=None, help="of the first round")
    parser.add_argument("--records", default="", help="postgresql://… of an empty database, for one round only")
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    rounds = 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="posthouse-crash-") as directory:
            said, wrong = _round(Path(directory), given, seed)
        print(f"seed {seed}: {said}", flush=True)
        if wrong:
            print("\n".join(wrong[:20]))
            return 1
        rounds += 1
        if given.records:
            break
        seed += 1
    print(f"{rounds * given.kills} kills, nothing lost")
    return 0


def _round(directory: Path, given: argparse.Namespace, seed: int) -> tuple[str, list[str]]:
    """What happened, and what was wrong."""
    kills = given.kills
    if given.flow == "send":
        sent = sending.ordeal(directory, kills=kills, seed=seed, records=given.records, longest=2.5)
        states = dict(sent.verdict.states)
        return f"{sent.accepted} accepted, {states}, twice {sent.verdict.duplicates}", sent.wrong
    if given.flow == "power":
        cut = asyncio.run(power_cuts(directory, kills=kills, seed=seed, longest=1.5))
        return f"{cut.accepted} accepted, brought again {cut.repeats}", cut.wrong
    made = asyncio.run(receiving.ordeal(directory, kills=kills, seed=seed, records=given.records, longest=2.0))
    return f"{made.accepted} accepted, brought again {made.repeats}", made.wrong


if __name__ == "__main__":
    sys.exit(main())
