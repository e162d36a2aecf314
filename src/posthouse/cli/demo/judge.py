"""What lies in the demo's mailboxes once its server has stopped, read from its storage, and
what `posthouse check` says of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.app.parts import opened
from posthouse.cli.demo.check import Copy
from posthouse.config.load import load
from posthouse.mailbox.model import Email
from posthouse.mailbox.reading import Reading

_PAGE = 200
_MOST_FINDINGS = 20


@dataclass(slots=True)
class House:
    """`samples`: each N-th message as it came, octet for octet. `findings`: what is wrong with
    the mailboxes, in sentences; empty is right."""

    copies: list[Copy] = field(default_factory=list[Copy])
    samples: list[bytes] = field(default_factory=list[bytes])
    findings: list[str] = field(default_factory=list[str])


def look(directory: Path, tenant: str, sample_every: int) -> House:
    """:param directory: where the server's `posthouse.toml` and `data` lie; nothing else may use them."""
    return asyncio.run(_look(directory, tenant, sample_every))


async def _look(directory: Path, tenant: str, sample_every: int) -> House:
    settings = load(file=directory / "posthouse.toml", flags={"data_dir": str(directory / "data")}, environ={}).settings
    house = House()
    async with opened(settings) as parts:
        mail = parts.services.mail
        owner = next(one for one in await parts.services.accounts.list_tenants(limit=10) if one.name == tenant)
        after = ""
        while accounts := await mail.directory.list_accounts(owner.id, after=after, limit=_PAGE):
            for account in accounts:
                names = {box.id: box.name for box in await mail.reading.mailboxes(account.number)}
                async for email in _emails(mail.reading, account.number, names):
                    if len(house.copies) % sample_every == 0:
                        house.samples.append((await mail.reading.raw(account.number, email.id))[1])
                    house.copies.append(_copy(account.address, email, names))
            after = accounts[-1].address
        async for finding in mail.check.all(deep=True):
            if len(house.findings) < _MOST_FINDINGS:
                house.findings.append(finding.text)
    return house


async def _emails(reading: Reading, account: int, names: dict[int, str]) -> AsyncGenerator[Email, None]:
    """Every email of an account, once."""
    seen: set[int] = set()
    for box in names:
        after = None
        while True:
            page = await reading.page(account, box, limit=_PAGE, after=after)
            wanted = [line.id for line in page.lines if line.id not in seen]
            seen.update(wanted)
            for email in await reading.emails(account, wanted):
                yield email
            after = page.next
            if after is None:
                break


def _copy(address: str, email: Email, names: dict[int, str]) -> Copy:
    return Copy(address, email.message_id or "", tuple(names[box] for box, _ in email.mailboxes), email.trace)
