"""Full-text search over a million messages: how fast they are indexed, how large the index is,
how long a query takes, and how soon a new message is found.

Twice: one account that holds all of them, and a thousand accounts. A message is 6 KB as sent,
with about 3 KB of text whose words are as frequent as those of a language (Zipf), some of
them of a vocabulary that grows without end. Queries are asked once each, never the same.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import material
from bench.client import percentile
from bench.cluster import engines
from bench.postgres import database
from bench.report import Report, main
from posthouse.storage.records.migrations.run import migrate
from posthouse.storage.search.base import Doc, Search
from posthouse.storage.search.factory import open_search
from posthouse.storage.search.query import parse

OCTETS = 6 * 1024
"""Of a message as sent."""
TEXT = 3000
"""Characters of its text."""
VOCABULARY = 200_000
COMMON, WELL_KNOWN = range(20, 60), range(300, 3000)
"""Ranks of words: in half of the messages, and in a few of a hundred."""
SENDERS = 5000
APART = 300_000_000  # µs between two messages
FIRST = 1_400_000_000_000_000
BATCH = 500
SECONDS = 1200.0
"""Longest time to fill one index."""
_BARS = {
    "indexed_per_second": ("≥", 1500.0),
    "index_ratio": ("≤", 0.6),
    "p99_ms": ("<", 50.0),
    "fresh_seconds": ("<", 1.0),
}


class Language:
    """Words by rank, and text made of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words = [_word(rank) for rank in range(VOCABULARY)]
        weights = list(itertools.accumulate(1 / (rank + 2.7) ** 1.1 for rank in range(VOCABULARY)))
        self._running = self.random.choices(self.words, cum_weights=weights, k=2_000_000)
        self._spread = weights
        self.senders = [f"{self.name()} {self.name()} <{self.name()}{n}@{self.name()}.example>" for n in range(SENDERS)]

    def name(self) -> str:
        return self.words[self.random.choice(WELL_KNOWN)]

    def some(self, characters: int) -> str:
        at = self.random.randrange(len(self._running) - characters)
        return " ".join(self._running[at : at + characters // 5])[:characters]

    def sender(self) -> str:
        """A tenth of them send two thirds of the mail."""
        return self.senders[int(SENDERS * self.random.random() ** 3)]


def _word(rank: int) -> str:
    """Longer for rarer ones, as in languages: 4 to 10 letters."""
    letters, number = "", rank * 7919 + 26**3
    while number:
        letters += "etaoinshrdlucmfwypvbgkjqxz"[number % 26]
        number //= 26
    return letters + "ing" * (rank % 5 == 3)


def docs(language: Language, count: int, accounts: int) -> Iterator[list[Doc]]:
    for first in range(0, count, BATCH):
        yield [
            Doc(
                account=f"acc_{(n if accounts == 1 else language.random.randrange(accounts)) % accounts:08d}",
                email=f"eml_{n:032x}",
                received_at=FIRST + n * APART,
                subject=language.some(40),
                from_=(language.sender(),),
                to=("Ann Reader <ann@reader.example>",),
                text=f"{language.some(TEXT)} ref{n:07d}",
                attachments=("report 2026.pdf",) if n % 5 == 0 else (),
            )
            for n in range(first, min(first + BATCH, count))
        ]


def kinds(language: Language, count: int) -> dict[str, Callable[[], str]]:
    def pick(ranks: range) -> str:
        return language.words[language.random.choice(ranks)]

    def sender() -> str:
        return f"from:{language.sender().split('<')[1].rstrip('>')}"

    return {
        "rare": lambda: f"ref{language.random.randrange(count):07d}",
        "common": lambda: pick(COMMON),
        "two_words": lambda: f"{pick(WELL_KNOWN)} {pick(WELL_KNOWN)}",
        "two_common": lambda: f"{pick(COMMON)} {pick(COMMON)}",
        "sender": lambda: f"{pick(COMMON)} {pick(WELL_KNOWN)} {sender()}",
        "phrase": lambda: f'"{pick(COMMON)} {pick(COMMON)}"',
        "prefix": lambda: f"{pick(WELL_KNOWN)[:4]}*",
        "either": lambda: f"{pick(WELL_KNOWN)} OR {pick(COMMON)} -{pick(WELL_KNOWN)}",
    }


ASKED = ("rare", "common", "two_words", "two_common", "sender")
"""What `p99_ms` is about; the others are shown."""


@dataclass(frozen=True, slots=True)
class Filled:
    """`rate`: messages a second, counting only the time inside `index`. `done`: how many there was
    time for. `cpu`: seconds of ours inside `index`."""

    rate: float
    done: int
    cpu: float


async def fill(search: Search, language: Language, count: int, accounts: int) -> Filled:
    spent, cpu, done = 0.0, 0.0, 0
    for batch in docs(language, count, accounts):
        start, used = time.perf_counter(), time.process_time()
        done += await search.index(batch)
        spent += time.perf_counter() - start
        cpu += time.process_time() - used
        if spent > SECONDS:
            break
    return Filled(done / spent, done, cpu)


async def ask(search: Search, language: Language, count: int, accounts: int, times: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    every: list[float] = []
    for name, make in kinds(language, count).items():
        taken: list[float] = []
        for _ in range(times):
            query = parse(make())
            account = f"acc_{language.random.randrange(accounts):08d}"
            start = time.perf_counter()
            await search.query(account, query, limit=50)
            taken.append((time.perf_counter() - start) * 1000)
        figures[f"{name}_p99_ms"] = percentile(taken, 0.99)
        figures[f"{name}_median_ms"] = percentile(taken, 0.5)
        every += taken if name in ASKED else []
    return {"p99_ms": percentile(every, 0.99), **figures}


async def freshness(search: Search, count: int) -> float:
    """Seconds from `index` of one message until a query finds it: the worst of 20."""
    worst = 0.0
    for n in range(20):
        doc = Doc("acc_00000000", f"eml_fresh{n}", FIRST + (count + n) * APART, text=f"fresh{n}word")
        start = time.perf_counter()
        await search.index([doc])
        if not (await search.query("acc_00000000", parse(f"fresh{n}word"))).emails:
            raise AssertionError("a message was indexed and is not found")
        worst = max(worst, time.perf_counter() - start)
    return worst


async def run(
    url: str, count: int, accounts: int, times: int, engine_cpu: Callable[[], float] | None = None
) -> dict[str, float]:
    """:param engine_cpu: seconds that a server beside us has used."""
    language = Language(accounts)
    search = await open_search(url)
    figures: dict[str, float] = {}
    try:
        used = engine_cpu() if engine_cpu is not None else 0.0
        filled = await fill(search, language, count, accounts)
        done = filled.done
        if engine_cpu is not None:
            figures["engine_cpu_us"] = (engine_cpu() - used) / done * 1e6
        size = await search.size()
        used = engine_cpu() if engine_cpu is not None else 0.0
        figures |= await ask(search, language, done, accounts, times)
        if engine_cpu is not None:
            figures["engine_query_cpu_ms"] = (engine_cpu() - used) / (times * len(kinds(language, done))) * 1e3
        fresh = await freshness(search, done)
    finally:
        await search.close()
    return {
        "messages": float(done),
        "indexed_per_second": filled.rate,
        "index_cpu_us": filled.cpu / done * 1e6,
        "index_ratio": size.octets / (done * OCTETS),
        "fresh_seconds": fresh,
        **figures,
    }


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200, help="of each kind")
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 1000])
    parser.add_argument(
        "--engine", choices=("sqlite", "opensearch"), default="sqlite", help="opensearch: a server of its own, one node"
    )
    parser.add_argument("--shards", type=int, default=1, help="of OpenSearch's index")
    parser.add_argument("--postgresql", metavar="URL", help="measure there too, with a tenth of the messages")


