"""The SPF project's suite for RFC 7208, from pyspf's source distribution (data/rfc7208-tests.LICENSE)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from posthouse.mailauth import spf

from .zone import Lookup

SUITE = Path(__file__).parent / "data" / "rfc7208-tests.yml"


def scenarios() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for scenario in filter(None, yaml.safe_load_all(SUITE.read_bytes())):
        zone = {name.lower(): records(found) for name, found in scenario["zonedata"].items()}
        for name, case in scenario["tests"].items():
            yield name, zone, case


def records(found: list[Any]) -> dict[str, Any] | None:
    """Type 99 records stand for TXT unless the name has its own; TIMEOUT is for what is not there."""
    types: dict[str, Any] = {}
    for record in (entry for entry in found if isinstance(entry, dict)):
        for kind, value in record.items():
            types.setdefault(kind, []).append(tuple(value) if kind == "MX" else value)
    spare = types.pop("SPF", [])
    types.setdefault("TXT", spare)
    joined = ["".join([text] if isinstance(text, str) else text) for text in types["TXT"] if text != "NONE"]
    types["TXT"] = [text.encode("utf-8") for text in joined]
    if "TIMEOUT" in found:
        for kind in ("TXT", "A", "AAAA", "MX", "PTR"):
            types[kind] = types.get(kind) or None
    return {kind: None if value == ["TIMEOUT"] else value for kind, value in types.items()}


CASES = list(scenarios())


def test_it_is_whole() -> None:
    assert len(CASES) == 203


@pytest.mark.parametrize(("zone", "case"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
async def test_case(zone: dict[str, Any], case: dict[str, Any]) -> None:
    client = spf.Client(case["host"], case["helo"])
    found = await spf.check_mail_from(Lookup(zone), client, case["mailfrom"])
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert found.result in wanted, found
    if "explanation" in case:
        assert (found.explanation or "DEFAULT") == case["explanation"]
