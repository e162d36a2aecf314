"""What the rules look at: gathered once for a message, without I/O, at about the cost of its parse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from posthouse.clock import SECOND
from posthouse.inbound.filter import names
from posthouse.inbound.filter.brands import FREEMAIL
from posthouse.inbound.filter.files import File, files
from posthouse.inbound.filter.links import NO_LINKS, Links, links
from posthouse.inbound.filter.markup import NO_MARKUP, Markup, markup
from posthouse.inbound.filter.wording import NO_WORDING, Wording, wording
from posthouse.inbound.model import Arrival, Listing
from posthouse.mail.parsed import Addr, Parsed, Part, part_of
from posthouse.mailauth.evidence import Authentication

TextReader = Callable[[bytes, Part, int], str]
"""`mail.parse.text`: the decoded text of a part, at most so many characters."""

MOST_TEXT = 32_768
"""Characters of the text, and of the HTML, that are looked at."""
GTUBE: Final = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
_GTUBE_WITHIN = 65_536


class Proof(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Who answers for the message. `domains`: those that a passing DKIM signature or SPF names;
    `author`: the From's domain when one of them is aligned with it, else ''. `known`: whether
    there was anything to check (mail from a front server over LMTP has not been)."""

    known: bool = True
    domains: frozenset[str] = frozenset()
    signers: frozenset[str] = frozenset()
    author: str = ""
    spf: str = "none"
    dkim_failed: bool = False
    uncovered: str = ""
    """The domain of a passing signature that leaves text uncovered."""
    dmarc: str = "none"
    policy: str = "none"
    unsure: bool = False
    """DNS did not answer for the From's own domain: nothing is proved, and nobody is to blame."""
    excused: bool = False
    """The chain of ARC seals passes and policy took it in place of DMARC. The chain alone proves
    nothing: whoever sends may seal (RFC 8617 §7.2)."""


