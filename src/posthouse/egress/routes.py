"""The table of routes: which one a domain takes."""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.egress.model import Route


class Routes:
    """The most specific pattern wins: the domain itself, then the nearest `*.parent`, then `*`.
    Of two equal patterns the one listed first wins."""

    def __init__(self, routes: Sequence[Route], default: Route) -> None:
        self._exact: dict[str, Route] = {}
        self._below: dict[str, Route] = {}
        self._rest = default
        rest_set = False
        for route in routes:
            for pattern in route.domains:
                if pattern == "*":
                    if not rest_set:
                        self._rest, rest_set = route, True
                elif pattern.startswith("*."):
                    self._below.setdefault(pattern[2:].lower(), route)
                else:
                    self._exact.setdefault(pattern.lower(), route)

    def find(self, domain: str) -> Route:
        """`domain` in lower case, as A-labels."""
        if domain in self._exact:
            return self._exact[domain]
        parent = domain
        while "." in parent:
            parent = parent.partition(".")[2]
            if parent in self._below:
                return self._below[parent]
        return self._rest
