"""From facts to verdicts: the rules of the message once, those of each recipient beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from posthouse.inbound.filter.links import defanged
from posthouse.inbound.filter.look import Look
from posthouse.inbound.filter.personal import PERSONAL, Person
from posthouse.inbound.filter.rule import quoted, reasons
from posthouse.inbound.filter.scanner import Finding
from posthouse.inbound.model import Listing, Reason, Verdict

LEARNED_WEIGHT: Final = 3.0
"""Points of a classifier that is certain."""
VIRUS_SCORE: Final = 20.0
_MOST_HOOK = 50.0

WEIGHED: Final = {
    "address_list": ("The DNS list … has the sending server or one of its domains.", "the list's weight"),
    "domain_list": ("The DNS list … has a domain of the message.", "the list's weight"),
    "learned": ("The classifier takes it for spam with … %.", f"-{LEARNED_WEIGHT:g} to {LEARNED_WEIGHT:g}"),
    "virus": ("The scanner found ….", f"{VIRUS_SCORE:g}, and always Junk"),
    "scanner": ("What the scanner said.", "the scanner's score"),
    "unscanned": ("It could not be scanned: ….", "0; Junk when scanning is required"),
    "policy": ("Why policy puts it into Junk.", "0, and always Junk"),
    "failed": ("The filter failed on it, so it was not judged.", "0"),
}
"""Reasons without a rule in the tables: code → (meaning, score), for the reference."""


class Judged(msgspec.Struct, frozen=True):
    """`common`: what holds for the message whoever gets it. `recipients`: of each of the
    arrival's recipients, in their order, with the common reasons first."""

    common: Verdict
    recipients: tuple[Verdict, ...]


def common(
    seen: Look | None,
    listings: Sequence[Listing],
    domain_listings: Sequence[tuple[str, Listing]],
    findings: Sequence[Finding],
    policy: str | None,
    bound: float,
) -> Verdict:
    """:param seen: None when the rules could not look at it.
    :param listings: of the sending server and its domains.
    :param domain_listings: (domain, hit) in DNS lists.
    :param policy: why policy sends it to Junk whatever its score is, or None.
    :param bound: the score that makes it junk.
    """
    probability = None
    if seen is None:
        found = [Reason("failed", 0.0, "The filter failed on it, so it was not judged.")]
    else:
        found = list(seen.reasons)
        probability = seen.probability
    if listings and seen is not None:
        found += [_listed("address_list", "the sending server or one of its domains", hit) for hit in listings]
    if domain_listings:
        found += _domains_listed(domain_listings, {hit.zone for hit in listings})
    if probability is not None:
        found.append(_learned(probability))
    for finding in findings:
        found += _scanned(finding)
    if policy is not None:
        found.append(Reason("policy", 0.0, quoted(policy)))
    score = _sum(found)
    held = policy is not None or any(one.holds for one in findings)
    return Verdict(
        score=score,
        junk=held or score >= bound,
        reasons=tuple(found),
        probability=probability,
        virus=next((one.virus for one in findings if one.virus is not None), None),
        scanner=next((one.unscanned for one in findings if one.unscanned is not None), None),
    )


def personal(shared: Verdict, person: Person, held: bool, bound: float, policy: str | None = None) -> Verdict:
    """:param held: Junk whatever the score is: policy, a virus, a scanner.
    :param policy: why policy sends it to this recipient's Junk, and not to all."""
    own = reasons(PERSONAL, person)
    if policy is not None:
        own.append(Reason("policy", 0.0, quoted(policy)))
    if not own:
        return shared
    score = round(shared.score + _sum(own), 2)
    junk = held or policy is not None or bool(person.blocked) or score >= bound
    return msgspec.structs.replace(shared, score=score, junk=junk, reasons=(*shared.reasons, *own))


def _listed(code: str, what: str, hit: Listing) -> Reason:
    says = f": {quoted(hit.text)}" if hit.text else ""
    return Reason(code, round(hit.weight, 2), f"The DNS list {quoted(hit.zone)} has {what}{says}.")


def _domains_listed(hits: Sequence[tuple[str, Listing]], heard: set[str]) -> list[Reason]:
    """A list speaks once for a message, however many of its domains it has."""
    found: list[Reason] = []
    for domain, hit in hits:
        if hit.zone not in heard:
            heard.add(hit.zone)
            found.append(_listed("domain_list", quoted(defanged(domain)), hit))
    return found


def _learned(probability: float) -> Reason:
    sure = min(max(probability, 0.0), 1.0)
    score = round((sure - 0.5) * 2 * LEARNED_WEIGHT, 2)
    return Reason("learned", score, f"The classifier takes it for spam with {sure * 100:.0f} %.")


def _scanned(finding: Finding) -> list[Reason]:
    if finding.virus is not None:
        return [Reason("virus", VIRUS_SCORE, f"The scanner {finding.scanner} found {quoted(finding.virus)}.")]
    if finding.unscanned is not None:
        return [Reason("unscanned", 0.0, f"It could not be scanned by {finding.scanner}: {quoted(finding.unscanned)}.")]
    if not finding.score and not finding.reasons and not finding.junk:
        return []
    score = round(min(max(finding.score, -_MOST_HOOK), _MOST_HOOK), 2)
    says = "; ".join(quoted(one) for one in finding.reasons[:10]) or ("it is junk" if finding.junk else "no reason")
    return [Reason("scanner", score, f"The scanner {finding.scanner} says: {says}.")]


def _sum(found: Sequence[Reason]) -> float:
    return round(sum([one.score for one in found]), 2)
