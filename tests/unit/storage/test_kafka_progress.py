"""What of a partition is done, against a set; and the window's turns."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Misconfigured
from posthouse.storage.queue.base import Job, Lane
from posthouse.storage.queue.kafka.progress import Progress
from posthouse.storage.queue.kafka.window import Copy, Part, Window
from posthouse.storage.queue.kafka.wire import Options, Record, decode, encode, options


@given(st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=12))
def test_progress_is_a_set_of_offsets(steps: list[list[int]]) -> None:
    progress, done = Progress(), set[int]()
    for step in steps:
        progress.add(step)
        done.update(step)
        progress = Progress.decode(progress.low, progress.encode())
        assert [n in progress for n in range(70)] == [n in done for n in range(70)]
        assert progress.low == next(n for n in range(70) if n not in done)
        assert progress.low + progress.above == len(done)


def test_a_long_run_is_a_short_text() -> None:
    progress = Progress(1000)
    progress.add(range(1001, 9000))
    assert progress.encode() == "[1,7999]"
    progress.add([1000])
    assert (progress.low, progress.encode()) == (9000, "[]")


def part() -> Part:
    return Part(("p.send.bulk", 0), 1, Progress(), 0, {})


def entries(window: Window, whole: Part, *tenants: str) -> None:
    for offset, tenant in enumerate(tenants):
        window.add(Job("send", 2, tenant, 0, f"{tenant}{offset}"), Copy(whole, offset, 0))


def test_tenants_take_turns() -> None:
    window = Window()
    entries(window, part(), *"aaaabbc")
    assert [entry.job.tenant for entry in window.take(5, 0)] == ["a", "b", "c", "a", "b"]
    assert [entry.job.tenant for entry in window.take(5, 0)] == ["a", "a"]
    assert window.ready == 0


def test_a_lease_that_ended_comes_first_and_its_handle_is_void() -> None:
    window, whole = Window(), part()
    entries(window, whole, "a", "b")
    (first,) = window.take(1, 0)
    window.hold(first, 100)
    handle = first.leased()
    assert window.held(handle) is first
    assert window.take(1, 99)[0].job.tenant == "b"
    (again,) = window.take(1, 100)
    assert again is first
    window.hold(again, 200)
    assert window.held(handle) is None
    assert not window.take(9, 150)


def test_what_is_done_leaves_memory_long_before_its_lease_ends() -> None:
    window, whole = Window(), part()
    payload = "x" * 10_000
    tracemalloc.start()
    for offset in range(5000):
        window.add(Job("send", 2, "t", 0, f"job{offset}", payload=payload + str(offset)), Copy(whole, offset, 0))
        (entry,) = window.take(1, 0)
        window.hold(entry, 120_000_000)
        window.hold(entry, 121_000_000)
        window.drop(entry)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 10_000_000
    assert not window.entries


def test_of_a_partition_given_back_nothing_more_is_claimed() -> None:
    window, whole = Window(), part()
    entries(window, whole, "a")
    (entry,) = window.take(1, 0)
    window.hold(entry, 100)
    whole.assigned = False
    assert window.take(1, 100) == []
    assert whole.holding == set()
    assert whole.at == {}


def test_claims_of_owners_before_are_counted() -> None:
    whole = Part(("p.send.bulk", 0), 1, Progress(), 10, {4: 7})
    assert [whole.claims_before(offset) for offset in (3, 4, 10)] == [1, 7, 0]


def test_topics_and_records_have_their_names() -> None:
    found = options("kafka://a:1,b:2?prefix=mail&partitions=3&replication=2")
    assert found == Options("a:1,b:2", "mail", 3, 2)
    assert found.topic("send", Lane.BULK) == "mail.send.bulk"
    assert found.stage_and_lane("mail.send.bulk") == ("send", Lane.BULK)
    assert found.stage_and_lane("mail.send.other") is found.stage_and_lane("else.send.bulk") is None
    record = Record("a", "t", 5, payload="é")
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "url",
    [
        "kafka:",
        "kafka://a:1/x",
        "kafka://a?colour=red",
        "kafka://a?partitions=0",
        "kafka://a?replication=x",
        "x://a",
        "kafka://a?tls=perhaps",
        "kafka://a?ca=/x",
        "kafka://a?sasl=PLAIN",
        "kafka://user@a",
        "kafka://:hidden@a",
        "kafka://user:hidden@a?sasl=GSSAPI&tls=true",
        "kafka://user:hidden@a?sasl=plain",
    ],
)
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        options(url)
    assert "hidden" not in str(raised.value)


def test_how_brokers_are_reached() -> None:
    assert options("kafka://a:1").client()["security.protocol"] == "PLAINTEXT"
    assert options("kafka://a:1?tls=true").client()["security.protocol"] == "SSL"
    secure = options("kafka://mail:p%40ss%2F@a:1,b:2?tls=true&ca=/etc/ca.pem&partitions=3")
    assert secure.client() == {
        "bootstrap.servers": "a:1,b:2",
        "reconnect.backoff.max.ms": "1000",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "mail",
        "sasl.password": "p@ss/",
        "ssl.ca.location": "/etc/ca.pem",
    }
    assert "p@ss" not in repr(secure)
    inside = options("kafka://mail:x@a:1?sasl=scram-sha-256").client()
    assert (inside["security.protocol"], inside["sasl.mechanism"]) == ("SASL_PLAINTEXT", "SCRAM-SHA-256")
