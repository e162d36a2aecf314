"""`posthouse migrate`: the schema, brought to this release before its processes start."""

from __future__ import annotations

from posthouse.cli.session import Session, wired
from posthouse.storage.records.migrations.run import migrate


@wired
async def command(session: Session) -> None:
    """Bring the database to this release's schema. `serve` does so too; this does nothing else."""
    revision = await migrate(session.configuration().settings.records.url)
    session.out.done({"revision": revision}, f"The schema is at {revision}.")
