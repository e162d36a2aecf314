"""The plumbing of `bench.accept`: what is answered 250 is a row, and idle connections are cheap."""

from __future__ import annotations

from bench import accept


def test_a_durable_house_takes_all_of_it() -> None:
    with accept.gateway("durable") as (port, _):
        assert accept.rate(port, 300) > 50


def test_two_hundred_idle_connections() -> None:
    with accept.gateway("instant") as (port, pid):
        assert accept.idle_mb(port, pid, 200) < 10
