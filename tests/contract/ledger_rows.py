"""Rows of the ledger as they lie there, made without the flow."""

from __future__ import annotations

from posthouse.outbound import ledger
from posthouse.storage.records.base import Records, Tx

SPEC = '{"from":["","a@a.example"],"stream":"transactional","key_id":"key_1"}'


def name(prefix: str, at: int, tail: str = "7aaa") -> str:
    """An id of this moment (µs)."""
    return f"{prefix}_{at // 1000:012x}{tail}"


async def message(records: Records, at: int, state: str, *, tail: str = "7aaa", due_at: int | None = None) -> str:
    """One message of one recipient with its request and an event; its id."""
    id_, due = name("msg", at, tail), at if due_at is None else due_at

    async def work(tx: Tx) -> None:
        row = (id_, 0, "ten_1", name("sub", at, tail), "str_1", 1, "x@b.example", None, state, at, due, due + 10**12,
               at, None, None, due)  # fmt: skip
        await ledger.insert(tx, [(name("sub", at, tail), "ten_1", at, None, SPEC)], [row])
        await tx.run(
            "INSERT INTO event (message_id, rcpt, id, at, type, stage) VALUES ($1, 0, $2, $3, 'accepted', 'submit')",
            id_,
            name("evt", at, tail),
            at,
        )

    await records.write(work)
    return id_


async def names(records: Records, table: str, key: str) -> set[str]:
    return {row[0] for row in await records.read(lambda tx: tx.rows(f"SELECT {key} FROM {table}"))}
