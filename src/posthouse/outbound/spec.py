"""What the messages of one request share, as it lies in the `submission` table."""

from __future__ import annotations

import msgspec

from posthouse.rendering.process import AttachmentRef, Named


class Relayed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that came whole, from the receiving flow: nothing is filled or built.
    See `events.handover.Handover` for the fields."""

    kind: str
    content: str
    size: int
    reverse_path: str
    origin: str
    sign: bool = False
    utf8: bool = False
    report_to: str | None = None


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, rename={"from_": "from"}):
    """Immutable once written: a crash, a retry and a preview all see the same."""

    from_: Named
    stream: str
    key_id: str
    reply_to: tuple[Named, ...] = ()
    to: tuple[Named, ...] = ()
    """Of a single message; each message of a fan-out is to its own recipient."""
    cc: tuple[Named, ...] = ()
    subject: str = ""
    html: str | None = None
    text: str | None = None
    template: str | None = None
    template_id: str | None = None
    template_version: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[AttachmentRef, ...] = ()
    tags: tuple[str, ...] = ()
    variables: msgspec.Raw = msgspec.Raw(b"{}")
    """A single message's, or the defaults of a fan-out's recipients."""
    fan_out: bool = False
    relayed: Relayed | None = None


def weight(spec: Spec) -> int:
    """Octets that a message of it takes when it is built, about; what a template adds is small."""
    if spec.relayed is not None:
        return spec.relayed.size
    inline = len(spec.html or "") + len(spec.text or "")
    return inline + sum(ref.size for ref in spec.attachments) * 7 // 5


class Elsewhere(msgspec.Struct, frozen=True):
    """Stands in the row for a spec too large for it."""

    blob: str


INLINE_LIMIT = 256 * 1024
"""Bytes of JSON kept in the row; a larger spec lies in a blob."""

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Spec).decode
decode_elsewhere = msgspec.json.Decoder(Elsewhere).decode
ELSEWHERE_MARK = b'{"blob":'
