"""A line of JSON for each outcome: what the sink has said about which mail.

A recipient refused at RCPT is a line of its own; a message is one line with the recipients
that were accepted. The line is in the journal before the reply is on the wire, and in the
file at most 100 ms later, or when the sink stops.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import msgspec

FLUSH_SECONDS = 0.05
_MANY = 512
_HEADER = 65_536  # octets searched for the Message-ID
_MESSAGE_ID = re.compile(rb"^message-id:[ \t\r\n]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename={"sender": "from"}):
    """`outcome`: a reply code with its enhanced code (`250 2.0.0`, `550 5.1.1`) or `dropped`.
    `stage`: `rcpt` or `data`. `tls`: the version, or none. `at`: seconds since 1970."""

    at: float
    sender: str
    to: list[str]
    outcome: str
    stage: str
    size: int = 0
    message_id: str = ""
    tls: str | None = None
    peer: str = ""


class Journal:
    """Appends to a file in batches. Other processes may append to it too: a batch is one write."""

    def __init__(self, path: Path) -> None:
        """:raises OSError: the file cannot be opened."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._entries: list[Entry] = []
        self._encoder = msgspec.json.Encoder()
        self._unwritten = b""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) >= _MANY:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """:raises OSError: the file cannot be written (a full disk); the lines are kept for the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._entries:
            self._unwritten += self._encoder.encode_lines(self._entries)
            self._entries.clear()
        while self._unwritten:
            self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten) :]

    def close(self) -> None:
        try:
            self.flush()
        finally:
            os.close(self._descriptor)


def message_id(data: bytes) -> str:
    """The value of the Message-ID field, or an empty text."""
    start = data.find(b"\nMessage-ID: ", 0, _HEADER)
    if start >= 0:
        end = data.find(b"\r\n", start)
        blank = data.find(b"\r\n\r\n", 0, start + 1)
        if end >= 0 and blank < 0:
            return data[start + 13 : end].decode("utf-8", "replace").strip()
    header = data[: _blank(data)]
    match = _MESSAGE_ID.search(header)
    return match[1].decode("utf-8", "replace").strip() if match else ""


def _blank(data: bytes) -> int:
    end = data.find(b"\r\n\r\n", 0, _HEADER)
    return end if end >= 0 else _HEADER
