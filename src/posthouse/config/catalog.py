"""The settings as a flat list of names (`http.port`), read off the schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from posthouse.config.schema import DnsList, Route, Settings, masked
from posthouse.config.units import Unit, show_octets, show_seconds

MASK = "********"


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf: `types` without None; `unit` may be empty; `default` as shown to people."""

    name: str
    types: tuple[Any, ...]
    unit: str
    description: str
    default: str

    @property
    def variable(self) -> str:
        return variable(self.name)

    @property
    def secret(self) -> bool:
        return SecretStr in self.types

    def show(self, value: object) -> str:
        """For a screen: durations and sizes with their unit, secrets masked."""
        if self.secret or isinstance(value, SecretStr):
            return MASK if value else ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return self._show_number(value)
        return show_text(value)

    def _show_number(self, value: float) -> str:
        if self.unit == "seconds":
            return show_seconds(value)
        return (
            show_octets(int(value))
            if self.unit == "bytes"
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )


def show_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(show_text(item) for item in cast("list[object]", value))
    if isinstance(value, BaseModel):
        shown = {name: getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set}
        return " ".join(
            f"{name}={MASK if isinstance(item, SecretStr) else show_text(item)}" for name, item in shown.items()
        )
    return masked(value) if isinstance(value, str) and "://" in value else str(value)


def variable(name: str) -> str:
    return "POSTHOUSE_" + name.upper().replace(".", "__")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _types(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(kind for kind in get_args(annotation) if kind is not type(None))
    return (annotation,)


def _leaf(name: str, field: FieldInfo, default: object) -> Setting:
    unit = next((mark.name for mark in field.metadata if isinstance(mark, Unit)), "")
    setting = Setting(name, _types(field.annotation), unit, field.description or "", "")
    return Setting(name, setting.types, unit, setting.description, setting.show(default))


TABLES: dict[str, tuple[type[BaseModel], str]] = {
    "routes": (Route, "mail goes to the MX"),
    "lists": (DnsList, "no list is asked"),
}
"""Settings that are a list of tables, and what happens without one."""

_FOLLOWS = {
    "receive.spool": "DATA_DIR/spool",
    "data_dir": "posthouse-data",
    "hostname": "this machine's name",
    "secret_key_file": "DATA_DIR/secret.key",
    "records.url": "sqlite:///DATA_DIR/posthouse.db",
    "blobs.url": "file://DATA_DIR/blobs",
}


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        path = prefix + name
        section = section_of(field)
        if section is not None:
            yield from _walk(section, path + ".")
        elif path in _FOLLOWS:
            leaf = _leaf(path, field, None)
            yield Setting(path, leaf.types, leaf.unit, leaf.description, _FOLLOWS[path])
        elif path not in TABLES:
            yield _leaf(path, field, field.get_default(call_default_factory=True))


@cache
def settings() -> dict[str, Setting]:
    """Every setting by name, a list of tables as one."""
    tables = {
        name: Setting(name, (list,), "", (table.__doc__ or "").replace("\n    ", " "), without)
        for name, (table, without) in TABLES.items()
    }
    return {setting.name: setting for setting in _walk(Settings)} | tables


@cache
def table_fields(table: str) -> tuple[Setting, ...]:
    """The fields of a `[[routes]]` or `[[lists]]` table."""
    model, _ = TABLES[table]
    return tuple(
        _leaf(f"{table}[].{name}", field, () if field.is_required() else field.default)
        for name, field in model.model_fields.items()
    )


@cache
def sections() -> dict[str, str]:
    """Section name → what it is about, nested ones with dots."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
        for name, field in model.model_fields.items():
            if section := section_of(field):
                yield prefix + name, " ".join((section.__doc__ or "").split())
                yield from walk(section, f"{prefix}{name}.")

    return dict(walk(Settings, ""))


def is_path(setting: Setting) -> bool:
    return any(isinstance(kind, type) and issubclass(kind, PurePath) for kind in setting.types)
