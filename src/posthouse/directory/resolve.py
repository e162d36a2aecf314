"""Where mail for an address ends.

1. The address is folded: case, quotes that are not needed, IDN, a final dot. What stands in
   the local part (`a%b`, `a!b`, `"a@b"`) is only ever a local part of our own domain; a
   domain that is not ours is `FOREIGN`, however it is spelt. A source route is gone before
   (RFC 5321 appendix C), an address literal is nobody's here.
2. In its domain, first what is named exactly, then without its tag (`ann+shop@` is `ann@`),
   then the catch-all. `postmaster@` and `abuse@` lead to the domain's first active account
   when nothing else takes them (RFC 5321 §4.5.1).
3. Aliases and groups are followed, each once, within `MOST_DEPTH` and `MOST_TARGETS`. Only
   aliases that name each other within one tenant are followed: a target that is another
   tenant's is mail to elsewhere, like any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from posthouse.directory import store
from posthouse.directory.model import Account, Alias, MailDomain, Resolution, Status, Target, fold
from posthouse.errors import Invalid
from posthouse.storage.records.base import Records, Tx

MOST_DEPTH = 16
MOST_TARGETS = 1000
_MOST_LOADED = 8000
"""Addresses looked at in one read; what leads to more is refused."""
_BATCH = 128
"""Addresses resolved in one read."""
DUTIES = frozenset({"postmaster", "abuse"})


class _TooMuchError(Exception):
    """More addresses than one read may look at."""


@dataclass(slots=True)
class _Graph:
    """What was read of the directory: all that the addresses in question can lead to."""

    domains: dict[str, MailDomain | None] = field(default_factory=dict[str, "MailDomain | None"])
    boxes: dict[str, Account | Alias | None] = field(default_factory=dict[str, "Account | Alias | None"])
    first: dict[str, Account | None] = field(default_factory=dict[str, "Account | None"])
    used: dict[str, int] = field(default_factory=dict[str, int])

    def find(self, address: str) -> tuple[Account | Alias | None, str]:
        """Who takes it, and the tag."""
        local, _, name = address.rpartition("@")
        domain = self.domains[name]
        assert domain is not None
        for key, tag in _candidates(local, domain):
            found = self.boxes.get(key)
            if found is not None:
                return found, tag
        return self.first.get(name) if local in DUTIES else None, ""

    def ours(self, address: str, tenant_id: str) -> bool:
        domain = self.domains.get(address.rpartition("@")[2])
        return domain is not None and tenant_id in {"", domain.tenant_id}


def _candidates(local: str, domain: MailDomain) -> list[tuple[str, str]]:
    """(key, tag), in order of precedence."""
    keys = [(f"{local}@{domain.name}", "")]
    plus = domain.settings.plus
    at = local.find(plus, 1) if plus else -1
    if at > 0:
        keys.append((f"{local[:at]}@{domain.name}", local[at + len(plus) :]))
    if local:  # the address of a catch-all itself has none
        keys.append((f"@{domain.name}", ""))
    return keys


async def _load(tx: Tx, addresses: Sequence[str]) -> _Graph:
    """:raises _TooMuchError:"""
    graph = _Graph()
    wanted = dict.fromkeys((address, "") for address in addresses)
    reached = set(wanted)
    for _ in range(MOST_DEPTH + 1):
        await _load_domains(tx, graph, {address.rpartition("@")[2] for address, _ in wanted})
        here = [address for address, tenant_id in wanted if graph.ours(address, tenant_id)]
        await _load_boxes(tx, graph, here)
        wanted = {}
        for address in here:
            found, _ = graph.find(address)
            if isinstance(found, Alias):
                wanted |= dict.fromkeys((target, found.tenant_id) for target in found.targets)
        wanted = {key: None for key in wanted if key not in reached}
        reached |= wanted.keys()
        if not wanted:
            break
        if len(reached) > _MOST_LOADED:
            raise _TooMuchError
    return graph


async def _load_domains(tx: Tx, graph: _Graph, names: set[str]) -> None:
    fresh = sorted(names - graph.domains.keys())
    if not fresh:
        return
    found = await store.domains(tx, fresh)
    graph.domains.update((name, found.get(name)) for name in fresh)
    bounded = [domain.name for domain in found.values() if domain.settings.quota_all]
    if bounded:
        graph.used |= await store.used_of_domains(tx, bounded)


async def _load_boxes(tx: Tx, graph: _Graph, addresses: Sequence[str]) -> None:
    keys: dict[str, None] = {}
    for address in addresses:
        local, _, name = address.rpartition("@")
        domain = graph.domains[name]
        assert domain is not None
        keys |= dict.fromkeys(key for key, _ in _candidates(local, domain) if key not in graph.boxes)
    if keys:
        names = list(keys)
        graph.boxes.update(dict.fromkeys(names))
        graph.boxes.update((alias.address, alias) for alias in await store.aliases_at(tx, names))
        graph.boxes.update((account.address, account) for account in await store.accounts_at(tx, names))
    orphaned = {
        address.rpartition("@")[2]
        for address in addresses
        if address.rpartition("@")[0] in DUTIES and graph.find(address)[0] is None
    }
    fresh = sorted(orphaned - graph.first.keys())
    if fresh:
        found = await store.first_accounts(tx, fresh)
        graph.first.update((name, found.get(name)) for name in fresh)


@dataclass(slots=True)
class _Walk:
    """From one address to its targets."""

    graph: _Graph
    targets: dict[tuple[int, str], Target] = field(default_factory=dict[tuple[int, str], Target])
    accounts: list[Account] = field(default_factory=list[Account])
    followed: set[str] = field(default_factory=set[str])
    missing: list[str] = field(default_factory=list[str])
    disabled: bool = False
    loops: bool = False

    def follow(self, address: str, via: tuple[str, ...], tag: str, tenant_id: str) -> None:
        if len(via) > MOST_DEPTH or len(self.targets) > MOST_TARGETS:
            self.loops = True
            return
        name = address.rpartition("@")[2]
        if not self.graph.ours(address, tenant_id):
            here = via[0].rpartition("@")[2]
            self._add(Target(0, tenant_id, here, via, tag, forward=address))
            return
        found, own_tag = self.graph.find(address)
        tag = own_tag or tag
        if found is None:
            self.missing.append(address)
        elif isinstance(found, Alias):
            self._pass(found, via, tag)
        elif found.state != "active":
            self.disabled = True
        else:
            self.accounts.append(found)
            self._add(Target(found.number, found.tenant_id, name, via, tag))

    def _pass(self, alias: Alias, via: tuple[str, ...], tag: str) -> None:
        if alias.address in via:
            self.loops = True
        elif alias.address not in self.followed:
            self.followed.add(alias.address)
            for target in alias.targets:
                self.follow(target, (*via, alias.address), tag, alias.tenant_id)

    def _add(self, target: Target) -> None:
        self.targets.setdefault((target.account, target.forward), target)

    def status(self) -> Status:
        if len(self.targets) > MOST_TARGETS:
            return Status.LOOPS
        if self.targets:
            return Status.FOUND
        if self.loops:
            return Status.LOOPS
        return Status.DISABLED if self.disabled else Status.UNKNOWN

    def room(self) -> int | None:
        """Octets free where there is most; None: somewhere nothing bounds it."""
        if len(self.accounts) < len(self.targets):
            return None  # some of it goes elsewhere
        free = [self._free(account) for account in self.accounts]
        return None if None in free else max((one for one in free if one is not None), default=None)

    def _free(self, account: Account) -> int | None:
        bounds = [account.quota - account.used] if account.quota else []
        domain = self.graph.domains[account.address.rpartition("@")[2]]
        if domain is not None and domain.settings.quota_all:
            bounds.append(domain.settings.quota_all - self.graph.used.get(domain.name, 0))
        return min(bounds, default=None)


def _resolved(graph: _Graph, address: str) -> Resolution:
    local, _, name = address.rpartition("@")
    domain = graph.domains[name]
    if domain is None:
        return Resolution(Status.FOREIGN, address)
    walk = _Walk(graph)
    walk.follow(address, (), "", "")
    room = walk.room()
    status = walk.status()
    return Resolution(
        status,
        address,
        domain.tenant_id,
        name,
        domain.settings,
        tuple(walk.targets.values()) if status is Status.FOUND else (),
        room,
        max((account.quota for account in walk.accounts), default=None) if room is not None else None,
        duty=local in DUTIES,
    )


def canonical(path: str) -> str:
    """The address of a forward-path as the directory compares it.

    :raises Invalid: it is none.
    """
    return fold(path.removesuffix("."))


async def look_up(tx: Tx, paths: Sequence[str], postmaster: str = "") -> dict[str, Resolution]:
    """All of them in a few statements.

    :param postmaster: whom a bare `postmaster` (RFC 5321 §4.1.1.3) means; '' is
        postmaster@ the oldest domain.
    """
    answers: dict[str, Resolution] = {}
    folded: dict[str, str] = {}
    for path in paths:
        try:
            folded[path] = canonical(await _bare(tx, postmaster) if path.lower() == "postmaster" else path)
        except Invalid:
            answers[path] = Resolution(Status.MALFORMED, path)
    try:
        graph = await _load(tx, list(dict.fromkeys(folded.values())))
    except _TooMuchError:
        if len(folded) == 1:
            return answers | {path: Resolution(Status.LOOPS, address) for path, address in folded.items()}
        for path in folded:  # one of them is too much: not to the others' harm
            answers |= await look_up(tx, [path], postmaster)
        return answers
    for path, address in folded.items():
        answers[path] = _resolved(graph, address)
    return answers


async def _bare(tx: Tx, postmaster: str) -> str:
    return postmaster or f"postmaster@{await store.oldest_domain(tx)}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with an alias: `missing` are targets of ours that nobody has."""

    loops: bool
    missing: tuple[str, ...]


