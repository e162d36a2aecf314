"""Both flows on many processes and the real engines, through every kind of fault, and its judge.

The tests that use `run` share one cluster with clients at work: each adds a fault, and the last
of them stops it all and judges.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import material

from posthouse.smtpd.sink.journal import Entry
from tests.crash.cluster.faults import Crash, Cut, Fault, Skew, catalogue, each_once
from tests.crash.cluster.judge import Happening, Repeat, judge_critical, judge_repeats, repeats
from tests.crash.cluster.run import Run
from tests.crash.cluster.world import SENDERS, NotHereError, World, world
from tests.crash.load import Single
from tests.product import wait_until
from tests.receiving import DOMAIN, SMALL

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def house() -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="posthouse-faults-", dir=material.DISK))
    directory.chmod(0o755)  # PostgreSQL runs as another user than root
    try:
        with world(directory) as one:
            yield one
    except NotHereError as error:
        _not_here(str(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _not_here(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="module")
def run(house: World) -> Iterator[Run]:
    """With both flows' clients at work."""
    run = Run(house, print, seed=1, calm=(0.5, 1.0))
    run.begin()
    yield run
    run.close()


SMALL_LETTER, LARGE_LETTER = 500, SMALL + 10_000


def _away(engine: str, *, hits: tuple[str, ...] = ()) -> Crash:
    return Crash(engine, (1.0, 1.0), hits=hits)


def test_postgres_away(house: World, run: Run) -> None:
    def meanwhile() -> None:
        assert house.bring(SMALL_LETTER).startswith("451")
        assert house.get_status(f"/v1/accounts/ann@{DOMAIN}/mailboxes") == 503
        assert house.readiness("api") == 503
        assert house.readiness("store") == 503

    run.happen(_away("postgres", hits=SENDERS), meanwhile)
    assert house.submit() == 202
    assert house.bring(SMALL_LETTER) == "250"


def test_kafka_away(house: World, run: Run) -> None:
    def meanwhile() -> None:
        assert house.submit() == 503
        assert house.bring(SMALL_LETTER) == "250"  # the job waits in the records
        assert house.get_status(f"/v1/accounts/ann@{DOMAIN}/mailboxes") == 200
        assert house.readiness("api") == 503

    run.happen(_away("kafka", hits=SENDERS), meanwhile)
    assert house.submit() == 202


def test_redis_away(house: World, run: Run) -> None:
    def meanwhile() -> None:
        assert house.submit() == 202
        assert house.bring(SMALL_LETTER) == "250"
        assert house.readiness("api") == 200
        wait_until(lambda: house.metric("api", "posthouse_bus_connected") == 0, "it says that Redis is away")

    run.happen(_away("redis"), meanwhile)
    wait_until(lambda: house.metric("api", "posthouse_bus_connected") > 0, "it is connected again")


def test_s3_away(house: World, run: Run) -> None:
    def meanwhile() -> None:
        assert house.submit() == 202
        assert house.submit(attachments=[{"filename": "a.txt", "content": "QQ=="}]) == 503
        assert house.bring(SMALL_LETTER) == "250"
        assert house.bring(LARGE_LETTER).startswith("451")
        assert house.readiness("mx") == 503

    run.happen(_away("s3"), meanwhile)
    assert house.submit(attachments=[{"filename": "a.txt", "content": "QQ=="}]) == 202
    assert house.bring(LARGE_LETTER) == "250"


def test_opensearch_away(house: World, run: Run) -> None:
    def meanwhile() -> None:
        assert house.submit() == 202
        assert house.bring(SMALL_LETTER) == "250"
        assert house.get_status(f"/v1/accounts/ann@{DOMAIN}/search?q=asked") == 503
        assert house.get_status(f"/v1/accounts/ann@{DOMAIN}/mailboxes") == 200
        assert house.readiness("api") == 200
        wait_until(lambda: house.metric("index", "posthouse_stage_faults_total") > 0, "the index stage says so")

    run.happen(_away("opensearch"), meanwhile)
    wait_until(
        lambda: house.get_status(f"/v1/accounts/ann@{DOMAIN}/search?q=asked") == 200, "search answers again", 60.0
    )


@pytest.mark.parametrize("fault", [Cut(), Skew("worker", 300)], ids=lambda fault: fault.name)
def test_the_fault_can_happen_here(house: World, fault: Fault) -> None:
    if (why := fault.cannot(house)) is not None:
        _not_here(why)


def test_every_promise_is_kept_through_every_fault(house: World, run: Run) -> None:
    for fault in each_once():
        if fault.cannot(house) is None:
            run.happen(fault)
    result = run.finish()
    assert result.wrong == []
    assert result.sent > 100
    assert result.received > 100
    assert result.asked_again > 0


def test_names_of_faults_tell_them_apart() -> None:
    assert len(catalogue()) == 36


def _log(*times: tuple[str, float], outcome: str = "250 2.0.0", to: str = "a@sink.example") -> list[Entry]:
    return [Entry(at, "crew@x", [to], outcome, "data", message_id=f"<{name}@x>") for name, at in times]


def test_a_repeat_needs_a_fault_that_explains_it() -> None:
    found = repeats(_log(("a", 1.0), ("b", 2.0), ("a", 9.0)))
    assert found == [Repeat("msg_a", 1.0, 9.0)]
    assert judge_repeats(found, [Happening("kill:worker", 2.0, 3.0, ("worker",))], 1) == []
    assert len(judge_repeats(found, [], 1)) == 1
    assert len(judge_repeats(found, [Happening("kill:worker", 9.5, 10.0, ("worker",))], 1)) == 1
    assert len(judge_repeats(found, [Happening("kill:worker", 0.2, 0.5, ("worker",))], 1)) == 1
    assert len(judge_repeats(found, [Happening("wipe:redis", 2.0, 3.0)], 1)) == 1
    assert repeats(_log(("a", 1.0), ("a", 2.0), outcome="451 4.0.0")) == []


def test_a_fault_explains_a_repeat_for_each_connection() -> None:
    three = [Repeat(f"msg_{n}", 1.0, 5.0) for n in range(3)]
    kill = Happening("kill:worker", 2.0, 3.0, ("worker",))
    assert len(judge_repeats(three, [kill], 2)) == 1
    assert judge_repeats(three, [kill, Happening("cut:far", 4.0, 9.0, ("far",))], 2) == []
    # One that two faults could explain leaves the place to one that only the first could.
    late = [Repeat("msg_a", 1.0, 9.0), Repeat("msg_b", 1.0, 3.0)]
    assert judge_repeats(late, [kill, Happening("cut:far", 8.0, 9.0, ("far",))], 1) == []


def test_critical_mail_waits_for_nothing_in_calm() -> None:
    singles = {"msg_a": Single(100.0, "critical", "a@sink.example"), "msg_b": Single(100.0, "broadcast", "b@x")}
    assert judge_critical(singles, _log(("a", 101.0)), []) == ([], 1)
    wrong, judged = judge_critical(singles, _log(("a", 150.0)), [])
    assert len(wrong) == judged == 1
    assert len(judge_critical(singles, [], [])[0]) == 1
    assert judge_critical(singles, _log(("a", 150.0)), [Happening("kill:api", 95.0, 96.0)]) == ([], 0)
