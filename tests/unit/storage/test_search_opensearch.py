"""OpenSearch's address, names, steps and queries, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse import errors
from posthouse.storage.search.base import Doc
from posthouse.storage.search.opensearch import bulk, dsl
from posthouse.storage.search.opensearch.address import Address, parse
from posthouse.storage.search.opensearch.answers import Line, Trouble
from posthouse.storage.search.opensearch.bulk import Outcome
from posthouse.storage.search.opensearch.layout import Action, Layout, State
from posthouse.storage.search.query import parse as parse_query
from posthouse.storage.search.tokens import tokens


def test_addresses() -> None:
    assert parse("http://search.example") == Address("search.example", 9200)
    assert parse("https://ann:p%40ss@[::1]:9243/mail?shards=12&replicas=0&ca=/etc/ca.pem") == Address(
        "::1", 9243, True, "ann", "p@ss", "mail", 12, 0, "/etc/ca.pem"
    )
    assert "p@ss" not in repr(parse("http://ann:p%40ss@h"))


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http:///mail", "ftp://h", "http://h:x", "http://h:99999", "http://h/A", "http://h/-a", "http://h/a/b",
        "http://h/a*", "http://h/a,b", "http://h?x=secret", "http://h?shards=0", "http://h?shards=2000", "http://h?shards=1e3",
        "http://h?replicas=-1", "http://h?replicas=11", "http://h?shards", "http://[::1", "http://h#f", "http://h/" + "a" * 101,
    ],
)  # fmt: skip
def test_wrong_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(errors.Misconfigured) as raised:
        parse(url)
    assert raised.value.code == "search_url"
    assert url not in str(raised.value)


class Cluster:
    """Indexes with their aliases, changed as the server changes them: all of it or nothing."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.indexes: dict[str, set[str]] = {}

    @property
    def state(self) -> State:
        return self.layout.state(self.indexes)

    def make(self, number: int, aliases: dict[str, Any] | None = None) -> None:
        name = self.layout.index(number)
        assert name not in self.indexes
        self.indexes[name] = set(aliases or {})

    def step(self, actions: list[Action]) -> bool:
        after = {name: set(aliases) for name, aliases in self.indexes.items()}
        for action in actions:
            ((kind, about),) = action.items()
            if about["index"] not in after:
                return False
            if kind == "remove_index":
                del after[about["index"]]
            elif kind == "add":
                after[about["index"]].add(about["alias"])
            elif about["alias"] not in after[about["index"]]:
                return False
            else:
                after[about["index"]].remove(about["alias"])
        self.indexes = after
        return True


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["begin", "finish", "stale begin", "stale finish", "lose read", "lose all"]), max_size=12)
)
def test_whatever_happens_one_index_answers_and_is_written(events: list[str]) -> None:
    layout = Layout("mail")
    cluster = Cluster(layout)
    stale = cluster.state
    earlier: set[frozenset[str]] = set()
    for event in events:
        state = cluster.state
        if event == "lose all":
            cluster.indexes.clear()
        elif event == "lose read" and state.read is not None:
            del cluster.indexes[layout.index(state.read)]
        elif state.whole and event.endswith("begin"):
            used = stale if event.startswith("stale") and stale.whole else state
            cluster.make(state.next)
            cluster.step(layout.begin(used, state.next))
        elif state.whole and event.endswith("finish"):
            cluster.step(layout.finish(stale if event.startswith("stale") and stale.whole else state))
        if not cluster.state.whole:
            mended = layout.mended(cluster.state)
            if mended:
                assert cluster.step(mended)
            else:
                cluster.make(cluster.state.next, layout.first_aliases(cluster.state))
        state = cluster.state
        assert state.whole
        assert sum(layout.read in aliases for aliases in cluster.indexes.values()) == 1
        assert len({alias.split("-write-")[1].split("-")[0] for alias in state.written.values()}) == 1, "one epoch"
        assert len(state.written) <= 2
        if state.due is not None:
            assert state.due[0] == state.newest
        now = frozenset(state.written.values())
        assert not any(before <= now for before in earlier - {now}), "who knows an old arrangement is refused"
        earlier.add(now)
        stale = state


def test_other_indexes_are_passed_over() -> None:
    found = {"mail-v1-other": ["mail-v1-read"], "mail-v1-000001": ["mail-v1-x", "mine"], "mail-v12-000001": ["x"]}
    assert Layout("mail").state(found) == State(frozenset({1}))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node


KNOWN = {
    "bool", "filter", "must_not", "should", "minimum_should_match", "term", "prefix", "match_phrase", "match_phrase_prefix",
    "value", "query", "max_expansions", "account", "body", "head", "acc",
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab*?~^:\"'()[]{}/\\ -+&|<>=!_.@") | st.characters(), max_size=60))
def test_nothing_typed_is_syntax(text: str) -> None:
    """What was typed comes out as words alone, each of letters, marks and digits."""
    root = parse_query(text).root
    if root is None:
        return
    made = dsl.within("acc", root)
    json.dumps(made)
    kinds = set(_texts(made)) - KNOWN
    for word in " ".join(kinds).split():
        bare = word[1:] if word[0] in "<>#%" else word
        assert not set(bare) & set("*?~^\"'()[]{}/\\:!&|") or "@" in bare, word


def test_a_query_is_filters_of_one_account() -> None:
    root = parse_query('from:ann@example.com "exact words" -draft rep*').root
    assert root is not None
    assert dsl.within("7", root)["bool"]["filter"][0] == {"term": {"account": "7"}}
    text = json.dumps(dsl.within("7", root))
    for part in ('{"term": {"head": {"value": "<ann@example.com"}}}', '{"prefix": {"body": {"value": "rep"}}}'):
        assert part in text


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (Line(201), Outcome.DONE),
        (Line(200), Outcome.DONE),
        (Line(404), Outcome.ALREADY),
        (Line(409, Trouble("version_conflict_engine_exception")), Outcome.ALREADY),
        (Line(404, Trouble("index_not_found_exception")), Outcome.MOVED),
        (Line(404, Trouble("shard_not_found_exception")), Outcome.BUSY),
        (Line(429), Outcome.BUSY),
        (Line(503, Trouble("unavailable_shards_exception")), Outcome.BUSY),
        (Line(403, Trouble("cluster_block_exception", "disk")), Outcome.BUSY),
        (Line(400, Trouble("index_closed_exception")), Outcome.BUSY),
        (Line(400, Trouble("mapper_parsing_exception")), Outcome.POISON),
    ],
)
def test_a_line_means(line: Line, outcome: Outcome) -> None:
    assert bulk.outcome(line)[0] is outcome


def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [Doc("a", str(n), n, text="word " * n) for n in range(50)]
    items = [bulk.creation((doc, tokens(doc))) for doc in docs]
    largest = max(len(item.lines) for item in items)
    monkeypatch.setattr(bulk, "OCTETS_AT_ONCE", largest)
    parts = list(bulk.requests(items))
    assert [item for part in parts for item in part] == items
    assert all(sum(len(item.lines) for item in part) <= largest for part in parts)
    assert list(bulk.requests([])) == []
    assert all(item.lines.count(b"\n") == 2 for item in items)


def test_an_id_that_is_too_long_is_our_mistake() -> None:
    assert bulk.id_of("a", "b") == "a/b"
    with pytest.raises(ValueError, match="not an id"):
        bulk.deletion("ä" * 300, "b")
