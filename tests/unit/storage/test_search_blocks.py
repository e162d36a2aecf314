"""The walk over blocks finds exactly the newest, without fetching everything where it need not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.storage.search import blocks
from posthouse.storage.search.blocks import Block, Hit, Newest, extend, newest, ranges
from posthouse.storage.search.fts5 import expression
from posthouse.storage.search.postgres import exact, loose, text
from posthouse.storage.search.query import Term, parse
from posthouse.storage.search.tokens import Tokens


class Index:
    """An account's messages in memory, and how many of them were handed out."""

    def __init__(self, times: Sequence[int], matches: Sequence[bool]) -> None:
        self.blocks, self._placed = extend(None, times, range(1, len(times) + 1))
        self._hits = [((at, f"e{n:06d}"), hit) for n, (at, hit) in enumerate(zip(times, matches, strict=True))]
        self.fetched = 0

    async def newest(self, most: int, before: Hit | None) -> Newest:
        async def fetch(wanted: Sequence[Block] | None) -> list[Hit] | None:
            numbers = None if wanted is None else {block.no for block in wanted}
            found = [
                hit
                for (hit, is_match), block in zip(self._hits, self._placed, strict=True)
                if is_match and (numbers is None or block in numbers) and (before is None or hit < before)
            ][::-1]
            if wanted is None and len(found) > blocks.FEW:
                self.fetched += blocks.FEW + 1
                return None
            self.fetched += len(found)
            return found

        return await newest(self.blocks, fetch, most, before)

    def expected(self, before: Hit | None) -> list[Hit]:
        return sorted(
            (hit for hit, is_match in self._hits if is_match and (before is None or hit < before)), reverse=True
        )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(blocks, "FEW", 10)
    monkeypatch.setattr(blocks, "_SPARSE", 50)


MESSAGES = st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=150)


@given(MESSAGES, st.booleans(), st.integers(1, 20), st.none() | st.tuples(st.integers(-1, 61), st.just("e000050")))
@settings(max_examples=150)
async def test_the_newest_are_found(
    messages: list[tuple[int, bool]], in_order: bool, most: int, before: Hit | None
) -> None:
    if in_order:
        messages.sort()
    index = Index([at for at, _ in messages], [hit for _, hit in messages])
    expected = index.expected(before)
    result = await index.newest(most, before)
    assert result.hits == expected[:most]
    assert result.total in (None, len(expected))


async def test_a_common_word_costs_a_few_blocks() -> None:
    index = Index(range(10_000), [True] * 10_000)
    assert [at for at, _ in (await index.newest(5, None)).hits] == [9999, 9998, 9997, 9996, 9995]
    assert index.fetched <= 16
    index.fetched = 0
    assert (await index.newest(5, (5000, ""))).hits[0][0] == 4999
    assert index.fetched <= 16


async def test_a_rare_word_is_fetched_at_once() -> None:
    index = Index(range(10_000), [n % 2000 == 0 for n in range(10_000)])
    result = await index.newest(50, None)
    assert (len(result.hits), result.total) == (5, 5)


async def test_old_mail_that_came_late_does_not_hide_the_newest() -> None:
    index = Index([*range(5000, 6000), *range(1000)], [True] * 2000)
    assert [at for at, _ in (await index.newest(3, None)).hits] == [5999, 5998, 5997]
    assert index.fetched <= 16


@given(st.lists(st.lists(st.integers(0, 1000), max_size=20), max_size=12))
@settings(max_examples=60)
def test_blocks_are_filled_one_after_the_other(batches: list[list[int]]) -> None:
    all_blocks: dict[int, Block] = {}
    last: Block | None = None
    number = 1
    placed: list[tuple[int, int, int]] = []
    for times in batches:
        changed, where = extend(last, times, range(number, number + len(times)))
        placed += zip(times, where, range(number, number + len(times)), strict=True)
        number += len(times)
        all_blocks |= {block.no: block for block in changed}
        last = all_blocks[max(all_blocks)] if all_blocks else None
    for no, block in all_blocks.items():
        mine = [(at, n) for at, where, n in placed if where == no]
        times = [at for at, _ in mine]
        assert block == Block(no, len(mine), min(times), max(times), mine[0][1], mine[-1][1])
        assert len(mine) == 8 or no == max(all_blocks)
    assert sorted(all_blocks) == list(range(len(all_blocks)))


def test_neighbours_are_one_range() -> None:
    many = [Block(no, 1, 0, 0, 10 * no, 10 * no + 5) for no in (3, 7, 4, 8, 1)]
    assert ranges(many) == [(70, 85), (30, 45), (10, 15)]


def test_what_fts5_is_asked() -> None:
    def asked(text: str) -> str:
        root = parse(text).root
        assert root is not None
        return expression(root, "@7")

    assert asked("word") == '("word") AND "@7"'
    assert asked('"two wor"* -body:x') == '((("two wor" *)) NOT (({body} : "x"))) AND "@7"'
    assert asked("-a") == '("@7" NOT ("a")) AND "@7"'
    assert asked("from:a@b.org OR to:c") == '(("<a@b.org") OR (">c")) AND "@7"'
    assert expression(Term(("a",)), "@7", scoped=False) == '("a")'


def test_what_postgresql_is_asked() -> None:
    def asked(typed: str) -> tuple[str | None, str, list[str]]:
        root = parse(typed).root
        assert root is not None
        return loose(root), *exact(root)

    assert asked("a -from:b@c.org") == (
        "('a') & !(('<b@c.org'))".join("()"),
        "(strpos(words, $4) > 0 AND NOT (strpos(words, $5) > 0))",
        [" a ", " <b@c.org "],
    )
    assert asked('-"a b" -body:c')[0] is None
    assert asked('x OR -"a b"')[0] is None
    assert asked('"a bc" body:c')[:2] == (
        "(('a' & 'bc') & ('c'))",
        "(strpos(words, $4) > 0 AND strpos(split_part(words, '|', 2), $5) > 0)",
    )
    assert asked('"a bc"*') == ("('a' & 'bc':*)", "strpos(words, $4) > 0", [" a bc"])


def test_a_text_is_within_what_postgresql_takes() -> None:
    assert text(Tokens(["a", "b", "a"], ["x", "="]), 1, 0) == "@1 @1/0 x = | a b a ="
    assert text(Tokens([], []), 1, 0) == "@1 @1/0 | ="
    long = text(Tokens([f"w{n:038d}" for n in range(50_000)], []), 1, 0)
    assert sum(len(word) + 8 for word in set(long.split(" "))) < 1_048_576
    assert long.endswith(" =")
    assert len(text(Tokens(["w"] * 50_000, []), 1, 0)) > 100_000
