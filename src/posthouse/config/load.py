"""Values from flags, variables and one file, over the defaults, with where each came from."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import SecretStr, ValidationError

from posthouse.config.catalog import MASK, TABLES, Setting, is_path, sections, settings, table_fields
from posthouse.config.problems import Problem, from_pydantic, no_such, raise_all
from posthouse.config.schema import Settings, expanded
from posthouse.errors import Misconfigured

PREFIX = "POSTHOUSE_"
FILE_NAME = "posthouse.toml"
_MAX_FILE = 1 << 20
_MAX_SECRET = 64 * 1024
_OURS = {"config", "debug", "url", "api_key"}  # variables that are no settings: see Environment


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: `kind` and, in `at`, the flag, the variable or the file."""

    kind: Literal["flag", "variable", "file", "default"]
    at: str = ""

    def __str__(self) -> str:
        return self.at or self.kind


@dataclass(frozen=True, slots=True)
class Value:
    """A row of `posthouse config`; `shown` is for people, `value` for JSON, both masked."""

    setting: Setting
    value: Any
    shown: str
    source: Source


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that are no settings: which file to read, how the command line finds a
    server, and whether errors show a traceback."""

    config: str | None
    url: str | None
    api_key: str | None = field(repr=False)
    debug: bool

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        given = os.environ if environ is None else environ
        config, url, key, debug = (given.get(PREFIX + name) for name in ("CONFIG", "URL", "API_KEY", "DEBUG"))
        return cls(config or None, url or None, key or None, debug not in {None, "", "0", "false"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, the file they came from (None: there is none), and each value's source."""

    settings: Settings
    file: Path | None
    sources: Mapping[str, Source]

    def values(self) -> list[Value]:
        return [self._value(setting) for setting in settings().values()]

    def _value(self, setting: Setting) -> Value:
        held: Any = self.settings
        for part in setting.name.split("."):
            held = getattr(held, part)
        shown = setting.show(held)
        plain = shown if setting.secret or isinstance(held, str) else _plain(held)
        return Value(setting, plain, shown, self.sources.get(setting.name, Source("default")))


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    if hasattr(value, "model_fields_set"):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return str(value) if isinstance(value, Path) else value


