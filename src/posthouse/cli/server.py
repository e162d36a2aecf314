"""What commands know of a server before they talk to it (`client.py`): its functions, its files
and how it refuses. Imports next to nothing, since every command imports it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from posthouse.config import Settings

Asgi = Callable[..., Awaitable[None]]
SERVE_FILE = "serve.json"
KEY_FILE = "operator.key"
IN_PROCESS = "in this process"


class Running(Protocol):
    """A server with its listeners open and its stages at work."""

    url: str
    """Where the API answers, such as `http://127.0.0.1:8025`; empty without the role `api`."""

    async def wait(self) -> None:
        """Returns when SIGTERM or SIGINT asked for a stop; raises what made a part fail."""
        ...


class App(Protocol):
    """What the command line needs of `posthouse.app`, a module with these functions."""

    def running(self, settings: Settings) -> AbstractAsyncContextManager[Running]:
        """Starts `settings.roles`; leaving it drains (`worker.drain_timeout`) and closes.

        :raises Misconfigured: port taken, storage unusable, key file missing.
        :raises Conflict: code `already_running`, another `serve` owns the database.
        """
        ...

    def asgi(self, settings: Settings) -> AbstractAsyncContextManager[Asgi]:
        """The API on open storage, without listeners, stages or background work; the schema
        has to be there. Raises as `running` does."""
        ...

    async def bootstrap(self, settings: Settings, *, tenant: str) -> str:
        """Makes the master key file, the schema and the tenant of this name where missing,
        and returns the secret of a fresh operator key of that tenant (every scope)."""
        ...


def load_app() -> App:
    """Imported late: `posthouse --help` should not pay for the whole server."""
    return cast(App, import_module("posthouse.app"))


class Problem(Exception):
    """The API refused, as RFC 9457 has it; `errors` are pairs of JSON pointer and message."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: tuple[tuple[str, str], ...] = (),
        retry_after: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after


def announce(settings: Settings, running: Mapping[str, object]) -> Path:
    """Leaves `serve.json` for other commands; the caller removes it at the end."""
    path = settings.data_dir / SERVE_FILE
    path.write_text(json.dumps(dict(running)) + "\n")
    return path


def announced(settings: Settings) -> str | None:
    """The address in `serve.json`; whether anything answers there is another question."""
    try:
        return str(json.loads((settings.data_dir / SERVE_FILE).read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
