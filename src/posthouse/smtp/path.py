"""Reverse-paths and forward-paths (RFC 5321 §4.1.2, RFC 6531 §3.3), and xtext (RFC 3461 §4).

An address here is a `str` without the angle brackets; the null reverse-path is `""`. Dots
may stand anywhere in a local part (`a..b@`, `a.@`): not RFC 5321, but real mailboxes.
"""

from __future__ import annotations

import re

MAX_LOCAL = 64  # RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 255  # RFC 5321 §4.5.3.1.2
MAX_PATH = 256  # RFC 5321 §4.5.3.1.3, with the angle brackets

_ATOM = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-"
_ORDINARY = re.compile(rf"[{_ATOM}]{{1,64}}@[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LOCAL = re.compile(rf'[{_ATOM}\u0080-\U0010ffff]+|"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_LABEL = r"[A-Za-z0-9_\u0080-\U0010ffff](?:[A-Za-z0-9_\u0080-\U0010ffff-]*[A-Za-z0-9_\u0080-\U0010ffff])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_LITERAL = re.compile(r"\[(?:[0-9.]{7,15}|[A-Za-z0-9-]+:[!-Z^-~]+)\]")
_ROUTE = re.compile(r"@[^\s<>:\"]+:")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_POINTS = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})*")
_POINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def is_mailbox(address: str) -> bool:
    """`local@domain` or `local@[literal]` within the limits; not ASCII is allowed."""
    if _ORDINARY.fullmatch(address) and len(address) < MAX_PATH - 1 and ".." not in address.partition("@")[2]:
        return True
    local, at, domain = address.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or not (_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain)):
        return False
    if not (address.isascii() or (address.isprintable() and _encodable(address))):
        return False
    local_octets, domain_octets = len(local.encode()), len(domain.encode())
    return local_octets <= MAX_LOCAL and domain_octets <= MAX_DOMAIN and local_octets + domain_octets + 3 <= MAX_PATH


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def split_path(text: str) -> tuple[str, str]:
    """`<path> rest` → the path's address and the rest. A source route is dropped (appendix C).

    :raises ValueError: there is no path in angle brackets.
    """
    if not text.startswith("<"):
        raise ValueError("the path needs angle brackets")
    end = _closing(text)
    rest = text[end + 1 :]
    if rest and not rest.startswith(" "):
        raise ValueError("a space is missing after the path")
    path = text[1:end]
    route = _ROUTE.match(path)
    return path[route.end() :] if route else path, rest


def _closing(text: str) -> int:
    """Where the path's `>` is; one inside a quoted local part does not count."""
    end = text.find(">")
    if '"' not in text[:end]:
        if end < 0:
            raise ValueError("the path is not closed")
        return end
    quoted = escaped = False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\" and quoted:
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return index
    raise ValueError("the path is not closed")


def to_xtext(text: str) -> str:
    """RFC 3461 §4."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def from_xtext(text: str) -> str:
    """:raises ValueError: not xtext, or not UTF-8 within."""
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    if "+" not in text:
        return text
    head, *parts = text.split("+")
    octets = head.encode() + b"".join(bytes((int(part[:2], 16),)) + part[2:].encode() for part in parts)
    return octets.decode("utf-8")


def to_points(text: str) -> str:
    """utf-8-addr-xtext (RFC 6533 §3): what may not stand there itself becomes `\\x{HEX}`."""
    return "".join(
        character if "!" <= character <= "~" and character not in "+=\\" else f"\\x{{{ord(character):02X}}}"
        for character in text
    )


def from_points(text: str) -> str:
    """utf-8-addr-xtext or utf-8-addr-unitext. :raises ValueError: neither."""
    if not _POINTS.fullmatch(text):
        raise ValueError("not utf-8-addr-xtext")
    found = _POINT.sub(lambda match: chr(int(match[1], 16)), text)
    if not _encodable(found):
        raise ValueError("a surrogate is not a character")
    return found
