"""What the benchmarks count with; the benchmarks themselves are run by `make bench`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from bench import all as every
from bench import burst, costs, material, planned
from bench.client import Single, percentile
from bench.memory import between
from bench.report import Report, shown
from bench.scale import Cores, split
from bench.shares import stages, table

from posthouse.capacity.costs import Costs, priced


def test_a_bar_is_met_on_its_own_side() -> None:
    bars = {"rate": ("≥", 10.0), "time": ("<", 1.0), "size": ("≤", 5.0), "missing": ("≥", 1.0)}
    report = Report("x", {"rate": 10.0, "time": 1.0, "size": 5.0}, bars)
    assert report.met() == {"rate": True, "time": False, "size": True, "missing": False}


@pytest.mark.parametrize(
    ("value", "text"), [(0.7315, "0.732"), (3.0, "3"), (12345.6, "12,346"), ("none", "none"), (99.5, "99.500")]
)
def test_numbers_are_shown_as_read(value: float | str, text: str) -> None:
    assert shown(value) == text


def test_percentiles() -> None:
    values = [float(n) for n in range(1000, 0, -1)]
    assert percentile(values, 0.5) == 501
    assert percentile(values, 0.99) == 991
    assert percentile([7.0], 0.99) == 7


def test_a_count_is_passed_between_two_looks() -> None:
    assert between((10.0, 100), (11.0, 200), 150) == 10.5
    assert between((10.0, 200), (11.0, 200), 150) == 10.0


def test_the_deepest_frame_names_the_stage() -> None:
    frames = "main;send (posthouse/outbound/send.py:1);deliver (posthouse/net/smtp.py:2);new (posthouse/ids.py:3)"
    found = stages([f"{frames} 3", "main;run (uvloop/__init__.py:9) 1"])
    assert found == {"SMTP": 0.75, "event loop and the rest": 0.25}
    assert "| SMTP | 75% |" in table({"render processes": 300.0, "main": 100.0}, found)


def test_a_request_is_as_long_as_it_says() -> None:
    request = Single(8025, "ph_x").requests()(42)
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"single00000042@sink.example" in body


def test_figures_are_written_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{every.BEGIN}\nold\n{every.END}\nafter\n")
    reports = [
        Report("submit", {"p50_ms": 1.0}),
        Report("send", {"per_second": 9.5, "ratio": 0.8}, {"ratio": ("≥", 0.7)}),
    ]
    material.fill_in(page, every.BEGIN, every.END, every.markdown(reports, quick=True))
    text = page.read_text()
    assert "old" not in text
    assert text.index("send.ratio") < text.index("submit.p50_ms")
    assert "| `send.ratio` | 0.800 | ≥ 0.7 | met |" in text
    assert text.endswith(f"{every.END}\nafter\n")


def test_a_page_without_markers_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no"):
        material.fill_in(page, every.BEGIN, every.END, "text")
    assert page.read_text() == "nothing"


def test_figures_become_costs_that_the_plan_takes(tmp_path: Path) -> None:
    reports = [
        Report("submit", {"batch_per_second": 50_000.0, "single_cpu_us": 200.0}),
        Report("planned", {"main_cpu_us": 210.123456, "ledger_octets": -5.0}),
    ]
    assert costs.costs(reports) == {"request_us": 200.0, "submit_us": 20.0, "send_main_us": 210.1}
    costs.write(reports, tmp_path / "costs.json")
    made = priced((tmp_path / "costs.json").read_text())
    assert made.costs.submit_us == 20
    assert "render_us" in made.shipped
    with pytest.raises(ValueError, match="measures a cost"):
        costs.write([Report("parse", {"per_second": 1.0})], tmp_path / "none.json")


def test_every_source_of_a_cost_is_a_benchmark() -> None:
    sources = [str(one.metadata["source"]).rpartition("/")[2] for one in fields(Costs)]
    assert {source.partition(".")[0] for source in sources if source} <= every.BENCHMARKS.keys()


def _ran(rate: float, seconds: float, send: float, submit: float, cores: float) -> planned.Ran:
    """A burst as the model says it goes: `send` and `submit` are CPU seconds of a message."""
    during, after = (cores - rate * submit) / send, cores / send
    left = max(0.0, rate - during) * seconds
    end, last = 1000 + seconds, 1000 + seconds + left / after
    arrivals = [1000 + n / during for n in range(int(during * seconds))] + [end + n / after for n in range(int(left))]
    spent = [
        planned.Spent(1000 + n / 10, cores * n / 10, (2 - cores) * n / 10) for n in range(int((last - 1000) * 10) + 1)
    ]
    waits = [1.0] * int(rate * seconds)
    return planned.Ran(1000, end, last, waits, arrivals, spent, 0, 0)


def test_a_calibration_finds_the_costs_it_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    runs = [_ran(4000, 4, 800e-6, 100e-6, 1.6), _ran(4000, 4, 800e-6, 100e-6, 1.2)]
    found = planned.calibrated(runs)
    assert found.send == pytest.approx(800e-6, rel=0.02)
    assert found.submit == pytest.approx(100e-6, rel=0.2)
    assert found.after(2.0) == pytest.approx(2500, rel=0.02)
    assert found.during(2.0, 5000) == pytest.approx((2 - 0.5) / 800e-6, rel=0.05)


@pytest.mark.parametrize(
    ("cores", "workers", "held", "rest", "shared"),
    [
        ({0, 1}, 1, (0,), {1}, 0),
        ({0, 1}, 2, (0, 1), {0, 1}, 2),
        ({4, 2, 3}, 2, (2, 3), {4}, 0),
        ({0}, 2, (0, 0), {0}, 1),
    ],
)
def test_workers_have_a_core_each_and_the_rest_what_is_left(
    cores: set[int], workers: int, held: tuple[int, ...], rest: set[int], shared: int
) -> None:
    assert split(cores, workers) == Cores(held, frozenset(rest))
    assert split(cores, workers).shared == shared


def test_the_rate_of_sending_leaves_out_where_connections_open_and_run_dry() -> None:
    slow = [n / 10 for n in range(20)]
    full = [2 + n / 50 for n in range(71)]
    dry = [10.0 + n for n in range(9)]
    assert burst.steady([*dry, *slow, *full]) == pytest.approx(50)


def test_memory_grows_by_what_the_last_tenth_has_more_than_the_one_after_the_middle() -> None:
    found = [burst.Held(float(at), {"api": 100, "worker1": 10 * at}) for at in range(101)]
    assert burst.growth(found, 0, 100) == {"api": 0, "worker1": 400}
    with pytest.raises(ValueError, match="too short"):
        burst.growth(found[:50], 0, 100)
