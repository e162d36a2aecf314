"""The ends of two rebuilds that wait for each other come to look at the same moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthouse.clock import SECOND
from posthouse.inbound.index import next_look

_MOMENTS = st.integers(1_800_000_000 * SECOND, 1_800_000_060 * SECOND)


def _looks(began: int, late: int) -> set[int]:
    """When one comes to look that began to wait at `began` and is always so late."""
    moments = [next_look(began)]
    while moments[-1] < 1_800_000_090 * SECOND:
        moments.append(next_look(moments[-1] + late))
    return set(moments)


@given(_MOMENTS, _MOMENTS, st.integers(0, SECOND), st.integers(0, SECOND))
def test_two_that_wait_meet(one: int, other: int, late: int, later: int) -> None:
    assert _looks(one, late) & _looks(other, later)
    assert next_look(one) > one
