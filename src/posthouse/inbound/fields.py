"""A message's header fields by name, read when the first is asked for."""

from __future__ import annotations

from posthouse.mail.parse import decode_words, header_fields


class Fields:
    __slots__ = ("_fields", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._fields: dict[str, list[bytes]] | None = None

    def __call__(self, name: str) -> tuple[str, ...]:
        """Decoded values, in the order of the fields.

        :param name: in lower case.
        """
        return tuple(decode_words(value) for value in self._named(name))

    def count(self, name: str) -> int:
        return len(self._named(name))

    def _named(self, name: str) -> list[bytes]:
        if self._fields is None:
            self._fields = {}
            for field, value, _, _ in header_fields(self._raw):
                self._fields.setdefault(field.decode("ascii", "replace").lower(), []).append(value)
        return self._fields.get(name, [])
