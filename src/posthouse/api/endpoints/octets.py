"""The octets of an email: as it came, and each of its parts, whole or by range."""

from __future__ import annotations

import asyncio

import msgspec

from posthouse import errors
from posthouse.accounts.model import Scope
from posthouse.api.doors import account_of, email_of
from posthouse.api.http import Call, Query, Reply
from posthouse.api.mail_drafts import RawQuery
from posthouse.api.operations import Context, Operation
from posthouse.api.serving import Octets, serve
from posthouse.mail.parse import content
from posthouse.mail.parsed import Part, part_of
from posthouse.mailbox.model import Email

RAW = Query(RawQuery)
MAIL = frozenset({Scope.MAIL})
_AS_IT_IS = frozenset({"7bit", "8bit", "binary"})
"""Transfer encodings that leave the octets alone (RFC 2045 §6.2)."""
_IN_THREAD = 256 * 1024


async def raw(context: Context, call: Call) -> Reply:
    query = RAW.read(call.query_string)
    account = (await account_of(context, call)).number
    reading = context.services.mail.reading
    email = await reading.email(account, email_of(call))
    before = email.trace if query.trace else b""

    async def read(start: int, length: int) -> bytes:
        head = before[start : start + length]
        if not head and start == len(before) and length >= email.size:
            return (await reading.raw(account, email.id))[1]  # whole, and compared with its hash
        rest = length - len(head)
        return head + (await reading.raw_range(account, email.id, max(0, start - len(before)), rest) if rest else b"")

    etag = email.content + (f"-t{len(before)}" if before else "")
    name = f"{email.id}.eml"
    return await serve(call, Octets(len(before) + email.size, read, etag, "message/rfc822", name=name))


async def part(context: Context, call: Call) -> Reply:
    account = (await account_of(context, call)).number
    email = await context.services.mail.reading.email(account, email_of(call))
    found = part_of(email.detail.structure, call.path["part"])
    if found is None:
        raise errors.NotFound("The email has no such part", code="part_not_found")
    octets = await _octets(context, account, email, found)
    return await serve(call, octets)


async def _octets(context: Context, account: int, email: Email, found: Part) -> Octets:
    """A part that is not encoded is read by range; another has to be decoded from its start."""
    reading = context.services.mail.reading
    etag = f"{email.content}-{found.id}"
    name = found.name or ""
    if found.children or found.encoding in _AS_IT_IS:

        async def by_range(start: int, length: int) -> bytes:
            return (await reading.part(account, email.id, found.id, start=start, length=length))[1]

        return Octets(found.length, by_range, etag, found.type, found.charset, name)
    _, encoded = await reading.part(account, email.id, found.id)
    alone = msgspec.structs.replace(found, header=0, header_length=0, body=0, length=len(encoded))
    data = content(encoded, alone) if len(encoded) < _IN_THREAD else await asyncio.to_thread(content, encoded, alone)

    async def decoded(start: int, length: int) -> bytes:
        return data[start : start + length]

    return Octets(len(data), decoded, etag, found.type, found.charset, name)


_EMAIL = "/v1/accounts/{account}/emails/{email}"

OPERATIONS = (
    Operation(
        id="get_email_raw",
        method="GET",
        path=_EMAIL + "/raw",
        summary="The email as it came, octet for octet",
        handler=raw,
        tag="Emails",
        scopes=MAIL,
        description="`trace` puts the header fields that we add before it. Takes `Range`.",
        query=RAW,
        media="message/rfc822",
    ),
    Operation(
        id="get_email_part",
        method="GET",
        path=_EMAIL + "/parts/{part}",
        summary="A part of its body, decoded",
        handler=part,
        tag="Emails",
        scopes=MAIL,
        description="By the id that `structure` has for it. What a browser might run comes as plain octets to save, "
        "never to show. Takes `Range`.",
        media="application/octet-stream",
    ),
)
