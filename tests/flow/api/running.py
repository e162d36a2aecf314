"""A real server on loopback, in a thread, over real SQLite records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
import uvloop
from outbound_stub import OutboundStub

from posthouse import clock
from posthouse.accounts.model import ALL_SCOPES, TENANT_SCOPES, Limits
from posthouse.accounts.service import Accounts
from posthouse.accounts.streams import Streams
from posthouse.api.app import build_app
from posthouse.api.edge import Options
from posthouse.api.ports import Mail, Services
from posthouse.api.server import build_server, listen
from posthouse.app.receiving import open_mail
from posthouse.domains.records import Sender
from posthouse.domains.service import Domains
from posthouse.net.dns import Answer, Mx
from posthouse.seal import Seal
from posthouse.storage.blobs.local import LocalBlobs
from posthouse.storage.contents import Contents
from posthouse.storage.queue.records import RecordsQueue
from posthouse.storage.records.factory import open_records
from posthouse.storage.records.migrations.run import migrate
from posthouse.storage.search.factory import beside
from posthouse.suppression.service import Suppressions
from posthouse.templates.service import Templates

T = TypeVar("T")


class NoDns:
    """A resolver that knows nothing."""

    async def txt(self, name: str) -> Answer[bytes]:
        return Answer((), nxdomain=True)

    async def mx(self, domain: str) -> Answer[Mx]:
        return Answer((), nxdomain=True)

    def forget(self) -> None:
        pass


class Running:
    """`alice` and `bob` are clients of two tenants, `operator` of a third."""

    def __init__(self, folder: Path, options: Options | None = None) -> None:
        self._folder = folder
        self._url = f"sqlite:///{folder}/posthouse.db"
        self._options = options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(30)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def client(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        made = httpx.Client(base_url=self.base, headers=headers, timeout=30, trust_env=False)
        self.clients.append(made)
        return made

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await migrate(self._url)
        self.records = await open_records(self._url)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.records.close)
            await self._listen(stack)

    async def _listen(self, stack: AsyncExitStack) -> None:
        self.queue = RecordsQueue(self.records)
        self.blobs = await LocalBlobs.open(self._folder / "blobs")
        contents = Contents(self.records, self.blobs, small=64 * 1024, clock=clock.now)
        mail = await open_mail(
            beside(self._url),
            stack,
            records=self.records,
            queue=self.queue,
            blobs=self.blobs,
            contents=contents,
            clock=clock.now,
        )
        self.services = self._services(mail)
        await self._people()
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.clients: list[httpx.Client] = []
        self.anyone = self.client(None)
        self.alice, self.bob = self.client(self.alice_key), self.client(self.bob_key)
        self.operator = self.client(self.operator_key)
        self._server = build_server(build_app(self.services, self._options), stop_seconds=2)
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.set()
        await serving

    def _services(self, mail: Mail) -> Services:
        records = self.records
        self.messages = OutboundStub(records, clock.now)
        domains = Domains(
            records,
            clock.now,
            seal=Seal([b"k" * 32]),
            resolver=NoDns(),
            sender=Sender("mail.example.net", "ip4:192.0.2.1"),
        )
        return Services(
            accounts=Accounts(records, clock.now, Limits(1_000_000, 1_000_000, 0)),
            streams=Streams(records, clock.now),
            messages=self.messages,
            templates=Templates(records, clock.now),
            domains=domains,
            suppressions=Suppressions(records, clock.now),
            mail=mail,
            records=records,
            queue=self.queue,
            checks={"records": records.ready},
        )

    async def _people(self) -> None:
        accounts = self.services.accounts
        keys: list[str] = []
        for name, scopes in (("alice", TENANT_SCOPES), ("bob", TENANT_SCOPES), ("operator", ALL_SCOPES)):
            tenant = await accounts.create_tenant(name)
            keys.append((await accounts.create_key(tenant.id, name, scopes)).secret)
        self.alice_key, self.bob_key, self.operator_key = keys
