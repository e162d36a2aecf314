"""`posthouse plan` needs no server and no data directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stub_app import Run

from posthouse.capacity import EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_as_tables(run: Run, example: str) -> None:
    ran = run("plan", "--example", example)
    assert ran.code == 0, ran.err
    for word in ("PROCESSES", "PARTITIONS", "STORAGE", "NETWORK", "Assumed:"):
        assert word in ran.out


def test_flags_go_before_the_file_before_the_example(run: Run, empty: Path) -> None:
    (empty / "work.toml").write_text("messages_per_day = 5_000_000\nrecipients = 100\n")
    ran = run("plan", "--example", "daily", "--workload", "work.toml", "--recipients", "1k", "--json")
    found = json.loads(ran.out)
    assert found["workload"]["messages_per_day"] == 5e6
    assert found["workload"]["recipients"] == 1000
    assert found["workload"]["attachment_share"] == EXAMPLES["daily"][1].attachment_share
    assert found["cores"] > 0
    assert found["costs"]["values"]["render_us"] > 0


def test_units(run: Run) -> None:
    ran = run("plan", "--burst", "2k", "--burst-for", "1min", "--drain-in", "5min", "--body", "8KB", "--json")
    work = json.loads(ran.out)["workload"]
    assert (work["burst_per_second"], work["burst_seconds"], work["drain_seconds"]) == (2000, 60, 300)


def test_a_file_of_costs(run: Run, empty: Path) -> None:
    (empty / "costs.json").write_text('{"date": "x", "machine": "tiny", "measured": {"render_us": 5000}}')
    dear = json.loads(run("plan", "--example", "daily", "--costs", "costs.json", "--json").out)
    assert dear["cores"] > json.loads(run("plan", "--example", "daily", "--json").out)["cores"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Say how much"),
        (("--example", "huge"), "campaign"),
        (("--burst", "many"), "--burst"),
        (("--burst", "5", "--burst-for", "soon"), "--burst-for"),
        (("--workload", "nowhere.toml"), "nowhere.toml"),
        (("--sustained", "5", "--costs", "nowhere.json"), "nowhere.json"),
    ],
)
def test_what_is_wrong_is_said(run: Run, words: tuple[str, ...], says: str) -> None:
    ran = run("plan", *words)
    assert ran.code == 2
    assert says in ran.err
