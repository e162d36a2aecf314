"""A message's story as people read it: the same form for what is sent and what is received."""

from __future__ import annotations

import msgspec


class Sentence(msgspec.Struct, frozen=True, omit_defaults=True):
    at: str
    text: str
    recipient: str | None = None


class Explanation(msgspec.Struct, frozen=True):
    """`GET /v1/messages/{id}/explain`: the story of a message in sentences, oldest first."""

    id: str
    status: str
    summary: str
    story: list[Sentence]
