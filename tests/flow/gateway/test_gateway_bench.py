"""The plumbing of `bench.accept`: a whole server takes all of it, and idle connections are cheap."""

from __future__ import annotations

from bench import accept
from bench.receiver import receiver


def test_a_whole_server_takes_all_of_it() -> None:
    with receiver("api,mx") as found:
        assert accept.rate(found.mx, 300) > 50
        assert found.server.waiting() == 600  # with those of warming up; nothing behind it runs


def test_two_hundred_idle_connections() -> None:
    with accept.gateway() as (port, pid):
        assert accept.idle_mb(port, pid, 200) < 10
