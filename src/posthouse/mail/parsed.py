"""What a message turns out to be: the parser's result, frozen, without any of its bytes.

Offsets and lengths are octets into the raw message, so that every part can be served by
range from where the raw message lies.
"""

from __future__ import annotations

import msgspec


class Addr(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One mailbox of an address header, decoded for people. `address` is as it stood, its
    domain lower-cased; empty when there was none. Groups are flattened; `group` keeps the name."""

    name: str
    address: str
    group: str | None = None


class Part(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """A node of the body structure.

    `id`: IMAP's section number (`1`, `2.1`; `0` for a message that is one multipart, `2.0` for
    an attached message `2` that is one). An attached message has one child, its own structure.
    `type`: lower-case `text/plain`. `encoding`: lower-case transfer encoding as declared.
    `header`, `header_length`, `body`, `length`: where its header block, with the empty line that
    ends it, and its encoded body lie.
    `size`: octets when decoded (estimated for base64 from its length). `name`: the file name,
    decoded, without any directory. `cid`: Content-ID without angle brackets.
    """

    id: str
    type: str
    header: int
    header_length: int
    body: int
    length: int
    size: int
    encoding: str = "7bit"
    charset: str | None = None
    disposition: str | None = None
    name: str | None = None
    cid: str | None = None
    language: str | None = None
    location: str | None = None
    lines: int = 0
    children: tuple[Part, ...] = ()


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A message as people and programs need it. Text is decoded, NFC, without control
    characters, and bounded.

    `message_id`, `in_reply_to`, `references`: ids without angle brackets, as they stood.
    `date`: µs since 1970 of the Date header; None without a usable one. `date_offset`: its
    zone in minutes. `text` and `html`: ids of the parts that show the message (RFC 8621
    §4.1.4 textBody, htmlBody); `attachments`: of those that do not. `preview`: at most 256
    characters of what a reader would see. `flaws`: what is wrong with the message, by code
    (`flaws.py` explains each); evidence for the filter.
    """

    size: int
    header_length: int
    structure: Part
    message_id: str | None = None
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    subject: str = ""
    from_: tuple[Addr, ...] = ()
    sender: tuple[Addr, ...] = ()
    reply_to: tuple[Addr, ...] = ()
    to: tuple[Addr, ...] = ()
    cc: tuple[Addr, ...] = ()
    bcc: tuple[Addr, ...] = ()
    date: int | None = None
    date_offset: int = 0
    text: tuple[str, ...] = ()
    html: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    preview: str = ""
    list_id: str | None = None
    auto_submitted: str | None = None
    precedence: str | None = None
    list_unsubscribe: bool = False
    list_post: bool = False
    thread_index: str | None = None
    """Outlook's Thread-Index, its first 22 characters: the conversation's root."""
    flaws: tuple[str, ...] = ()

    @property
    def automatic(self) -> bool:
        """Sent by a program (RFC 3834 §5): never answered, forwarded on without care."""
        auto = self.auto_submitted is not None and self.auto_submitted != "no"
        return auto or self.precedence in {"bulk", "junk", "list"} or self.list_id is not None


def part_of(structure: Part, part_id: str) -> Part | None:
    """The node of this id."""
    if structure.id == part_id:
        return structure
    for child in structure.children:
        if child.id == part_id or part_id.startswith(child.id.removesuffix(".0") + "."):
            found = part_of(child, part_id)
            if found is not None:
                return found
    return None
