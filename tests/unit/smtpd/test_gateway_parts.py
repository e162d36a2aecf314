"""Who is one too many, whose network is whose, and what counts as overdue."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.smtpd.gateway.admission import FROM_YOU, FULL, Admission, network_of, within
from posthouse.smtpd.gateway.clocks import CHOKED, IDLE, OLD, SLOW, Clocks
from posthouse.smtpd.gateway.options import LOOPBACK, Network, Options, Pace, Spooling, Timeouts


def test_an_ipv6_site_is_one_peer() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::"
    assert network_of("2001:db8:1:2::9") == network_of("2001:db8:1:2:ffff::1")
    assert network_of("2001:db8:1:3::9") != network_of("2001:db8:1:2::9")


@given(st.ip_addresses())
def test_an_address_is_within_its_own_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    own: Network = ipaddress.ip_network(f"{network_of(str(address))}/{32 if address.version == 4 else 64}")
    assert within(str(address), (*LOOPBACK, own))
    assert not within(str(address), ())
    other: Network = ipaddress.ip_network("::/0" if address.version == 4 else "0.0.0.0/0")
    assert not within(str(address), (other,))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_counts_hold_and_are_forgotten(steps: list[tuple[bool, int]]) -> None:
    admission, inside = Admission(5, 2), list[int]()
    for comes, who in steps:
        if comes:
            refusal = admission.enter()
            assert (refusal is FULL) is (len(inside) >= 5)
            if refusal is None:
                refusal = admission.enter_from(str(who))
                assert (refusal is FROM_YOU) is (inside.count(who) >= 2)
                if refusal is None:
                    inside.append(who)
                else:
                    admission.leave()
        elif who in inside:
            inside.remove(who)
            admission.leave_from(str(who))
            admission.leave()
        assert admission.open == len(inside)
    for who in inside:
        admission.leave_from(str(who))
    assert admission._from == {}  # pyright: ignore[reportPrivateUsage] - nothing may be kept


def test_no_bound_by_address() -> None:
    admission = Admission(5, 0)
    assert [admission.enter_from("x") for _ in range(1000)] == [None] * 1000


class State:
    """What the clocks ask of a dialogue."""

    def __init__(self) -> None:
        self.core = self
        self.waiting = self.busy = self.in_body = False
        self.quiet = True


def clocks() -> tuple[Clocks, State]:
    times = Timeouts(command=100, data=50, life=1000)
    return Clocks(times, Pace(octets=10, window=30), 0.0), State()


def test_idle_counts_from_the_last_whole_command() -> None:
    found, state = clocks()
    assert found.overdue(99, state, choked=False) is None
    found.turns += 1
    assert found.overdue(100, state, choked=False) is None
    found.octets += 50  # of a command that does not end
    assert found.overdue(200, state, choked=False) is None
    assert found.overdue(201, state, choked=False) is IDLE
    found.turns += 1
    assert found.overdue(201, state, choked=True) is CHOKED


def test_a_body_has_to_move_and_to_move_fast_enough() -> None:
    found, state = clocks()
    state.in_body, state.quiet = True, False
    assert found.overdue(0, state, choked=False) is None
    for second in range(1, 30):
        found.octets += 9
        assert found.overdue(second, state, choked=False) is None
    assert found.overdue(30, state, choked=False) is SLOW
    found, state = clocks()
    state.in_body, state.quiet = True, False
    for second in range(0, 300, 10):
        found.octets += 100
        assert found.overdue(second, state, choked=False) is None


def test_a_body_that_stands_still() -> None:
    times = Timeouts(command=100, data=50)
    found, state = Clocks(times, Pace(octets=10, window=1000), 0.0), State()
    state.in_body = True
    found.octets = 1
    assert found.overdue(10, state, choked=False) is None
    assert found.overdue(60, state, choked=False) is None
    assert found.overdue(61, state, choked=False) is IDLE


@pytest.mark.parametrize("which", ["waiting", "busy"])
def test_our_own_time_is_not_the_peers(which: str) -> None:
    found, state = clocks()
    setattr(state, which, True)
    state.quiet = False
    assert found.overdue(500, state, choked=False) is None
    setattr(state, which, False)
    assert found.overdue(600, state, choked=False) is None
    assert found.overdue(601, state, choked=False) is IDLE


def test_life() -> None:
    found, state = clocks()
    found.turns = 1
    assert found.overdue(1000, state, choked=False) is None
    assert found.overdue(1001, state, choked=False) is OLD
    state.quiet = False
    found.turns += 1
    assert found.overdue(1999, state, choked=False) is None
    assert found.overdue(2001, state, choked=False) is OLD
    state.waiting = True
    assert found.overdue(2001, state, choked=False) is None


def test_what_is_offered(tmp_path: Path) -> None:
    options = Options("mx.test", [], Spooling(tmp_path), certificate=tmp_path / "x.pem")
    assert options.offer("mx").starttls
    assert options.offer("lmtp").lmtp
    assert not options.offer("mx").auth