@dataclass(slots=True)
class _Gathered:
    """Values by dotted name; a later source never replaces an earlier one."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    problems: list[Problem] = field(default_factory=list[Problem])

    def add(self, name: str, value: Any, source: Source) -> None:
        if name not in settings():
            self.problems.append(no_such(name, value, source, _suggestion(name, source)))
        elif name not in self.values:
            self.values[name] = value
            self.sources[name] = source

    def nested(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, value in self.values.items():
            *path, leaf = name.split(".")
            at = tree
            for part in path:
                at = at.setdefault(part, {})
            at[leaf] = value
        return tree


def load(
    *,
    flags: Mapping[str, object] | None = None,
    labels: Mapping[str, str] | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Configuration:
    """
    :param flags: settings given on the command line by dotted name; None means not given.
    :param labels: the flag that set a name, where it is not `--set NAME`.
    :param file: `--config`; without it `POSTHOUSE_CONFIG`, `./posthouse.toml` and
        `DATA_DIR/posthouse.toml` are looked for in that order, and the first is read.
    :param environ: `os.environ` when left out. An empty variable counts as not set.
    :raises Misconfigured: with every unknown or wrong setting at once.
    """
    variables = os.environ if environ is None else environ
    base = cwd or Path.cwd()
    gathered = _Gathered()
    for name, value in (flags or {}).items():
        if value is not None:
            gathered.add(name, value, Source("flag", (labels or {}).get(name, f"--set {name}")))
    _read_variables(variables, gathered)
    _rebase(gathered, base)
    found = _find_file(file, variables, gathered, base)
    if found is not None:
        _read_file(found, gathered)
    return Configuration(_validated(gathered), found, gathered.sources)


def _read_variables(environ: Mapping[str, str], gathered: _Gathered) -> None:
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if not variable.startswith(PREFIX) or name in _OURS or not text:
            continue
        source = Source("variable", variable)
        if name not in settings() and name.removesuffix("_file") in settings():
            name, text = name.removesuffix("_file"), _secret(variable, Path(text))  # noqa: PLW2901 - the file's instead
        try:
            gathered.add(name, json.loads(text) if name in TABLES else text, source)
        except ValueError:
            gathered.problems.append(Problem(name, text, source, "write a JSON list of objects"))


def _secret(variable: str, path: Path) -> str:
    """What a mounted secret holds, without the line break at its end.

    :raises Misconfigured: it cannot be read, or is larger than 64 KiB."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SECRET + 1).decode()
    except (OSError, UnicodeDecodeError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else "is no UTF-8 text"
        raise Misconfigured(f"{variable}: {path}: {why}.") from None
    if len(text) > _MAX_SECRET:
        raise Misconfigured(f"{variable}: {path} is larger than {_MAX_SECRET} bytes; that is no value of a setting.")
    return text.rstrip("\r\n")


def _rebase(gathered: _Gathered, base: Path) -> None:
    """Relative paths become absolute: beside the file they stand in, else the working directory."""
    for name, value in gathered.values.items():
        if is_path(settings()[name]) and isinstance(value, str | Path):
            gathered.values[name] = base / expanded(value)
    for route in _route_tables(gathered.values.get("routes")):
        if isinstance(route.get("ca_file"), str):
            route["ca_file"] = base / expanded(route["ca_file"])


def _route_tables(routes: Any) -> Iterator[dict[str, Any]]:
    if isinstance(routes, list):
        yield from (route for route in cast("list[Any]", routes) if isinstance(route, dict))


def _find_file(file: Path | None, environ: Mapping[str, str], gathered: _Gathered, base: Path) -> Path | None:
    named = file or environ.get(PREFIX + "CONFIG")
    if named:
        path = base / expanded(named)
        if not path.is_file():
            raise Misconfigured(f"There is no configuration file {path}. Check --config or POSTHOUSE_CONFIG.")
        return path
    data = gathered.values.get("data_dir", base / settings()["data_dir"].default)
    return next((path for path in (base / FILE_NAME, Path(data) / FILE_NAME) if path.is_file()), None)


def _read_file(path: Path, gathered: _Gathered) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise Misconfigured(f"{path} is larger than {_MAX_FILE} bytes; that is no settings file.")
        tree = tomllib.loads(text.decode())
    except tomllib.TOMLDecodeError as wrong:
        raise Misconfigured(f"{path} is not valid TOML: {wrong}.") from None
    except (OSError, UnicodeDecodeError) as wrong:
        raise Misconfigured(f"{path} cannot be read: {wrong}.") from None
    found = _Gathered()
    _flatten(tree, "", Source("file", str(path)), found)
    _rebase(found, path.parent)
    gathered.problems += found.problems
    for name, value in found.values.items():
        gathered.add(name, value, found.sources[name])


def _flatten(table: Mapping[str, Any], prefix: str, source: Source, into: _Gathered) -> None:
    for key, value in table.items():
        name = prefix + key
        if name in sections():
            if isinstance(value, dict):
                _flatten(cast("dict[str, Any]", value), name + ".", source, into)
            else:
                into.problems.append(Problem(name, value, source, f"is a section; write its settings under [{name}]"))
        else:
            into.add(name, value, source)


def _suggestion(name: str, source: Source) -> str:
    """The likeliest name that was meant, in the form of its source; empty when none is near."""
    near = get_close_matches(name, settings(), n=1, cutoff=0.7)
    if not near and (section := get_close_matches(name, sections(), n=1, cutoff=0.7)):
        return f"[{section[0]}]"
    if not near:
        leaf = name.rpartition(".")[2]
        flat = {known.replace(".", "_"): known for known in settings()}
        tails = {known: known for known in settings() if known.rpartition(".")[2] == leaf}
        near = [flat[match] for match in get_close_matches(name, flat, n=1, cutoff=0.7)] or list(tails)[:1]
    if not near:
        return ""
    return settings()[near[0]].variable if source.kind == "variable" else near[0]


def _validated(gathered: _Gathered) -> Settings:
    """:raises Misconfigured:"""
    for name, value in gathered.values.items():
        if isinstance(value, bool) and bool not in settings()[name].types:
            gathered.problems.append(Problem(name, value, gathered.sources[name], "needs a value, not true or false"))
    try:
        made = Settings.model_validate(gathered.nested())
    except ValidationError as wrong:
        known = {table: [field.name.rpartition(".")[2] for field in table_fields(table)] for table in TABLES}
        gathered.problems += [
            from_pydantic(fault, gathered.values, gathered.sources, known) for fault in wrong.errors()
        ]
    else:
        if not gathered.problems:
            return made
    return raise_all(gathered.problems)
