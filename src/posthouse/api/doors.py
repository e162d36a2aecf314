"""How endpoints of the receiving side reach what a path names: the caller's own, or nothing."""

from __future__ import annotations

from posthouse import errors
from posthouse.api.http import Call
from posthouse.api.operations import Context
from posthouse.directory.model import Account
from posthouse.mailbox.model import Role

_ROLES = frozenset(role.value for role in Role)
_DIGITS = 15
"""More are no number that counts anything here."""


async def account_of(context: Context, call: Call) -> Account:
    """The account that `{account}` names, by id or address.

    :raises NotFound: code `account_not_found`, also for another tenant's and for one outside the
        domain that the key is bound to.
    """
    account = await context.services.mail.directory.get_account(call.caller.tenant.id, call.path["account"])
    if call.caller.domain not in (None, account.address.rpartition("@")[2]):
        raise errors.NotFound("There is no such account", code="account_not_found")
    return account


def check_bound(call: Call, domain: str) -> None:
    """For what is made: a key bound to a domain makes nothing in another.

    :raises Forbidden: code `key_bound`.
    """
    bound = call.caller.domain
    if bound is not None and domain.strip().lower().rstrip(".") != bound:
        raise errors.Forbidden(f"This key is bound to {bound}", code="key_bound")


def check_unbound(call: Call) -> None:
    """For what goes over all domains of a tenant. :raises Forbidden: code `key_bound`."""
    if call.caller.domain is not None:
        raise errors.Forbidden(f"This key is bound to {call.caller.domain}", code="key_bound")


def email_of(call: Call) -> int:
    """:raises NotFound: code `email_not_found`."""
    number = _number(call.path["email"])
    if number is None:
        raise errors.NotFound("There is no such email", code="email_not_found")
    return number


def thread_of(call: Call) -> int:
    """:raises NotFound: code `thread_not_found`."""
    number = _number(call.path["thread"])
    if number is None:
        raise errors.NotFound("There is no such conversation", code="thread_not_found")
    return number


async def mailbox_of(context: Context, call: Call, account: Account) -> int:
    """The number of `{mailbox}`, which is one or a role (`inbox`).

    :raises NotFound: code `mailbox_not_found`.
    """
    name = call.path["mailbox"]
    number = _number(name)
    if number is None and name in _ROLES:
        boxes = await context.services.mail.reading.mailboxes(account.number)
        number = next((box.id for box in boxes if box.role == name), None)
    if number is None:
        raise errors.NotFound("There is no such mailbox", code="mailbox_not_found")
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None
