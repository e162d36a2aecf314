"""Writes docs/reference from the code: settings, errors, events, metrics, filter, API, command line.

python scripts/reference.py            writes the pages
python scripts/reference.py --check    exit code 1 and the names of pages that differ
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from error_advice import ADVICE
from markdown import code, one_line, table
from posthouse import errors
from posthouse.cli import program
from posthouse.config import catalog
from reference_api import api_page

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "posthouse"
TARGET = ROOT / "docs" / "reference"
_HEAD = "<!-- Made by scripts/reference.py (`make docs`) from the code. Do not edit. -->\n\n"


@cache
def trees() -> dict[Path, ast.Module]:
    """Every module of Posthouse, parsed, in a stable order."""
    return {path: ast.parse(path.read_text(), str(path)) for path in sorted(SOURCE.rglob("*.py"))}


# Settings


def settings_page() -> str:
    parts = [
        "# Settings\n",
        "Flags go before `POSTHOUSE_*` variables, those before the settings file, that before the default.",
        "The file is the first of `--config`, `POSTHOUSE_CONFIG`, `./posthouse.toml` and `DATA_DIR/posthouse.toml`.",
        "`posthouse config` shows every value and where it came from. Durations take a unit (`90s`, `5min`, `72h`;",
        "a bare number is seconds), sizes too (`512KiB`, `40MB`; a bare number is bytes). Lists in a variable are",
        "separated by commas. Relative paths lie beside the file they stand in, else in the working directory.\n",
        "Variables that are no settings: `POSTHOUSE_CONFIG` (settings file), `POSTHOUSE_URL` and `POSTHOUSE_API_KEY`",
        "(which server the command line talks to, and as whom), `POSTHOUSE_DEBUG=1` (tracebacks).\n",
    ]
    everything = list(catalog.settings().values())
    for section in ["", *catalog.sections()]:
        inside = [
            one for one in everything if one.name.rpartition(".")[0] == section and one.name not in catalog.TABLES
        ]
        if not inside:
            continue
        about = catalog.sections().get(section, "")
        parts.append(f"## {f'[{section}]' if section else 'Top level'}\n")
        if about:
            parts.append(about + "\n")
        parts.append(table(("Setting", "Default", "Meaning", "Variable"), [_setting(one) for one in inside]))
    for name in catalog.TABLES:
        parts.append(f"## [[{name}]]\n")
        parts.append(one_line(catalog.settings()[name].description) + " As a variable: a JSON list of objects.\n")
        fields = [_setting(one)[:3] for one in catalog.table_fields(name)]
        parts.append(table(("Field", "Default", "Meaning"), fields) + "\n")
    return "\n".join(parts)


def _setting(one: catalog.Setting) -> tuple[str, str, str, str]:
    meaning = one.description + (f" ({one.unit})" if one.unit and one.unit not in {"seconds", "bytes"} else "")
    name = one.name.rpartition(".")[2]
    return code(name), code(one.default), meaning, code(one.variable)


# Errors


@dataclass(frozen=True, order=True)
class Code:
    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Kind:
    """An error class as its source says: attributes not given are its base's."""

    code: str
    status: int
    enhanced: str
    temporary: bool
    title: str


