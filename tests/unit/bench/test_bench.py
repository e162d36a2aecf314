"""What the benchmarks count with; the benchmarks themselves are run by `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import all as every
from bench import material
from bench.client import Single, percentile
from bench.memory import between
from bench.report import Report, shown
from bench.shares import stages, table


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
