"""The table of rules. docs/reference/filter.md is made from it.

Scores are chosen so that one oddity never reaches 3 and mail of any honest kind stays below
it, while each kind of fraud meets several rules; tests/unit/inbound/filter holds both.
A rule of DNS lists, of scanners and of the classifier has no fixed score: see `weigh.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from posthouse.clock import DAY, SECOND
from posthouse.inbound.filter.brands import FREEMAIL
from posthouse.inbound.filter.facts import Facts
from posthouse.inbound.filter.links import NO_LINKS, defanged
from posthouse.inbound.filter.markup import NO_MARKUP
from posthouse.inbound.filter.names import hides_characters, mixes_scripts, registrable
from posthouse.inbound.filter.rule import Rule, reasons
from posthouse.inbound.model import Reason
from posthouse.mail.parse.flaws import FLAWS

_DAY: Final = DAY // SECOND
_REPLY: Final = re.compile(r"\s*(?:re|aw|sv|antw|fwd?|wg)\s*:", re.IGNORECASE)
_DYNAMIC: Final = re.compile(
    r"(?:^|[.-])(?:dyn|dynamic|dhcp|dial|dialup|dsl|adsl|pool|ppp|cable|broadband|customer)[.\d-]"
)
_RANK: Final = re.compile(r"\b(?:ceo|cfo|coo|director|president|chairman|hr|human resources|payroll)\b", re.IGNORECASE)
_KNOWN_SESSION: Final = frozenset(
    "early_talker helo_ip helo_ours helo_unqualified helo_unresolvable rdns_none rdns_unconfirmed "
    "sender_null_mx sender_unresolvable".split()
)
"""The gateway's codes that have rules of their own."""


def _rule(code: str, score: float, text: str, test: Callable[[Facts], bool | str]) -> Rule[Facts]:
    return Rule(code, score, text, test)


def _stranger(facts: Facts) -> bool:
    """From the world, with nothing that proves the author and nobody who vouches for a forward."""
    proof = facts.proof
    return proof.known and not proof.author and not proof.excused and not proof.unsure


def _generic_host(facts: Facts) -> bool | str:
    host = facts.host
    if host is None or not _stranger(facts):
        return False
    octets = facts.peer.split(".")
    numbered = len(octets) == 4 and ("-".join(octets) in host or "-".join(octets[::-1]) in host)
    return host if numbered or _DYNAMIC.search(host) else False


def _helo_ours(facts: Facts) -> bool | str:
    """No lie from this machine, nor from the address that has the name."""
    if not facts.proof.known or facts.helo == facts.host or facts.peer == "::1" or facts.peer.startswith("127."):
        return False
    ours = facts.helo in facts.ours or facts.helo == "localhost" or "helo_ours" in facts.session
    return ours and facts.helo


def _shouts(facts: Facts) -> bool:
    subject = facts.subject
    return len(subject) >= 12 and subject.isupper() and subject.isascii()


def _names(facts: Facts) -> tuple[str, str]:
    return facts.name, facts.subject


def _looks(facts: Facts, how: str) -> bool | str:
    like = facts.likeness
    return like is not None and like[1] == how and f"{defanged(like[0])} / {like[2]}"


def _link_looks(facts: Facts, *hows: str) -> bool | str:
    like = facts.link_likeness
    return like is not None and like[1] in hows and f"{defanged(like[0])} / {like[2]}"


def _mismatch(facts: Facts) -> bool | str:
    """A sender's own name over the link of the service that counts its clicks is fine."""
    for shown, target in facts.links.mismatched:
        owner = registrable(shown)
        fine = facts.proof.author and owner in {facts.owner, *map(registrable, facts.proof.signers)}
        if not fine:
            return f"{defanged(shown)} → {defanged(target)}"
    return False


def _file(facts: Facts, risk: str) -> bool | str:
    for file in facts.files:
        if file.risk == risk:
            return file.name
    return False


