"""What rules are made of: tests and actions, as they stand in JSON."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MAX_RULES = 200
MAX_TESTS = 50
"""Of one rule, nested ones counted."""
MAX_DEPTH = 6

Role = Literal["inbox", "archive", "junk", "trash", "sent", "drafts"]
Op = Literal["is", "contains", "matches", "starts", "ends"]
Field = Literal["from", "to", "cc", "recipients", "subject", "list_id", "body", "attachment"]
_Value = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Values = Annotated[tuple[_Value, ...], msgspec.Meta(min_length=1, max_length=50)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Strict(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Unknown names are refused: a misspelt bound must not be no bound."""


class Text(_Strict, frozen=True, gc=False, tag_field="test", tag="text"):
    field: Field
    op: Op
    values: _Values


class Header(_Strict, frozen=True, gc=False, tag_field="test", tag="header"):
    """`values` may be left out with `exists`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[!-9;-~]{1,64}$")]
    op: Op | Literal["exists"]
    values: Annotated[tuple[_Value, ...], msgspec.Meta(max_length=50)] = ()


class Size(_Strict, frozen=True, gc=False, tag_field="test", tag="size"):
    """Octets of the whole message; both bounds exclusive."""

    over: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] | None = None
    under: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] | None = None


class HasAttachment(_Strict, frozen=True, gc=False, tag_field="test", tag="has_attachment"):
    pass


class Spam(_Strict, frozen=True, gc=False, tag_field="test", tag="spam"):
    """The filter's verdict: junk, or with `over` a score above it."""

    over: float | None = None


class All(_Strict, frozen=True, gc=False, tag_field="test", tag="all"):
    of: tuple[Test, ...]


class Any(_Strict, frozen=True, gc=False, tag_field="test", tag="any"):
    of: tuple[Test, ...]


class Not(_Strict, frozen=True, gc=False, tag_field="test", tag="not"):
    of: Test


Test = Text | Header | Size | HasAttachment | Spam | All | Any | Not


class File(_Strict, frozen=True, gc=False, tag_field="do", tag="file"):
    """One of the two: a mailbox's full name, or a role."""

    mailbox: _Name | None = None
    role: Role | None = None


class Keyword(_Strict, frozen=True, gc=False, tag_field="do", tag="keyword"):
    """IMAP keywords (RFC 9051 §2.3.2); no system flags."""

    names: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^\$?[A-Za-z0-9_.-]{1,60}$")], ...],
        msgspec.Meta(min_length=1, max_length=10),
    ]


class Read(_Strict, frozen=True, gc=False, tag_field="do", tag="read"):
    pass


class Star(_Strict, frozen=True, gc=False, tag_field="do", tag="star"):
    pass


class Forward(_Strict, frozen=True, gc=False, tag_field="do", tag="forward"):
    to: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=5)]
    keep: bool = True


class Discard(_Strict, frozen=True, gc=False, tag_field="do", tag="discard"):
    pass


class Junk(_Strict, frozen=True, gc=False, tag_field="do", tag="junk"):
    pass


class NotJunk(_Strict, frozen=True, gc=False, tag_field="do", tag="not_junk"):
    pass


class Stop(_Strict, frozen=True, gc=False, tag_field="do", tag="stop"):
    pass


Action = File | Keyword | Read | Star | Forward | Discard | Junk | NotJunk | Stop


class Rule(_Strict, frozen=True, gc=False):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    when: Test
    then: Annotated[tuple[Action, ...], msgspec.Meta(min_length=1, max_length=10)]
    enabled: bool = True


def said(action: Action) -> str:
    """What an action does, for a sentence."""
    match action:
        case File(mailbox=str(name)):
            return f"filed in {name}"
        case File(role=role):
            return f"filed in {str(role).capitalize()}"
        case Keyword(names=names):
            return f"marked {', '.join(names)}"
        case Forward(to=to, keep=keep):
            return f"forwarded to {', '.join(to)}{'' if keep else ' and not kept'}"
        case _:
            return _SAID[type(action)]


_SAID: dict[type[Action], str] = {
    Read: "marked as read",
    Star: "starred",
    Discard: "discarded",
    Junk: "treated as junk",
    NotJunk: "never junk",
    Stop: "no further rules",
}
