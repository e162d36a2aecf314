"""The SQL of `queue_partition` and `queue_withdrawn`. Nobody else writes these tables.

Rows are locked in the order of topic and number, so that two transactions wait and never
deadlock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from posthouse.storage.records.base import Row, Tx

Name = tuple[str, int]
"""Topic and number."""
Held = tuple[str, int, int]
"""Topic, number and the epoch under which it is ours."""


class Taken(NamedTuple):
    topic: str
    number: int
    topic_id: str
    epoch: int
    low: int
    done: str
    claimed: int
    retries: str


class Locked(NamedTuple):
    topic: str
    number: int
    low: int
    done: str


class Seen(NamedTuple):
    topic: str
    number: int
    low: int
    done: str
    oldest: int | None


_SAME = "q.topic = v.topic AND q.number = v.number"
_SAME_ROW = "queue_partition.topic = v.topic AND queue_partition.number = v.number"

_ENSURE = """
    INSERT INTO queue_partition
        (topic, number, topic_id, epoch, owner, leased_until, low, done, claimed, retries, held)
    SELECT v.topic, v.number, v.topic_id, 0, '', 0, 0, '[]', 0, '{}', v.held
    FROM {v(topic text, number int, topic_id text, held bytes)} WHERE true
    ON CONFLICT DO NOTHING"""

_RESET = f"""
    UPDATE queue_partition SET topic_id = v.topic_id, low = 0, done = '[]', claimed = 0, retries = '{{}}', oldest = NULL
    FROM {{v(topic text, number int, topic_id text)}}
    WHERE {_SAME_ROW} AND queue_partition.topic_id <> v.topic_id AND queue_partition.leased_until <= $1
    RETURNING queue_partition.topic, queue_partition.number"""  # noqa: S608 - a constant

_TAKE = f"""
    UPDATE queue_partition SET epoch = queue_partition.epoch + 1, owner = $2, leased_until = 0, held = $3
    FROM {{v(topic text, number int)}}
    WHERE {_SAME_ROW} AND queue_partition.leased_until <= $1
    RETURNING queue_partition.topic, queue_partition.number, queue_partition.topic_id, queue_partition.epoch,
        queue_partition.low, queue_partition.done, queue_partition.claimed, queue_partition.retries"""  # noqa: S608

_LOCK = f"""
    SELECT q.topic, q.number, q.low, q.done
    FROM {{v(topic text, number int, epoch int)}} JOIN queue_partition q ON {_SAME} AND q.epoch = v.epoch
    ORDER BY q.topic, q.number FOR UPDATE OF q"""  # noqa: S608 - a constant

_MARK = f"""
    UPDATE queue_partition SET low = v.low, done = v.done, oldest = v.oldest
    FROM {{v(topic text, number int, low int, done text, oldest int)}} WHERE {_SAME_ROW}"""  # noqa: S608

_LEASE = f"""
    UPDATE queue_partition
    SET leased_until = CASE WHEN queue_partition.leased_until > $1 THEN queue_partition.leased_until ELSE $1 END,
        claimed = v.claimed, retries = v.retries, held = v.held
    FROM {{v(topic text, number int, claimed int, retries text, held bytes)}} WHERE {_SAME_ROW}"""  # noqa: S608

_EXTEND = f"""
    UPDATE queue_partition SET leased_until = $1
    FROM {{v(topic text, number int)}} WHERE {_SAME_ROW} AND queue_partition.leased_until < $1"""  # noqa: S608

_RELEASE = f"""
    UPDATE queue_partition SET leased_until = 0, held = $1
    FROM {{v(topic text, number int, epoch int)}}
    WHERE {_SAME_ROW} AND queue_partition.epoch = v.epoch"""  # noqa: S608

_TRUTH = f"""
    SELECT q.topic, q.number, q.low, q.done
    FROM {{v(topic text, number int, epoch int)}} JOIN queue_partition q ON {_SAME} AND q.epoch = v.epoch
    """  # noqa: S608 - a constant

_HOLDS = f"""
    SELECT q.topic, q.number, q.held FROM {{v(topic text, number int)}} JOIN queue_partition q ON {_SAME}
    ORDER BY q.topic, q.number FOR UPDATE OF q"""  # noqa: S608 - a constant

_WITHDRAW = """
    INSERT INTO queue_withdrawn (id, stage, due_at)
    SELECT v.id, v.stage, v.due_at FROM {v(id text, stage text, due_at int)} WHERE true
    ON CONFLICT DO NOTHING"""

_BURY = """
    INSERT INTO job_buried (id, stage, lane, tenant, attempts, payload, key, buried_at, reason)
    SELECT v.id, v.stage, v.lane, v.tenant, v.attempts, v.payload, v.key, v.buried_at, v.reason
    FROM {v(id text, stage text, lane int, tenant text, attempts int, payload text, key text, buried_at int,
        reason text)} WHERE true
    ON CONFLICT (id, stage) DO UPDATE SET attempts = excluded.attempts, payload = excluded.payload,
        buried_at = excluded.buried_at, reason = excluded.reason"""


async def ensure(tx: Tx, names: Sequence[tuple[str, int, str]]) -> None:
    """A row for each (topic, number, topic id)."""
    await tx.run_each(_ENSURE, [(*name, b"") for name in names])


async def take(tx: Tx, names: Sequence[tuple[str, int, str]], owner: str, *, now: int) -> tuple[list[Taken], list[Row]]:
    """Those (topic, number, topic id) that nobody holds are ours, under a new epoch; and those
    whose topic was made anew since."""
    anew = await tx.each(_RESET, names, now)
    rows = await tx.each(_TAKE, [name[:2] for name in names], now, owner, b"")
    return [Taken(*row) for row in rows], anew


async def lock(tx: Tx, held: Sequence[Held]) -> list[Locked]:
    """Those still ours, locked to the transaction's end."""
    return [Locked(*row) for row in await tx.each(_LOCK, sorted(held))]


