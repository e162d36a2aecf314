"""Authentication-Results (RFC 8601): ours in words that machines read, and who claims to be us.

Every value may be a peer's text, so each is a bounded token or a quoted string of printable ASCII;
what is not becomes a question mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf
from posthouse.mailauth.names import normal, printable

MAX_VALUE = 255  # characters
COLUMNS = 78
_NAME = b"authentication-results"
_FIELD_ENDS = re.compile(rb"\r\n(?![ \t])|(?<!\r)\n(?![ \t])")
_PLAIN = re.compile(r"(?:[A-Za-z0-9.!#$%&'*+^_`{|}~-]+@)?[A-Za-z0-9!#$%&'*+.^_`{|}~-]+|@[A-Za-z0-9.-]+")
# Readers that split at a semicolon or a quote before they drop comments are many.
_COMMENTED = str.maketrans('()\\";', "???',")
_CFWS = re.compile(r"(?:\s+|\((?:[^()\\]|\\.)*\))*", re.DOTALL)
_IDENTIFIER = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s;()"]+)', re.DOTALL)


def header(found: Authentication, authserv_id: str, *, peer: str | None = None) -> bytes:
    """The field with CR LF, folded at 78 columns where a value lets it be.

    :param authserv_id: ours: a domain name.
    :param peer: the address that `iprev` is about.
    """
    return b"Authentication-Results: " + payload(found, authserv_id, peer=peer) + b"\r\n"


def payload(found: Authentication, authserv_id: str, *, peer: str | None = None) -> bytes:
    """The field's value, which ARC-Authentication-Results repeats (RFC 8617 §4.1.1)."""
    lines = [value(authserv_id)]
    for resinfo in _each(found, peer):
        lines[-1] += ";"
        line = " "
        for word in resinfo:
            if len(line) > 1 and len(line) + len(word) + 1 >= COLUMNS:
                lines.append(line)
                line = "  "
            line += word if line.isspace() else " " + word
        lines.append(line)
    return "\r\n".join(lines).encode("ascii")


def value(text: str) -> str:
    """A token, or a quoted string (RFC 8601 §2.2)."""
    text = printable(text, MAX_VALUE)
    if _PLAIN.fullmatch(text) is not None:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def strip_forged(header_block: bytes, authserv_id: str) -> tuple[int, ...]:
    """The positions among all fields, from 0, of Authentication-Results that claim our name. They
    came from outside, so none is ours (RFC 8601 §5). Nothing is taken out of the message: who
    shows or uses its fields passes these over.

    :param header_block: with or without the empty line at its end.
    """
    if _NAME not in header_block.lower():
        return ()
    ours = normal(authserv_id) or authserv_id.lower()
    forged: list[int] = []
    for index, field in enumerate(_FIELD_ENDS.split(header_block)):
        name, _, text = field.partition(b":")
        if name.strip().lower() == _NAME and _claims(text[:4096].decode("utf-8", "replace"), ours):
            forged.append(index)
    return tuple(forged)


def _claims(text: str, ours: str) -> bool:
    start = _CFWS.match(text)
    found = _IDENTIFIER.match(text, start.end() if start is not None else 0)
    if found is None:  # not to be read; whoever reads it otherwise may see our name
        return ours in text.lower()
    named = re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]
    named = named.strip()
    return (normal(named) or named.lower()) == ours


def _each(found: Authentication, peer: str | None) -> Iterator[list[str]]:
    yield _spf(found.spf)
    if found.helo != found.spf:
        yield _spf(found.helo)
    if not found.dkim:
        yield ["dkim=none"]
    for one in found.dkim:
        yield _dkim(one)
    yield _dmarc(found.dmarc)
    if found.arc.result != "none":
        yield _arc(found.arc)
    if peer is not None:
        yield [f"iprev={found.iprev}", f"policy.iprev={value(peer)}"]


def _spf(one: Spf) -> list[str]:
    words = [f"spf={one.result}", *_comment(one.reason)]
    return [*words, f"smtp.{one.scope}={value(one.domain)}"] if one.domain else words


def _dkim(one: Dkim) -> list[str]:
    words = [f"dkim={one.result}", *_comment(one.reason or (f"{one.key_bits}-bit key" if one.key_bits else ""))]
    for name, text in (
        ("header.d", one.domain), ("header.i", one.identity), ("header.s", one.selector),
        ("header.a", one.algorithm), ("header.b", one.signature),
    ):  # fmt: skip
        if text:
            words.append(f"{name}={value(text)}")
    return words


def _dmarc(one: Dmarc) -> list[str]:
    comment = one.reason
    if one.record_domain is not None:
        comment = f"p={one.policy} dis={one.disposition}" + (f" {one.reason}" if one.reason else "")
    words = [f"dmarc={one.result}", *_comment(comment)]
    if one.domain:
        words.append(f"header.from={value(one.domain)}")
    if one.record_domain is not None and one.record_domain != one.domain:
        words.append(f"polrec.domain={value(one.record_domain)}")
    return words


def _arc(one: Arc) -> list[str]:
    count = len(one.sealers)
    words = [f"arc={one.result}", *_comment(one.reason or f"i={count}")]
    if one.result == "pass":
        words.append(f"header.oldest-pass={one.oldest_pass}")
    return [*words, f"arc.chain={value(':'.join(reversed(one.sealers)))}"] if one.sealers else words


def _comment(text: str) -> list[str]:
    if not text:
        return []
    words = printable(text, MAX_VALUE).translate(_COMMENTED).split()
    return [
        "(" + words[0] + (")" if len(words) == 1 else ""),
        *words[1:-1],
        *([words[-1] + ")"] if len(words) > 1 else []),
    ]
