"""`/v1/accounts`: who has mailboxes here."""

from __future__ import annotations

from typing import Any

import msgspec

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api import cursors
from posthouse.api.answers import created, listed, nothing, ok
from posthouse.api.doors import account_of, check_bound
from posthouse.api.http import Body, Call, Query, Reply
from posthouse.api.mail_drafts import AccountChange, AccountDraft, AccountQuery, FilterSettings
from posthouse.api.mail_shown import account_view
from posthouse.api.mail_views import AccountView
from posthouse.api.operations import Context, Operation
from posthouse.api.views import Listed
from posthouse.directory.model import Account, AccountSettings
from posthouse.errors import Fault
from posthouse.mail.rules import read_rules
from posthouse.mail.vacation import read_vacation
from posthouse.storage.records.base import Tx

DRAFT = Body(AccountDraft)
CHANGE = Body(AccountChange)
QUERY = Query(AccountQuery)
MAIL = frozenset({Scope.MAIL})


async def create(context: Context, call: Call) -> Reply:
    draft = DRAFT.read(call.data)
    check_bound(call, draft.address.rpartition("@")[2])
    mail = context.services.mail
    new = await mail.directory.new_account(
        call.caller.tenant.id,
        draft.address,
        name=draft.name,
        password=draft.password,
        quota=draft.quota,
        settings=changed(AccountSettings(), draft.settings),
    )
    made: list[Account] = []

    async def add(tx: Tx) -> int:
        account = await mail.directory.add_account_in(tx, new)
        made[:] = [account]  # the work may run again
        return account.number

    try:
        await mail.mailboxes.open_account(add)
    finally:
        mail.directory.forget()
    return created(account_view(made[0]))


async def list_all(context: Context, call: Call) -> Reply:
    query = QUERY.read(call.query_string)
    domain, bound = query.domain, call.caller.domain
    after = cursors.decode("accounts", query.cursor) or ""
    found = await context.services.mail.directory.list_accounts(
        call.caller.tenant.id, domain=domain or bound, after=after, limit=query.limit + 1
    )
    more = found[query.limit - 1].address if len(found) > query.limit else None
    shown = [one for one in found[: query.limit] if bound in (None, one.address.rpartition("@")[2])]
    return listed("accounts", [account_view(one) for one in shown], more)


async def get(context: Context, call: Call) -> Reply:
    return ok(account_view(await account_of(context, call)))


async def change(context: Context, call: Call) -> Reply:
    draft = CHANGE.read(call.data)
    account = await account_of(context, call)
    directory, tenant_id = context.services.mail.directory, call.caller.tenant.id
    wanted = draft.settings
    after = await directory.set_account(
        tenant_id,
        account.id,
        display=draft.name,
        state=draft.state,
        quota=draft.quota,
        settings=None if wanted is None else lambda before: changed(before, wanted),
    )
    if draft.password is not msgspec.UNSET:
        await directory.set_password(tenant_id, account.id, draft.password)
    return ok(account_view(after))


async def delete(context: Context, call: Call) -> Reply:
    account = await account_of(context, call)
    mail = context.services.mail
    try:
        await mail.mailboxes.remove_account(account.number)
    finally:
        mail.directory.forget()
    return nothing()


def changed(before: AccountSettings, draft: FilterSettings) -> AccountSettings:
    """:raises Invalid: code `invalid_rule` or `invalid_vacation`; its faults point into the body."""
    given: dict[str, Any] = {
        name: tuple(value) for name in ("allow", "block", "forward") if (value := getattr(draft, name)) is not None
    }
    if draft.keep is not None:
        given["keep"] = draft.keep
    if draft.rules is not None:
        rules = [msgspec.Raw(msgspec.json.encode(rule)) for rule in draft.rules]
        _checked("/settings/rules", lambda: read_rules(rules))
        given["rules"] = tuple(rules)
    if draft.vacation is not msgspec.UNSET:
        vacation = msgspec.Raw(msgspec.json.encode(draft.vacation))  # null: none
        if draft.vacation is not None:
            _checked("/settings/vacation", lambda: read_vacation(vacation))
        given["vacation"] = vacation
    return msgspec.structs.replace(before, **given)


def _checked(base: str, read: Any) -> None:
    try:
        read()
    except errors.Invalid as error:
        faults = tuple(Fault(base + fault.pointer, fault.message) for fault in error.faults)
        raise type(error)(error.public, code=error.code, faults=faults) from None


_SETTINGS: dict[str, Any] = {
    "allow": [],
    "block": ["@casino.example"],
    "rules": [],
    "vacation": None,
    "forward": [],
    "keep": True,
}
_ACCOUNT = {
    "id": "acc_0198c1a2b3c47000a1b2c3d4e5f60718",
    "address": "ann@example.com",
    "name": "Ann Lee",
    "state": "active",
    "quota": 0,
    "used": 6144,
    "emails": 1,
    "settings": _SETTINGS,
    "created_at": "2026-11-22T12:00:00.000000Z",
}

OPERATIONS = (
    Operation(
        id="create_account",
        method="POST",
        path="/v1/accounts",
        summary="Add an account with its mailboxes",
        handler=create,
        tag="Accounts",
        scopes=MAIL,
        description="At a domain that mail is received for.",
        body=DRAFT,
        answer=AccountView,
        status=201,
        once=True,
        secret=True,
        example={"address": "ann@example.com", "name": "Ann Lee"},
        answer_example=_ACCOUNT,
        problems=(404, 409),
    ),
    Operation(
        id="list_accounts",
        method="GET",
        path="/v1/accounts",
        summary="List accounts",
        handler=list_all,
        tag="Accounts",
        scopes=MAIL,
        description="By address.",
        query=QUERY,
        answer=Listed[AccountView],
        answer_example={"data": [_ACCOUNT], "next": None},
    ),
    Operation(
        id="get_account",
        method="GET",
        path="/v1/accounts/{account}",
        summary="Get an account",
        handler=get,
        tag="Accounts",
        scopes=MAIL,
        description="By its id or its address.",
        answer=AccountView,
        answer_example=_ACCOUNT,
    ),
    Operation(
        id="change_account",
        method="PATCH",
        path="/v1/accounts/{account}",
        summary="Change its name, state, quota, password or settings",
        handler=change,
        tag="Accounts",
        scopes=MAIL,
        body=CHANGE,
        answer=AccountView,
        example={"quota": 1_000_000_000, "settings": {"block": ["@casino.example"]}},
        answer_example=_ACCOUNT,
    ),
    Operation(
        id="delete_account",
        method="DELETE",
        path="/v1/accounts/{account}",
        summary="Remove an account and all of its mail",
        handler=delete,
        tag="Accounts",
        scopes=MAIL,
        description="For good. It takes a while when there is much; asking again goes on.",
        status=204,
    ),
)
