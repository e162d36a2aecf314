"""The render stage: a batch of messages in hand → their signed bytes, or why there are none.

A template was compiled once a version; a recipient costs the fill, the build and the
signature, in the render processes. The result depends on nothing but the ledger row, its
submission, the template version and the domain's keys: a retry or a crash renders the same
again, so a rendered body is never stored.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from posthouse.clock import SECOND, Clock
from posthouse.domains.model import SigningKey
from posthouse.domains.service import Domains
from posthouse.errors import Corrupt, NotFound
from posthouse.events.types import Type
from posthouse.mailauth.dkim import Signer, load_private_key, sign
from posthouse.outbound.ledger import Due
from posthouse.outbound.mail_in_hand import InHand
from posthouse.outbound.spec import Relayed, Spec
from posthouse.rendering.pool import RenderPool
from posthouse.rendering.process import Context, Failure, SignWith, Task
from posthouse.storage.contents import Contents
from posthouse.templates.model import Compiled, Key
from posthouse.templates.service import Templates


@dataclass(frozen=True, slots=True)
class Rendered:
    mail: InHand
    data: bytes


@dataclass(frozen=True, slots=True)
class NotRendered:
    mail: InHand
    failure: Failure


class Render:
    def __init__(
        self, templates: Templates, domains: Domains, pool: RenderPool, contents: Contents, clock: Clock
    ) -> None:
        self._contents = contents
        self._templates = templates
        self._domains = domains
        self._pool = pool
        self._clock = clock

    async def __call__(self, batch: Sequence[InHand]) -> list[Rendered | NotRendered]:
        """All of one lane, in order.

        :raises StorageUnavailable: templates or keys cannot be read.
        """
        built = [mail for mail in batch if mail.spec.relayed is None]
        results: dict[str, bytes | Failure] = {}
        if built:
            contexts, tasks = await self._tasks([(mail.spec, mail.first) for mail in built])
            rendered = await self._pool.render(batch[0].job.lane, tasks, contexts)
            results = {mail.job.id: result for mail, result in zip(built, rendered, strict=True)}
        for mail in batch:
            if mail.spec.relayed is not None:
                results[mail.job.id] = await self._relayed(mail.spec, mail.spec.relayed, mail.first)
        now = self._clock()
        return [self._outcome(mail, results[mail.job.id], now) for mail in batch]

    async def one(self, spec: Spec, due: Due) -> bytes | Failure:
        """The bytes of one message, as they are or were sent."""
        if spec.relayed is not None:
            return await self._relayed(spec, spec.relayed, due)
        contexts, tasks = await self._tasks([(spec, due)])
        return (await self._pool.render(due.lane, tasks, contexts))[0]

    async def _relayed(self, spec: Spec, relayed: Relayed, due: Due) -> bytes | Failure:
        """As it came, with our signature where it is ours."""
        try:
            data = await self._contents.get(relayed.content)
        except (NotFound, Corrupt) as error:
            return Failure(error.code, "Its content is no longer held here", False)
        signers = await self.signers(due.tenant_id, spec) if relayed.sign else ()
        if not signers:
            return data
        return await asyncio.to_thread(_sign, data, signers, due.due_at // SECOND)

    async def signers(self, tenant_id: str, spec: Spec) -> tuple[SigningKey, ...]:
        """The keys that sign for the sender's domain now."""
        return (await self._keys([(tenant_id, _domain(spec))])).get((tenant_id, _domain(spec)), ())

    def _outcome(self, mail: InHand, result: bytes | Failure, now: int) -> Rendered | NotRendered:
        if isinstance(result, Failure):
            return NotRendered(mail, result)
        for _, dues in mail.groups:
            for due in dues:
                if due.attempts == 0:
                    version = mail.spec.template_version
                    about = f'{{"size":{len(result)}' + (f',"version":{version}}}' if version else "}")
                    mail.earlier.append((due.id, due.rcpt, now, Type.RENDERED.value, "render", about))
        return Rendered(mail, result)

    async def _tasks(self, pairs: Sequence[tuple[Spec, Due]]) -> tuple[dict[str, Context], list[Task]]:
        """Contexts once a submission; a task each."""
        specs = {due.submission_id: (spec, due.tenant_id) for spec, due in pairs}
        compiled = await self._compiled([spec for spec, _ in specs.values()])
        keys = await self._keys([(tenant, _domain(spec)) for spec, tenant in specs.values()])
        contexts: dict[str, Context] = {}
        names: dict[str, str] = {}
        for submission, (spec, tenant) in specs.items():
            signers = keys.get((tenant, _domain(spec)), ())
            name = names[submission] = f"{submission}:{_fingerprint(signers)}"
            contexts[name] = _context(name, spec, signers, compiled)
        tasks = [
            Task(
                names[due.submission_id],
                due.id,
                due.due_at // SECOND,
                (due.name or "", due.address) if spec.fan_out else None,
                due.variables,
            )
            for spec, due in pairs
        ]
        return contexts, tasks

    async def _compiled(self, specs: Sequence[Spec]) -> dict[Key, Compiled]:
        wanted = {_key(spec) for spec in specs if spec.template_id is not None}
        found = await self._templates.compiled(wanted) if wanted else {}
        return {Key(*key): compiled for key, compiled in found.items()}

    async def _keys(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[SigningKey, ...]]:
        by_tenant: dict[str, set[str]] = {}
        for tenant, domain in pairs:
            by_tenant.setdefault(tenant, set()).add(domain)
        return {
            (tenant, domain): keys
            for tenant, domains in by_tenant.items()
            for domain, keys in (await self._domains.signing_keys(tenant, domains)).items()
        }


def _sign(data: bytes, keys: Sequence[SigningKey], at: int) -> bytes:
    signers = [Signer(key.domain, key.selector, load_private_key(key.private_pem)) for key in keys]
    return sign(data, signers, at) + data


def _key(spec: Spec) -> Key:
    assert spec.template_id is not None
    assert spec.template_version is not None
    return Key(spec.template_id, spec.template_version)


def _domain(spec: Spec) -> str:
    return spec.from_[1].rpartition("@")[2]


def _fingerprint(signers: Sequence[SigningKey]) -> str:
    """Changes when the domain's keys do: the render processes then get the new ones."""
    return hashlib.blake2b("\0".join(f"{s.selector}" for s in signers).encode(), digest_size=6).hexdigest()


def _context(name: str, spec: Spec, signers: Sequence[SigningKey], compiled: dict[Key, Compiled]) -> Context:
    return Context(
        name,
        spec.from_,
        spec.reply_to,
        spec.headers,
        spec.to,
        spec.cc,
        tuple(SignWith(s.domain, s.selector, s.algorithm, s.private_pem) for s in signers),
        _key(spec) if spec.template_id is not None else None,
        compiled[_key(spec)] if spec.template_id is not None else None,
        spec.subject,
        spec.html,
        spec.text,
        spec.attachments,
        bytes(spec.variables),
    )
