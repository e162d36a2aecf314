"""`python -m bench [NAME] [OPTIONS]`: one benchmark, or all of them."""

from __future__ import annotations

import sys

from bench import all as every
from bench.report import main

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in every.BENCHMARKS:
        name = sys.argv.pop(1)
        sys.argv[0] = f"python -m bench {name}"
        main(every.BENCHMARKS[name].measure, every.BENCHMARKS[name].options)
    else:
        every.command()
