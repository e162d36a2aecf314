"""The demo's processes: a sink and a server as anybody starts them, on a temporary directory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import httpx

_COMMAND = (sys.executable, "-m", "posthouse")
_LISTENS = re.compile(r"listens on 127\.0\.0\.1:(\d+), counts on (http://[^/\s]+/)")
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
DOMAIN = "shop.example"
CONNECTIONS = 64

_SETTINGS = """\
hostname = "demo.{domain}"

[retry]
first = 1
factor = 1.5

[[routes]]
domains = ["*"]
kind = "static"
hosts = ["127.0.0.1:{sink}"]
connections = {connections}
"""


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
class Sink:
    """Refuses some mail for good and some for now, logs every answer, keeps each N-th message."""

    directory: Path
    keep_every: int
    mix: str
    port: int = 0
    _counts_url: str = ""
    _process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "sink.jsonl"

    @property
    def kept(self) -> Path:
        return self.directory / "kept"

    def start(self) -> None:
        """:raises Failed:"""
        words = f"--port 0 --stats-port 0 --no-tls --mix {self.mix} --keep-every {self.keep_every}".split()
        with (self.directory / "sink.err").open("w+b") as errors:
            self._process = _start(
                ["sink", *words, "--log", str(self.log), "--keep", str(self.kept)], errors, subprocess.PIPE
            )
            said = self._process.stdout.readline() if self._process.stdout else ""
            found = _LISTENS.search(said)
            if found is None:
                raise Failed(f"The sink did not start: {_last_words(errors)}")
        self.port, self._counts_url = int(found[1]), found[2]

    def accepted(self) -> int:
        """Messages answered with 250."""
        return int(httpx.get(self._counts_url, timeout=10, trust_env=False).json()["accepted"])

    def stop(self) -> None:
        """Its log is complete afterwards."""
        if self._process is not None:
            _end(self._process, signal.SIGTERM)


@dataclass(slots=True)
class Server:
    """`posthouse init` and `posthouse serve` on `directory`, on a port that the system chose."""

    directory: Path
    url: str = ""
    key: str = ""
    operator_key: str = ""
    domain: dict[str, Any] = field(default_factory=dict[str, Any])
    _process: subprocess.Popen[str] | None = None

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _shared(self) -> list[str]:
        return ["--config", str(self.directory / "posthouse.toml"), "--data-dir", str(self._data)]

    def set_up(self, sink_port: int) -> None:
        """Tenant, keys, domain.

        :raises Failed:
        """
        (self.directory / "posthouse.toml").write_text(
            _SETTINGS.format(domain=DOMAIN, sink=sink_port, connections=CONNECTIONS)
        )
        done = subprocess.run(  # noqa: S603 - our own command
            [*_COMMAND, "init", "--tenant", "demo", "--domain", DOMAIN, "--json", *self._shared],
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

    def kill(self) -> None:
        """SIGKILL: nothing in it can clean up."""
        assert self._process is not None
        _end(self._process, signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process, signal.SIGTERM)


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


__all__ = ["CONNECTIONS", "DOMAIN", "Failed", "Server", "Sink"]
