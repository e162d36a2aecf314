"""The two caches of templates. What a name means is held for a second; a compiled version
never changes, so it is held until the space is needed. Both are used from the event loop and
from the storage's threads, hence the locks; both can be dropped at any time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

from prometheus_client import Counter, Gauge

from posthouse.clock import SECOND, Clock
from posthouse.templates.model import Compiled, Key, Template

_LOOKUPS = Counter(
    "posthouse_template_cache_total",
    "Lookups of compiled template versions, once a batch and version, by result.",
    ["result"],
)
_HITS = _LOOKUPS.labels("hit")
_MISSES = _LOOKUPS.labels("miss")
_BYTES = Gauge("posthouse_template_cache_bytes", "Compiled template versions in memory, about.")


class NameCache:
    """(tenant, name) → template, for `seconds`."""

    def __init__(self, clock: Clock, *, seconds: float = 1.0, entries: int = 10_000) -> None:
        self._clock = clock
        self._age = int(seconds * SECOND)
        self._entries = entries
        self._held: OrderedDict[tuple[str, str], tuple[int, Template]] = OrderedDict()
        self._lock = Lock()
        self.generation = 0
        """Counts the drops: what was read before a drop must not be put after it."""

    def get(self, tenant_id: str, name: str) -> Template | None:
        held = self._held.get((tenant_id, name))
        return held[1] if held is not None and held[0] > self._clock() else None

    def put(self, tenant_id: str, templates: Iterable[Template], generation: int) -> None:
        until = self._clock() + self._age
        with self._lock:
            if generation != self.generation:
                return
            for template in templates:
                self._held[tenant_id, template.name] = (until, template)
                self._held.move_to_end((tenant_id, template.name))
            while len(self._held) > self._entries:
                self._held.popitem(last=False)

    def drop(self, tenant_id: str, name: str) -> None:
        with self._lock:
            self.generation += 1
            self._held.pop((tenant_id, name), None)

    def clear(self) -> None:
        with self._lock:
            self.generation += 1
            self._held.clear()


class CompiledCache:
    """Least recently used first out, bounded by `size` in characters held."""

    def __init__(self, size: int) -> None:
        self._room = size
        self._size = size
        self._held: OrderedDict[Key, Compiled] = OrderedDict()
        self._lock = Lock()

    def get_many(self, keys: Iterable[Key | tuple[str, int]]) -> tuple[dict[tuple[str, int], Compiled], list[Key]]:
        """Those held, and the keys of the others."""
        found: dict[tuple[str, int], Compiled] = {}
        missing: list[Key] = []
        with self._lock:
            for given in keys:
                key = Key(*given)
                held = self._held.get(key)
                if held is None:
                    missing.append(key)
                else:
                    self._held.move_to_end(key)
                    found[key] = held
        _HITS.inc(len(found))
        _MISSES.inc(len(missing))
        return found, missing

    def put(self, key: Key, compiled: Compiled) -> None:
        with self._lock:
            if key in self._held:
                return
            self._held[key] = compiled
            self._room -= compiled.size()
            while self._room < 0 and self._held:
                self._room += self._held.popitem(last=False)[1].size()
            _BYTES.set(self._size - self._room)
