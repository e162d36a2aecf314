"""`posthouse demo`, small: both flows with the kill, and stopped in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def _demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    source = str(Path(__file__).resolve().parents[3] / "src")
    return subprocess.Popen(
        [sys.executable, "-m", "posthouse", "demo", *arguments],
        env={**os.environ, "PYTHONPATH": source, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _left(folder: Path) -> list[str]:
    """Processes that still know the folder."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(path.read_bytes().decode())
        except OSError:
            continue
    return found


def test_a_small_demo_agrees(tmp_path: Path) -> None:
    with _demo(tmp_path, "--messages", "300", "--mailboxes", "20", "--json") as demo:
        output, errors = demo.communicate(timeout=150)
    assert demo.returncode == 0, errors + output
    figures = json.loads(output)
    assert figures["agrees"] is True
    assert figures["accepted"] == 300 + 20 + 6
    assert figures["bounced"] == figures["bounces_expected"] == 6
    assert figures["stored"] == figures["delivered"] + figures["forwarded"] == figures["authenticated"]
    assert (figures["lost"], figures["duplicates"], figures["unexplained"], figures["findings"]) == (0, 0, 0, [])
    assert figures["killed"] == ["the server"]
    assert figures["signatures_verified"] == figures["signatures_sampled"] > 50
    assert figures["deferred_on_the_way"] > 0
    _shows_one_persons_mail(figures)
    assert list(tmp_path.iterdir()) == []


def _shows_one_persons_mail(figures: dict[str, Any]) -> None:
    threads = {line["subject"].removeprefix("Re: "): line["emails"] for line in figures["inbox"]}
    assert threads["Picnic on Sunday"] == 3, "by their headers"
    assert threads["AW: The broken window in the hall"] == 2, "without any"
    mailboxes = {box["name"]: box for box in figures["mailboxes"]}
    assert mailboxes["Orders"]["unread"] == mailboxes["Orders"]["total"] == 15, "a rule put them there"
    assert len(figures["found"]) == 2
    assert any("forwarded" in sentence for sentence in figures["rules"])
    assert figures["out"]["id"].startswith("msg_")
    assert figures["back"]["id"].startswith("inb_")
    assert figures["authentication"]["dmarc"]["policy"] == "reject"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with _demo(tmp_path, "--messages", "100000", "--no-kill") as demo:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("*/data/serve.json")):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.5)
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert _left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
