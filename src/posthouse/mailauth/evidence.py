"""What SPF, DKIM, DMARC and ARC said about a message: structured, frozen, kept with it.

Result words are those of RFC 8601 §2.7; `reason` is a sentence for people and never holds
more of a peer's text than a bounded, printable piece.
"""

from __future__ import annotations

import msgspec


class Spf(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`result`: none, neutral, pass, fail, softfail, temperror, permerror. `scope`: mailfrom
    or helo. `explanation`: the domain's `exp` text."""

    result: str
    domain: str
    scope: str = "mailfrom"
    mechanism: str | None = None
    reason: str = ""
    explanation: str | None = None


class Dkim(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One signature, in the order of the header fields. `result`: pass, fail, neutral,
    policy, temperror, permerror. `covered`: octets of the body that `l=` covers, when fewer
    than all. `testing`: the key's `t=y`."""

    result: str
    domain: str
    selector: str
    algorithm: str = ""
    identity: str | None = None
    key_bits: int = 0
    covered: int | None = None
    testing: bool = False
    signature: str = ""
    """The first eight characters of `b=` (RFC 6008)."""
    reason: str = ""


class Dmarc(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`result`: none, pass, fail, temperror, permerror. `policy`: what the domain asks for
    mail that fails (none, quarantine, reject) after sp, np and t are applied; `disposition`
    is that policy when the message failed, else none."""

    result: str
    domain: str
    record_domain: str | None = None
    policy: str = "none"
    disposition: str = "none"
    aligned_spf: bool = False
    aligned_dkim: bool = False
    testing: bool = False
    reason: str = ""


class Arc(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`result`: none, pass, fail. `sealers`: domains, the first hop first. `oldest_pass`: RFC 8617 §5.2."""

    result: str
    sealers: tuple[str, ...] = ()
    oldest_pass: int = 0
    reason: str = ""
    first_results: str | None = None
    """The Authentication-Results of instance 1, when the chain passes: what the first hop saw."""


class Authentication(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    spf: Spf
    helo: Spf
    dkim: tuple[Dkim, ...]
    dmarc: Dmarc
    arc: Arc
    iprev: str = "none"
    """RFC 8601 §2.7.3: pass, fail, temperror, permerror, none."""
