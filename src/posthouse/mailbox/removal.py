"""Taking away what is large, in bounded steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from posthouse.storage.contents import Contents
from posthouse.storage.records.base import Records, Tx

STEP = 500

_TABLES = {
    "membership": "mailbox, uid",
    "keyword": "keyword, email",
    "thread_key": "key, email",
    "thread_mailbox": "thread, mailbox",
    "thread": "id",
    "expunged": "mailbox, modseq, uid",
    "change": "modseq, kind, id",
    "thread_override": "id",
    "correspondent": "address",
    "answered": "address",
    "import_mark": "source",
    "mailbox": "id",
}
"""What lies below an account besides its emails, with the rest of each key."""


async def some_of(tx: Tx, account: int, mailbox: int) -> list[int]:
    rows = await tx.rows(
        "SELECT email FROM membership WHERE account = $1 AND mailbox = $2 ORDER BY uid LIMIT $3", account, mailbox, STEP
    )
    return [row[0] for row in rows]


async def remove_account(
    records: Records,
    contents: Contents,
    account: int,
    indexing: Callable[[Tx, Sequence[tuple[int, int]], Sequence[tuple[int, int]]], Awaitable[None]],
) -> None:
    """First nothing can be stored there any more; the row goes last, so that a removal which
    stopped half way is seen and can be taken up."""

    async def close(tx: Tx) -> None:
        await tx.run("UPDATE account SET state = 'deleted' WHERE number = $1", account)

    async def emails(tx: Tx) -> bool:
        rows = await tx.rows("SELECT id, content FROM email WHERE account = $1 ORDER BY id LIMIT $2", account, STEP)
        if rows:
            await contents.add(tx, [(content, -1) for _, content in rows])
            await tx.run("DELETE FROM email WHERE account = $1 AND id <= $2", account, rows[-1][0])
            await indexing(tx, (), [(account, number) for number, _ in rows])
        return bool(rows)

    await records.write(close)
    while await records.write(emails):
        pass
    for table, key in _TABLES.items():
        while await records.write(_some_rows(table, key, account)):
            pass
    await records.write(lambda tx: tx.run("DELETE FROM account WHERE number = $1 AND state = 'deleted'", account))


def _some_rows(table: str, key: str, account: int) -> Callable[[Tx], Awaitable[int]]:
    statement = f"""DELETE FROM {table} WHERE account = $1 AND ({key}) IN
        (SELECT {key} FROM {table} WHERE account = $1 LIMIT $2)"""  # noqa: S608 - names from `_TABLES`
    return lambda tx: tx.run(statement, account, 10 * STEP)
