"""Mailbox addresses: `Ann <ann@example.com>` read, checked and brought into one form.

RFC 5321 §4.1.2 and RFC 5322 §3.4 give the grammar, RFC 6531 lets local parts be UTF-8, domains
are mapped by UTS #46 and encoded by IDNA 2008. Every refusal is an `errors.Invalid` with the
code `invalid_address`. Its sentence never repeats the input.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

import idna
import msgspec

from posthouse.errors import Invalid

MAX_LOCAL = 64  # octets, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 255  # octets, RFC 5321 §4.5.3.1.2
MAX_ADDRESS = 254  # octets; a path of RFC 5321 §4.5.3.1.3 has 256 with its angle brackets
MAX_NAME = 256  # characters
_MAX_TEXT = 2048  # characters of one mailbox with its name and comments
_MAX_COMMENTS = 16  # one inside the other

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_PLAIN = re.compile(rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@([A-Za-z0-9.-]+)")
_NAMED = re.compile(r"([A-Za-z0-9.'_-]+(?: [A-Za-z0-9.'_-]+)*) <([^<>()\" ]+)>")
_DOT_ATOM = re.compile(rf"[\x80-\U0010ffff{_ATEXT}]+(?:\.[\x80-\U0010ffff{_ATEXT}]+)*")
_LITERAL = re.compile(r"\[(?:([0-9.]{7,15})|(?i:IPv6):([0-9A-Fa-f:.]{2,45}))\]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ANGLE = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^"<>])*)<((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>')
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)')
_ESCAPED = re.compile(r"\\(.)")
_UNICODE_LABEL = re.compile("[^.\u3002\uff0e\uff61]{127}")
_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_PLANE_ENDS = "".join(chr((plane << 16) + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
# Joiners (U+200C, U+200D) and flag tags stay: scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    f"\ufdd0-\ufdef\ufeff\ufff9-\ufffb{_PLANE_ENDS}]"
)
_NEVER_IN_LOCAL = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"})


class Mailbox(msgspec.Struct, frozen=True, gc=False):
    """A checked mailbox. Make one with `parse_mailbox` or `mailbox`, which check; the
    constructor does not.

    `local` is as it stands on the wire: quoted where it has to be, UTF-8 in NFC.
    `domain` is lower-case A-labels, or a literal such as `[192.0.2.1]`.
    """

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        """`local@domain`: what is compared, suppressed and put into the envelope."""
        return f"{self.local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a peer with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """`ann@example.com`, `Ann Lee <ann@example.com>` or `"Lee, Ann" <ann@example.com>`.

    Comments are dropped. A name may hold `.`, `:` and `@` unquoted, since people write them.

    :raises Invalid: not exactly one valid mailbox.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return _bounded("", plain[1], parse_domain(plain[2]))
    if len(text) > _MAX_TEXT:
        raise _wrong("The address is too long.")
    named = _NAMED.fullmatch(text)
    if named is not None:
        return mailbox(named[2], named[1])
    refuse_hidden(text, "address")
    bare = _without_comments(text).strip(" ")
    angle = _ANGLE.fullmatch(bare)
    if angle is None:
        return _parse_address("", bare)
    return _parse_address(_phrase(angle[1]), angle[2].strip(" "))


def mailbox(address: str, name: str = "") -> Mailbox:
    """An address (`ann@example.com`, no angle brackets) with a display name beside it.

    :raises Invalid: one of them is not valid.
    """
    plain = _PLAIN.fullmatch(address)
    if plain is not None:
        return _bounded(_checked_name(name) if name else "", plain[1], parse_domain(plain[2]))
    if len(address) > _MAX_TEXT:
        raise _wrong("The address is too long.")
    refuse_hidden(address, "address")
    return _parse_address(_checked_name(name), address)


@lru_cache(maxsize=8192)
def parse_domain(text: str) -> str:
    """The lower-case A-label form of a domain name, without a final dot.

    :raises Invalid: not a host name (letters, digits, hyphens; RFC 5321 §2.3.5), not valid in
        IDNA 2008, or longer than DNS can carry.
    """
    if not text.isascii():
        text = _a_labels(text)
    domain = text.lower()
    if len(domain) > MAX_DOMAIN:
        raise _wrong("The domain is longer than 255 octets.")
    if _LABELS.fullmatch(domain) is None:
        raise _wrong("The domain is not a valid host name.")
    if domain.rpartition(".")[2].isdigit():
        raise _wrong("An IP address in place of a domain needs square brackets.")
    if "xn--" in domain:
        _refuse_bad_punycode(domain)
    return domain


