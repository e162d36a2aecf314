"""Both flows' clients, on a loop of their own thread: they go on while the faults happen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from tests.crash.load import Load as SendLoad
from tests.crash.receive_load import SENDER
from tests.crash.receive_load import Load as ReceiveLoad
from tests.flow.dns_server import DnsServer

ZONES = {
    SENDER: {"MX": [f"10 mx.{SENDER}."], "TXT": ['"v=spf1 ip4:127.0.0.1 -all"']},
    f"mx.{SENDER}": {"A": ["127.0.0.1"]},
    "1.0.0.127.in-addr.arpa": {"PTR": [f"mx.{SENDER}."]},
}


class Clients:
    """Use as a context: the name server answers from then on; the load begins with `start`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._dns = DnsServer(ZONES)
        self._running: list[Future[None]] = []
        self.nameserver = ""

    def __enter__(self) -> Clients:
        self._thread.start()
        self._do(self._dns.__aenter__())
        self.nameserver = "{}:{}".format(*self._dns.nameserver)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._running:
            one.cancel()
        self._do(self._dns.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def start(self, api: Callable[[], tuple[str, str]], mx: int, seed: int) -> None:
        """:param api: its URL and a key. :param mx: the port for mail."""
        self.sending = SendLoad(api, seed)
        self.receiving = ReceiveLoad(lambda: mx, seed)
        for work in (self.sending.run(2, pause=0.5), self.receiving.run(3, pause=0.8)):
            self._running.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    def failed(self) -> BaseException | None:
        """What ended a client before its time: an answer that no client should see."""
        for one in self._running:
            if one.done() and (error := one.exception()) is not None:
                return error
        return None

    def stop(self, seconds: float) -> None:
        """What is begun is finished. :raises AssertionError: an answer was wrong. :raises TimeoutError:"""
        self.sending.stopping = self.receiving.stopping = True
        for one in self._running:
            one.result(seconds)

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
