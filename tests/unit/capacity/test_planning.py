"""Plans of the examples by hand-checked sums, and what grows with what."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.capacity import EXAMPLES, Costs, Workload, plan
from posthouse.capacity.costs import priced, shipped
from posthouse.capacity.sizing import FULL, STEADY, to_send
from posthouse.capacity.workload import LEAST, workload
from posthouse.errors import Misconfigured


def test_the_campaign_is_gone_in_fifteen_minutes() -> None:
    work = EXAMPLES["campaign"][1]
    found = plan(work)
    burst = found.forecast.burst
    assert burst is not None
    # 165,000/s for 600 s and 12,000/s for the 300 s after it.
    assert to_send(work) == pytest.approx(114_000)
    assert work.burst_seconds + burst.seconds <= 900
    worker = next(role for role in found.roles if role.name == "worker")
    signing = worker.processes * worker.render_processes * 1e6 / shipped().costs.render_us
    assert signing * FULL > 114_000
    assert 60 < found.cores < 200


def test_a_hundred_million_a_day() -> None:
    found = plan(EXAMPLES["daily"][1])
    assert not found.embedded
    assert found.workload.steady == pytest.approx(100e6 / 86400 * 2.5)
    # CPU of a message 20 + 204 + 431 µs: two cores of work in the busiest hour, so four and spare.
    assert 4 <= found.cores <= 12
    assert {role.name for role in found.roles} == {"api", "worker", "schedule"}
    assert all(waits.p99 < 1 for waits in found.forecast.waits)


def test_a_billion_into_mailboxes() -> None:
    found = plan(EXAMPLES["mailboxes"][1])
    mail = {role.name: role for role in found.roles}
    assert mail["mx"].processes * STEADY * 1e6 / shipped().costs.accept_us > 28_935
    assert mail["api"].processes * 25_000 >= 50e6
    assert found.stored.apart
    assert found.stored.small_mail == 0
    # 1e9 mails of 20 kB, a tenth with 200 kB in base64, for a year.
    assert found.stored.blobs == pytest.approx(365e9 * (20_000 + 0.1 * 200_000 * 4 / 3))
    assert any("cells" in warning for warning in found.warnings)


def test_a_small_house_is_one_process_on_sqlite() -> None:
    found = plan(Workload(messages_per_day=50_000, received_per_day=5_000, mailboxes=50))
    assert found.embedded
    assert [role.processes for role in found.roles] == [1]
    assert [engine.name for engine in found.engines] == ["disk"]


def _amounts(most: float) -> st.SearchStrategy[float]:
    return st.just(0.0) | st.floats(LEAST, most)


@settings(max_examples=80, deadline=None)
@given(st.builds(
    Workload,
    messages_per_day=_amounts(1e10), received_per_day=_amounts(1e10), burst_seconds=st.floats(1, 3600),
    recipients=st.floats(1, 10_000), sockets=_amounts(1e8), mailboxes=_amounts(1e9), kept_days=_amounts(4000),
    attachment_share=_amounts(1), body_octets=st.floats(1, 1e6),
))  # fmt: skip
def test_every_role_bears_its_load_and_twice_the_work_never_needs_less(work: Workload) -> None:
    found = plan(work)
    twice = plan(replace(work, messages_per_day=2 * work.messages_per_day, received_per_day=2 * work.received_per_day))
    for role in found.roles:
        assert role.steady <= max(role.per_second * STEADY, 0) * 1.001 or found.embedded
    if not found.embedded:
        assert twice.cores >= found.cores
    assert all(topic.partitions >= 3 for topic in found.topics)
    assert twice.stored.all >= found.stored.all * 0.999
    parts = (
        found.stored.ledger,
        found.stored.mail_rows,
        found.stored.small_mail,
        found.stored.blobs,
        found.stored.index,
    )
    assert all(part >= 0 for part in parts)


def test_a_file_of_costs_replaces_what_it_has(tmp_path: Path) -> None:
    dear = priced(json.dumps({"date": "today", "machine": "slow", "measured": {"render_us": 4310}}))
    assert dear.costs.render_us == 4310
    assert dear.costs.accept_us == shipped().costs.accept_us
    assert "render_us" not in dear.estimated
    assert "accept_us" in dear.shipped
    assert plan(EXAMPLES["campaign"][1], dear).cores > 5 * plan(EXAMPLES["campaign"][1]).cores
    assert "slow" in plan(EXAMPLES["campaign"][1], dear).assumptions[0]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"measured": 3}', '{"measured": {"nothing": 1}}', '{"measured": {"render_us": 0}}',
     '{"measured": {"render_us": true}}', '{"measured": {"render_us": NaN}}'],
)  # fmt: skip
def test_bad_costs_are_refused(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        priced(text)
    assert caught.value.code == "bad_costs"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mailbox": 3}, "mailboxes?"),
        ({"mailboxes": "many"}, "needs a number"),
        ({"mailboxes": -1}, "not negative"),
        ({"mailboxes": float("nan")}, "not negative"),
        ({"attachment_share": 2}, "0 to 1"),
        ({"critical_share": 0.8, "transactional_share": 0.3}, "more than all"),
        ({"recipients": 0}, "1 or more"),
        ({"sustained_per_second": 10, "burst_per_second": 5}, "below"),
        ({"burst_per_second": 5, "burst_seconds": 0}, "longer than nothing"),
        ({"burst_per_second": 5, "burst_seconds": 60, "drain_seconds": 30}, "before it has come"),
        ({"received_per_day": 1e-180}, "needs 0, or 1e-06 to 1e+15"),
        ({"mailboxes": 1e300}, "needs 0, or 1e-06 to 1e+15"),
    ],
)
def test_a_bad_workload_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(says)) as caught:
        workload(given)
    assert caught.value.code == "bad_workload"


def test_every_cost_is_shipped_and_told() -> None:
    held = shipped()
    assert all(getattr(held.costs, one.name) > 0 for one in fields(Costs))
    assert held.estimated.isdisjoint({"send_main_us", "render_us", "accept_us", "store_us"})
    assert all(one.metadata["about"] for one in fields(Costs))
