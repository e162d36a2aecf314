"""A wrong setting as a line that says what to do: name, value, source, fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, cast

from pydantic_core import ErrorDetails

from posthouse.config.catalog import MASK, settings, show_text
from posthouse.errors import Fault, Misconfigured

_LONGEST = 80
_SECRET_WORDS = ("password", "secret_key", "access_key", "token")


@dataclass(frozen=True, slots=True)
class Problem:
    name: str
    value: Any
    source: object
    fix: str

    def __str__(self) -> str:
        shown = _shown(self.name, self.value)
        return f"{self.name} = {shown} ({self.source}): {self.fix}"


def _shown(name: str, value: Any) -> str:
    if any(word in name for word in _SECRET_WORDS) and "file" not in name:
        return MASK
    if isinstance(value, dict):
        return "{" + ", ".join(map(str, cast("dict[str, Any]", value))) + "}"  # names only: a value may be a secret
    text = show_text(value) if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def no_such(name: str, value: Any, source: object, suggestion: str) -> Problem:
    meant = f"did you mean {suggestion}?" if suggestion else "`posthouse config` lists them all"
    return Problem(name, value, source, f"there is no such setting; {meant}")


def raise_all(problems: Sequence[Problem]) -> NoReturn:
    """:raises Misconfigured: one line a problem."""
    faults = tuple(Fault("/" + problem.name.replace(".", "/"), problem.fix) for problem in problems)
    raise Misconfigured("\n".join(map(str, problems)), faults=faults)


def from_pydantic(
    fault: ErrorDetails, values: Mapping[str, Any], sources: Mapping[str, object], tables: Mapping[str, Sequence[str]]
) -> Problem:
    """`tables`: the fields of each list of tables, for a suggestion there."""
    root = _root(fault["loc"], values)
    value = fault["input"]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    fix = _fix(fault, value, tables.get(str(fault["loc"][0]) if fault["loc"] else "", ()))
    default = settings()[name].default if name in settings() else ""
    if default and not fix.endswith("?"):
        fix += f" (the default is {default})"
    return Problem(name or "settings", value, sources.get(root, "default"), fix)


def _root(loc: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """The setting's name that `loc` lies in."""
    names = (".".join(map(str, loc[:depth])) for depth in range(len(loc), 0, -1))
    return next((name for name in names if name in values), "")


_NEEDS = {
    "int": "needs a whole number",
    "float": "needs a number",
    "bool": "needs true or false",
    "string": "needs a text",
    "tuple": "needs a list",
    "path": "needs a path",
    "finite": "needs a finite number",
    "too": "has too few values",
    "model": "needs a table",
}


def _fix(fault: ErrorDetails, value: Any, known: Sequence[str]) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        near = get_close_matches(
            str(value), [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")], n=1
        )
        return f"needs to be one of {context['expected']}" + (f"; did you mean {near[0]}?" if near else "")
    if kind == "extra_forbidden":
        near = get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.6)
        return "there is no such setting; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
    if kind.startswith(("greater", "less")):
        return fault["msg"].replace("Input should", "needs to")
    return _NEEDS.get(kind.split("_")[0], fault["msg"])