def _said(facts: Facts, kind: str) -> int:
    phrases = facts.wording.phrases
    return sum(1 for one in phrases if one.startswith(kind)) if phrases else 0


def _words(facts: Facts, kind: str, least: int, below: int = 1000) -> bool | str:
    if not least <= _said(facts, kind) < below:
        return False
    return ", ".join(sorted(one.partition("/")[2] for one in facts.wording.phrases if one.startswith(kind))[:3])


def _always(_: Facts) -> bool:
    return True


AUTHENTICATION: Final = (
    _rule(
        "spf_fail", 2.0, "SPF: the sender's domain says that this server may not send for it.",
        lambda f: f.proof.spf == "fail" and _stranger(f),
    ),
    _rule(
        "spf_softfail", 1.0, "SPF: the sender's domain says that this server should not send for it.",
        lambda f: f.proof.spf == "softfail" and _stranger(f),
    ),
    _rule(
        "spf_broken", 0.3, "SPF: the sender's domain has a record that is wrong.", lambda f: f.proof.spf == "permerror"
    ),
    _rule(
        "unproved", 1.5, "Neither SPF nor DKIM proves who sent it.", lambda f: not f.proof.domains and _stranger(f)
    ),
    _rule(
        "dkim_failed", 0.7, "It carries a DKIM signature that is not valid.",
        lambda f: f.proof.dkim_failed and _stranger(f),
    ),
    _rule(
        "dkim_uncovered", 1.5, "The DKIM signature of {} leaves the end of the text uncovered.",
        lambda f: f.proof.uncovered,
    ),
    _rule(
        "dmarc_fail", 1.0, "DMARC: it is not proved to be from {}, which only asks for reports.",
        lambda f: f.proof.dmarc == "fail" and f.proof.policy == "none" and _stranger(f) and f.domain,
    ),
    _rule(
        "dmarc_quarantine", 3.0, "DMARC: it is not proved to be from {}, which asks to put such mail aside.",
        lambda f: f.proof.policy == "quarantine" and _stranger(f) and f.domain,
    ),
    _rule(
        "dmarc_reject", 4.0, "DMARC: it is not proved to be from {}, which asks to refuse such mail.",
        lambda f: f.proof.policy == "reject" and _stranger(f) and f.domain,
    ),
    _rule("dmarc_pass", -0.5, "DMARC: it is proved to be from {}.", lambda f: f.proof.dmarc == "pass" and f.domain),
    _rule(
        "from_ours", 2.5, "It says that it comes from {}, our own domain, and nothing proves it.",
        lambda f: f.from_ours and _stranger(f) and f.domain,
    ),
)  # fmt: skip

CONNECTION: Final = (
    _rule(
        "no_reverse_dns", 1.0, "The sending server has no name in DNS that leads back to it.",
        lambda f: not f.session.isdisjoint({"rdns_none", "rdns_unconfirmed"}),
    ),
    _rule("generic_host", 1.0, "The sending server's name, {}, is one of a customer's line.", _generic_host),
    _rule(
        "helo_ip", 1.5, "It greeted with a bare IP address instead of its name.", lambda f: "helo_ip" in f.session
    ),
    _rule(
        "helo_unresolvable", 0.7, "It greeted as {}, a name that does not exist.",
        lambda f: "helo_unresolvable" in f.session and f.helo,
    ),
    _rule(
        "helo_unqualified", 0.7, "It greeted as {}, which is no full host name.",
        lambda f: "helo_unqualified" in f.session and f.helo,
    ),
    _rule(
        "sender_unresolvable", 1.5, "The envelope sender's domain does not exist.",
        lambda f: "sender_unresolvable" in f.session,
    ),
    _rule(
        "sender_null_mx", 1.5, "The envelope sender's domain says that it takes no mail.",
        lambda f: "sender_null_mx" in f.session,
    ),
    _rule("helo_ours", 2.5, "It greeted as {}, which is our own name.", _helo_ours),
    _rule(
        "early_talker", 2.0, "It spoke before it was its turn, as programs for spam do.",
        lambda f: "early_talker" in f.session,
    ),
    _rule(
        "session_odd", 0.5, "The session was odd: {}.",
        lambda f: ", ".join(sorted(f.session - _KNOWN_SESSION)) if f.session else False,
    ),
)  # fmt: skip

