"""A template is a name with numbered versions. A version never changes; one is published, and
a message may pin another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from posthouse.errors import Invalid

MAX_SUBJECT = 1024
MAX_PART = 512 * 1024
"""Octets of UTF-8, each of html and text."""


class Key(NamedTuple):
    """What a message is rendered from. Never means anything else later."""

    template_id: str
    version: int


class Wanted(NamedTuple):
    """What a message asks for; version None: the one published when it is submitted."""

    name: str
    version: int | None = None


class Template(msgspec.Struct, frozen=True):
    """Times in µs. `published_version` None: no message can use it without a pin."""

    id: str
    tenant_id: str
    name: str
    latest_version: int
    published_version: int | None
    created_at: int
    updated_at: int


class VersionSummary(msgspec.Struct, frozen=True):
    version: int
    subject: str
    created_at: int


class TemplateDetail(msgspec.Struct, frozen=True):
    """With its versions, newest first (at most 1,000)."""

    template: Template
    versions: tuple[VersionSummary, ...]


class Version(msgspec.Struct, frozen=True):
    """The sources as given, and what compiling them showed."""

    template_id: str
    version: int
    subject: str
    html: str | None
    text: str | None
    created_at: int
    variables: tuple[str, ...]
    """Dotted names the sources refer to, sorted."""
    links: tuple[str, ...]
    """Targets of links in the HTML, in order, expressions as they stand."""
    warnings: tuple[str, ...]
    text_derived: bool
    """The text part is made from the HTML."""


class Compiled(msgspec.Struct, frozen=True, array_like=True):
    """What a recipient's message is filled from: checked sources, CSS inlined, text derived.
    Travels to the render processes as msgpack."""

    subject: str
    html: str | None
    text: str | None
    variables: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    text_derived: bool = False
    metered: bool = False
    """What it puts out is counted: it has loops, sets names, or puts out very often."""
    fuel: int = 100_000
    """Steps a fill of one part may take."""

    def size(self) -> int:
        """Characters held, about."""
        return 512 + len(self.subject) + len(self.html or "") + len(self.text or "")


class RenderFailed(Invalid):
    """A fill that did not come to its end. The public text says where and why."""

    code = "render_failed"
    title = "The template cannot be filled"


@dataclass(frozen=True, slots=True)
class Filled:
    """`subject` has no line break; `html` and `text` may be None, not both."""

    subject: str
    html: str | None
    text: str | None
