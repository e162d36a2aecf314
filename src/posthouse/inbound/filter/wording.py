"""What a few kinds of fraud always say. A small table on purpose: words alone never make spam
here, and the learned classifier's place is elsewhere."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from posthouse.inbound.filter.names import mixes_scripts

MOST = 8192
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
            "account will be closed", "account suspended", "unusual activity", "unusual sign-in", "mailbox is full",
            "mailbox quota", "password will expire", "password expires", "re-activate", "reactivate your",
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
            "guaranteed returns", "double your", "risk-free investment", "earn $", "per week from home",
            "work from home and earn", "100% profit", "crypto investment", "passive income", "online casino",
            "free spins", "no deposit bonus", "rank #1", "first page of google", "seo services", "guest post",
        ),
        "errand": (
            "are you available", "are you at your desk", "quick task", "gift card", "wire transfer", "urgent request",
            "keep this confidential", "change of bank details", "new bank details", "updated our bank",
        ),
        "password_given": ("password:", "passwort:", "password is", "pass:", "mot de passe", "das passwort lautet"),
    }
)  # fmt: skip
"""Kind → phrases. A kind counts as often as different phrases of it stand in the text."""

_TAG: Final = re.compile(
    r"<(?:style|script|title)[^>]{0,300}>[^<]{0,20000}</[a-z]{1,10}\s?>|<!--.{0,5000}?-->|<[^>]{0,3000}>", re.DOTALL
)
_COIN: Final = re.compile(r"\b(?:bc1[a-z0-9]{25,60}|[13][a-km-z1-9]{25,34}|0x[0-9a-f]{40})\b")
_FOREIGN: Final = re.compile("[^\\W\\d_]*(?:[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z])[^\\W\\d_]*")


def visible(text: str, html: str) -> str:
    """What a reader sees, lower case: the text part, else the HTML without its tags. One line."""
    if len(text) < 200 and html:
        start = max(html.find("<body"), 0)
        stripped = " ".join(_TAG.sub(" ", html[start : start + MOST * 3]).split())
        text = stripped if len(stripped) > len(text) else text
    return " ".join(text[:MOST].split())


def phrases(shown: str) -> frozenset[str]:
    """Those of the table that stand in the visible text, as `kind/phrase`."""
    return frozenset([f"{kind}/{one}" for kind, many in PHRASES.items() for one in many if one in shown])


def coin(text: str) -> str:
    """The address of a wallet. Case is lost here, so its checksum is not checked."""
    if "bitcoin" not in text and "btc" not in text and "wallet" not in text and "crypto" not in text:
        return ""
    found = _COIN.search(text[:MOST])
    return found[0] if found else ""


def mixed_words(shown: str) -> int:
    """Words of Latin letters with Greek or Cyrillic ones between them (at most 20)."""
    if shown.isascii() or not mixes_scripts(shown):
        return 0
    return sum(1 for _, _ in zip(range(20), _FOREIGN.finditer(shown), strict=False))
