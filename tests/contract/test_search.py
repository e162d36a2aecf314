"""What `storage.search.base` promises, on each backend."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse import errors
from posthouse.storage.search import blocks, words
from posthouse.storage.search.base import Doc, Page, Search
from posthouse.storage.search.factory import open_search, where
from posthouse.storage.search.query import All, Node, Not, Query, Some, Term, parse, term

T0 = 1_700_000_000_000_000
SECOND = 1_000_000


@pytest.fixture(params=["sqlite_url", "postgres_url", "opensearch_url"], ids=["sqlite", "postgresql", "opensearch"])
def search_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return where(url if request.param == "opensearch_url" else "records:", url)


@pytest.fixture
async def search(search_url: str) -> AsyncIterator[Search]:
    opened = await open_search(search_url)
    yield opened
    await opened.close()


def doc(n: int, text: str = "", account: str = "acc_a", **fields: object) -> Doc:
    fields = {"received_at": T0 + n * SECOND, **fields}
    return Doc(account=account, email=f"eml_{n:08d}", text=text, **fields)  # type: ignore[arg-type]


async def found(search: Search, text: str, account: str = "acc_a") -> list[int]:
    """Newest first, all pages."""
    emails: list[str] = []
    before = None
    while True:
        page = await search.query(account, parse(text), limit=7, before=before)
        emails += page.emails
        if page.next is None:
            return [int(email.removeprefix("eml_")) for email in emails]
        assert len(page.emails) == 7
        before = page.next


MAIL = Doc(
    "acc_a",
    "eml_00000001",
    T0,
    subject="Re: Quarterly report: Zürich, 2.5 %",
    from_=("Ann O'Lee <ann.lee+news@mail.example.com>",),
    to=("Bob Straße <bob@example.org>", "李小龍 <li@例え.jp>"),
    text="Dear Bob,\nthe naïve FIANCÉ of #42 lives in 東京都渋谷区, see https://shop.example.net/order_17?id=9.\nサポート",
    attachments=("Plan v2 (final).PDF", "ÜBERSICHT.xlsx"),
)

FINDS = """quarterly|QUARTERLY|"quarterly report"|subject:report|subject:"re quarterly"|report quarterly|zurich|zürich
    from:ann|from:lee|from:o'lee|from:ann.lee+news@mail.example.com|ANN.LEE+NEWS@MAIL.EXAMPLE.COM|from:mail.example.com
    from:example.com|example.com|ann|lee+news|to:bob|to:bob@example.org|cc:bob|to:strasse|to:straße|bob@example.org|to:li
    李小龍|小龍|龍|to:小|naive|naïve|fiance|Fiancé|42|#42|東京|東京都|京都|渋谷区|区|都渋|shop.example.net|order_17
    https://shop.example.net/order_17?id=9|example|filename:plan|filename:v2|filename:"plan v2 final pdf"|filename:ubersicht
    filename:Übersicht.xlsx|plan|quart*|quarterly*|from:an*|"dear bo"*|サポート|サポ|ｻﾎﾟｰﾄ|2.5|zürich report|nothing OR report
    report -nothing|-nothing|-(nothing OR missing)|(nothing OR bob) (dear OR missing)|body:naive|body:"dear bob"
    from:(ann OR carl)|NOT nothing|-from:bob|"Quarterly report: Zürich"|dear -subject:dear|from:lee to:bob report"""
MISSES = """quarter|"report quarterly"|subject:dear|body:quarterly|from:bob|to:ann|from:lee@mail.example.com|京東|都東|渋区
    filename:dear|nothing|report nothing|-report|report -zurich|-(nothing OR report)|"dear ann"|"o lee re"|from:bob@example.org
    "zurich 5 2"|nothing*|body:quart*|from:qu*|"com bob"|zur|from:@|plan -filename:pdf|"li 例えば"|dear (nothing OR missing)"""


@pytest.mark.parametrize("expected", [True, False], ids=["finds", "misses"])
async def test_one_mail(search: Search, expected: bool) -> None:
    await search.index([MAIL])
    for text in [each.strip() for line in (FINDS if expected else MISSES).splitlines() for each in line.split("|")]:
        assert await found(search, text) == ([1] if expected else []), text


async def test_newest_first_by_pages(search: Search) -> None:
    times = list(range(60))
    random.Random(4).shuffle(times)
    for at in range(0, 60, 10):
        await search.index([doc(n, "word") for n in times[at : at + 10]])
    assert await found(search, "word") == list(range(59, -1, -1))
    first = await search.query("acc_a", parse("word"), limit=50)
    assert (first.total, len(first.emails)) == (60, 50)
    rest = await search.query("acc_a", parse("word"), limit=50, before=first.next)
    assert len(rest.emails) == 10
    assert rest.next is None


async def test_one_microsecond_for_many(search: Search) -> None:
    await search.index([doc(n, "word", received_at=T0) for n in range(40)])
    assert await found(search, "word") == list(range(39, -1, -1))


async def test_accounts_are_apart(search: Search) -> None:
    await search.index([doc(1, "word"), doc(1, "word other", account="acc_b"), doc(2, "other")])
    assert await found(search, "word") == [1]
    assert await found(search, "-word") == [2]
    assert await found(search, "other", "acc_b") == [1]
    await search.remove("acc_b", ["eml_00000001"])
    assert await found(search, "word") == [1]
    assert await found(search, "word", "acc_b") == []
    assert await found(search, "word", "acc_unknown") == []


async def test_indexing_again_changes_nothing(search: Search) -> None:
    docs = [doc(n, "word") for n in range(10)]
    assert await search.index(docs + docs) == 10
    assert await search.index([*docs[:5], doc(10, "word")]) == 1
    assert await search.index([]) == 0
    assert await found(search, "word") == list(range(10, -1, -1))
    assert (await search.size()).emails == 11


async def test_removed_is_gone_and_may_come_again(search: Search) -> None:
    await search.index([doc(n, "word") for n in range(5)])
    await search.remove("acc_a", ["eml_00000003", "eml_00000001", "unknown", "eml_00000003"])
    await search.remove("acc_none", ["eml_00000001"])
    await search.remove("acc_a\0", ["eml_00000002"])
    await search.remove("acc_a", ["\ud800", "\0"])
    assert await found(search, "word", "acc_a\ud800") == []
    assert await found(search, "word") == [4, 2, 0]
    assert (await search.size()).emails == 3
    assert await search.index([doc(3, "another")]) == 1
    assert await found(search, "word") == [4, 2, 0]
    assert await found(search, "another") == [3]


async def test_concurrent_writers_agree(search: Search) -> None:
    docs = [doc(n, "word", account=f"acc_{n % 7}") for n in range(210)]
    mixed = [random.Random(seed).sample(docs, 120) for seed in range(6)]
    added = await asyncio.gather(*(search.index(some) for some in mixed))
    assert sum(added) == len({each.email for some in mixed for each in some}) == (await search.size()).emails
    await search.index(docs)
    for account in range(7):
        assert await found(search, "word", f"acc_{account}") == [n for n in range(209, -1, -1) if n % 7 == account]


async def test_a_rebuild_is_due_until_it_is_done(search: Search) -> None:
    assert (await search.size()).needs_rebuild == "new"
    await search.index([doc(1, "word")])
    await search.rebuilt()
    assert (await search.size()).needs_rebuild is None
    await search.clear()
    size = await search.size()
    assert (size.emails, size.needs_rebuild) == (0, "rebuilding")
    assert await found(search, "word") == ([1] if search.capabilities.gapless else [])
    assert await search.index([doc(1, "word")]) == 1
    assert await found(search, "word") == [1]
    await search.rebuilt()
    assert (await search.size()).needs_rebuild is None
    await search.ready()


async def test_nothing_to_search_for_finds_nothing(search: Search) -> None:
    await search.index([doc(1, "word")])
    assert await search.query("acc_a", parse("!!! -")) == Page((), None, 0)


@pytest.mark.parametrize("before", ["", "x", "1", "1.", ".a", "1e5.a", "9" * 30 + ".a", "١.a", "1.a\0", "1.\ud800"])
async def test_a_position_of_somebody_else_is_refused(search: Search, before: str) -> None:
    with pytest.raises(errors.Invalid) as raised:
        await search.query("acc_a", parse("word"), before=before)
    assert raised.value.code == "cursor_invalid"


STRANGE = [
    "\0", "a\0b", "'; DROP TABLE search_doc; --", '"" OR "', "NEAR(a b)", "{body} : x", "a AND OR b", "^a", "a + b", "-- -", "\\'",
    "'a':*D & !b", "a <-> b", "search_text:x", "*" * 50, "(" * 500, ")" * 500, "\ud800 lone", "NOT NOT NOT", "@1", "@1/0", "=",
    "<ann", ">", "%", "from:from:from:a", "a" * 10_000, " ".join("abcdefgh" * 30), "𝒶𝓃𝓃", "ﷺ", "🙂", "a\u202eb", "'", "\\", ":*", "!", "|",
]  # fmt: skip


async def test_strange_text_is_harmless(search: Search) -> None:
    await search.index([doc(1, "word", f"acc_{n}") for n in range(len(STRANGE))])
    await search.index(
        [doc(2, text, f"acc_{n}", subject=text, from_=(text,), attachments=(text,)) for n, text in enumerate(STRANGE)]
    )
    for n, text in enumerate(STRANGE):
        for asked in (text, f'"{text}"', f"from:{text}", f"-{text}", f"{text}*"):
            assert set(await found(search, asked, f"acc_{n}")) <= {1, 2}, text
        assert await found(search, "word", f"acc_{n}") == [1]


@pytest.mark.parametrize(
    ("account", "email"), [("acc_a", ""), ("acc_a", "x" * 200), ("a\0", "e"), ("a", "e\n"), ("\ud800", "e")]
)
async def test_what_is_no_id_is_our_mistake(search: Search, account: str, email: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        await search.index([Doc(account, email, T0)])


async def test_a_query_ends_in_time(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    await search.index([doc(1, "word")])
    monkeypatch.setattr("posthouse.storage.search.base.SECONDS_AT_MOST", 0.0)
    with pytest.raises(errors.StorageUnavailable) as raised:
        await search.query("acc_a", parse("word"))
    assert raised.value.code == "search_unavailable"
    monkeypatch.undo()
    assert await found(search, "word") == [1]


async def test_large_mail_is_bounded(search: Search) -> None:
    rng = random.Random(1)
    noise = " ".join(secrets.token_hex(30) for _ in range(15_000))
    text = "first " + noise + " last"
    many = tuple(f"Person {n} <p{n}@host{n}.example>" for n in range(5000))
    await search.index([doc(1, text, to=many, subject="long " * 100_000), doc(2, f"{rng.random()} x" * 200_000)])
    assert await found(search, "first") == [1]
    assert await found(search, "to:p7@host7.example") == [1]
    assert await found(search, "subject:long") == [1]
    long = secrets.token_hex(300)
    await search.index([doc(3, f"see {long} there")])
    assert await found(search, long) == [3]
    assert await found(search, f"{long[:200]}0{long[201:]}"[:400] + "z") == []


# Against a model, with blocks so small that every way of finding the newest is taken.

VOCABULARY = "ab ann bob cat dog eel fox gnu hen".split()


def _sequences(mail: Doc, field: str | None) -> list[list[str]]:
    fields = {
        "body": [mail.text],
        "subject": [mail.subject],
        "from": list(mail.from_),
        "to": list(mail.to),
        "filename": list(mail.attachments),
    }
    texts = fields[field] if field else [text for each in fields.values() for text in each]
    return [words.words(text) for text in texts]


def _holds(mail: Doc, node: Node) -> bool:
    match node:
        case All(parts):
            return all(_holds(mail, part) for part in parts)
        case Some(parts):
            return any(_holds(mail, part) for part in parts)
        case Not(part):
            return not _holds(mail, part)
        case Term():
            return any(_has(sequence, node) for sequence in _sequences(mail, node.field))


def _has(sequence: list[str], asked: Term) -> bool:
    size = len(asked.words)
    for at in range(len(sequence) - size + 1):
        here = sequence[at : at + size]
        if here[:-1] == list(asked.words[:-1]) and (
            here[-1].startswith(asked.words[-1]) if asked.prefix else here[-1] == asked.words[-1]
        ):
            return True
    return False


def _random_node(rng: random.Random, depth: int = 0) -> Node:
    kind = rng.random()
    if depth < 3 and kind < 0.5:
        parts = tuple(_random_node(rng, depth + 1) for _ in range(rng.randint(2, 3)))
        return All(parts) if kind < 0.25 else Some(parts)
    if depth < 3 and kind < 0.62:
        return Not(_random_node(rng, depth + 1))
    field = rng.choice([None, None, "from", "to", "subject", "body", "filename"])
    text = " ".join(rng.choices(VOCABULARY, k=rng.choice([1, 1, 1, 2, 3])))
    prefix = rng.random() < 0.2
    made = term(text[:-1] if prefix and len(text) > 2 else text, field, prefix=prefix)  # type: ignore[arg-type]
    assert made is not None
    return made


def _random_doc(rng: random.Random, n: int) -> Doc:
    def some(most: int) -> str:
        weights = [2**-rank for rank in range(len(VOCABULARY))]
        return " ".join(rng.choices(VOCABULARY, weights=weights, k=rng.randint(0, most)))

    return Doc(
        f"acc_{n % 2}",
        f"eml_{n:08d}",
        T0 + (n + rng.choice([0, 0, 0, -30, 200])) * SECOND // 2,
        some(3),
        (some(2),),
        tuple(some(2) for _ in range(rng.randint(0, 3))),
        some(9),
        (some(2),) * rng.randint(0, 1),
    )


@pytest.mark.parametrize(("seed", "sizes"), [(1, (8, 10)), (2, (4, 3)), (3, (1024, 1000))])
async def test_like_the_model(
    search: Search, monkeypatch: pytest.MonkeyPatch, seed: int, sizes: tuple[int, int]
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", sizes[0])
    monkeypatch.setattr(blocks, "FEW", sizes[1])
    monkeypatch.setattr(blocks, "_SPARSE", 4 * sizes[1])
    rng = random.Random(seed)
    docs = [_random_doc(rng, n) for n in range(300)]
    at = 0
    while at < len(docs):
        size = rng.choice([1, 5, 40])
        await search.index(docs[at : at + size])
        at += size
    gone = rng.sample(docs, 30)
    for mail in gone:
        await search.remove(mail.account, [mail.email])
    left = sorted((each for each in docs if each not in gone), key=lambda each: (each.received_at, each.email))[::-1]
    for _ in range(60):
        node = _random_node(rng)
        account = rng.choice(["acc_0", "acc_1"])
        expected = [mail.email for mail in left if mail.account == account and _holds(mail, node)]
        await _expect(search, account, Query(node), expected, rng.choice([1, 3, 20, 500]))


async def _expect(search: Search, account: str, query: Query, expected: list[str], limit: int) -> None:
    emails: list[str] = []
    before = None
    for _ in range(4):  # pages of one would take long
        page = await search.query(account, query, limit=limit, before=before)
        emails += page.emails
        assert page.total in (None, len(expected)), query
        before = page.next
        if before is None:
            assert emails == expected, query
            return
    assert emails == expected[: 4 * limit], query


# FTS5's own: a file that may be lost.


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "search.db"


async def _built(path: Path) -> Search:
    search = await open_search(f"sqlite:///{path}")
    await search.index([doc(n, f"word w{n}") for n in range(300)])
    await search.rebuilt()
    return search


async def test_it_stays_after_a_restart(path: Path) -> None:
    search = await _built(path)
    await search.close()
    search = await open_search(f"sqlite:///{path}")
    size = await search.size()
    assert (size.emails, size.needs_rebuild) == (300, None)
    assert size.octets > 10_000
    assert await found(search, "w17") == [17]
    reading = await open_search(f"sqlite:///{path}", read_only=True)
    assert await found(reading, "w17") == [17]
    with pytest.raises(errors.StorageUnavailable):
        await reading.index([doc(1000, "x")])
    with pytest.raises(errors.StorageUnavailable):
        await reading.clear()
    await reading.close()
    await search.close()


async def test_a_deleted_file_is_noticed_and_made_again(path: Path) -> None:
    search = await _built(path)
    path.unlink()
    for attempt in (search.ready(), search.query("acc_a", parse("word")), search.index([doc(1, "x")]), search.size()):
        with pytest.raises(errors.StorageUnavailable) as raised:
            await attempt
        assert raised.value.code == "search_unavailable"
    await search.clear()
    assert await search.index([doc(1, "word")]) == 1
    assert await found(search, "word") == [1]
    assert (await search.size()).needs_rebuild == "rebuilding"
    await search.close()
    path.unlink()
    search = await open_search(f"sqlite:///{path}")
    assert (await search.size()).needs_rebuild == "new"
    await search.close()


def _overwrite(path: Path, start: float, octets: int) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * start))
        file.write(os.urandom(octets))


@pytest.mark.parametrize("damage", ["header", "truncated", "not_a_database", "another_database"])
async def test_a_damaged_file_is_set_aside_at_the_start(path: Path, damage: str) -> None:
    await (await _built(path)).close()
    if damage == "header":
        _overwrite(path, 0, 4096)
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "not_a_database":
        path.write_bytes(b"plain text\n" * 1000)
    else:
        path.unlink()
        import sqlite3

        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (a)")
        other.close()
    search = await open_search(f"sqlite:///{path}")
    assert Path(f"{path}.broken").exists()
    size = await search.size()
    assert (size.emails, size.needs_rebuild) == (0, "broken")
    await search.index([doc(1, "word")])
    assert await found(search, "word") == [1]
    await search.close()


async def test_damage_that_shows_later_is_set_aside_at_the_next_start(path: Path) -> None:
    await (await _built(path)).close()
    _overwrite(path, 0.15, int(path.stat().st_size * 0.8))
    search = await open_search(f"sqlite:///{path}")
    if (await search.size()).needs_rebuild is None:
        with pytest.raises(errors.StorageUnavailable) as raised:
            for n in range(300):
                await search.query("acc_a", parse(f"word w{n}"))
        assert raised.value.code == "search_unavailable"
    await search.close()
    search = await open_search(f"sqlite:///{path}")
    assert (await search.size()).needs_rebuild == "broken"
    await search.close()


async def test_many_removed_ask_for_a_rebuild(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.storage.search.fts5._REMOVED_AT_LEAST", 100)
    search = await _built(path)
    await search.remove("acc_a", [f"eml_{n:08d}" for n in range(150)])
    assert (await search.size()).needs_rebuild is None
    await search.remove("acc_a", [f"eml_{n:08d}" for n in range(160)])
    size = await search.size()
    assert (size.emails, size.removed, size.needs_rebuild) == (140, 160, "removed")
    await search.close()


async def test_postgresql_that_is_away(postgres_url: str) -> None:
    search = await open_search(
        postgres_url.rsplit("@", 1)[0] + "@127.0.0.1:1/none" if "@" in postgres_url else "postgresql://127.0.0.1:1/none"
    )
    for attempt in (search.ready(), search.query("acc_a", parse("word")), search.index([doc(1, "x")])):
        with pytest.raises(errors.StorageUnavailable) as raised:
            await attempt
        assert raised.value.code == "search_unavailable"
    await search.close()
