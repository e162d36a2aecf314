"""Migrations, run by Alembic from inside the package: no ini file, no env script.

They only expand (new tables, new nullable columns, new indexes), so a process of the
release before works on; taking something away is a later release's migration. All steps
run in one transaction, so a failed upgrade leaves the schema as it was.
"""
