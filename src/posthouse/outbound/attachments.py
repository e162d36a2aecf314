"""A draft's attachments, checked and decoded."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Sequence

import msgspec

from posthouse.errors import Invalid
from posthouse.mail import build
from posthouse.outbound.faults import Faults
from posthouse.outbound.model import AttachmentDraft

MOST = 100
_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(?:; ?[A-Za-z0-9-]{1,32}=[A-Za-z0-9._-]{1,64})*"
)
_NAME = re.compile(r"; ?name=", re.IGNORECASE)
_CONTENT_ID = re.compile(r"[A-Za-z0-9._%+-]{1,100}(?:@[A-Za-z0-9.-]{1,100})?")


class Attachment(msgspec.Struct, frozen=True, gc=False):
    filename: str
    content_type: str
    content_id: str | None
    content: bytes


def attachments(given: Sequence[AttachmentDraft], bound: int, faults: Faults) -> tuple[Attachment, ...]:
    found: list[Attachment] = []
    total = 0
    if len(given) > MOST:
        faults.add("/attachments", f"At most {MOST} attachments.")
        return ()
    for place, draft in enumerate(given):
        at = f"/attachments/{place}"
        fine = _describes(draft, at, faults)
        if draft.content_id is not None and draft.content_id in (one.content_id for one in found):
            faults.add(f"{at}/content_id", "Another attachment has this content id.")
        try:
            content = b64decode(draft.content, validate=True)
        except (binascii.Error, ValueError):
            faults.add(f"{at}/content", "This is not base64 (RFC 4648 §4).")
            continue
        if fine and draft.content_type.lower().startswith("message/"):
            _carried_as_it_is(draft, content, at, faults)
        total += len(content)
        found.append(Attachment(draft.filename, draft.content_type, draft.content_id, content))
    if total > bound:
        faults.add("/attachments", f"All attachments together have at most {bound} octets; these have {total}.")
    return tuple(found)


def _describes(draft: AttachmentDraft, at: str, faults: Faults) -> bool:
    """Whether all but the content is right."""
    before = len(faults.found)
    if not 1 <= len(draft.filename) <= 255 or not draft.filename.isprintable():
        faults.add(f"{at}/filename", "A file name has 1 to 255 printable characters.")
    if not _TYPE.fullmatch(draft.content_type) or draft.content_type.lower().startswith("multipart/"):
        faults.add(f"{at}/content_type", "A media type such as `application/pdf` is needed.")
    elif _NAME.search(draft.content_type):
        faults.add(f"{at}/content_type", "The name comes from `filename`; leave it out of the type.")
    if draft.content_id is not None and not _CONTENT_ID.fullmatch(draft.content_id):
        faults.add(f"{at}/content_id", "A content id has letters, digits and `._%+-@`.")
    return len(faults.found) == before


def _carried_as_it_is(draft: AttachmentDraft, content: bytes, at: str, faults: Faults) -> None:
    """An attached message stands in ours unencoded (RFC 2046 §5.2.1)."""
    try:
        _ = build.Attachment(draft.filename, draft.content_type, content, draft.content_id).part
    except Invalid as error:
        faults.add(f"{at}/content", error.public)
