"""Checked messages → submissions: templates pinned, attachments stored, ids given, rows laid out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set

import msgspec

from posthouse import ids
from posthouse.accounts.model import Caller
from posthouse.clock import Clock
from posthouse.domains.model import Domain
from posthouse.domains.service import Domains
from posthouse.errors import Error, Fault, Forbidden, Invalid
from posthouse.outbound import ledger
from posthouse.outbound import spec as specs
from posthouse.outbound.attachments import Attachment
from posthouse.outbound.check import Checked, expires_at
from posthouse.outbound.model import State
from posthouse.outbound.spec import AttachmentRef, Elsewhere, Spec
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records, Tx
from posthouse.templates.model import Key
from posthouse.templates.service import Templates

Wanted = tuple[str, int | None]
"""A template's name, and the version that is asked for."""


class Composed(msgspec.Struct, frozen=True, gc=False):
    """Rows of one message or one fan-out; `message_ids` in the order of its recipients
    (one id alone for a single message)."""

    shared: ledger.NewSubmission
    messages: list[ledger.NewMessage]
    message_ids: list[str]
    state: State
    lane: int


class Compose:
    def __init__(
        self,
        records: Records,
        blobs: Blobs,
        templates: Templates,
        domains: Domains,
        clock: Clock,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._templates = templates
        self._domains = domains
        self._clock = clock

    async def __call__(self, caller: Caller, checked: Checked) -> Composed:
        """:raises Error: what is wrong with this message, or `StorageUnavailable`."""
        results = await self.many(caller, [checked])
        if isinstance(results[0], Error):
            raise results[0]
        return results[0]

    async def many(self, caller: Caller, batch: Sequence[Checked]) -> list[Composed | Error]:
        """Each for itself: a fault in one is not the others'."""
        senders = await self._domains.sending_domains(caller.tenant.id)
        wanted = {(c.template, c.template_version) for c in batch if c.template is not None}
        keys = await self._resolve(caller.tenant.id, wanted) if wanted else {}
        results: list[Composed | Error] = []
        for checked in batch:
            try:
                self._check_sender(caller, checked, senders)
                key = _template(checked, keys)
                attachments = await self._store(checked.attachments) if checked.attachments else ()
                encoded = specs.encode(_spec(caller, checked, key, attachments))
                if len(encoded) > specs.INLINE_LIMIT:
                    encoded = specs.encode(Elsewhere(await self._blobs.put(encoded)))
                results.append(self._rows(caller.tenant.id, checked, encoded.decode()))
            except (Invalid, Forbidden) as error:
                results.append(error)
        return results

    async def _resolve(self, tenant_id: str, wanted: Set[Wanted]) -> Mapping[Wanted, Key | Error]:
        async def work(tx: Tx) -> Mapping[Wanted, Key | Error]:
            return await self._templates.resolve(tx, tenant_id, wanted)

        return await self._records.read(work)

    def _check_sender(self, caller: Caller, checked: Checked, senders: Mapping[str, Domain]) -> None:
        domain = checked.from_[1].rpartition("@")[2]
        if caller.domain is not None and domain != caller.domain:
            raise Forbidden(f"This key may send from {caller.domain} only", code="key_domain")
        self._domains.check_sender(senders, domain)

    async def _store(self, attachments: Sequence[Attachment]) -> tuple[AttachmentRef, ...]:
        keys = await asyncio.gather(*(self._blobs.put(one.content) for one in attachments))
        return tuple(
            AttachmentRef(one.filename, one.content_type, one.content_id, key, len(one.content))
            for one, key in zip(attachments, keys, strict=True)
        )

    def _rows(self, tenant: str, checked: Checked, spec: str) -> Composed:
        """:param spec: as it stands in the submission's row."""
        now = self._clock()
        tags = f",{','.join(checked.tags)}," if checked.tags else None
        submission = ids.new("sub")
        shared = (submission, tenant, now, tags, spec)
        due = checked.due_at
        state = State.SCHEDULED if due > now else State.QUEUED
        expires = expires_at(due, checked.stream)
        stream, lane = checked.stream.id, int(checked.stream.lane)
        count = len(checked.recipients)
        names = ids.many("msg", count) if checked.fan_out else [ids.new("msg")]
        each = names if checked.fan_out else names * count
        places = [0] * count if checked.fan_out else range(count)
        rows: list[ledger.NewMessage] = [
            (name, place, tenant, submission, stream, lane, r.address, r.name or None, state.value, now, due,
             expires, now, r.variables, r.metadata, due)
            for name, place, r in zip(each, places, checked.recipients, strict=True)
        ]  # fmt: skip
        return Composed(shared, rows, names, state, lane)


def _template(checked: Checked, keys: Mapping[Wanted, Key | Error]) -> Key | None:
    if checked.template is None:
        return None
    key = keys[checked.template, checked.template_version]
    if isinstance(key, Error):
        pointer = "/template" if checked.template_version is None else "/template_version"
        raise Invalid(key.public, code=key.code, faults=(Fault(pointer, key.public),))
    return key


def _spec(caller: Caller, checked: Checked, key: Key | None, attachments: tuple[AttachmentRef, ...]) -> Spec:
    return Spec(
        from_=checked.from_,
        stream=checked.stream.name,
        key_id=caller.key_id,
        reply_to=checked.reply_to,
        to=checked.to,
        cc=checked.cc,
        subject=checked.subject,
        html=checked.html,
        text=checked.text,
        template=checked.template,
        template_id=key.template_id if key else None,
        template_version=key.version if key else None,
        headers=checked.headers,
        attachments=attachments,
        tags=checked.tags,
        variables=msgspec.Raw(checked.variables),
        fan_out=checked.fan_out,
    )
