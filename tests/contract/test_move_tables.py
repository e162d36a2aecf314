"""Rows of every kind, moved from SQLite to PostgreSQL while they change, and told apart by hashes."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from posthouse import errors
from posthouse.clock import now
from posthouse.ids import new as new_id
from posthouse.moving import Ends, Move, Moved, mark_left, refuse_left, refuse_unfinished
from posthouse.moving.chunks import digest
from posthouse.moving.tables import Column, Table, compare_schema, tables
from posthouse.storage.blobs.base import Blobs, key_of
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.partitions import MESSAGE, Partitions

HUGE = 2**63 - 1


class Silent:
    """A `Watch` that remembers phases, and may do something in the middle."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.advanced = 0

    def phase(self, name: str, total: int) -> None:
        self.phases.append(name)

    def advance(self, number: int) -> None:
        self.advanced += number


@dataclass
class Both:
    """The source, written by the test as by a `serve`, and the target."""

    source: Records
    target: Records
    stores: list[Blobs]
    watch: Silent = field(default_factory=Silent)
    checked: int = 0

    def move(self) -> Move:
        ends = Ends(self.source, *self.stores[:2]), Ends(self.target, *self.stores[2:])
        return Move(*ends, name="/old", clock=now, watch=self.watch)

    async def begun(self) -> Move:
        move = self.move()
        await move.begin()
        await move.copy()
        return move

    async def finish(self, move: Move) -> Moved:
        async def check() -> None:
            self.checked += 1

        return await move.finish(deep=True, check=check, leave=lambda: None)

    async def put(self, sql: str, *params: str | int | bytes | None) -> None:
        await self.source.write(lambda tx: tx.run(sql, *params))

    async def same(self) -> None:
        """Row by row, apart from the way it was moved."""
        wanted = await self.source.read(tables)
        for table in wanted:
            sql = f'SELECT {table.names()} FROM "{table.name}" ORDER BY {table.names(table.key)}'
            ours, theirs = [await one.read(lambda tx, sql=sql: tx.rows(sql)) for one in (self.source, self.target)]
            assert ours == theirs, table.name


