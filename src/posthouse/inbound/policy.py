"""What DMARC asks for and what a domain of ours makes of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Set

import msgspec

from posthouse.directory.model import DmarcAction
from posthouse.mailauth.evidence import Authentication

_SAW_PASS = re.compile(r"\bdmarc\s*=\s*pass\b", re.IGNORECASE)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Sentences, or empty. `refuse` is told to the peer, `junk` to the reader."""

    refuse: str = ""
    junk: str = ""


NOTHING = Verdict()


def override(auth: Authentication, trusted: Set[str]) -> str | None:
    """Why mail that fails DMARC is not treated as its domain asks.

    :param trusted: domains whose forwarding is believed, in A-labels. An ARC chain counts when
        it passes, every sealer is trusted (any of them could have invented what came before
        it, RFC 8617 §9.5) and the first hop saw DMARC pass.
    """
    if not trusted or auth.dmarc.disposition == "none":
        return None
    arc = auth.arc
    if (
        arc.result == "pass"
        and arc.sealers
        and trusted >= set(arc.sealers)
        and _SAW_PASS.search(arc.first_results or "")
    ):
        return f"The ARC chain of {arc.sealers[-1]}, which is trusted here, says that DMARC passed before."
    for signature in auth.dkim:
        if signature.result == "pass" and signature.covered is None and signature.domain in trusted:
            return f"{signature.domain}, which is trusted here to forward, has signed the message."
    return None


def dmarc(auth: Authentication, action: DmarcAction, excused: str | None) -> Verdict:
    """For the recipients of one domain of ours.

    :param excused: what `override` says.
    """
    found = auth.dmarc
    if excused or found.disposition == "none" or action is DmarcAction.ACCEPT:
        return NOTHING
    asked = f"{found.record_domain or found.domain} asks by DMARC (p={found.policy})"
    junk = f"The mail fails DMARC for {found.domain}; {asked} to treat it with suspicion."
    if found.disposition == "reject" and action is DmarcAction.FOLLOW:
        refuse = (
            f"{asked} to refuse mail from {found.domain} that neither SPF nor DKIM proves; "
            "send it through that domain's own servers"
        )
        return Verdict(refuse, junk)
    return Verdict("", junk)
