"""How many of a site's connections each lane may have."""

from __future__ import annotations

from posthouse.storage.queue.base import Lane

LANE_CEILING = {Lane.CRITICAL: 1.0, Lane.TRANSACTIONAL: 0.85, Lane.BULK: 0.6}
"""The part of a site's connections that a lane and all lanes below it may use together."""


def lane_ceilings(connections: int) -> tuple[int, int, int]:
    """How many connections lane 0, 1, 2 with all lanes below may have. At least one a lane,
    so that none waits for another: three is the least a site can have."""
    bulk = max(1, int(connections * LANE_CEILING[Lane.BULK]))
    transactional = max(bulk + 1, int(connections * LANE_CEILING[Lane.TRANSACTIONAL]))
    return max(transactional + 1, connections), transactional, bulk


def shared_ceilings(granted: int) -> tuple[int, int, int]:
    """As `lane_ceilings`, of the slots that this process has at the moment, which may be fewer
    than the lanes: then an idle connection, and each after its message, goes to the most urgent."""
    return lane_ceilings(granted) if granted > len(Lane) else (granted, granted, min(granted, max(1, granted - 1)))
