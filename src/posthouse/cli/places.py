"""Mailboxes by the names that people give: a path such as `Archive/Bills`, a role, a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from posthouse.errors import NotFound

if TYPE_CHECKING:
    from posthouse.cli.client import Client

Box = dict[str, Any]

_SYNONYMS = {
    "sent": ("sent items", "sent messages", "sent mail"),
    "drafts": ("draft",),
    "trash": ("deleted items", "deleted messages", "bin"),
    "junk": ("spam", "junk e-mail", "junk mail", "bulk mail"),
    "archive": ("archives",),
}
"""What other programs call the mailboxes that each account begins with."""


def account_path(account: str, *more: object) -> str:
    """Of the API, below an account that is named by id or address."""
    return "/".join(["/v1/accounts", quote(account, safe="@"), *(quote(str(one), safe="") for one in more)])


async def boxes(client: Client, account: str) -> list[Box]:
    found: list[Box] = (await client.get(account_path(account, "mailboxes")))["data"]
    return found


def find(there: Sequence[Box], name: str) -> Box | None:
    """By path as it is written, else by path or role without regard to case, else by number."""
    wanted = name.strip("/")
    folded = wanted.casefold()
    ways: tuple[Callable[[Box], bool], ...] = (
        lambda box: box["path"] == wanted,
        lambda box: box["path"].casefold() == folded,
        lambda box: box["role"] == folded,
        lambda box: str(box["id"]) == wanted,
    )
    return next((box for fits in ways for box in there if fits(box)), None)


async def named(client: Client, account: str, name: str) -> Box:
    """:raises NotFound: code `mailbox_not_found`, with the names that there are."""
    there = await boxes(client, account)
    found = find(there, name)
    if found is None:
        names = ", ".join(box["path"] for box in there[:30])
        raise NotFound(f"{account} has no mailbox {name}. There are: {names}", code="mailbox_not_found")
    return found


async def made(client: Client, account: str, path: Sequence[str]) -> int:
    """The number of a mailbox, which is made with those above it when it is not there.

    A first name that other programs have for one of ours (`Sent Items`) is ours.
    """
    there = await boxes(client, account)
    parent = 0
    for depth, name in enumerate(path):
        found = next((box for box in there if box["parent"] == parent and box["name"] == name), None)
        if found is None and depth == 0:
            found = _alike(there, name)
        if found is None:
            found = await client.post(account_path(account, "mailboxes"), {"name": name, "parent": parent})
        parent = int(found["id"])
    return parent


def _alike(there: Sequence[Box], name: str) -> Box | None:
    folded = name.casefold()
    role = next((role for role, names in _SYNONYMS.items() if folded in names), folded)
    return next((box for box in there if box["parent"] == 0 and box["role"] == role), None)