FLAW_SCORES: Final = {
    "bad_base64": 0.3, "bad_content_type": 0.3, "bad_date": 0.5, "bad_encoded_word": 0.3, "bad_from": 2.0,
    "bad_message_id": 0.4, "duplicate_header": 0.7, "eight_bit_header": 0.5, "encoded_composite": 0.3,
    "header_too_long": 0.3, "many_from": 2.5, "no_boundary": 0.7, "no_close": 0.3, "no_date": 1.0, "no_from": 2.5,
    "no_message_id": 0.7, "no_separator": 0.7, "nul": 1.5, "too_deep": 2.5, "too_many_headers": 2.0,
    "too_many_parts": 2.5, "unknown_charset": 0.5, "unknown_encoding": 0.7,
}  # fmt: skip
"""Of the parser's flaws. The others are common in honest mail and score nothing."""


def _flaw(code: str, score: float) -> Rule[Facts]:
    return Rule(f"flaw_{code}", score, FLAWS[code], lambda f: code in f.flaws)


HEADERS: Final = (
    _rule("date_future", 1.5, "Its Date lies in the future.", lambda f: f.skew is not None and f.skew > _DAY + 7200),
    _rule(
        "date_past", 0.7, "Its Date is more than a week old.",
        lambda f: f.skew is not None and -365 * _DAY < f.skew < -7 * _DAY,
    ),
    _rule(
        "date_ancient", 1.7, "Its Date is more than a year old.", lambda f: f.skew is not None and f.skew <= -365 * _DAY
    ),
    _rule("no_subject", 0.5, "It has no subject.", lambda f: not f.subject.strip()),
    _rule("shouting", 0.8, "The subject is all in capitals.", _shouts),
    _rule(
        "fake_reply", 0.6, "The subject says that it answers or forwards something, and nothing else does.",
        lambda f: not f.is_reply and not f.list_id and _REPLY.match(f.subject) is not None,
    ),
    _rule(
        "hidden_characters", 2.5, "The subject or the sender's name has invisible characters in its words.",
        lambda f: any(map(hides_characters, _names(f))),
    ),
    _rule(
        "mixed_scripts", 2.5, "“{}” mixes letters of several scripts that look alike.",
        lambda f: next((one for one in _names(f) if mixes_scripts(one)), ""),
    ),
    _rule(
        "not_addressed", 0.7, "It names no recipient: To and Cc are empty.", lambda f: not f.addressed and not f.bounce
    ),
    _rule("many_visible", 1.0, "It names more than fifty recipients.", lambda f: f.visible > 50),
    _rule(
        "name_address", 2.5, "The sender's name holds another address than the sender's: {}.",
        lambda f: f.name_address and f.name_address.replace(".", "[.]"),
    ),
    _rule(
        "name_brand", 2.7, "The sender's name speaks for {}, and the address is not theirs.", lambda f: f.name_brand
    ),
    _rule(
        "rank_freemail", 1.5, "Somebody with an office (“{}”) writes from a free mail service.",
        lambda f: f.owner in FREEMAIL and _RANK.search(f.name) is not None and f.name,
    ),
    _rule(
        "reply_to_freemail", 1.5, "Answers go to {}, a free mail service, and not to the sender's domain.",
        lambda f: f.reply_owner in FREEMAIL and f.reply_owner != f.owner and not f.list_id and f.reply_owner,
    ),
    _rule(
        "bulk_no_unsubscribe", 0.7, "It is bulk mail without List-Unsubscribe.",
        lambda f: f.bulk and not f.unsubscribe and not f.list_id and not f.bounce,
    ),
    _rule(
        "mailing_list", -1.5, "It came through the mailing list {}, and its server is proved.",
        lambda f: f.list_post and bool(f.proof.domains) and f.list_id,
    ),
)  # fmt: skip