def refuse_hidden(text: str, what: str) -> None:
    """
    :param what: the thing's name, for the sentence.
    :raises Invalid: a control, bidi control, line separator, invisible character or lone surrogate.
    """
    found = _HIDDEN.search(text)
    if found is not None:
        raise _wrong(f"The {what} has a character that is not allowed (U+{ord(found[0]):04X}).")


def _wrong(sentence: str) -> Invalid:
    return Invalid(sentence, code="invalid_address")


def _bounded(name: str, local: str, domain: str) -> Mailbox:
    octets = len(local) if local.isascii() else len(local.encode())
    if octets > MAX_LOCAL:
        raise _wrong("The part before the @ is longer than 64 octets.")
    if octets + 1 + len(domain) > MAX_ADDRESS:
        raise _wrong("The address is longer than 254 octets.")
    return Mailbox(name, local, domain)


def _parse_address(name: str, text: str) -> Mailbox:
    local, at, domain = text.rpartition("@")
    if not at:
        raise _wrong("The address has no @.")
    literal = domain.startswith("[")
    return _bounded(name, _local_part(local), _literal(domain) if literal else parse_domain(domain))


def _local_part(text: str) -> str:
    quoted = _QUOTED.fullmatch(text)
    content = text if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
    if not content.isascii():
        content = unicodedata.normalize("NFC", content)
        if any(unicodedata.category(c) in _NEVER_IN_LOCAL for c in content if c != " "):
            raise _wrong("The part before the @ has a character that is not allowed.")
    if _DOT_ATOM.fullmatch(content) is not None:
        return content
    if quoted is None:
        raise _wrong("The part before the @ is not valid; only a quoted one may hold such characters.")
    return quote(content)


def quote(text: str) -> str:
    """A quoted-string of RFC 5322 §3.2.4."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(text: str) -> str:
    """RFC 5321 §4.1.3; literals of other kinds than IPv4 and IPv6 are refused."""
    found = _LITERAL.fullmatch(text)
    try:
        if found is not None and found[1]:
            return f"[{ipaddress.IPv4Address(found[1])}]"
        if found is not None:
            return f"[IPv6:{ipaddress.IPv6Address(found[2])}]"
    except ValueError:
        pass
    raise _wrong("The address literal is not a valid IPv4 or IPv6 address.")


def _a_labels(text: str) -> str:
    # No label of 63 octets has so many characters, and idna takes long over them.
    if len(text) > MAX_DOMAIN or _UNICODE_LABEL.search(text) is not None:
        raise _wrong("The domain is longer than 255 octets, or a label longer than 63.")
    try:
        return idna.encode(text, uts46=True, std3_rules=True, transitional=False).decode()
    except (idna.IDNAError, UnicodeError):
        raise _wrong("The domain is not a valid internationalised name (IDNA 2008).") from None


def _refuse_bad_punycode(domain: str) -> None:
    # Names that IDNA 2008 no longer allows (emoji) are registered and get mail, so they pass.
    try:
        for label in domain.split("."):
            if label.startswith("xn--"):
                label[4:].encode().decode("punycode").encode()
    except UnicodeError:
        raise _wrong("The domain has an xn-- label that decodes to nothing.") from None


def _without_comments(text: str) -> str:
    """Drops `(comments)` outside quoted strings (RFC 5322 §3.2.2)."""
    if "(" not in text and ")" not in text:
        return text
    kept: list[str] = []
    depth = 0
    quoted = escaped = False
    for c in text:
        if escaped or c == "\\":
            escaped = not escaped
        elif c == '"' and depth == 0:
            quoted = not quoted
        elif c == "(" and not quoted:
            depth += 1
        elif c == ")" and not quoted:
            depth -= 1
            if depth < 0:
                break
            continue
        if depth == 0:
            kept.append(c)
        elif depth > _MAX_COMMENTS:
            break
    if depth != 0:
        raise _wrong("The address has unbalanced parentheses.")
    return "".join(kept)


def _phrase(text: str) -> str:
    words: list[str] = []
    for quoted, bare in _WORD.findall(text):
        if any(c in ",;<>[]\\" for c in bare):
            raise _wrong("The name needs double quotes, or this is more than one address.")
        words.append(bare or _ESCAPED.sub(r"\1", quoted))
    return _checked_name(" ".join(word for word in words if word))


def _checked_name(name: str) -> str:
    refuse_hidden(name, "name")
    if len(name) > MAX_NAME:
        raise _wrong("The name is longer than 256 characters.")
    return name.strip(" ")