async def truth(tx: Tx, held: Sequence[Held]) -> list[Locked]:
    """Those still ours, as they are committed."""
    return [Locked(*row) for row in await tx.each(_TRUTH, list(held))]


async def mark_done(tx: Tx, rows: Sequence[tuple[str, int, int, str, int | None]]) -> None:
    """topic, number, low, done, oldest: of locked rows."""
    await tx.run_each(_MARK, rows)


async def lease(tx: Tx, rows: Sequence[tuple[str, int, int, str, bytes]], until: int) -> None:
    """topic, number, claimed, retries, held: of locked rows."""
    await tx.run_each(_LEASE, rows, until)


async def extend(tx: Tx, names: Sequence[Name], until: int) -> None:
    """Of locked rows."""
    await tx.run_each(_EXTEND, names, until)


async def release(tx: Tx, held: Sequence[Held]) -> None:
    """The next owner need not wait."""
    await tx.run_each(_RELEASE, sorted(held), b"")


async def holds(tx: Tx, names: Sequence[Name]) -> dict[Name, bytes]:
    """The marks of the jobs held of each, locked to the transaction's end."""
    return {(topic, number): bytes(held) for topic, number, held in await tx.each(_HOLDS, sorted(names))}


async def withdraw(tx: Tx, rows: Sequence[tuple[str, str, int]]) -> int:
    """id, stage, due_at: dropped when they are claimed. How many were not withdrawn before."""
    return await tx.run_each(_WITHDRAW, rows)


async def withdrawn(tx: Tx, ids: Sequence[str]) -> set[tuple[str, str, int]]:
    rows = await tx.rows("SELECT id, stage, due_at FROM queue_withdrawn WHERE id = ANY($1)", list(ids))
    return {(id_, stage, due_at) for id_, stage, due_at in rows}


async def forget_withdrawn(tx: Tx, rows: Sequence[tuple[str, str, int]]) -> None:
    await tx.run_each(
        "DELETE FROM queue_withdrawn WHERE (id, stage, due_at) IN"
        " (SELECT v.id, v.stage, v.due_at FROM {v(id text, stage text, due_at int)})",
        rows,
    )


async def bury(tx: Tx, rows: Sequence[Row]) -> None:
    """id, stage, lane, tenant, attempts, payload, key, buried_at, reason."""
    await tx.run_each(_BURY, rows)


async def free(tx: Tx, prefix: str) -> None:
    """Every lease ends."""
    await tx.run(
        "UPDATE queue_partition SET leased_until = 0 WHERE topic > $1 AND topic < $2", f"{prefix}.", f"{prefix}/"
    )


async def cut_leases(tx: Tx, topics: Sequence[str], now: int, horizon: int) -> None:
    """Those that end after `horizon` end now."""
    await tx.run(
        "UPDATE queue_partition SET leased_until = $2 WHERE topic = ANY($1) AND leased_until > $3",
        list(topics),
        now,
        horizon,
    )


async def seen(tx: Tx, prefix: str) -> dict[Name, Seen]:
    """Every partition of topics that begin so."""
    rows = await tx.rows(
        "SELECT topic, number, low, done, oldest FROM queue_partition WHERE topic > $1 AND topic < $2",
        f"{prefix}.",
        f"{prefix}/",
    )
    return {(row[0], row[1]): Seen(*row) for row in rows}
