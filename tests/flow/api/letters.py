"""Mail that is there: imported, arrived and refused, as rows that the API shows."""

from __future__ import annotations

import base64
from typing import Any

import httpx
from running import Running

from posthouse import clock, ids
from posthouse.storage.records.base import Tx

RAW = (
    b"From: Bob <bob@example.org>\r\nTo: Alice <alice@alices.example>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <1@example.org>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\nThe quick brown fox.\r\n"
)
EVIDENCE = (
    '{"peer":"192.0.2.7","helo":"mail.example.org","host":null,"auth":{"spf":{"result":"pass","domain":"example.org"},'
    '"helo":{"result":"none","domain":""},"dkim":[],"dmarc":{"result":"none","domain":"example.org"},'
    '"arc":{"result":"none"}}}'
)
OUTCOME = '{"state":"stored","email":%d,"thread":%d,"mailboxes":["Inbox"],"reasons":["It begins a conversation."]}'


def item(raw: bytes, **more: Any) -> dict[str, Any]:
    return {"raw": base64.b64encode(raw).decode(), **more}


def put(client: httpx.Client, account: str, *items: dict[str, Any], **headers: str) -> list[dict[str, int]]:
    """What became of each."""
    reply = client.post(f"/v1/accounts/{account}/import", json={"emails": list(items)}, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()["emails"]


class Letter:
    """An email in the inbox of one of alice's accounts."""

    def __init__(self, api: Running, address: str, raw: bytes = RAW, client: httpx.Client | None = None) -> None:
        self._api = api
        self.address = address
        owner = client or api.alice
        self.account = owner.get(f"/v1/accounts/{address}").json()["id"]
        made = put(owner, self.account, item(raw))[0]
        self.email, self.thread = made["id"], made["thread"]

    def arrived(self, tenant: str, *others: str, state: str = "stored") -> str:
        """An arrival with this email as its outcome; `others`: tenants with a recipient of their own."""
        id_, now = ids.new("inb"), clock.now()

        async def work(tx: Tx) -> None:
            await tx.run(
                "INSERT INTO inbound (id, received_at, content, size, fingerprint, reverse_path, evidence, trace) "
                "VALUES ($1, $2, $3, 200, $1, 'bob@example.org', $4, $5)",
                id_,
                now,
                "none",
                EVIDENCE,
                b"Received: from here\r\n",
            )
            number = (await tx.row("SELECT number FROM account WHERE id = $1", self.account) or (0,))[0]
            await tx.run("UPDATE email SET inbound_id = $1 WHERE account = $2 AND id = $3", id_, number, self.email)
            for n, owner in enumerate((tenant, *others)):
                await tx.run(
                    "INSERT INTO inbound_rcpt (inbound_id, n, tenant_id, address, account, state, done_at, outcome) "
                    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                    id_,
                    n,
                    owner,
                    f"Rcpt{n}@alices.example",
                    number if n == 0 else 0,
                    state,
                    now,
                    OUTCOME % (self.email, self.thread),
                )

        self._api.run(self._api.records.write(work))
        return id_

    def refused(self, tenant: str) -> str:
        id_ = ids.new("rfs")

        async def work(tx: Tx) -> None:
            await tx.run(
                "INSERT INTO refusal (id, at, tenant_id, peer, helo, reverse_path, recipient, stage, reply, reason) "
                "VALUES ($1, $2, $3, '192.0.2.9', 'host', 'x@example.net', 'No@alices.example', 'rcpt', "
                "'550 5.1.1 nobody', 'unknown')",
                id_,
                clock.now(),
                tenant,
            )

        self._api.run(self._api.records.write(work))
        return id_
