"""A directory over `records`, and two tenants' mail in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from posthouse.accounts.passwords import verify_password
from posthouse.directory.model import Account
from posthouse.directory.resolve import Resolver
from posthouse.directory.service import Directory
from posthouse.storage.records.base import Records, Tx
from tests.conftest import ManualClock

ACME = "ten_" + "a" * 12 + "7" + "0" * 19
BETA = "ten_" + "b" * 12 + "7" + "0" * 19


class Monotonic:
    """Seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class House:
    records: Records
    clock: ManualClock
    seconds: Monotonic = field(default_factory=Monotonic)

    def __post_init__(self) -> None:
        self.resolver = Resolver(self.records, monotonic=self.seconds)
        self.directory = Directory(
            self.records,
            self.clock,
            self.resolver,
            hash_password=lambda password: f"plain${password}",
            verify_password=lambda password, stored: (
                verify_password(password, stored) if stored.startswith("scrypt$") else stored == f"plain${password}"
            ),
        )

    async def account(self, address: str, *, tenant: str = ACME, quota: int | None = None) -> Account:
        new = await self.directory.new_account(tenant, address, quota=quota)

        async def work(tx: Tx) -> Account:
            return await self.directory.add_account_in(tx, new)

        account = await self.records.write(work)
        self.directory.forget()
        return account

    async def use(self, account: Account, octets: int) -> None:
        """As the mailboxes would count."""
        await self.records.write(
            lambda tx: tx.run("UPDATE account SET used = $2 WHERE number = $1", account.number, octets)
        )
        self.directory.forget()
