"""Where a message's links lead, from its text and HTML, in one bounded pass over each.

Texts are lower-cased before, since hosts know no case and patterns with a literal start run
at the speed of memchr.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from itertools import islice
from typing import Final
from urllib.parse import unquote

import msgspec

from posthouse.inbound.filter.brands import SHORTENERS
from posthouse.inbound.filter.names import ascii_host, registrable

MOST_LINKS = 200
"""Of one message; the rest are not looked at."""
MOST_HOSTS = 40

_IN_TEXT: Final = re.compile(r"https?://[^\s<>\"'`{}|\\^]{3,500}|www\.[a-z0-9][^\s<>\"'`{}|\\^]{3,300}")
_IN_HTML: Final = re.compile(r"href\s{0,9}=\s{0,9}(?:\"([^\"]{3,2000})|'([^']{3,2000})|([^\s>\"']{3,2000}))")
_ANCHOR: Final = re.compile(r"<a\s([^>]{1,2000})>(.{4,400}?)</a", re.DOTALL)
_HREF: Final = re.compile(r"href\s{0,9}=\s{0,9}[\"']?\s{0,9}([^\s\"'>]{3,2000})")
_TAG: Final = re.compile(r"<[^>]{0,500}>")
_AUTHORITY: Final = re.compile(r"(?:https?:)?[/\\]{2}([^/\\?#]{1,300})|(www\.[^/\\?#]{1,300})")
_SHOWN: Final = re.compile(r"(?:https?://)?((?:[^\s/@:?#.]{1,63}\.){1,8}[^\s/@:?#.\d][^\s/@:?#.]{1,30})(?:[/:?#]\S*)?")
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]{1,8}|\d{1,10})(?:\.(?:0x[0-9a-f]{1,8}|\d{1,10})){0,3}")


class Links(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was found. `hosts`: in A-labels, each once, the first seen first; `addresses`: links
    to bare IP addresses however spelled; `userinfo`: hosts behind `something.example@`;
    `mismatched`: (shown, target) hosts; `shorteners`: their domains; `scripts`: schemes that
    run something (`javascript:`, `data:`); `count`: links in all, up to `MOST_LINKS`."""

    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    userinfo: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, str], ...] = ()
    shorteners: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    count: int = 0


NO_LINKS: Final = Links()


def links(text: str, html: str) -> Links:
    """:param text: lower-cased plain text.
    :param html: lower-cased HTML.
    """
    targets = list(islice(_targets(text, html), MOST_LINKS))
    if not targets:
        return NO_LINKS
    hosts: dict[str, None] = {}
    addresses: list[str] = []
    userinfo: list[str] = []
    scripts: list[str] = []
    for target in targets:
        found = _read(target)
        if found is None:
            continue
        kind, host = found
        if kind == "script":
            scripts.append(host)
        elif kind == "address":
            addresses.append(host)
        elif len(hosts) < MOST_HOSTS:
            hosts[host] = None
        if kind == "userinfo":
            userinfo.append(host)
    return Links(
        tuple(hosts),
        tuple(addresses[:5]),
        tuple(userinfo[:5]),
        tuple(islice(_mismatched(html), 5)) if html else (),
        tuple({domain for domain in map(registrable, hosts) if domain in SHORTENERS}),
        tuple(scripts[:5]),
        len(targets),
    )


def defanged(host: str) -> str:
    """A host for a sentence, in a form that no client makes a link of."""
    return host[:80].replace(".", "[.]")


def _targets(text: str, html: str) -> Iterator[str]:
    seen: set[str] = set()
    if "http" in text or "www." in text:
        for match in _IN_TEXT.finditer(text):
            target = match[0]
            if target not in seen:
                seen.add(target)
                yield target
    if "href" in html:
        for double, single, bare in islice(_IN_HTML.findall(html), MOST_LINKS * 5):
            target = (double or single or bare).strip()
            if target not in seen:
                seen.add(target)
                yield target


def _read(target: str) -> tuple[str, str] | None:
    """(kind, host); None for what is no link to a host."""
    if "&" in target[:300]:
        target = unescape(target)
    match = _AUTHORITY.match(target)
    if match is None:
        scheme = target[:11].lstrip().partition(":")[0]
        return ("script", scheme + ":") if scheme in {"javascript", "vbscript", "data"} else None
    return _authority(match[1] or match[2])


@lru_cache(maxsize=20_000)
def _authority(authority: str) -> tuple[str, str] | None:
    before, at, rest = authority.rpartition("@")
    host = unquote(rest) if "%" in rest else rest
    if host.startswith("["):
        return "address", host[:60]
    host = host.partition(":")[0].strip(".,;:!?)('*_]")
    if _NUMBER.fullmatch(host):
        return "address", _address(host)
    if "." not in host:
        return None
    host = ascii_host(host)
    return ("userinfo" if at and "." in before else "host"), host


def _address(host: str) -> str:
    """`0x7f000001`, `2130706433` and `127.1` are addresses to browsers."""
    try:
        numbers = [int(piece, 16 if piece.startswith("0x") else 10) for piece in host.split(".")]
        value = 0
        for number in numbers[:-1]:
            value = value << 8 | number & 255
        value = (value << 8 * (5 - len(numbers))) + numbers[-1]
        return str(ipaddress.IPv4Address(value & 0xFFFFFFFF))
    except ValueError:
        return host[:60]


def _mismatched(html: str) -> Iterator[tuple[str, str]]:
    """Anchors whose text is a host of another owner than their target's."""
    for attributes, content in islice(_ANCHOR.findall(html), MOST_LINKS):
        if "." not in content or "http" not in attributes:
            continue
        shown = (_TAG.sub("", content) if "<" in content else content).strip()
        named = _SHOWN.fullmatch(shown) if len(shown) <= 300 else None
        if named is None:
            continue
        leads = _HREF.search(attributes)
        found = _read(leads[1]) if leads else None
        if found is None:
            continue
        seen, target = ascii_host(named[1]), found[1]
        if found[0] == "address" or (registrable(seen) != registrable(target) and _is_domain(seen)):
            yield seen, target


def _is_domain(host: str) -> bool:
    """Not a file name or an abbreviation: under a top level that people use for names."""
    top = host.rpartition(".")[2]
    return len(top) >= 2 and top.isalnum() and top not in _FILES


_FILES: Final = frozenset(
    "pdf doc docx xls xlsx ppt pptx txt jpg jpeg png gif html htm php asp js css py md zip".split()
)
