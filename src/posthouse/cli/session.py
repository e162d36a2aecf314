"""What every command shares: the options, the settings, the way to the server.

Settings and the API's client are imported here, late, when a command runs: `--help` needs neither.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from posthouse.cli.output import Output
from posthouse.cli.server import App
from posthouse.errors import Misconfigured

if TYPE_CHECKING:
    from posthouse.cli.client import Client
    from posthouse.config import Configuration, Environment

_PANEL = "Options of every command"
_LABELS = {"data_dir": "--data-dir"}

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings file.", rich_help_panel=_PANEL)]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Data directory.", rich_help_panel=_PANEL)
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. http.port=8030.", rich_help_panel=_PANEL),
]
ServerUrl = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="Server to talk to.", rich_help_panel=_PANEL)
]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="API key.", rich_help_panel=_PANEL)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=_PANEL)]

app_for_tests: list[App] = []
"""Holds at most one stand-in for `posthouse.app`."""


@dataclass(slots=True)
class Session:
    """One run of a command."""

    out: Output
    environment: Environment
    config: Path | None = None
    data_dir: Path | None = None
    sets: tuple[str, ...] = ()
    url: str | None = None
    key: str | None = None

    def configuration(
        self, flags: Mapping[str, object] | None = None, labels: Mapping[str, str] | None = None
    ) -> Configuration:
        """:raises Misconfigured:"""
        from posthouse.config import load  # noqa: PLC0415

        given: dict[str, object] = {"data_dir": self.data_dir, **_pairs(self.sets)}
        given |= {name: value for name, value in (flags or {}).items() if value is not None}
        return load(flags=given, labels={**_LABELS, **(labels or {})}, file=self.config)

    def client(self) -> AbstractAsyncContextManager[Client]:
        """The API; raises as `posthouse.cli.client.connect` does."""
        from posthouse.cli.client import connect  # noqa: PLC0415

        settings = self.configuration().settings
        app = app_for_tests[0] if app_for_tests else None
        return connect(settings, self.environment, url=self.url, key=self.key, app=app)


def _pairs(sets: tuple[str, ...]) -> dict[str, object]:
    """:raises Misconfigured: no `=`."""
    pairs: dict[str, object] = {}
    for item in sets:
        name, equals, value = item.partition("=")
        if not equals:
            raise Misconfigured(f"--set {item}: write NAME=VALUE, such as --set http.port=8030")
        pairs[name.strip()] = value
    return pairs


def at_most(most: int) -> Any:
    """The option `--limit` of a list."""
    return typer.Option(min=1, max=most, help="At most.")


def wired(function: Callable[..., Any]) -> Callable[..., None]:
    """A command, sync or async, whose first parameter is a `Session`, as typer wants it: with
    the shared options added to its own."""

    @wraps(function)
    def run(
        *,
        config: Path | None,
        data_dir: Path | None,
        set_: list[str] | None,
        url: str | None,
        key: str | None,
        json_: bool,
        **own: Any,
    ) -> None:
        from posthouse.config import Environment  # noqa: PLC0415

        out = Output(as_json=json_)
        session = Session(out, Environment.read(), config, data_dir, tuple(set_ or ()), url, key)
        result = function(session, **own)
        if inspect.iscoroutine(result):
            asyncio.run(result)

    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    shared = [
        ("config", Config, None),
        ("data_dir", DataDir, None),
        ("set_", Sets, None),
        ("url", ServerUrl, None),
        ("key", Key, None),
        ("json_", Json, False),
    ]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(annotation=hints[parameter.name], kind=keyword) for parameter in own]
    parameters += [inspect.Parameter(name, keyword, default=default, annotation=kind) for name, kind, default in shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
