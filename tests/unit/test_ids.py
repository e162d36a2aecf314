"""Identifiers: their shape, their order, and that none comes twice."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from posthouse import ids


def test_each_has_the_shape_and_none_comes_twice() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [one for made in pool.map(lambda _: [ids.new("msg") for _ in range(2000)], range(8)) for one in made]
    assert len(set(found)) == 16_000
    assert all(ids.is_id(one, "msg") for one in found)


def test_those_of_one_process_ascend() -> None:
    found = [ids.new("inb") for _ in range(3000)]
    assert found == sorted(found)


def test_many_ascend_and_have_the_shape() -> None:
    found = ids.many("evt", 10_000)
    assert sorted(set(found)) == found
    assert all(ids.is_id(one, "evt") for one in found)


def test_what_is_derived_is_the_same_each_time_and_of_its_sources_moment() -> None:
    source = ids.new("inb")
    assert ids.derived("eml", source, "a") == ids.derived("eml", source, "a") != ids.derived("eml", source, "b")
    assert ids.is_id(ids.derived("eml", source, "a"), "eml")
    assert ids.derived("eml", source, "a")[4:16] == source[4:16]


def test_a_forked_child_does_not_repeat_its_parent() -> None:
    ids.new("msg")  # some are drawn
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, "".join(ids.new("msg")[-15:] for _ in range(64)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert len(text) == 64 * 15
    assert not {text[at : at + 15] for at in range(0, len(text), 15)} & {ids.new("msg")[-15:] for _ in range(64)}
