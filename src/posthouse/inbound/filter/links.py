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

_END = r"\s/\\?\"'<>`"
_IN_TEXT: Final = re.compile(rf"https?://([^{_END}{{|}}^]{{1,300}})")
_BARE: Final = re.compile(rf"(?<![/.@\w-])(www\.[^{_END}{{|}}^]{{1,300}})")
_IN_HTML: Final = re.compile(
    rf"href\s{{0,9}}=\s{{0,9}}[\"']?\s{{0,9}}(?:(?:https?:)?[/\\]{{2,9}}([^{_END}]{{1,300}})|"
    r"((?:javascript|vbscript|data):|[a-z:/]{0,12}&(?=#|colon|sol)))"
)
_ACTION: Final = re.compile(rf"action\s{{0,9}}=\s{{0,9}}[\"']?\s{{0,9}}(?:https?:)?[/\\]{{2,9}}([^{_END}]{{1,300}})")
_ANCHOR: Final = re.compile(r"<a\s([^>]{1,2000})>(.{4,400}?)</a", re.DOTALL)
_HREF: Final = re.compile(r"href\s{0,9}=\s{0,9}[\"']?\s{0,9}([^\s\"'>]{3,2000})")
_TAG: Final = re.compile(r"<[^>]{0,500}>")
_AUTHORITY: Final = re.compile(rf"(?:https?:)?[/\\]{{2,9}}([^{_END}]{{1,300}})")
_SHOWN: Final = re.compile(r"(?:https?://)?((?:[^\s/@:?#.]{1,63}\.){1,8}[^\s/@:?#.\d][^\s/@:?#.]{1,30})(?:[/:?#]\S*)?")
_LONG_NUMBER: Final = re.compile("&#x?[0-9a-f]{9,};?")
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]{1,8}|\d{1,10})(?:\.(?:0x[0-9a-f]{1,8}|\d{1,10})){0,3}")


class Links(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was found. `hosts`: in A-labels, each once, the first seen first; `addresses`: links
    to bare IP addresses however spelled; `userinfo`: hosts behind `something.example@`;
    `mismatched`: (shown, target) hosts; `shorteners`: their domains; `scripts`: schemes that
    run something (`javascript:`, `data:`); `count`: links in all."""

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
    targets, scripts = _targets(text, html)
    if not targets and not scripts:
        return NO_LINKS
    hosts: dict[str, None] = {}
    addresses: list[str] = []
    userinfo: list[str] = []
    for target in islice(dict.fromkeys(targets), MOST_LINKS):
        found = _authority(target)
        if found is None:
            continue
        kind, host = found
        if kind == "address":
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


def plain(html: str) -> str:
    """Entities resolved. Numbers too long to be a character go: Python refuses to read them."""
    return unescape(_LONG_NUMBER.sub("", html))


def defanged(host: str) -> str:
    """A host for a sentence, in a form that no client makes a link of."""
    return host[:80].replace(".", "[.]")


def _targets(text: str, html: str) -> tuple[list[str], list[str]]:
    """(authorities of the links, as they stand; schemes that run something)"""
    found: list[str] = _IN_TEXT.findall(text) if "http" in text else []
    if "www." in text:
        found += _BARE.findall(text)
    if not html:
        return found, []
    hrefs: list[tuple[str, str]] = _IN_HTML.findall(html)
    if any(odd.endswith("&") for _, odd in hrefs):  # the scheme is written in entities
        hrefs = _IN_HTML.findall(plain(html))
    found += [host for host, _ in hrefs if host]
    if "<form" in html:
        found += _ACTION.findall(html)
    return found, [odd for _, odd in hrefs if odd.endswith(":")]


@lru_cache(maxsize=20_000)
def _authority(authority: str) -> tuple[str, str] | None:
    """(host, userinfo or address; the host); None for what is no host on the net."""
    if "&" in authority:
        authority = plain(authority)
    before, at, rest = authority.partition("#")[0].rpartition("@")
    host = unquote(rest) if "%" in rest else rest
    if not host.isprintable():  # it would go into sentences and into DNS
        host = "".join(filter(str.isprintable, host))
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
        target = _AUTHORITY.match(leads[1]) if leads else None
        found = _authority(target[1]) if target else None
        if found is None:
            continue
        seen, host = ascii_host(named[1]), found[1]
        if _is_domain(seen) and (found[0] == "address" or registrable(seen) != registrable(host)):
            yield seen, host


def _is_domain(host: str) -> bool:
    """Not a file name or an abbreviation: under a top level that people use for names."""
    top = host.rpartition(".")[2]
    return len(top) >= 2 and top.isalnum() and top not in _FILES


_FILES: Final = frozenset(
    "pdf doc docx xls xlsx ppt pptx txt jpg jpeg png gif html htm php asp js css py md zip".split()
)
