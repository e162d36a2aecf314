"""The verbs of templates, and the two caches of the sending path.

Content given in a message itself (no template) is sent as it is: `{{ … }}` in it means
nothing, so that a product's own text can never be taken for a template.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from threading import Lock
from typing import Any

from posthouse import errors, ids
from posthouse.clock import Clock
from posthouse.storage.bus.invalidation import NOBODY, Invalidation
from posthouse.storage.records.base import Records, Row, Tx
from posthouse.templates import store
from posthouse.templates.cache import CompiledCache, NameCache
from posthouse.templates.compile import compile_version
from posthouse.templates.fill import Filler, check_variables
from posthouse.templates.model import Compiled, Filled, Key, Template, TemplateDetail, Version, Wanted

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_PAGE = 200
SHOWN_VERSIONS = 1000


class Templates:
    def __init__(
        self, records: Records, clock: Clock, *, cache_bytes: int = 64 << 20, elsewhere: Invalidation = NOBODY
    ) -> None:
        """
        :param cache_bytes: what compiled versions may take in memory.
        :param elsewhere: other processes that hold names.
        """
        self._elsewhere = elsewhere
        elsewhere.listen(self._heard)
        self._records = records
        self._clock = clock
        self._names = NameCache(clock)
        self._compiled = CompiledCache(cache_bytes)
        self._preview = Filler()
        self._preview_lock = Lock()

    async def create(
        self,
        tenant_id: str,
        name: str,
        *,
        subject: str,
        html: str | None = None,
        text: str | None = None,
        publish: bool = True,
    ) -> TemplateDetail:
        """With version 1.

        :raises Invalid: the name, or a source that does not compile; pointers `/name`,
            `/subject`, `/html`, `/text`.
        :raises Conflict: code `template_exists`.
        """
        if _NAME.fullmatch(name) is None:
            raise _invalid_name()
        compiled = await asyncio.to_thread(compile_version, subject, html, text)
        now = self._clock()
        template = Template(ids.new("tpl"), tenant_id, name, 1, 1 if publish else None, now, now)

        async def work(tx: Tx) -> TemplateDetail:
            if not await store.insert(tx, template):
                raise errors.Conflict(f"There is a template {name} already", code="template_exists")
            await store.insert_version(tx, Key(template.id, 1), (subject, html, text), now)
            return await _detail(tx, template)

        detail = await self._records.write(work)
        self._changed(tenant_id, name)
        self._compiled.put(Key(template.id, 1), compiled)
        return detail

    async def add_version(
        self,
        tenant_id: str,
        name: str,
        *,
        subject: str,
        html: str | None = None,
        text: str | None = None,
        publish: bool = False,
    ) -> Version:
        """The next number.

        :raises Invalid: a source that does not compile.
        :raises NotFound: code `template_not_found`.
        """
        compiled = await asyncio.to_thread(compile_version, subject, html, text)
        now = self._clock()

        async def work(tx: Tx) -> Template:
            template = await store.next_version(tx, tenant_id, name, publish, now)
            if template is None:
                raise _no_template(name)
            await store.insert_version(tx, Key(template.id, template.latest_version), (subject, html, text), now)
            return template

        template = await self._records.write(work)
        self._changed(tenant_id, name)
        key = Key(template.id, template.latest_version)
        self._compiled.put(key, compiled)
        return _version((*key, subject, html, text, now), compiled)

    async def publish(self, tenant_id: str, name: str, version: int) -> Template:
        """Messages submitted from now on use it; those submitted before keep theirs.

        :raises NotFound: code `template_not_found` or `template_version_not_found`.
        """
        now = self._clock()

        async def work(tx: Tx) -> Template:
            template = await store.publish(tx, tenant_id, name, version, now) if 0 < version < 1 << 31 else None
            if template is None:
                await _access(tx, tenant_id, name)
                raise _no_version(name, version)
            return template

        template = await self._records.write(work)
        self._changed(tenant_id, name)
        return template

    async def get(self, tenant_id: str, name: str) -> TemplateDetail:
        """:raises NotFound: code `template_not_found`."""

        async def work(tx: Tx) -> TemplateDetail:
            return await _detail(tx, await _access(tx, tenant_id, name))

        return await self._records.read(work)

    async def version(self, tenant_id: str, name: str, version: int | None = None) -> Version:
        """None: the published one.

        :raises NotFound: code `template_not_found` or `template_version_not_found`.
        """

        async def work(tx: Tx) -> Row:
            key = _choose(await _access(tx, tenant_id, name), version)
            return (await store.sources(tx, [key]))[0]

        row = await self._records.read(work)
        return _version(row, (await self.compiled([Key(row[0], row[1])]))[Key(row[0], row[1])])

    async def list(
        self, tenant_id: str, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Template], str | None]:
        """In order of name; the second value is the cursor of the next page, None on the last."""
        limit = max(1, min(limit, MAX_PAGE))

        async def work(tx: Tx) -> list[Template]:
            return await store.page(tx, tenant_id, cursor or "", limit + 1)

        found = await self._records.read(work)
        return found[:limit], (found[limit - 1].name if len(found) > limit else None)

    async def delete(self, tenant_id: str, name: str) -> None:
        """Frees the name. Messages accepted before still render: they refer to versions, and
        versions stay.

        :raises NotFound: code `template_not_found`.
        """

        async def work(tx: Tx) -> None:
            if not await store.delete(tx, tenant_id, name):
                raise _no_template(name)

        await self._records.write(work)
        self._changed(tenant_id, name)

    async def preview(self, tenant_id: str, name: str, version: int | None, variables: Mapping[str, Any]) -> Filled:
        """What a recipient with these variables would get.

        :raises NotFound: code `template_not_found` or `template_version_not_found`.
        :raises RenderFailed: a variable is missing, or a limit is passed.
        """
        check_variables(variables)

        async def work(tx: Tx) -> Key:
            return _choose(await _access(tx, tenant_id, name), version)

        key = await self._records.read(work)
        compiled = (await self.compiled([key]))[key]

        def fill() -> Filled:
            with self._preview_lock:
                return self._preview.fill(key, compiled, variables)

        return await asyncio.to_thread(fill)

    async def resolve(
        self, tx: Tx, tenant_id: str, wanted: Set[Wanted] | Set[tuple[str, int | None]]
    ) -> dict[tuple[str, int | None], Key | errors.Error]:
        """What each (name, version or None) means now, or why nothing (`template_not_found`,
        `template_version_not_found`, `template_not_published`): an answer for every one. One
        statement for those that this process has not read within the last second, none when
        it has; what is published here counts at once.
        """
        found = {name: self._names.get(tenant_id, name) for name, _ in wanted}
        stale = sorted(
            {
                name
                for name, version in wanted
                if (held := found[name]) is None or not isinstance(_meaning(held, name, version), Key)
            }
        )
        if stale:
            generation = self._names.generation
            fresh = {one.name: one for one in await store.by_names(tx, tenant_id, stale)}
            self._names.put(tenant_id, fresh.values(), generation)
            found.update({name: fresh.get(name) for name in stale})
        return {(name, version): _meaning(found[name], name, version) for name, version in wanted}

    def _changed(self, tenant_id: str, name: str) -> None:
        self._names.drop(tenant_id, name)
        self._elsewhere.tell(f"{tenant_id} {name}")

    def _heard(self, key: str) -> None:
        tenant_id, _, name = key.partition(" ")
        if name:
            self._names.drop(tenant_id, name)
        else:
            self._names.clear()

    async def compiled(self, keys: Iterable[Key | tuple[str, int]]) -> dict[tuple[str, int], Compiled]:
        """Of these versions those that exist; what is not in memory is read in one statement
        and compiled in a thread. Counted in `posthouse_template_cache_total`.

        :raises StorageUnavailable:
        """
        found, missing = self._compiled.get_many(keys)
        if missing:

            async def work(tx: Tx) -> list[Row]:
                return await store.sources(tx, missing)

            rows = await self._records.read(work)
            for key, compiled in await asyncio.to_thread(_compile_rows, rows):
                self._compiled.put(key, compiled)
                found[key] = compiled
        return found


def _compile_rows(rows: Sequence[Row]) -> list[tuple[Key, Compiled]]:
    return [(Key(row[0], row[1]), compile_version(row[2], row[3], row[4])) for row in rows]


async def _access(tx: Tx, tenant_id: str, name: str) -> Template:
    found = await store.by_names(tx, tenant_id, [name]) if _NAME.fullmatch(name) else []
    if not found:
        raise _no_template(name)
    return found[0]


async def _detail(tx: Tx, template: Template) -> TemplateDetail:
    return TemplateDetail(template, tuple(await store.summaries(tx, template.id, SHOWN_VERSIONS)))


def _choose(template: Template, version: int | None) -> Key:
    meaning = _meaning(template, template.name, version)
    if isinstance(meaning, Key):
        return meaning
    raise meaning


def _meaning(template: Template | None, name: str, version: int | None) -> Key | errors.Error:
    if template is None:
        return _no_template(name)
    if version is None:
        if template.published_version is None:
            return errors.NotFound(f"No version of the template {name} is published", code="template_not_published")
        return Key(template.id, template.published_version)
    # Versions are numbered without gaps and never removed.
    return Key(template.id, version) if 1 <= version <= template.latest_version else _no_version(name, version)


def _version(row: Row, compiled: Compiled) -> Version:
    return Version(
        *row,
        variables=compiled.variables,
        links=compiled.links,
        warnings=compiled.warnings,
        text_derived=compiled.text_derived,
    )


def _invalid_name() -> errors.Invalid:
    message = "must be 1 to 100 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit"
    return errors.Invalid("The template's name is not valid", faults=(errors.Fault("/name", message),))


def _no_template(name: str) -> errors.NotFound:
    return errors.NotFound(f"There is no template {name[:100]!r}", code="template_not_found")


def _no_version(name: str, version: int) -> errors.NotFound:
    return errors.NotFound(f"The template {name} has no version {version}", code="template_version_not_found")
