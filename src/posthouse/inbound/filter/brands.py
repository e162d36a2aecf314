"""Names that phishing borrows, and hosts whose role matters. Data only; order carries nothing."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

BRANDS: Final = MappingProxyType(
    {
        "adobe": "adobe.com adobesign.com",
        "amazon": "amazon.com amazon.de amazon.co.uk amazon.fr amazon.it amazon.es amazon.co.jp amazonses.com",
        "americanexpress": "americanexpress.com aexp.com",
        "apple": "apple.com icloud.com me.com",
        "bankofamerica": "bankofamerica.com bofa.com",
        "barclays": "barclays.com barclays.co.uk",
        "binance": "binance.com",
        "bookingcom": "booking.com",
        "chase": "chase.com jpmorgan.com",
        "coinbase": "coinbase.com",
        "commerzbank": "commerzbank.de commerzbank.com",
        "dhl": "dhl.com dhl.de",
        "docusign": "docusign.com docusign.net",
        "dropbox": "dropbox.com dropboxmail.com",
        "ebay": "ebay.com ebay.de ebay.co.uk",
        "facebook": "facebook.com facebookmail.com meta.com",
        "fedex": "fedex.com",
        "github": "github.com githubusercontent.com",
        "google": "google.com gmail.com youtube.com googlemail.com",
        "hsbc": "hsbc.com hsbc.co.uk",
        "icloud": "icloud.com apple.com",
        "instagram": "instagram.com facebookmail.com",
        "linkedin": "linkedin.com",
        "metamask": "metamask.io",
        "microsoft": "microsoft.com outlook.com office.com office365.com live.com microsoftonline.com sharepoint.com",
        "netflix": "netflix.com",
        "office365": "office.com office365.com microsoft.com microsoftonline.com",
        "onedrive": "onedrive.com microsoft.com live.com",
        "outlook": "outlook.com microsoft.com live.com office.com",
        "paypal": "paypal.com paypal.de paypal.co.uk paypal.me",
        "postbank": "postbank.de",
        "revolut": "revolut.com",
        "santander": "santander.com santander.co.uk",
        "sharepoint": "sharepoint.com microsoft.com",
        "sparkasse": "sparkasse.de",
        "spotify": "spotify.com",
        "steampowered": "steampowered.com steamcommunity.com",
        "stripe": "stripe.com",
        "swisspost": "post.ch swisspost.ch",
        "telegram": "telegram.org",
        "ups": "ups.com",
        "usps": "usps.com",
        "volksbank": "volksbank.de vr.de",
        "wellsfargo": "wellsfargo.com",
        "whatsapp": "whatsapp.com",
    }
)
"""The name as one word → the domains that may carry it."""

OFFICIAL: Final = frozenset(
    "account accounts alert alerts bank billing center centre customer customers department desk do email gmbh help "
    "helpdesk inc info international limited llc ltd mail management message no noreply notice notification "
    "notifications online order orders payment payments reply sa safety secure security service services sign-in "
    "support team the update updates verification verify kundenservice kundendienst sicherheit konto".split()
)
"""Words that, beside a brand, make a display name speak for the brand."""

FREEMAIL: Final = frozenset(
    "126.com 163.com aol.com fastmail.com free.fr gmail.com gmx.at gmx.ch gmx.com gmx.de gmx.net googlemail.com "
    "hotmail.co.uk hotmail.com hotmail.de hotmail.fr icloud.com inbox.ru libero.it live.com live.de mail.com mail.ru "
    "me.com msn.com naver.com orange.fr outlook.com outlook.de proton.me protonmail.com qq.com rambler.ru seznam.cz "
    "t-online.de tutanota.com web.de yahoo.co.jp yahoo.co.uk yahoo.com yahoo.de yahoo.fr yandex.com yandex.ru "
    "ymail.com zoho.com zohomail.com".split()
)

SHORTENERS: Final = frozenset(
    "adf.ly bit.do bit.ly buff.ly cutt.ly goo.su is.gd lnkd.in n9.cl ow.ly qrco.de rb.gy rebrand.ly s.id shorturl.at "
    "shorturl.gg t.co t.ly t2m.io tiny.cc tinyurl.com tr.ee urlz.fr v.gd vk.cc".split()
)