def measure(arguments: argparse.Namespace) -> Report:
    """Full-text search: rate, size and time."""
    figures: dict[str, float] = {}
    for accounts in arguments.accounts:
        if arguments.engine == "opensearch":
            got = _on_opensearch(arguments.messages, accounts, arguments.queries, arguments.shards)
        else:
            got = _on_sqlite(arguments.messages, accounts, arguments.queries)
        figures |= {f"{name}{_end(accounts)}": value for name, value in got.items()}
    bars = {f"{name}{_end(accounts)}": bar for name, bar in _BARS.items() for accounts in arguments.accounts}
    if arguments.postgresql is not None:
        for accounts in arguments.accounts:
            got = _on_postgresql(arguments.postgresql, arguments.messages // 10, accounts, arguments.queries)
            figures |= {f"{name}_postgresql{_end(accounts)}": value for name, value in got.items()}
    return Report("search" if arguments.engine == "sqlite" else f"search_{arguments.engine}", figures, bars)


def _end(accounts: int) -> str:
    return "" if accounts == 1 else f"_{accounts}_accounts"


def _on_sqlite(messages: int, accounts: int, queries: int) -> dict[str, float]:
    directory = Path(tempfile.mkdtemp(prefix="posthouse-search-", dir=material.DISK))
    try:
        return asyncio.run(run(f"sqlite:///{directory}/search.db", messages, accounts, queries))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _on_opensearch(messages: int, accounts: int, queries: int, shards: int) -> dict[str, float]:
    directory = Path(tempfile.mkdtemp(prefix="posthouse-search-", dir=material.DISK))
    try:
        with engines(directory, ("opensearch",)) as found:
            engine = found["opensearch"]
            url = f"{engine.address}/bench?shards={shards}&replicas=0"
            return asyncio.run(run(url, messages, accounts, queries, engine.cpu))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _on_postgresql(address: str, messages: int, accounts: int, queries: int) -> dict[str, float]:
    with database(address) as url:
        asyncio.run(migrate(url))
        return asyncio.run(run(url, messages, accounts, queries))


if __name__ == "__main__":
    main(measure, options)