LOOKALIKES: Final = (
    _rule("lookalike", 4.0, "The sender's domain looks like another: {}.", lambda f: _looks(f, "alike")),
    _rule("lookalike_near", 2.5, "The sender's domain is one letter off another: {}.", lambda f: _looks(f, "near")),
    _rule(
        "lookalike_inside", 2.0, "The sender's domain carries a well-known name as a word: {}.",
        lambda f: _looks(f, "inside"),
    ),
    _rule(
        "lookalike_below", 2.7, "The sender's domain begins with another's whole name: {}.",
        lambda f: _looks(f, "below"),
    ),
    _rule("link_lookalike", 3.5, "A link's domain looks like another: {}.", lambda f: _link_looks(f, "alike")),
    _rule(
        "link_imitates", 2.0, "A link's domain carries another's name: {}.",
        lambda f: _link_looks(f, "near", "inside", "below"),
    ),
    _rule(
        "deceptive_idn", 3.0, "{} is written in letters of another script that look like Latin ones.",
        lambda f: f.deceptive_host and defanged(f.deceptive_host),
    ),
)  # fmt: skip

LINKS: Final = (
    _rule(
        "link_address", 2.0, "A link leads to a bare IP address: {}.",
        lambda f: bool(f.links.addresses) and defanged(f.links.addresses[0]),
    ),
    _rule(
        "link_userinfo", 2.7, "A link hides its host, {}, behind another name and an @.",
        lambda f: bool(f.links.userinfo) and defanged(f.links.userinfo[0]),
    ),
    _rule("link_mismatch", 2.5, "A link shows one host and leads to another: {}.", _mismatch),
    _rule(
        "link_shortener", 0.8, "A link goes through a shortener: {}.",
        lambda f: bool(f.links.shorteners) and defanged(f.links.shorteners[0]),
    ),
    _rule(
        "link_script", 2.0, "A link runs something instead of leading somewhere ({}).",
        lambda f: bool(f.links.scripts) and f.links.scripts[0],
    ),
)  # fmt: skip

MARKUP: Final = (
    _rule("html_password", 2.7, "The HTML asks for a password.", lambda f: f.markup.password),
    _rule("html_form", 1.0, "The HTML has a form to fill in.", lambda f: f.markup.form and not f.markup.password),
    _rule("html_script", 0.7, "The HTML has a script, a frame or an object.", lambda f: f.markup.script),
    _rule("html_refresh", 1.5, "The HTML leads to another page by itself.", lambda f: f.markup.refresh),
    _rule(
        "html_hidden", 1.7, "The HTML hides {} characters of text.",
        lambda f: f.markup.hidden > 0 and str(f.markup.hidden),
    ),
    _rule("image_only", 1.5, "It is a picture with a link, and hardly a word.", lambda f: f.markup.image_only),
)  # fmt: skip

FILES: Final = (
    _rule("program", 5.0, "It carries a program: “{}”.", lambda f: _file(f, "program")),
    _rule(
        "program_disguised", 5.0, "It carries a program under a name that denies it: “{}”.",
        lambda f: _file(f, "disguised"),
    ),
    _rule("program_inside", 4.5, "An archive in it carries a program: “{}”.", lambda f: _file(f, "inside")),
    _rule("double_extension", 2.0, "A file's name pretends to be a document: “{}”.", lambda f: _file(f, "double")),
    _rule(
        "turned_name", 3.0, "A file's name turns the direction of writing to hide its ending: “{}”.",
        lambda f: _file(f, "turned"),
    ),
    _rule("macros", 2.5, "A document in it carries macros: “{}”.", lambda f: _file(f, "macro")),
    _rule(
        "locked_archive", 1.0, "An archive in it is encrypted, so that no scanner can read it: “{}”.",
        lambda f: _file(f, "locked"),
    ),
    _rule(
        "locked_password", 2.5, "The text gives the password of the encrypted archive “{}”.",
        lambda f: _said(f, "password_given") > 0 and _file(f, "locked"),
    ),
    _rule("page_attached", 1.0, "It carries a web page to open: “{}”.", lambda f: _file(f, "page")),
)  # fmt: skip

