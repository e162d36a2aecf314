"""The queue on records: one table, `job`, clustered by (stage, lane, tenant, due_at, id).

A claim finds the tenants that have due jobs by skipping from tenant to tenant through the
key, beginning after the tenant served last, takes each one's share by due time, gives what
is left of the shares to those who have more, and moves `due_at` of what it took to the
lease's end. Cost follows the jobs taken and the tenants skipped, not the jobs that wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from posthouse.clock import SECOND, Clock, now
from posthouse.storage.queue.base import Buried, Depth, Job
from posthouse.storage.records.base import Records, Row, Tx, Work

TENANTS_AT_MOST = 64
"""Tenants that one claim serves."""
_SKIPS_AT_MOST = 512
"""Tenants looked at in one statement: those whose jobs wait for later cost a skip each."""
_SCANS_AT_MOST = 32
_PASSES_AT_MOST = 8
_PUT_BACK_AT_ONCE = 1000

_PUT = """
    INSERT INTO job (stage, lane, tenant, due_at, id, attempts, payload, key)
    SELECT v.stage, v.lane, v.tenant, v.due_at, v.id, v.attempts, v.payload, v.key
    FROM {v(stage text, lane int, tenant text, due_at int, id text, attempts int, payload text, key text)}
    WHERE true
    ON CONFLICT DO NOTHING"""

# Not EXISTS for the due time: PostgreSQL would hash every due job to answer it.
_SCAN = """
    WITH RECURSIVE skip (tenant, n) AS (
        SELECT (SELECT tenant FROM job WHERE stage = $1 AND lane = $2 AND tenant > $3 ORDER BY tenant LIMIT 1), 1
        UNION ALL
        SELECT (SELECT job.tenant FROM job WHERE job.stage = $1 AND job.lane = $2 AND job.tenant > skip.tenant
                ORDER BY job.tenant LIMIT 1), skip.n + 1
        FROM skip WHERE skip.tenant IS NOT NULL AND skip.n < $5
    )
    SELECT tenant, (SELECT job.due_at FROM job WHERE job.stage = $1 AND job.lane = $2 AND job.tenant = skip.tenant
                    ORDER BY job.due_at LIMIT 1) <= $4
    FROM skip WHERE tenant IS NOT NULL ORDER BY tenant"""

_KEY = "stage text, lane int, tenant text, due_at int, id text"
# Every column from v, even where it is the same for all: with `job.stage = $1` SQLite's
# planner would rather walk the stage's jobs than look each one up.
_SAME_KEY = """job.stage = v.stage AND job.lane = v.lane AND job.tenant = v.tenant
           AND job.due_at = v.due_at AND job.id = v.id"""
_SAME = f"{_SAME_KEY} AND job.leased = 1"

_LEASE = f"""
    UPDATE job SET due_at = $1, leased = 1, attempts = job.attempts + 1 FROM {{v({_KEY})}}
    WHERE {_SAME_KEY}"""  # noqa: S608 - a constant

_DONE = f"""
    DELETE FROM job WHERE leased = 1 AND (stage, lane, tenant, due_at, id) IN (
        SELECT v.stage, v.lane, v.tenant, v.due_at, v.id FROM {{v({_KEY})}})"""  # noqa: S608 - a constant

_WITHDRAW = f"""
    DELETE FROM job WHERE leased = 0 AND (stage, lane, tenant, due_at, id) IN (
        SELECT v.stage, v.lane, v.tenant, v.due_at, v.id FROM {{v({_KEY})}})"""  # noqa: S608 - a constant

_LATER = f"""
    UPDATE job SET due_at = v.next_at, leased = 0, attempts = 0 FROM {{v({_KEY}, next_at int)}}
    WHERE {_SAME}"""  # noqa: S608 - a constant

_HELD = f"""
    SELECT job.stage, job.lane, job.tenant, job.due_at, job.id
    FROM {{v({_KEY})}} JOIN job ON {_SAME}
    FOR UPDATE OF job"""  # noqa: S608 - a constant

_EXTEND = f"""
    UPDATE job SET due_at = $1 FROM {{v({_KEY})}}
    WHERE {_SAME}"""  # noqa: S608 - a constant

_BURY = f"""
    INSERT INTO job_buried (id, stage, lane, tenant, attempts, payload, key, buried_at, reason)
    SELECT job.id, job.stage, job.lane, job.tenant, job.attempts, job.payload, job.key, $1, v.reason
    FROM {{v({_KEY}, reason text)}} JOIN job ON {_SAME}
    WHERE true
    ON CONFLICT (id, stage) DO UPDATE SET attempts = excluded.attempts, payload = excluded.payload,
        buried_at = excluded.buried_at, reason = excluded.reason"""  # noqa: S608 - a constant

_UNBURY = """
    DELETE FROM job_buried WHERE (id, stage) IN (SELECT v.id, v.stage FROM {v(id text, stage text)})"""

_FREE = """
    SELECT stage, lane, tenant, due_at, id FROM job
    WHERE id = ANY($1) AND (leased = 0 OR due_at <= $2) FOR UPDATE"""

_SET_ASIDE = f"""
    INSERT INTO job_buried (id, stage, lane, tenant, attempts, payload, key, buried_at, reason)
    SELECT job.id, job.stage, job.lane, job.tenant, job.attempts, job.payload, job.key, $1, $2
    FROM {{v({_KEY})}} JOIN job ON job.stage = v.stage AND job.lane = v.lane AND job.tenant = v.tenant
        AND job.due_at = v.due_at AND job.id = v.id
    WHERE true
    ON CONFLICT (id, stage) DO UPDATE SET attempts = excluded.attempts, payload = excluded.payload,
        buried_at = excluded.buried_at, reason = excluded.reason"""  # noqa: S608 - a constant

_REMOVE = f"""
    DELETE FROM job WHERE (stage, lane, tenant, due_at, id) IN (
        SELECT v.stage, v.lane, v.tenant, v.due_at, v.id FROM {{v({_KEY})}})"""  # noqa: S608 - a constant

_DEPTHS = """
    SELECT stage, lane, sum(ready), sum(delayed), sum(buried), min(oldest) FROM (
        SELECT stage, lane,
               sum(CASE WHEN due_at <= $1 OR leased = 1 THEN 1 ELSE 0 END) AS ready,
               sum(CASE WHEN due_at <= $1 OR leased = 1 THEN 0 ELSE 1 END) AS delayed,
               0 AS buried, min(due_at) AS oldest
        FROM job GROUP BY stage, lane
        UNION ALL
        SELECT stage, lane, 0, 0, count(*), NULL FROM job_buried GROUP BY stage, lane
    ) AS depth GROUP BY stage, lane ORDER BY stage, lane"""


@cache
def _take(tenants: int) -> str:
    """The oldest due jobs of so many tenants in one statement, each after its own mark and
    up to its own limit: parameters from $4 on are (tenant, due_at, id, limit) each."""
    branches = [
        f"""SELECT * FROM (
            SELECT tenant, due_at, id, attempts, payload, key FROM job
            WHERE stage = $1 AND lane = $2 AND tenant = ${n} AND due_at <= $3
              AND due_at >= ${n + 1} AND (due_at > ${n + 1} OR id > ${n + 2})
            ORDER BY due_at, id LIMIT ${n + 3} FOR UPDATE SKIP LOCKED) AS t{n}"""  # noqa: S608 - numbers only
        for n in range(4, 4 + 4 * tenants, 4)
    ]
    return " UNION ALL ".join(branches)


class RecordsQueue:
    """`base.Queue` over the table `job`."""

    def __init__(self, records: Records, *, clock: Clock = now) -> None:
        self._records = records
        self._clock = clock
        self._served: dict[tuple[str, int], str] = {}  # the tenant that the last claim ended with

    async def put(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> None:
        rows = [(j.stage, j.lane, j.tenant, j.due_at, j.id, j.attempts, j.payload, j.key) for j in jobs]
        await self._each(_PUT, rows, tx=tx)

    async def claim(self, stage: str, lane: int, n: int, *, lease: float) -> list[Job]:
        return [job for job, _ in await self.take_due(stage, lane, n, lease=lease)]

    async def take_due(self, stage: str, lane: int, n: int, *, lease: float) -> list[tuple[Job, int]]:
        """As `claim`, each with the time it was due at."""
        if n <= 0:
            return []
        now = self._clock()
        end = now + round(lease * SECOND)
        after = self._served.get((stage, lane), "")

        async def work(tx: Tx) -> tuple[list[list[Row]], str]:
            tenants, mark = await _due_tenants(tx, stage, lane, after=after, now=now, most=min(n, TENANTS_AT_MOST))
            taken = await _shares(tx, stage, lane, tenants, now=now, n=n) if tenants else []
            taken = [_once(rows) for rows in taken]
            keys = [(stage, lane, *row[:3]) for rows in taken for row in rows]
            if keys:
                await tx.run_each(_LEASE, keys, end)
            return taken, mark

        taken, self._served[stage, lane] = await self._records.write(work, durable=False)
        return [
            (Job(stage, lane, tenant, end, id_, attempts + 1, payload, key), due_at)
            for tenant, due_at, id_, attempts, payload, key in _in_turn(taken)
        ]

    async def extend(self, jobs: Sequence[Job], *, lease: float) -> list[Job]:
        end = self._clock() + round(lease * SECOND)
        by_key = {_key(job): job for job in jobs}

        async def work(tx: Tx) -> list[Row]:
            held = await tx.each(_HELD, list(by_key))
            if held:
                await tx.run_each(_EXTEND, held, end)
            return held

        if not jobs:
            return []
        held = await self._records.write(work, durable=False)
        kept = [by_key[row] for row in held]
        return [Job(j.stage, j.lane, j.tenant, end, j.id, j.attempts, j.payload, j.key) for j in kept]

    async def done(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        return await self._each(_DONE, [_key(job) for job in jobs], tx=tx)

    async def withdraw(self, jobs: Sequence[Job], *, tx: Tx | None = None) -> int:
        return await self._each(_WITHDRAW, [_key(job) for job in jobs], tx=tx)

    async def later(self, jobs: Sequence[tuple[Job, int]], *, tx: Tx | None = None) -> int:
        return await self._each(_LATER, [(*_key(job), at) for job, at in jobs], tx=tx)

    async def bury(self, jobs: Sequence[tuple[Job, str]], *, tx: Tx | None = None) -> int:
        buried_at = self._clock()

        async def work(tx: Tx) -> int:
            await tx.run_each(_BURY, [(*_key(job), reason) for job, reason in jobs], buried_at)
            return await tx.run_each(_DONE, [_key(job) for job, _ in jobs])

        return await self._within(work, tx) if jobs else 0

    async def set_aside(self, ids: Sequence[str], reason: str) -> int:
        now = self._clock()

        async def work(tx: Tx) -> int:
            # Locked first: no worker takes what is being set aside.
            keys = await tx.rows(_FREE, list(ids), now)
            if keys:
                await tx.run_each(_SET_ASIDE, keys, now, reason)
                await tx.run_each(_REMOVE, keys)
            return len(keys)

        return await self._records.write(work)

    async def put_back(self, ids: Sequence[str]) -> int:
        """Attempts begin again at 0, or the cause of the burial would strike at once."""
        due_at = self._clock()
        chosen, params = ("WHERE id = ANY($2)", (list(ids),)) if ids else ("", ())

        async def work(tx: Tx) -> int:
            # Locked first: two commands at once must not bring a job back twice.
            rows = await tx.rows(
                f"""SELECT stage, lane, tenant, id, payload, key FROM job_buried {chosen}
                    ORDER BY id, stage LIMIT $1 FOR UPDATE""",  # noqa: S608 - one of two constants
                _PUT_BACK_AT_ONCE,
                *params,
            )
            jobs = [
                Job(stage, lane, tenant, due_at, id_, 0, payload, key)
                for stage, lane, tenant, id_, payload, key in rows
            ]
            if jobs:
                await self.put(jobs, tx=tx)
                await tx.run_each(_UNBURY, [(job.id, job.stage) for job in jobs])
            return len(jobs)

        back = step = await self._records.write(work)
        while step == _PUT_BACK_AT_ONCE:
            back += (step := await self._records.write(work))
        return back

    async def buried(self, *, limit: int = 100) -> list[Buried]:
        async def work(tx: Tx) -> list[Row]:
            return await tx.rows(
                """SELECT stage, lane, tenant, id, attempts, payload, buried_at, reason
                   FROM job_buried ORDER BY buried_at DESC, id LIMIT $1""",
                limit,
            )

        return [Buried(*row) for row in await self._records.read(work)]

    async def depths(self) -> list[Depth]:
        now = self._clock()

        async def work(tx: Tx) -> list[Row]:
            return await tx.rows(_DEPTHS, now)

        return [
            Depth(stage, lane, int(ready), int(delayed), int(buried), oldest)
            for stage, lane, ready, delayed, buried, oldest in await self._records.read(work)
        ]

    async def free_leases(self) -> int:
        now = self._clock()

        async def work(tx: Tx) -> int:
            return await tx.run("UPDATE job SET due_at = $1, leased = 0 WHERE leased = 1", now)

        return await self._records.write(work)

    async def undelay(self, stages: Sequence[str], after: float) -> int:
        now = self._clock()

        async def work(tx: Tx) -> int:
            return await tx.run(
                "UPDATE job SET due_at = $1, leased = 0 WHERE stage = ANY($2) AND due_at > $3",
                now,
                list(stages),
                now + round(after * SECOND),
            )

        return await self._records.write(work)

    async def ready(self) -> None:
        await self._records.ready()

    async def close(self) -> None:
        """Records are closed by who opened them."""

    async def _each(self, sql: str, rows: Sequence[Row], *, tx: Tx | None) -> int:
        async def work(tx: Tx) -> int:
            return await tx.run_each(sql, rows)

        return await self._within(work, tx) if rows else 0

    async def _within(self, work: Work[int], tx: Tx | None) -> int:
        return await (work(tx) if tx is not None else self._records.write(work))


def _key(job: Job) -> tuple[str, int, str, int, str]:
    return (job.stage, job.lane, job.tenant, job.due_at, job.id)


async def _due_tenants(tx: Tx, stage: str, lane: int, *, after: str, now: int, most: int) -> tuple[list[str], str]:
    """Up to `most` tenants with due jobs, in order from the one after `after` and around;
    and the tenant after which the next claim begins."""
    found: list[str] = []
    mark, wrapped = after, not after
    skips = most  # enough when every tenant has due jobs
    for _ in range(_SCANS_AT_MOST):
        rows = await tx.rows(_SCAN, stage, lane, mark, now, skips)
        for tenant, due in rows:
            if wrapped and after and tenant > after:
                return found, mark  # once around
            mark = tenant
            if due:
                found.append(tenant)
                if len(found) == most:
                    return found, mark
        if len(rows) < skips:
            if wrapped:
                break
            mark, wrapped = "", True
        skips = _SKIPS_AT_MOST
    return found, mark


async def _shares(tx: Tx, stage: str, lane: int, tenants: list[str], *, now: int, n: int) -> list[list[Row]]:
    """Each tenant's jobs, n in all: equal shares first, then what is left of them to those
    who have more, until nobody has."""
    taken: dict[str, list[Row]] = {tenant: [] for tenant in tenants}
    hungry, left = tenants, n
    for _ in range(_PASSES_AT_MOST):
        hungry = sorted(hungry, key=lambda tenant: len(taken[tenant]))  # stable: in turn among equals
        asked = _split(left, hungry)
        params: list[str | int] = []
        for tenant, share in asked.items():
            last = taken[tenant][-1] if taken[tenant] else None
            params += (tenant, last[1], last[2], share) if last else (tenant, 0, "", share)
        blanks = _padded(len(asked)) - len(asked)
        params += ["", 0, "", 0] * blanks
        got: dict[str, int] = dict.fromkeys(asked, 0)
        for row in await tx.rows(_take(_padded(len(asked))), stage, lane, now, *params):
            taken[row[0]].append(row)
            got[row[0]] += 1
        left -= sum(got.values())
        hungry = [tenant for tenant in hungry if got.get(tenant, 0) == asked.get(tenant, 0)]
        if not left or not hungry:
            break
    return list(taken.values())


def _once(rows: list[Row]) -> list[Row]:
    """A job that waits twice, for two times that have both come, is leased once: both leases
    would be one key. The other comes with a later claim."""
    if len({row[2] for row in rows}) == len(rows):
        return rows
    return list({row[2]: row for row in reversed(rows)}.values())[::-1]


def _split(n: int, tenants: list[str]) -> dict[str, int]:
    """n in shares that differ by one at most; those beyond n get none."""
    share, more = divmod(n, len(tenants))
    shares = {tenant: share + (i < more) for i, tenant in enumerate(tenants)}
    return {tenant: share for tenant, share in shares.items() if share}


def _padded(tenants: int) -> int:
    """The next power of two, so that few statements are prepared."""
    return 1 << (tenants - 1).bit_length()


def _in_turn(taken: list[list[Row]]) -> list[Row]:
    """The first job of every tenant, then the second of every tenant, …"""
    if len(taken) == 1:
        return taken[0]
    turns = [(turn, i, row) for i, rows in enumerate(taken) for turn, row in enumerate(rows)]
    turns.sort(key=lambda entry: entry[:2])
    return [row for _, _, row in turns]