async def examine(tx: Tx, alias: Alias) -> Findings:
    """Follows an alias as it stands in the records."""
    try:
        graph = await _load(tx, [alias.address, *alias.targets])
    except _TooMuchError:
        return Findings(True, ())
    walk = _Walk(graph)
    walk.follow(alias.address, (), "", "")
    return Findings(walk.loops or walk.status() is Status.LOOPS, tuple(walk.missing))


@dataclass(slots=True)
class _Waiting:
    path: str
    future: asyncio.Future[Resolution]


class Resolver:
    """Addresses resolved, held for a few seconds: in memory first, misses together in one read."""

    def __init__(
        self,
        records: Records,
        *,
        seconds: float = 5.0,
        entries: int = 50_000,
        strangers: int = 10_000,
        postmaster: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param seconds: how late another process's change may be seen; ours is seen at once.
        :param entries: addresses held that lead somewhere, the eldest leave first.
        :param strangers: those that do not: a dictionary attack pushes out only others of its kind.
        """
        self._records = records
        self._seconds = seconds
        self._sizes = (strangers, entries)
        self._postmaster = postmaster
        self._monotonic = monotonic
        self._held: tuple[dict[str, tuple[float, Resolution]], ...] = ({}, {})
        self._flights: dict[str, asyncio.Future[Resolution]] = {}
        self._waiting: list[_Waiting] = []
        self._reading: asyncio.Task[None] | None = None
        self._generation = 0

    def known(self, path: str) -> Resolution | None:
        """What is known at once."""
        held = self._held[True].get(path) or self._held[False].get(path)
        return held[1] if held is not None and held[0] > self._monotonic() else None

    async def resolve(self, path: str) -> Resolution:
        """:param path: a forward-path as RCPT gives it, without angle brackets; or `postmaster`.
        :raises StorageUnavailable:"""
        known = self.known(path)
        if known is not None:
            return known
        future = self._flights.get(path)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._flights[path] = future
            self._waiting.append(_Waiting(path, future))
            if self._reading is None or self._reading.done():
                self._reading = asyncio.get_running_loop().create_task(self._read())
        # Who asks may be cancelled; the others still wait for the same answer.
        return await asyncio.shield(future)

    def forget(self) -> None:
        """The directory has changed: what is asked from now on is read anew."""
        self._generation += 1
        self._flights.clear()
        for held in self._held:
            held.clear()

    async def _read(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            generation = self._generation
            paths = [one.path for one in batch]
            try:
                found = await self._records.read(lambda tx, paths=paths: look_up(tx, paths, self._postmaster))
            except Exception as error:
                for one in batch:
                    self._land(one)
                    if not one.future.done():
                        one.future.set_exception(error)
                        one.future.exception()  # seen, also when nobody waits any more
                continue
            for one in batch:
                self._land(one)
                if generation == self._generation:
                    self._keep(one.path, found[one.path])
                if not one.future.done():
                    one.future.set_result(found[one.path])

    def _land(self, one: _Waiting) -> None:
        if self._flights.get(one.path) is one.future:
            del self._flights[one.path]

    def _keep(self, path: str, resolution: Resolution) -> None:
        leads = resolution.status is Status.FOUND
        held = self._held[leads]
        self._held[not leads].pop(path, None)
        held.pop(path, None)
        held[path] = (self._monotonic() + self._seconds, resolution)
        if len(held) > self._sizes[leads]:
            del held[next(iter(held))]
