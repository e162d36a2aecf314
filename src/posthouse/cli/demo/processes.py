"""The demo's server, as anybody starts it: `init` and `serve`, on a temporary directory."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

import httpx

_COMMAND = (sys.executable, "-m", "posthouse")
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_PORTS = range(20_000, 32_000)
"""Below what systems give to outgoing connections."""
HOST = "demo.shop.example"
DOMAIN = "shop.example"
CONNECTIONS = 64
GREYLIST_SECONDS = 2

SETTINGS = f"""\
hostname = "{HOST}"

[dns]
servers = ["{{dns}}"]

[receive]
mx = ["127.0.0.1:{{mx}}"]
connections_per_address = {CONNECTIONS * 2}
greylist_delay = {GREYLIST_SECONDS}
least_free = 1000000

[retry]
first = 1
factor = 1.5

# All mail goes out to the server's own door: no MX record can name a port.
[[routes]]
domains = ["*"]
kind = "static"
hosts = ["127.0.0.1:{{mx}}"]
connections = {CONNECTIONS}
"""


class House(Protocol):
    """A Posthouse that the demo runs on. `parts`: of what it is made, by name; each can be killed and
    started again."""

    directory: Path
    tenant: str
    domain: dict[str, Any]

    @property
    def parts(self) -> Sequence[str]: ...
    def set_up(self, dns: str) -> None: ...
    def start(self) -> None: ...
    def start_again(self, part: str) -> None: ...
    def kill(self, part: str) -> None: ...
    def stop(self) -> None: ...
    def http(self, *, operator: bool = False) -> httpx.Client: ...


class Failed(Exception):
    """A process of the demo did not start; the text is its last words."""


def _environment() -> dict[str, str]:
    """Ours without settings of another Posthouse, so that only the demo's count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    # An interrupt from the terminal reaches this process alone: it stops the others in order.
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _start(arguments: Sequence[str], errors: IO[bytes], output: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own command
        [*_COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=_environment(),
        start_new_session=True,
        text=True,
    )


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read()[-2000:].decode("utf-8", "replace").strip() or "it ended without a word"


@dataclass(slots=True)
class Server:
    """`posthouse init` and `posthouse serve` on `directory`, on a port that the system chose."""

    directory: Path
    tenant: str = "demo"
    url: str = ""
    key: str = ""
    operator_key: str = ""
    domain: dict[str, Any] = field(default_factory=dict[str, Any])
    _process: subprocess.Popen[str] | None = None

    @property
    def parts(self) -> Sequence[str]:
        return ("the server",)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _shared(self) -> list[str]:
        return ["--config", str(self.directory / "posthouse.toml"), "--data-dir", str(self._data)]

    def set_up(self, dns: str) -> None:
        """Tenant, keys, domain.

        :param dns: `ADDRESS:PORT` to ask.
        :raises Failed:
        """
        (self.directory / "posthouse.toml").write_text(SETTINGS.format(dns=dns, mx=free_port()))
        done = subprocess.run(  # noqa: S603 - our own command
            [*_COMMAND, "init", "--tenant", self.tenant, "--domain", DOMAIN, "--json", *self._shared],
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=_START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise Failed(f"`posthouse init` failed: {done.stderr.strip()[-2000:]}")
        made = cast(dict[str, Any], json.loads(done.stdout))
        self.key, self.domain = made["key"]["secret"], made["domain"]
        self.operator_key = (self._data / "operator.key").read_text().strip()

    def start(self) -> None:
        """Returns when it is ready.

        :raises Failed:
        """
        with (self.directory / "serve.err").open("w+b") as errors:
            self._process = _start(
                ["serve", "--port", "0", "--log-level", "warning", *self._shared], errors, subprocess.DEVNULL
            )
            end = time.monotonic() + _START_SECONDS
            while not self._ready():
                if self._process.poll() is not None or time.monotonic() > end:
                    raise Failed(f"The server did not start: {_last_words(errors)}")
                time.sleep(0.02)

    def _ready(self) -> bool:
        assert self._process is not None
        with suppress(OSError, ValueError, KeyError, httpx.HTTPError):
            said = cast(Mapping[str, Any], json.loads((self._data / "serve.json").read_text()))
            if said["pid"] == self._process.pid:
                self.url = said["url"]
                return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
        return False

    def http(self, *, operator: bool = False) -> httpx.Client:
        """Of its API, with the tenant's key or the operator's."""
        headers = {"Authorization": f"Bearer {self.operator_key if operator else self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def start_again(self, part: str) -> None:
        self.start()

    def kill(self, part: str) -> None:
        """SIGKILL: nothing in it can clean up."""
        assert self._process is not None
        _end(self._process, signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process, signal.SIGTERM)


def free_port() -> int:
    """One that no outgoing connection takes by chance while the server is down.

    :raises Failed: none of many was free."""
    for port in random.sample(_PORTS, 50):
        with socket.socket() as held, suppress(OSError):
            held.bind(("127.0.0.1", port))
            return port
    raise Failed("no port for the mail server is free")


def _end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


__all__ = ["CONNECTIONS", "DOMAIN", "HOST", "SETTINGS", "Failed", "House", "Server", "free_port"]
