"""`posthouse config`: each setting, its value, where that came from, and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from posthouse.cli.output import Column
from posthouse.cli.session import Session, wired
from posthouse.errors import NotFound

if TYPE_CHECKING:
    from posthouse.config import Value

_COLUMNS = (Column("SETTING", "name"), Column("VALUE", "shown"), Column("FROM", "source"), Column("MEANING", "meaning"))


@wired
def command(
    session: Session,
    name: Annotated[str, typer.Argument(help="One setting, or a section such as http.")] = "",
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not at its default.")] = False,
) -> None:
    """Show every setting: value, source and meaning. Secrets are masked."""
    configuration = session.configuration()
    values = [value for value in configuration.values() if _wanted(value, name, changed)]
    if name and not values and not changed:
        raise NotFound(f"There is no setting {name}. `posthouse config` lists them all.", code="setting_not_found")
    if session.out.as_json:
        session.out.data([_plain(value) for value in values])
        return
    session.out.table(_COLUMNS, map(_row, values), empty="Everything is at its default.")
    file = configuration.file or "none; ./posthouse.toml or DATA_DIR/posthouse.toml would be read"
    session.out.hint(f"Settings file: {file}")


def _wanted(value: Value, name: str, changed: bool) -> bool:
    known = value.setting.name
    return (not changed or value.source.kind != "default") and (
        not name or known == name or known.startswith(name + ".")
    )


def _row(value: Value) -> dict[str, Any]:
    meaning = value.setting.description + (f" [{value.setting.unit}]" if value.setting.unit else "")
    return {"name": value.setting.name, "shown": value.shown, "source": value.source, "meaning": meaning}


def _plain(value: Value) -> dict[str, Any]:
    return {
        "name": value.setting.name,
        "value": value.value,
        "source": {"kind": value.source.kind, "at": value.source.at},
        "variable": value.setting.variable,
        "unit": value.setting.unit,
        "default": value.setting.default,
        "description": value.setting.description,
    }