@pytest.fixture
async def both(sqlite_url: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[Both]:
    source, target = await open_records(sqlite_url), await open_records(postgres_url)
    stores = [await open_blobs(f"file://{tmp_path}/{name}") for name in ("a", "a/mail", "b", "b/mail")]
    yield Both(source, target, stores)
    for one in (source, target, *stores):
        await one.close()


async def fill(both: Both, count: int = 30) -> None:
    """Edge cases of each kind of column, and keys of each shape."""
    chance = random.Random(5)
    texts = ["", "é", "e\u0301", "\U0001f4e8", "\uffff", "a'\"\\", "line\nline\t", " \u0085", "Z", "a", "ä"]

    async def work(tx: Tx) -> None:
        for n in range(count):
            text = texts[n % len(texts)] + str(n)
            await tx.run(
                "INSERT INTO content (key, size, data, refs, changed_at) VALUES ($1, $2, $3, $4, $5)",
                key_of(b"%d" % n), n, None if n % 3 else chance.randbytes(n * 7), chance.choice([-HUGE - 1, 0, HUGE]), n,
            )  # fmt: skip
            await tx.run(
                "INSERT INTO thread_key (account, key, email) VALUES ($1, $2, $3)", n % 3, chance.randbytes(n % 5), n
            )
            await tx.run("INSERT INTO suppression VALUES ($1, $2, '', 'manual', $3, $4, $5, NULL)", text, text, text,
                         None if n % 2 else text, n)  # fmt: skip
            await tx.run(
                "INSERT INTO mailbox (account, id, name, uidvalidity, modseq) VALUES ($1, $2, $3, 1, 1)", n % 4, n, text
            )
            await tx.run(
                "INSERT INTO job (stage, lane, tenant, due_at, id, leased, payload) VALUES ('render', 1, 't', $1, $2, $3, $4)",
                n, text, n % 2, text,
            )  # fmt: skip
            await tx.run(
                "INSERT INTO event (message_id, rcpt, id, at, type, stage, data) VALUES ($1, 0, $2, 0, $3, '', NULL)",
                new_id("msg"), text, text,
            )  # fmt: skip

    await both.source.write(work)


async def test_all_is_copied_and_goes_on_changing(both: Both) -> None:
    await fill(both)
    attachment, mail = [await store.put(name) for store, name in zip(both.stores, (b"one", b"two" * 9), strict=False)]
    move = await both.begun()
    await both.same()
    await both.put("UPDATE suppression SET reason = 'bounce' WHERE created_at = 7")
    await both.put("DELETE FROM content WHERE size = 4")
    await both.put(
        "INSERT INTO content (key, size, data, refs, changed_at) VALUES ($1, 1, $2, 1, 1)", key_of(b"new"), b"\0"
    )
    late = await both.stores[1].put(b"late")
    await both.stores[1].delete(mail)
    assert await move.round() == 4
    await both.same()
    assert await move.round() == 0
    await both.put("DELETE FROM suppression")
    moved = await both.finish(move)
    assert (moved.caught_up, moved.rows["suppression"], both.checked) == (30, 0, 1)
    assert (moved.rows["content"], moved.blobs) == (30, 2)
    assert await both.stores[2].get(attachment) == b"one"
    assert [await both.stores[3].exists(key) for key in (late, mail)] == [True, False]


async def test_claimed_jobs_wait_again_and_others_are_as_they_were(both: Both) -> None:
    await fill(both)
    move = await both.begun()
    await both.finish(move)
    rows = await both.target.read(lambda tx: tx.rows("SELECT id, leased, due_at FROM job WHERE due_at < 100"))
    assert len(rows) == 15
    assert {leased for _, leased, _ in rows} == {0}
    row = await both.target.read(lambda tx: tx.row("SELECT count(*), max(leased) FROM job WHERE due_at > 100"))
    assert row == (15, 0)


async def test_chunks_grow_split_and_empty(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.moving.tables._ROWS", 7)
    monkeypatch.setattr("posthouse.moving.tables._WIDE_ROWS", 5)
    chance = random.Random(9)
    await fill(both, 40)
    move = await both.begun()
    for _ in range(6):
        await both.put("DELETE FROM thread_key WHERE email % $1 = 0", chance.randint(2, 6))
        await both.source.write(
            lambda tx: tx.run_each(
                "INSERT INTO thread_key (account, key, email) SELECT v.a, v.k, v.e FROM {v(a int, k bytes, e int)}",
                [(chance.randint(0, 3), chance.randbytes(2), n + chance.randint(1, 1 << 40)) for n in range(60)],
            )
        )
        await both.put("UPDATE content SET refs = refs / 2 WHERE size % $1 = 0", chance.randint(1, 4))
        await move.round()
        await both.same()
    await both.finish(move)


async def test_a_unique_name_changes_hands(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.moving.tables._ROWS", 2)
    await fill(both, 12)
    move = await both.begun()

    async def turn(tx: Tx) -> None:
        names = await tx.rows("SELECT id, name FROM mailbox WHERE account = 1 ORDER BY id")
        for id_, _ in names:
            await tx.run("UPDATE mailbox SET name = $1 WHERE account = 1 AND id = $2", f"tmp{id_}", id_)
        for (id_, _), (_, name) in zip(names, names[1:] + names[:1], strict=True):
            await tx.run("UPDATE mailbox SET name = $1 WHERE account = 1 AND id = $2", name, id_)

    await both.source.write(turn)
    await both.finish(move)
    rows = [await one.read(lambda tx: tx.rows("SELECT account, id, name FROM mailbox ORDER BY account, id"))
            for one in (both.source, both.target)]  # fmt: skip
    assert rows[0] == rows[1]


class Killed(Exception):
    pass


async def test_a_run_that_ended_anywhere_is_gone_on_from(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.moving.tables._ROWS", 3)
    monkeypatch.setattr("posthouse.moving.tables._WIDE_ROWS", 3)
    await fill(both, 20)
    write = both.target.write
    for allowed in (3, 9, 20):
        left = allowed

        async def some(work: object, *, durable: bool = True) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return await write(work, durable=durable)  # type: ignore[arg-type]

        monkeypatch.setattr(both.target, "write", some)
        with pytest.raises(Killed):
            await both.finish(await both.begun())
        monkeypatch.setattr(both.target, "write", write)
        with pytest.raises(errors.Misconfigured) as refused:
            await refuse_unfinished(both.target)
        assert refused.value.code == "move_unfinished"
    again = both.move()
    assert await again.begin()
    both.watch.advanced = 0
    await again.copy()
    assert 0 < both.watch.advanced < 20 * 6, "what was there was not copied again"
    await both.same()
    await both.finish(again)
    await refuse_unfinished(both.target)
    with pytest.raises(errors.Conflict) as done:
        await both.move().begin()
    assert done.value.code == "move_finished"


async def test_what_another_wrote_into_the_target_is_noticed(both: Both) -> None:
    await fill(both)
    move = await both.begun()
    await both.target.write(lambda tx: tx.run("UPDATE content SET size = size + 1 WHERE size = 3"))
    with pytest.raises(errors.Corrupt) as differs:
        await both.finish(move)
    assert differs.value.code == "move_differs"
    await both.finish(await both.begun())
    row = await both.target.read(lambda tx: tx.row("SELECT count(*) FROM content WHERE size = 3"))
    assert row == (1,)
    assert both.checked == 1


async def test_rows_beyond_the_last_chunk_are_noticed(both: Both) -> None:
    await fill(both, 3)
    move = await both.begun()
    await both.target.write(lambda tx: tx.run("INSERT INTO counter (name, value) VALUES ('zz', 1)"))
    with pytest.raises(errors.Corrupt):
        await both.finish(move)


async def test_a_target_with_data_or_of_another_move_is_refused(both: Both) -> None:
    await both.target.write(lambda tx: tx.run("INSERT INTO counter (name, value) VALUES ('account', 1)"))
    with pytest.raises(errors.Conflict) as refused:
        await both.move().begin()
    assert refused.value.code == "move_target_not_empty"
    await both.target.write(lambda tx: tx.run("DELETE FROM counter"))
    await both.target.write(
        lambda tx: tx.run("INSERT INTO process VALUES ('prc_1', 'h', 1, 'api', '1', 1, $1, 'serving')", now())
    )
    with pytest.raises(errors.Conflict) as refused:
        await both.move().examine()
    assert refused.value.code == "move_target_in_use"
    await both.target.write(lambda tx: tx.run("DELETE FROM process"))
    assert (await both.move().examine())["content"] == 0
    await both.move().begin()
    await both.target.write(lambda tx: tx.run("UPDATE move_state SET source = '/another'"))
    with pytest.raises(errors.Conflict) as refused:
        await both.move().begin()
    assert refused.value.code == "move_other_source"


async def test_nul_becomes_a_replacement_character_except_in_keys(both: Both) -> None:
    await both.put("INSERT INTO suppression VALUES ('t', 'a@b', '', 'manual', $1, NULL, 1, NULL)", "x\0y\0")
    moved = await both.finish(await both.begun())
    row = await both.target.read(lambda tx: tx.row("SELECT source FROM suppression"))
    assert row == ("x\ufffdy\ufffd",)
    assert moved.replaced_nul == 1


async def test_a_nul_in_a_key_and_a_value_of_another_type_are_refused(both: Both) -> None:
    await both.put("INSERT INTO counter (name, value) VALUES ($1, 1)", "a\0b")
    with pytest.raises(errors.Misconfigured, match=r"counter\.name"):
        await both.begun()
    await both.put("DELETE FROM counter")
    await both.put("INSERT INTO counter (name, value) VALUES ('a', 'many')")
    with pytest.raises(errors.Misconfigured, match=r"counter.value of the row \('a',\) holds a str") as refused:
        await both.begun()
    assert refused.value.code == "move_value"


async def test_old_ids_get_parts_of_their_own(both: Both) -> None:
    week = 7 * 24 * 3600 * 1_000_000
    ids = [f"msg_{(now() - n * week) // 1000:012x}{'0' * 20}" for n in (0, 3, 6)]
    for name in ids:
        await both.put("INSERT INTO event VALUES ($1, 0, 'e', 0, 't', 's', NULL)", name)
        await both.put(
            "INSERT INTO message (id, rcpt, tenant_id, submission_id, stream_id, lane, address, state, created_at,"
            " due_at, expires_at, updated_at, next_at) VALUES ($1, 0, 't', 's', 's', 1, 'a', 'queued', 0, 0, 0, 0, 0)",
            name,
        )
    await both.finish(await both.begun())
    strays = await both.target.read(lambda tx: tx.row("SELECT count(*) FROM message_default"))
    assert strays == (0,)
    assert len(await Partitions(both.target, now).parts(MESSAGE)) >= 6
    await both.same()


def _rows() -> list[Row]:
    return [
        (None, -HUGE - 1, b"", ""),
        (b"", HUGE, b"\0\xff", "\U0001f4e8"),
        (b"x", 0, None, None),
        (b"", 1, b"a", "é"),
    ]


async def test_the_hash_is_the_same_of_both_engines(both: Both) -> None:
    create = "CREATE TABLE kinds (a {bytes}, b BIGINT, c {bytes}, d TEXT)"
    insert = "INSERT INTO kinds SELECT v.a, v.b, v.c, v.d FROM {v(a bytes, b int, c bytes, d text)}"
    found: list[bytes] = []
    for records, kind in ((both.source, "BLOB"), (both.target, "BYTEA")):
        await records.write(lambda tx, kind=kind: tx.run(create.replace("{bytes}", kind)))
        await records.write(lambda tx: tx.run_each(insert, _rows()))
        rows = await records.read(lambda tx: tx.rows("SELECT a, b, c, d FROM kinds ORDER BY b"))
        assert rows == sorted(_rows(), key=lambda row: row[1] or 0)
        found.append(digest(rows))
    assert found[0] == found[1]


async def test_every_table_is_moved_or_stays_by_name(both: Both) -> None:
    wanted = await both.source.read(tables)
    await both.target.read(lambda tx: compare_schema(tx, wanted))
    names = {table.name for table in wanted}
    assert {"message", "email", "job", "job_buried", "dkim_key", "counter"} <= names
    assert not names & {"process", "lease", "queue_partition", "move_state", "alembic_version"}
    changed = [Table("content", (*wanted[0].columns, Column("more", "text")), (0,))]
    with pytest.raises(errors.Misconfigured) as refused:
        await both.target.read(lambda tx: compare_schema(tx, changed))
    assert refused.value.code == "move_schema"


def test_a_moved_database_says_where_it_went(tmp_path: Path) -> None:
    file = tmp_path / "posthouse.db"
    with closing(sqlite3.connect(file)):
        pass
    refuse_left(f"sqlite:///{file}")
    mark_left(file, to="postgresql://new/house")
    with pytest.raises(errors.Misconfigured, match="postgresql://new/house") as refused:
        refuse_left(f"sqlite:///{file}")
    assert refused.value.code == "moved_away"
    (tmp_path / "posthouse.db.moved").unlink()
    refuse_left(f"sqlite:///{file}")
    refuse_left("postgresql://new/house")
