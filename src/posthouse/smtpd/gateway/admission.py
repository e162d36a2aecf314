"""How many connections there are, in all and from each address, and who is one too many."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from posthouse.smtp.answers import simple
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway.options import Network

FULL = simple(421, "4.7.0", "Too many connections here; try again later")
FROM_YOU = simple(421, "4.7.0", "Too many connections from your network; try again later")


class Admission:
    """:param total: connections in all. :param each: of one address; 0 for any number."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._from: dict[str, int] = {}
        self.open = 0

    def enter(self) -> Reply | None:
        """A connection is there: counted (`leave` when it is gone), or refused and not counted."""
        if self.open >= self._total:
            return FULL
        self.open += 1
        return None

    def leave(self) -> None:
        self.open -= 1

    def enter_from(self, network: str) -> Reply | None:
        """As `enter`, for its network (`network_of`)."""
        count = self._from.get(network, 0)
        if self._each and count >= self._each:
            return FROM_YOU
        self._from[network] = count + 1
        return None

    def leave_from(self, network: str) -> None:
        left = self._from[network] - 1
        if left:
            self._from[network] = left
        else:
            del self._from[network]


def network_of(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 that a site gets of IPv6."""
    if ":" not in address:
        return address
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(address)) >> 64 << 64))


def within(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return False
    found = ipaddress.ip_address(address)
    return any(found in network for network in networks if network.version == found.version)
