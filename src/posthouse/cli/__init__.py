"""The command line. A module here with `app` is a command group of that name, one with
`command` a command; both are found, not listed. When the first word names one, only that one
is imported; `--help` imports them all, so what a command works with is imported when it runs.

Exit codes: 0 it is done; 1 it was refused or failed, or what was waited for ended badly;
2 the command line or a setting is wrong; 130 interrupted. Errors are one or two lines on
standard error that say what to do next, with `--json` one JSON object there; a traceback
appears only with POSTHOUSE_DEBUG=1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import typer

from posthouse import __version__
from posthouse.cli import failures

__all__ = ["main", "program"]

_PARTS = {"client", "emails", "failures", "logs", "mailstores", "output", "places", "server", "session"}
"""Modules that are no commands, but of use to several."""
_NAMES = {"mail_domain": "mail-domain", "importing": "import", "exporting": "export"}
"""Of the commands in modules that cannot be called so."""
_FIRST = ("init", "serve", "demo", "sink", "send", "message", "explain")
_PANELS: dict[str, str] = {
    **dict.fromkeys(("init", "serve", "demo", "sink", "config", "plan", "ready", "migrate", "move"), "Run"),
    **dict.fromkeys(("send", "message", "explain", "queue", "cluster"), "Send and follow"),
    **dict.fromkeys(("mail_domain", "account", "alias", "mailbox", "thread", "inbound"), "Receive and read"),
    **dict.fromkeys(("importing", "exporting", "check", "reindex"), "Receive and read"),
}


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"posthouse {__version__}\n")
        raise typer.Exit


def program(only: str = "") -> typer.Typer:
    """The whole command tree; or of it this command alone, when there is one of that name:
    then no other has to be imported."""
    root = typer.Typer(
        name="posthouse",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @root.callback(help="Send, receive and read mail, durably and explained. Start with: posthouse init")
    def options(  # pyright: ignore[reportUnusedFunction] - typer holds it
        version: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help="Show the version."),
    ) -> None: ...

    modules = {one.name for one in iter_modules(import_module("posthouse.cli").__path__)} - _PARTS | {"explain"}
    names = sorted(modules, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    for name in [name for name in names if _NAMES.get(name, name) == only] or names:
        _mount(root, name)
    return root


def _mount(root: typer.Typer, name: str) -> None:
    panel, shown = _PANELS.get(name, "Set up"), _NAMES.get(name, name)
    if name == "explain":
        root.command(name, rich_help_panel=panel)(import_module("posthouse.cli.message").explain)
        return
    module = import_module(f"posthouse.cli.{name}")
    if isinstance(group := getattr(module, "app", None), typer.Typer):
        root.add_typer(group, name=shown, rich_help_panel=panel)
    else:
        root.command(shown, rich_help_panel=panel)(module.command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code. `arguments` are `sys.argv[1:]` when left out."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    only = given[0] if given else ""
    return failures.guarded(lambda: program(only)(given, standalone_mode=False), as_json="--json" in given)
