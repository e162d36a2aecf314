"""A Posthouse that receives, for a benchmark: `posthouse serve` with accounts `user0@mx.example`,
`user1@…`, and a DNS server on loopback in which the client's SPF, MX and reverse name are right."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from bench import material
from bench.postgres import database
from bench.server import UNLIMITED, Home, Server, serving
from posthouse.app.parts import bootstrap, opened
from posthouse.config import Settings
from posthouse.config.load import load
from posthouse.directory.model import NewAccount
from posthouse.storage.records.base import Tx

DOMAIN = "mx.example"
_ZONE = {
    ("client.example.", "TXT"): ['"v=spf1 ip4:127.0.0.1 -all"'],
    ("client.example.", "MX"): ["10 mail.client.example."],
    ("client.example.", "A"): ["127.0.0.1"],
    ("mail.client.example.", "A"): ["127.0.0.1"],
    ("_dmarc.client.example.", "TXT"): ['"v=DMARC1; p=reject"'],
    ("1.0.0.127.in-addr.arpa.", "PTR"): ["client.example."],
}


@contextmanager
def names() -> Generator[int, None, None]:
    """The DNS server's port. It answers in a thread of this process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.2)
        ended = threading.Event()
        thread = threading.Thread(target=_answer_all, args=(sock, ended), daemon=True)
        thread.start()
        try:
            yield int(sock.getsockname()[1])
        finally:
            ended.set()
            thread.join()


def _answer_all(sock: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            data, sender = sock.recvfrom(4096)
        except TimeoutError:
            continue
        sock.sendto(_answer(data), sender)


def _answer(data: bytes) -> bytes:
    asked = dns.message.from_wire(data)
    said = dns.message.make_response(asked)
    said.flags |= dns.flags.AA
    question = asked.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    if (name, kind) in _ZONE:
        said.answer.append(dns.rrset.from_text(question.name, 3600, "IN", kind, *_ZONE[name, kind]))
    elif not any(known == name for known, _ in _ZONE):
        said.set_rcode(dns.rcode.NXDOMAIN)
    soa = "ns.example. hostmaster.example. 1 3600 600 86400 3600"
    said.authority.append(dns.rrset.from_text("example.", 3600, "IN", "SOA", soa))
    return said.to_wire()


@dataclass(frozen=True)
class Receiver:
    server: Server
    mx: int
    lmtp: int


@contextmanager
def receiver(
    roles: str, *, accounts: int = 1, records: str | None = None, settings: Mapping[str, str] | None = None
) -> Generator[Receiver, None, None]:
    """
    :param roles: of the process, `api` among them.
    :param records: of a PostgreSQL server, in which a database is made and dropped; None: SQLite.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        port = stack.enter_context(names())
        mx, lmtp = material.free_port(), material.free_port()
        (directory / "posthouse.toml").write_text(
            f'data_dir = "{directory}/data"\nhostname = "{DOMAIN}"\nroles = "{roles}"\n'
            f'[receive]\nmx = ["127.0.0.1:{mx}"]\nlmtp = ["127.0.0.1:{lmtp}"]\nconnections_per_address = 1000\n'
            f'[dns]\nservers = ["127.0.0.1:{port}"]\n'
        )
        variables = {**material.environment(), **UNLIMITED, "POSTHOUSE_LOG__LEVEL": "warning", **(settings or {})}
        if records is not None:
            variables["POSTHOUSE_RECORDS__URL"] = stack.enter_context(database(records))
        command = [sys.executable, "-m", "bench.receiver", str(directory), str(accounts)]
        subprocess.run(command, env=variables, check=True, timeout=600)
        found = stack.enter_context(serving(Home(directory, variables)))
        yield Receiver(found, mx, lmtp)


async def _prepare(settings: Settings, accounts: int) -> None:
    settings.data_dir.mkdir(mode=0o700)
    secret = await bootstrap(settings, tenant="bench")
    (settings.data_dir / "operator.key").write_text(secret)
    async with opened(settings) as parts:
        mail = parts.services.mail
        (tenant,) = await parts.services.accounts.list_tenants(limit=1)
        await mail.directory.add_domain(tenant.id, DOMAIN)
        for number in range(accounts):
            new = await mail.directory.new_account(tenant.id, f"user{number}@{DOMAIN}")

            async def add(tx: Tx, new: NewAccount = new) -> int:
                return (await mail.directory.add_account_in(tx, new)).number

            await mail.mailboxes.open_account(add)


if __name__ == "__main__":
    asyncio.run(_prepare(load(file=Path(sys.argv[1]) / "posthouse.toml").settings, int(sys.argv[2])))
