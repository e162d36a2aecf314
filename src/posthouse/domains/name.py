"""Domain names as Posthouse keys them: A-labels, lower case, no trailing dot."""

from __future__ import annotations

import re
from functools import cache

import idna
from publicsuffixlist import PublicSuffixList

from posthouse.errors import Fault, Invalid

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MAX_NAME = 253  # RFC 1035 §2.3.4, as text


def normalise(name: str, pointer: str = "/name") -> str:
    """UTS 46 and IDNA 2008.

    :raises Invalid: not a host name of two labels or more, an address, or a public suffix
        (`co.uk`, `github.io`), under which others register.
    """
    text = name.strip().rstrip(".")
    if not text or len(text) > MAX_NAME:
        raise _invalid(pointer, f"must be a domain name of at most {MAX_NAME} characters")
    if not text.isascii() or "xn--" in text.lower():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise _invalid(pointer, f"is not valid under IDNA: {error}") from None
    text = text.lower()
    labels = text.split(".")
    if len(text) > MAX_NAME or any(_LABEL.fullmatch(label) is None for label in labels):
        raise _invalid(pointer, "must be labels of letters, digits and hyphens with dots between")
    if len(labels) < 2 or labels[-1].isdigit():
        raise _invalid(pointer, "must have at least two labels and is not an IP address")
    if _suffixes().is_public(text):
        raise _invalid(pointer, "is a public suffix: others register names under it")
    return text


def organizational(name: str) -> str:
    """The name that was registered: a public suffix and one label (RFC 7489 §3.2)."""
    return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> PublicSuffixList:
    """The list as of the library's release; an unknown top level counts as a suffix."""
    return PublicSuffixList()


def _invalid(pointer: str, message: str) -> Invalid:
    return Invalid("The domain name is not valid", faults=(Fault(pointer, message),))
