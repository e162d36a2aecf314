"""What a few kinds of fraud always say. A small table on purpose: words alone never make spam
here, and the learned classifier's place is elsewhere."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final, NamedTuple

from posthouse.inbound.filter.names import mixes_scripts

MOST = 3000
"""Characters of the visible text that are looked at."""

PHRASES: Final = MappingProxyType(
    {
        "advance": (
            "next of kin", "beneficiary", "inheritance", "million dollars", "million usd", "million united states",
            "strictly confidential", "deceased", "compensation fund", "unclaimed", "transfer of the fund",
            "consignment", "diplomat", "lottery", "winning number", "claim your prize", "god bless you",
            "dying of cancer", "bank draft", "processing fee", "atm card",
        ),
        "account": (
            "verify your account", "confirm your account", "account has been suspended", "account has been limited",
            "account will be closed", "account suspended", "unusual activity", "unusual sign in", "mailbox is full",
            "mailbox quota", "password will expire", "password expires", "activate your account", "reactivate your",
            "update your payment", "update your billing", "konto wurde gesperrt", "konto eingeschränkt",
            "bestätigen sie ihr konto", "votre compte a été", "validate your", "keep current password",
            "within 24 hours", "innerhalb von 24 stunden", "pending messages", "package could not be delivered",
        ),
        "extortion": (
            "your webcam", "recorded you", "i hacked", "i have hacked", "your device was infected", "adult site",
            "adult website", "i know your password", "send the video", "to all your contacts", "bitcoin",
            "you have 48 hours", "intimate",
        ),
        "pills": ("viagra", "cialis", "v1agra", "levitra", "online pharmacy", "no prescription"),
        "gain": (
            "guaranteed returns", "double your", "risk free investment", "per week from home",
            "work from home and earn", "guaranteed profit", "crypto investment", "passive income", "online casino",
            "free spins", "no deposit bonus", "rank higher", "first page of google", "seo services", "guest post",
        ),
        "errand": (
            "are you available", "are you at your desk", "quick task", "gift card", "wire transfer", "urgent request",
            "keep this confidential", "change of bank details", "new bank details", "updated our bank",
        ),
        "password_given": ("password", "passwort", "mot de passe", "contraseña", "passcode"),
    }
)  # fmt: skip
"""Kind → phrases. A kind counts as often as different phrases of it stand in the text."""

_BLANK: Final = str.maketrans(dict.fromkeys("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~“”„’", " "))


def _triggers() -> dict[str, list[tuple[str, str]]]:
    """By the longest word of each phrase: most mail has none of these words, so that it costs a
    set of its words and nothing more."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, many in PHRASES.items():
        for phrase in many:
            word = max(phrase.split(), key=len)
            found.setdefault(word, []).append((f"{kind}/{phrase}", phrase))
    return found


_TRIGGERS: Final = _triggers()
_COIN_WORDS: Final = frozenset({"bitcoin", "bitcoins", "btc", "wallet", "crypto", "ethereum", "usdt"})
_LOOKED_FOR: Final = frozenset(_TRIGGERS) | _COIN_WORDS

_TAG: Final = re.compile(
    r"<(?:style|script|title)[^>]{0,300}>[^<]{0,20000}</[a-z]{1,10}\s?>|<!--.{0,5000}?-->|<[^>]{0,3000}>", re.DOTALL
)
_COIN: Final = re.compile(r"\b(?:bc1[a-z0-9]{25,60}|[13][a-z0-9]{25,34}|0x[0-9a-f]{40})\b")
_FOREIGN: Final = re.compile("[^\\W\\d_]*(?:[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z])[^\\W\\d_]*")


class Wording(NamedTuple):
    """`length`: characters of text that a reader sees, about. `phrases`: those of
    the table, as `kind/phrase`. `coin`: the address of a wallet. `mixed`: words of Latin
    letters with Greek or Cyrillic ones between them (at most 20)."""

    length: int
    phrases: frozenset[str] = frozenset()
    coin: str = ""
    mixed: int = 0


NO_WORDING: Final = Wording(0)


def wording(text: str, html: str) -> Wording:
    """Of the text part, or of the HTML where that says more; both lower case."""
    words = text[:MOST].translate(_BLANK).split()
    if html and len(text) < 200:
        start = max(html.find("<body"), 0)
        stripped = _TAG.sub(" ", html[start : start + MOST * 3]).translate(_BLANK).split()
        words = stripped if len(stripped) > len(words) else words
    looked = _LOOKED_FOR.intersection(words)
    if not looked and text.isascii() and len(text) >= 200:
        return Wording(len(text))
    shown = " ".join(words)
    mixed = 0 if shown.isascii() else _mixed_words(shown)
    if not looked:
        return Wording(len(shown), mixed=mixed)
    found = [name for word in looked for name, phrase in _TRIGGERS.get(word, ()) if phrase in shown]
    # Case is lost here, so a wallet's checksum is not checked.
    coin = None if looked.isdisjoint(_COIN_WORDS) else _COIN.search(shown)
    return Wording(len(shown), frozenset(found), coin[0] if coin else "", mixed)


def _mixed_words(shown: str) -> int:
    if not mixes_scripts(shown):
        return 0
    return sum(1 for _, _ in zip(range(20), _FOREIGN.finditer(shown), strict=False))
