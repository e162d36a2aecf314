"""What a server offers in its answer to EHLO (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

import re

import msgspec

from posthouse.smtp.reply import Reply

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_OLD_AUTH = re.compile(r"^AUTH=", re.IGNORECASE)
_LIMIT = re.compile(r"([A-Za-z0-9-]{1,32})=([1-9][0-9]{0,5})")  # RFC 9422 §3


class Capabilities(msgspec.Struct, frozen=True):
    """`size` in octets, None without a fixed bound; the maxima are those of LIMITS (RFC 9422)."""

    name: str = ""
    keywords: frozenset[str] = frozenset()
    size: int | None = None
    auth: frozenset[str] = frozenset()
    recipients_max: int | None = None
    domains_max: int | None = None
    mails_max: int | None = None
    pipelining: bool = False
    chunking: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    dsn: bool = False


def parse_capabilities(reply: Reply) -> Capabilities:
    """From the reply to EHLO. What makes no sense is left out: a wrong line costs an extension."""
    name = reply.lines[0].split(" ", 1)[0]
    parameters: dict[str, str] = {}
    auth: set[str] = set()
    for line in reply.lines[1:]:
        keyword, _, rest = _OLD_AUTH.sub("AUTH ", line.strip()).partition(" ")
        keyword = keyword.upper()
        if not _KEYWORD.fullmatch(keyword):
            continue
        if keyword == "AUTH":
            auth.update(rest.upper().split())
        parameters[keyword] = rest
    limits = {match[1].upper(): int(match[2]) for match in _LIMIT.finditer(parameters.get("LIMITS", ""))}
    size = parameters.get("SIZE", "").strip()
    return Capabilities(
        name=name,
        keywords=frozenset(parameters),
        size=int(size) or None if _NUMBER.fullmatch(size) else None,  # RFC 1870 §4: 0 is no bound
        auth=frozenset(auth),
        recipients_max=limits.get("RCPTMAX"),
        domains_max=limits.get("RCPTDOMAINMAX"),
        mails_max=limits.get("MAILMAX"),
        pipelining="PIPELINING" in parameters,
        chunking="CHUNKING" in parameters,
        eight_bit="8BITMIME" in parameters,
        smtputf8="SMTPUTF8" in parameters,
        starttls="STARTTLS" in parameters,
        dsn="DSN" in parameters,
    )
