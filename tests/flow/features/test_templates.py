"""Templates on real records, both engines: versions, resolving, caches."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from tests.conftest import ManualClock

from posthouse.errors import Conflict, Error, Invalid, NotFound
from posthouse.storage.records.base import Records, Tx
from posthouse.templates.model import Filled, Key, RenderFailed, Wanted
from posthouse.templates.service import Templates


@pytest.fixture
def templates(records: Records, clock: ManualClock) -> Templates:
    return Templates(records, clock)


async def resolve(
    templates: Templates, records: Records, *wanted: Wanted, tenant: str = "t1"
) -> dict[tuple[str, int | None], Key | Error]:
    async def work(tx: Tx) -> dict[tuple[str, int | None], Key | Error]:
        return await templates.resolve(tx, tenant, set(wanted))

    return await records.read(work)


async def test_versions_are_numbered_and_one_is_published(templates: Templates, records: Records) -> None:
    made = await templates.create("t1", "welcome", subject="One {{ a }}", html="<p>{{ a }}</p>")
    assert (made.template.latest_version, made.template.published_version) == (1, 1)
    second = await templates.add_version("t1", "welcome", subject="Two", text="t")
    assert (second.version, second.text_derived) == (2, False)
    third = await templates.add_version("t1", "welcome", subject="Three", text="t", publish=True)
    detail = await templates.get("t1", "welcome")
    assert [one.version for one in detail.versions] == [3, 2, 1]
    assert detail.template.published_version == third.version == 3
    assert (await templates.publish("t1", "welcome", 1)).published_version == 1
    shown = await templates.version("t1", "welcome")
    assert (shown.subject, shown.variables, shown.text_derived) == ("One {{ a }}", ("a",), True)
    assert (await templates.version("t1", "welcome", 3)).subject == "Three"
    assert await templates.preview("t1", "welcome", None, {"a": "<x>"}) == Filled(
        "One <x>", "<p>&lt;x&gt;</p>", "<x>\n"
    )
    assert (await templates.preview("t1", "welcome", 2, {})).subject == "Two"


async def test_what_cannot_be(templates: Templates) -> None:
    await templates.create("t1", "a", subject="s", text="{{ gone }}", publish=False)
    with pytest.raises(Conflict) as conflict:
        await templates.create("t1", "a", subject="s", text="t")
    assert conflict.value.code == "template_exists"
    await templates.create("t2", "a", subject="s", text="t")
    for name in ("", "A", "-a", "a b", "a\n", "a" * 101, "ä"):
        with pytest.raises(Invalid) as invalid:
            await templates.create("t1", name, subject="s", text="t")
        assert invalid.value.faults[0].pointer == "/name"
    with pytest.raises(Invalid, match="compile"):
        await templates.add_version("t1", "a", subject="{{", text="t")
    for call in (
        templates.get("t1", "b"),
        templates.get("t3", "a"),
        templates.get("t1", "no such\0name"),
        templates.publish("t1", "b", 1),
        templates.add_version("t1", "b", subject="s", text="t"),
        templates.delete("t1", "b"),
    ):
        with pytest.raises(NotFound) as absent:
            await call
        assert absent.value.code == "template_not_found"
    for version in (0, -1, 2, 2**40):
        with pytest.raises(NotFound) as absent:
            await templates.publish("t1", "a", version)
        assert absent.value.code == "template_version_not_found"
    with pytest.raises(NotFound) as absent:
        await templates.preview("t1", "a", None, {})
    assert absent.value.code == "template_not_published"
    with pytest.raises(RenderFailed, match="`gone` is not given"):
        await templates.preview("t1", "a", 1, {})


async def test_a_batch_resolves_in_one_statement(templates: Templates, records: Records, clock: ManualClock) -> None:
    one = (await templates.create("t1", "one", subject="s", text="t")).template
    await templates.create("t1", "two", subject="s", text="t", publish=False)
    statements = 0

    async def work(tx: Tx) -> dict[tuple[str, int | None], Key | Error]:
        class Counting:
            async def rows(self, sql: str, *params: object) -> list[tuple[object, ...]]:
                nonlocal statements
                statements += 1
                return await tx.rows(sql, *params)  # type: ignore[arg-type]

        wanted = {Wanted("one"), Wanted("one", 1), Wanted("one", 2), Wanted("two"), Wanted("two", 1), Wanted("gone")}
        return await templates.resolve(Counting(), "t1", wanted)  # type: ignore[arg-type]

    found = await records.read(work)
    assert statements == 1
    assert found["one", None] == found["one", 1] == Key(one.id, 1)
    assert isinstance(found["two", 1], Key)
    codes = {wanted: answer.code for wanted, answer in found.items() if isinstance(answer, Error)}
    assert codes == {
        ("one", 2): "template_version_not_found",
        ("two", None): "template_not_published",
        ("gone", None): "template_not_found",
    }


async def test_what_is_published_here_counts_at_once(templates: Templates, records: Records) -> None:
    made = (await templates.create("t1", "a", subject="s", text="t")).template
    assert (await resolve(templates, records, Wanted("a")))["a", None] == Key(made.id, 1)
    await templates.add_version("t1", "a", subject="s", text="t", publish=True)
    assert (await resolve(templates, records, Wanted("a")))["a", None] == Key(made.id, 2)
    await templates.delete("t1", "a")
    gone = (await resolve(templates, records, Wanted("a")))["a", None]
    assert isinstance(gone, NotFound)


async def test_what_is_published_elsewhere_counts_within_a_second(
    templates: Templates, records: Records, clock: ManualClock
) -> None:
    made = (await templates.create("t1", "a", subject="s", text="t")).template
    await resolve(templates, records, Wanted("a"))
    elsewhere = Templates(records, clock)
    await elsewhere.add_version("t1", "a", subject="s", text="t", publish=True)
    assert (await resolve(templates, records, Wanted("a")))["a", None] == Key(made.id, 1)
    assert (await resolve(templates, records, Wanted("a", 2)))["a", 2] == Key(made.id, 2)
    clock.advance(1)
    assert (await resolve(templates, records, Wanted("a")))["a", None] == Key(made.id, 2)


async def test_a_deleted_template_still_renders_what_was_accepted(templates: Templates, records: Records) -> None:
    made = (await templates.create("t1", "a", subject="s", text="old")).template
    await templates.delete("t1", "a")
    again = (await templates.create("t1", "a", subject="s", text="new")).template
    fresh = Templates(records, lambda: 0)
    found = await fresh.compiled({Key(made.id, 1), Key(again.id, 1), Key("tpl_gone", 1)})
    assert {key: compiled.text for key, compiled in found.items()} == {(made.id, 1): "old", (again.id, 1): "new"}


def count(result: str) -> float:
    return REGISTRY.get_sample_value("posthouse_template_cache_total", {"result": result}) or 0.0


async def test_compiled_versions_are_held_and_counted(
    templates: Templates, records: Records, clock: ManualClock
) -> None:
    made = (await templates.create("t1", "a", subject="s", text="t")).template
    fresh = Templates(records, clock)
    hits, misses = count("hit"), count("miss")
    for _ in range(100):
        await fresh.compiled({(made.id, 1)})
    assert (count("hit") - hits, count("miss") - misses) == (99, 1)
    small = Templates(records, clock, cache_bytes=100)
    for _ in range(2):
        assert (made.id, 1) in await small.compiled({(made.id, 1)})
    assert count("miss") - misses == 3


async def test_lists_go_by_cursor(templates: Templates) -> None:
    for n in range(5):
        await templates.create("t1", f"n{n}", subject="s", text="t")
    first, cursor = await templates.list("t1", limit=3)
    rest, end = await templates.list("t1", cursor=cursor, limit=3)
    assert [one.name for one in first + rest] == ["n0", "n1", "n2", "n3", "n4"]
    assert end is None
    assert await templates.list("t2") == ([], None)
