"""Opens connections for sites, with TLS as the route says."""

from __future__ import annotations

from dataclasses import replace

from posthouse.egress.model import Destination, Target
from posthouse.net.smtp import Connection, connect
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.smtp.outcome import SessionFailed, Timeouts


class Opener:
    def __init__(self, *, hostname: str, connect_timeout: float, timeouts: Timeouts | None = None) -> None:
        self._hostname = hostname
        self._connect_timeout = connect_timeout
        self._timeouts = timeouts

    async def __call__(self, destination: Destination, target: Target) -> Connection:
        """Opportunistic TLS that fails is tried again in plain text (RFC 7435).

        :raises SessionFailed:
        """
        policy = destination.route.tls
        try:
            return await self._connect(destination, target, policy)
        except SessionFailed as error:
            if not error.failure.without_tls:
                raise
        return await self._connect(destination, target, replace(policy, mode=TlsMode.NONE))

    async def _connect(self, destination: Destination, target: Target, policy: TlsPolicy) -> Connection:
        return await connect(
            target.host,
            target.port,
            name=self._hostname,
            ip=target.ip,
            tls=policy,
            credentials=destination.route.credentials,
            timeouts=self._timeouts,
            connect_timeout=self._connect_timeout,
        )