@cache
def error_classes() -> dict[str, Kind]:
    """By name: the tree of errors.py, and its branches in other modules."""
    names = ("code", "status", "enhanced", "temporary", "title")
    found = {
        name: Kind(*(getattr(kind, attribute) for attribute in names))
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.Error)
    }
    grown = True
    while grown:
        before = len(found)
        for node in (node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            base = next((found[_name(base)] for base in node.bases if _name(base) in found), None)
            if base and node.name not in found:
                given = {_target(one): _literal(one.value) for one in node.body if isinstance(one, ast.Assign)}
                found[node.name] = replace(base, **{name: given[name] for name in names if name in given})
        grown = len(found) > before
    return found


def _target(node: ast.Assign) -> str:
    return _name(node.targets[0])


def codes() -> list[Code]:
    """Every stable code: those of the classes, and those given where an error is made."""
    classes = error_classes()
    found = {Code(kind.code, name, kind.title) for name, kind in classes.items() if name != "Error"}
    found.add(Code(errors.Error.code, "Error", errors.Error.title))
    for tree in trees().values():
        makers = dict(_makers(tree, classes))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (made := _made(node, classes, makers)):
                found.add(made)
    best: dict[str, Code] = {}
    for one in sorted(found):
        best.setdefault(one.name, one)
    return list(best.values())


def _makers(tree: ast.Module, classes: dict[str, Kind]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Functions that make an error from a `code` they are given: name → class, place of `code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            kind = _name(node.returns)
            places = [argument.arg for argument in node.args.args if argument.arg not in {"self", "cls"}]
            if kind in classes and "code" in places:
                yield node.name, (kind, places.index("code"))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _made(call: ast.Call, classes: dict[str, Kind], makers: dict[str, tuple[str, int]]) -> Code | None:
    function = _name(call.func)
    kind, place = makers.get(function, (function, None))
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    if given is None and place is not None and place < len(call.args):
        given = call.args[place]
    if kind not in classes or not isinstance(given, ast.Constant) or not isinstance(given.value, str):
        return None
    texts = [text for argument in call.args if argument is not given and (text := _sentence(argument))]
    return Code(given.value, kind, texts[-1] if texts else classes[kind].title)


def _sentence(node: ast.expr) -> str:
    """The text of a string, with `…` for what is filled in; empty for a pointer or a name."""
    text = ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return one_line(text) if " " in text else ""


def errors_page() -> str:
    classes = error_classes()
    rows = [
        (
            code(one.name),
            str(classes[one.kind].status),
            code(classes[one.kind].enhanced),
            "yes" if classes[one.kind].temporary else "",
            told[1] if len(told := ADVICE.get(one.name, ("",))) == 2 else one.text,
            told[0],
        )
        for one in codes()
    ]
    head = (
        "# Errors\n\nOver HTTP an error is an RFC 9457 problem (`application/problem+json`) with a stable `code`, a\n"
        "`detail` in words and `errors`, a list of `{pointer, message}` (RFC 6901). Over SMTP it is a reply with an\n"
        "enhanced status code (RFC 3463). The command line prints it and exits with 1, or with 2 for a wrong setting.\n"
        "Temporary ones are worth another try; `Retry-After` says when.\n\n"
    )
    return head + table(("Code", "HTTP", "SMTP", "Temporary", "Meaning", "What to do"), rows)


# Events


def _documented_members(path: Path, name: str) -> list[tuple[str, str]]:
    """Values of an enum with the strings that stand after them."""
    kind = next(node for node in ast.walk(trees()[path]) if isinstance(node, ast.ClassDef) and node.name == name)
    found: list[tuple[str, str]] = []
    for node, after in zip(kind.body, [*kind.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            found.append((str(node.value.value), one_line(str(after.value.value)) if told else ""))
    return found


def events_page() -> str:
    rows = [(code(value), meaning) for value, meaning in _documented_members(SOURCE / "events" / "types.py", "Type")]
    head = (
        "# Events\n\nWhat `GET /v1/messages/{id}/events` and `posthouse message events` list: one entry for each\n"
        "transition of each recipient, in order of time, never changed. Each has `id`, `type`, `at`, `stage`,\n"
        "`recipient` and `data`.\n\n"
    )
    return head + table(("Type", "Meaning"), rows)


# Metrics


def metrics_page() -> str:
    rows: list[tuple[str, ...]] = []
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in {"Counter", "Gauge", "Histogram", "Summary"}:
                rows += _metric(node)
    head = "# Metrics\n\n`GET /metrics` answers in Prometheus' text format. Labels hold no address and no text.\n\n"
    return head + table(("Metric", "Kind", "Labels", "Meaning"), sorted(rows))


def _metric(call: ast.Call) -> list[tuple[str, ...]]:
    values = [_literal(argument) for argument in call.args[:3]]
    if len(values) < 2 or not str(values[0]).startswith("posthouse_"):
        return []
    labels = (
        values[2]
        if len(values) > 2
        else _literal(
            next((keyword.value for keyword in call.keywords if keyword.arg == "labelnames"), ast.Constant(()))
        )
    )
    return [(code(str(values[0])), _name(call.func).lower(), ", ".join(labels or ()), one_line(str(values[1])))]


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


# The filter


def filter_page() -> str:
    rules = import_module("posthouse.inbound.filter.rules").RULES
    own = import_module("posthouse.inbound.filter.personal").PERSONAL
    weighed = import_module("posthouse.inbound.filter.weigh").WEIGHED
    titles = ("Code", "Score", "Meaning")

    def rows(table_of: Any) -> list[tuple[str, ...]]:
        return [
            (code(rule.code), f"{rule.score:+g}", rule.text.replace("{}", "…").replace("<", "&lt;"))
            for rule in table_of
        ]

    return (
        "# The filter's rules\n\nA message's score is the sum of its reasons. At `receive.junk_score` or more it is\n"
        "junk. `posthouse explain` shows each reason with its code, its score and its sentence; … stands for what was\n"
        "found. What the filter is and is not: [0040](../decisions/0040-spam-verdict.md).\n\n## Of the message\n\n"
        + table(titles, rows(rules))
        + "\n## Of each recipient\n\n"
        + table(titles, rows(own))
        + "\n## Without a fixed score\n\n"
        + table(titles, [(code(name), score, text) for name, (text, score) in weighed.items()])
    )


# The command line


def cli_page() -> str:
    head = "# Command line\n\n" + one_line((import_module("posthouse.cli").__doc__ or "").partition("\n\n")[2]) + "\n\n"
    root = typer.main.get_command(program())
    shared = "## Options of every command\n\n" + _options(_command(root, "config"), shared=True)
    return head + shared + "\n" + "\n".join(_commands(root, "posthouse"))


def _command(group: Any, name: str) -> Any:
    return group.commands[name]


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        here = f"{path} {name}"
        if getattr(command, "commands", None):
            yield from _commands(command, here)
        elif not command.hidden:
            yield f"## {here}\n\n{one_line(command.help or '')}\n\n    {here} {_usage(command)}\n\n{_options(command)}"


def _usage(command: Any) -> str:
    places = [_place(one) for one in command.params if one.param_type_name == "argument"]
    needed = [
        f"{one.opts[0]} {_place(one)}" for one in command.params if one.param_type_name == "option" and one.required
    ]
    return " ".join([*needed, *places])


def _place(parameter: Any) -> str:
    return (
        (parameter.metavar or parameter.name.upper()).strip("[]")
        if parameter.param_type_name == "argument"
        else (parameter.metavar or "VALUE")
    )


def _options(command: Any, *, shared: bool = False) -> str:
    rows: list[tuple[str, ...]] = []
    for one in command.params:
        common = getattr(one, "rich_help_panel", None) == "Options of every command"
        if one.param_type_name == "option" and common == shared and one.name != "help":
            value = "" if one.is_flag else f" {one.metavar or 'VALUE'}"
            names = ", ".join([*one.opts, *one.secondary_opts])
            default = "" if one.default in (None, False, [], ()) or callable(one.default) else code(str(one.default))
            rows.append((code(names + value), default, one_line(one.help or "")))
    return table(("Option", "Default", "Meaning"), rows) if rows else ""


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "metrics.md": metrics_page,
    "filter.md": filter_page,
    "cli.md": cli_page,
    "api.md": api_page,
}


def stale() -> list[str]:
    """Names of the pages that differ from what the code says."""

    def written(name: str) -> str:
        path = TARGET / name
        return path.read_text() if path.is_file() else ""

    return [name for name, page in PAGES.items() if written(name) != _HEAD + page()]


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        names = stale()
        for name in names:
            sys.stderr.write(f"docs/reference/{name} differs from the code; run `make docs` and commit it.\n")
        return 1 if names else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (TARGET / name).write_text(_HEAD + page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
