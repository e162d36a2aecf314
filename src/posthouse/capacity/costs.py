"""What one mail costs, from `costs.json` beside this file or from one of another machine.

`measured` holds what `python -m bench --costs FILE` found, with the date and the machine;
`estimated` what nothing has measured yet. Both map names of `Costs` to numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any, cast

from posthouse.errors import Misconfigured

_MOST = 1 << 20


def _of(unit: str, about: str, source: str = "") -> Any:
    return field(metadata={"unit": unit, "about": about, "source": source})


@dataclass(frozen=True, slots=True)
class Costs:
    """`metadata` of a field: its `unit`, what it is `about`, and the `source`: the figure of the
    benchmarks that it is made from, `1e6/…` where that is a rate."""

    request_us: float = _of("µs", "API process: one request with one recipient", "submit.single_cpu_us")
    submit_us: float = _of("µs", "API process: one recipient of a batch", "1e6/submit.batch_per_second")
    send_main_us: float = _of("µs", "worker's own process: claim, SMTP, outcome", "planned.main_cpu_us")
    render_us: float = _of("µs", "render process: fill, build, sign (RSA-2048)", "planned.render_cpu_us")
    accept_us: float = _of("µs", "gateway: SMTP, SPF, DKIM, DMARC, durable", "accept.cpu_us")
    store_us: float = _of("µs", "store: filter, parse, thread, mailbox rows", "deliver.stage_cpu_us")
    index_us: float = _of("µs", "index: words of one mail", "1e6/search.indexed_per_second_1000_accounts")
    process_octets: float = _of("bytes", "memory of a process without mail", "")
    render_octets: float = _of("bytes", "memory of a render process", "")
    ledger_octets: float = _of("bytes", "records: one sent mail, its events and indexes", "planned.ledger_octets")
    mail_octets: float = _of("bytes", "records: one received mail beside its own bytes", "")
    account_octets: float = _of("bytes", "records: an account with its mailboxes, empty", "")
    index_ratio: float = _of("", "search index by the text it holds", "search.index_ratio_1000_accounts")
    commit_seconds: float = _of("s", "one durable step, shared by all who wait", "")
    postgres_send_us: float = _of("µs", "PostgreSQL: ledger, events and outcome of one sent mail", "")
    postgres_store_us: float = _of("µs", "PostgreSQL: all rows of one received mail", "")
    kafka_us: float = _of("µs", "broker: one job in and out, replicas included", "")
    redis_us: float = _of("µs", "Redis: limits and notices of one mail", "")
    object_us: float = _of("µs", "object store: one object written or read", "")
    opensearch_us: float = _of("µs", "OpenSearch: one mail indexed in bulk", "")
    socket_octets: float = _of("bytes", "memory of an open connection", "")
    job_octets: float = _of("bytes", "one job on a topic, without a body", "")


@dataclass(frozen=True, slots=True)
class Priced:
    """Costs with where they come from: names in `estimated` were measured by nobody."""

    costs: Costs
    date: str
    machine: str
    estimated: frozenset[str]
    shipped: frozenset[str]
    """Those taken from the file of this release, since the given one lacks them."""


@cache
def shipped() -> Priced:
    """Those of docs/performance.md."""
    text = resources.files("posthouse.capacity").joinpath("costs.json").read_text("utf-8")
    return _priced(_parsed(text), None)


def priced(text: str) -> Priced:
    """From a file of another machine; what it lacks is taken from `shipped`.

    :raises Misconfigured: code `bad_costs`.
    """
    return _priced(_parsed(text), shipped())


def _parsed(text: str) -> Mapping[str, Any]:
    if len(text) > _MOST:
        raise Misconfigured("the file of costs is larger than 1 MiB", code="bad_costs")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Misconfigured("the file of costs is no JSON: make it with `python -m bench`", code="bad_costs") from error
    if not isinstance(found, dict):
        raise Misconfigured("the file of costs holds no JSON object", code="bad_costs")
    return cast("Mapping[str, Any]", found)


def _numbers(found: Mapping[str, Any], part: str) -> dict[str, float]:
    given = found.get(part, {})
    if not isinstance(given, dict):
        raise Misconfigured(f"{part}: needs an object of numbers", code="bad_costs")
    known = {one.name for one in fields(Costs)}
    numbers: dict[str, float] = {}
    for name, value in cast("dict[str, object]", given).items():
        if name not in known:
            raise Misconfigured(f"{part}.{name[:60]}: is no cost", code="bad_costs")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise Misconfigured(f"{part}.{name}: needs a number above 0", code="bad_costs")
        numbers[name] = float(value)
    return numbers


def _priced(found: Mapping[str, Any], base: Priced | None) -> Priced:
    measured, estimated = _numbers(found, "measured"), _numbers(found, "estimated")
    guesses = set(estimated) - set(measured)
    values = {**estimated, **measured}
    lacking = {one.name for one in fields(Costs)} - set(values)
    if lacking and base is None:
        raise Misconfigured(f"costs lack {', '.join(sorted(lacking))}", code="bad_costs")
    if base is not None:
        values |= {name: getattr(base.costs, name) for name in lacking}
        guesses |= lacking & base.estimated
    date, machine = (str(found.get(name, "unknown"))[:100] for name in ("date", "machine"))
    return Priced(Costs(**values), date, machine, frozenset(guesses), frozenset(lacking))
