"""Collecting what is wrong with a draft, each fault with its JSON pointer."""

from __future__ import annotations

from posthouse.errors import Fault, Invalid

_MOST = 50


class Faults:
    """Collects faults, so that a caller sees all of them at once (the first fifty)."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, pointer: str, message: str) -> None:
        if len(self.found) < _MOST:
            self.found.append(Fault(pointer, message))

    def raise_if_any(self) -> None:
        if self.found:
            raise Invalid("The message is not valid", faults=tuple(self.found))


def escape(token: str) -> str:
    """A name as a token of a JSON pointer (RFC 6901 §3)."""
    return token.replace("~", "~0").replace("/", "~1")