WORDING: Final = (
    _rule("gtube", 1000.0, "It holds GTUBE, the text that tests filters.", lambda f: f.gtube),
    _rule(
        "advance_fee", 1.5, "It speaks as advance-fee fraud does (“{}”).", lambda f: _words(f, "advance", 2, below=4)
    ),
    _rule("advance_fee_plain", 4.0, "It is written as advance-fee fraud is (“{}”).", lambda f: _words(f, "advance", 4)),
    _rule(
        "account_threat", 1.5, "It presses to act for an account (“{}”).", lambda f: _words(f, "account", 2)
    ),
    _rule(
        "account_threat_unproved", 1.5, "It presses to act for an account by a link, and nothing proves its sender.",
        lambda f: bool(f.links.count) and _stranger(f) and _said(f, "account") > 0,
    ),
    _rule("extortion", 2.0, "It speaks as extortion does (“{}”).", lambda f: _words(f, "extortion", 3)),
    _rule(
        "extortion_coin", 3.0, "It names a wallet ({}) and speaks as extortion does.",
        lambda f: _said(f, "extortion") > 1 and f.wording.coin,
    ),
    _rule("pills", 2.5, "It offers medicine as spam does (“{}”).", lambda f: _words(f, "pills", 1)),
    _rule("gain", 0.8, "It promises gain or rank (“{}”).", lambda f: _words(f, "gain", 1, below=2)),
    _rule("gain_plain", 2.5, "It promises gain or rank several times (“{}”).", lambda f: _words(f, "gain", 2)),
    _rule(
        "errand", 4.0, "A stranger at a free mail service asks for an errand with money (“{}”).",
        lambda f: f.owner in FREEMAIL and _words(f, "errand", 2),
    ),
    _rule(
        "split_words", 2.0, "Invisible characters cut the words of its text.", lambda f: f.split_words > 2
    ),
    _rule(
        "mixed_text", 2.0, "Words of its text mix letters of several scripts.", lambda f: f.wording.mixed > 2
    ),
)  # fmt: skip

_FLAWED: Final = tuple([_flaw(code, score) for code, score in FLAW_SCORES.items()])

_GROUPS: Final[tuple[tuple[Callable[[Facts], object], tuple[Rule[Facts], ...]], ...]] = (
    (_always, AUTHENTICATION),
    (_always, CONNECTION),
    (lambda f: f.flaws, _FLAWED),
    (_always, HEADERS),
    (lambda f: f.likeness or f.link_likeness or f.deceptive_host, LOOKALIKES),
    (lambda f: f.links is not NO_LINKS, LINKS),
    (lambda f: f.markup != NO_MARKUP, MARKUP),
    (lambda f: f.files, FILES),
    (lambda f: f.gtube or f.wording.phrases or f.split_words or f.wording.mixed, WORDING),
)
"""Without what a group asks for, none of its rules applies: most mail is through with a few."""

RULES: Final[tuple[Rule[Facts], ...]] = tuple([rule for _, rules in _GROUPS for rule in rules])
"""Of the message, the same for all its recipients."""


def apply(facts: Facts) -> list[Reason]:
    """`reasons(RULES, facts)`, in less time."""
    found: list[Reason] = []
    for concerned, rules in _GROUPS:
        if concerned(facts):
            found += reasons(rules, facts)
    return found