class Facts(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Names are lower case, hosts in A-labels. `domain`, `owner`: the From's domain and its
    registrable one. `ours`: the recipients' domains. `skew`: seconds that the Date lies after
    the arrival (negative: before). `visible`: addresses in To and Cc."""

    proof: Proof = Proof()
    listings: tuple[Listing, ...] = ()
    session: frozenset[str] = frozenset()
    peer: str = ""
    helo: str = ""
    host: str | None = None
    bounce: bool = False
    flaws: frozenset[str] = frozenset()
    address: str = ""
    domain: str = ""
    owner: str = ""
    name: str = ""
    subject: str = ""
    reply_owner: str = ""
    ours: frozenset[str] = frozenset()
    from_ours: bool = False
    skew: int | None = None
    visible: int = 0
    addressed: bool = True
    is_reply: bool = False
    list_id: str = ""
    list_post: bool = False
    unsubscribe: bool = False
    bulk: bool = False
    automatic: bool = False
    links: Links = NO_LINKS
    markup: Markup = NO_MARKUP
    files: tuple[File, ...] = ()
    wording: Wording = NO_WORDING
    split_words: int = 0
    name_address: str = ""
    """An address inside the From's display name that is not the From's own."""
    name_brand: str = ""
    likeness: tuple[str, str, str] | None = None
    """(the host or domain, how, the original) of a look-alike; see `names.Likeness`."""
    link_likeness: tuple[str, str, str] | None = None
    deceptive_host: str = ""
    gtube: bool = False


def gather(arrival: Arrival, parsed: Parsed, read: TextReader) -> Facts:
    evidence = arrival.evidence
    author = parsed.from_[0] if parsed.from_ else Addr("", "")
    address = author.address.lower()
    domain = names.ascii_host(address.rpartition("@")[2])
    owner = names.registrable(domain) if domain else ""
    ours = frozenset(one.address.rpartition("@")[2].lower() for one in arrival.recipients)
    text, html = _texts(arrival.raw, parsed, read)
    found = links(text, html)
    reply = names.registrable(_domain(parsed.reply_to[0].address)) if parsed.reply_to else ""
    said = wording(text, html)
    precedence = parsed.precedence or ""
    return Facts(
        proof=prove(evidence.auth, domain, evidence.listener != "lmtp", bool(evidence.dmarc_override)),
        listings=evidence.listings,
        session=frozenset(evidence.flaws),
        peer=evidence.peer,
        helo=evidence.helo.lower().rstrip("."),
        host=evidence.host,
        bounce=not arrival.reverse_path,
        flaws=frozenset(parsed.flaws),
        address=address,
        domain=domain,
        owner=owner,
        name=author.name,
        subject=parsed.subject,
        reply_owner=reply,
        ours=ours,
        from_ours=domain in ours,
        skew=None if parsed.date is None else (parsed.date - arrival.received_at) // SECOND,
        visible=len(parsed.to) + len(parsed.cc),
        addressed=bool(parsed.to or parsed.cc),
        is_reply=bool(parsed.in_reply_to or parsed.references),
        list_id=parsed.list_id or "",
        list_post=parsed.list_post,
        unsubscribe=parsed.list_unsubscribe,
        bulk=precedence in {"bulk", "junk"},
        automatic=parsed.automatic,
        links=found,
        markup=markup(html, said.length, found.count, hides="hidden_text" in parsed.flaws) if html else NO_MARKUP,
        files=files(arrival.raw, parsed),
        wording=said,
        split_words=names.split_words(text) + names.split_words(html),
        name_address=_other_address(author.name, owner),
        name_brand=_claims(author.name, domain),
        likeness=_likeness(domain, ours),
        link_likeness=_link_likeness(found.hosts, owner, ours),
        deceptive_host=next((host for host in (domain, *found.hosts) if names.deceptive_idn(host)), ""),
        gtube=arrival.raw.find(GTUBE[:12], 0, _GTUBE_WITHIN) >= 0 and GTUBE in arrival.raw,
    )


def prove(auth: Authentication, domain: str, known: bool, override: bool) -> Proof:
    """:param domain: the From's."""
    signers: set[str] = set()
    uncovered = ""
    failed = False
    for signature in auth.dkim:
        if signature.result != "pass":
            failed = failed or signature.result in {"fail", "permerror"}
        elif signature.covered is not None:
            uncovered = signature.domain
        elif not signature.testing:
            signers.add(signature.domain.lower())
    domains = set(signers)
    if auth.spf.result == "pass":
        domains.add(auth.spf.domain.lower())
    owner = names.registrable(domain) if domain else ""
    aligned = auth.dmarc.result == "pass" or (
        auth.dmarc.result in {"none", "temperror"} and any(names.registrable(one) == owner for one in domains)
    )
    return Proof(
        known=known,
        domains=frozenset(domains),
        signers=frozenset(signers),
        author=domain if aligned and domain else "",
        spf=auth.spf.result,
        dkim_failed=failed and not signers,
        uncovered=uncovered,
        unsure=_unsure(auth, owner),
        dmarc=auth.dmarc.result,
        policy=auth.dmarc.disposition if auth.dmarc.result == "fail" else "none",
        excused=auth.arc.result == "pass" and override,
    )


def _unsure(auth: Authentication, owner: str) -> bool:
    """Only of the From's domain: whoever sends can break the DNS of a domain of their own."""
    if auth.dmarc.result == "temperror":
        return True
    asked = [(auth.spf.result, auth.spf.domain), *((one.result, one.domain) for one in auth.dkim)]
    return any(result == "temperror" and names.registrable(domain) == owner for result, domain in asked)


def _texts(raw: bytes, parsed: Parsed, read: TextReader) -> tuple[str, str]:
    """Lower-cased: of the first parts that show the message as text and as HTML."""
    text = html = ""
    seen: set[str] = set()
    for part_id in (*parsed.text, *parsed.html):
        if part_id in seen or (text and html):
            continue
        seen.add(part_id)
        part = part_of(parsed.structure, part_id)
        if part is None:
            continue
        if part.type == "text/html" and not html:
            html = read(raw, part, MOST_TEXT).lower()
        elif part.type == "text/plain" and not text:
            text = read(raw, part, MOST_TEXT).lower()
    return text, html


def _domain(address: str) -> str:
    return names.ascii_host(address.rpartition("@")[2])


def _other_address(name: str, owner: str) -> str:
    if "@" not in name:
        return ""
    for word in name.replace("<", " ").replace(">", " ").replace('"', " ").split()[:10]:
        local, at, domain = word.strip("()[]'’,;").rpartition("@")
        if at and local and "." in domain and names.registrable(_domain(word.strip("()[]'’,;"))) != owner:
            return f"{local}@{domain}"
    return ""


def _claims(name: str, domain: str) -> str:
    if not name:
        return ""
    brand = names.claimed_brand(name)
    return brand if brand is not None and not names.brand_owns(brand, domain) else ""


def _likeness(domain: str, ours: frozenset[str]) -> tuple[str, str, str] | None:
    if not domain:
        return None
    for own in ours:
        like = names.imitates(domain, own) if own != domain and own not in FREEMAIL else None
        if like is not None:
            return domain, like.how, like.original
    like = names.imitates_brand(domain)
    return (domain, like.how, like.original) if like is not None else None


def _link_likeness(hosts: tuple[str, ...], owner: str, ours: frozenset[str]) -> tuple[str, str, str] | None:
    for host in hosts:
        if names.registrable(host) == owner:
            continue
        found = _likeness(host, ours)
        if found is not None:
            return found
    return None
