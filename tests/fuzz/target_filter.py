"""The spam filter over any message: its own code never fails, and what it says can be shown."""

from __future__ import annotations

import msgspec

from posthouse.inbound.filter.links import defanged, links, plain
from posthouse.inbound.filter.look import Look, look
from posthouse.inbound.filter.markup import markup
from posthouse.inbound.filter.weigh import common
from posthouse.inbound.model import Arrival, Recipient, Via
from posthouse.mail.parse import parse, text
from posthouse.mail.parse.html import hides, words
from tests.unit.inbound.filter.mails import NOW, Mail, proof

_HTML = (
    '<html><style>.x{display:none}</style><body><a href="http://bank.example@evil.example/%2e">https://bank.example</a>'
    '<a href=hxxp&#58;//0x7f000001/>x</a><a href="javascript:alert(1)">y</a><font size=0 color=#fff>hidden</font>'
    '<form action="https://xn--bnk-xqa.example/"><img src=cid:1 width=1 height=1><span style="font-size:0">a</span>'
    "&#999999999999;<!--[if mso]>--><base href=//other.example></body></html>"
)
_MAILS = (
    Mail(),
    Mail(html=_HTML, text=None, subject="URGENT: your account is limited"),
    Mail(from_='"service@paypal.com" <x@evil.example>', headers=[("Reply-To", "other@else.example")]),
    Mail(
        from_="=?utf-8?b?0YDQsNGD?= <a@xn--80ak6aa92e.com>",
        subject="p\u200ba\u200bypal",
        auth=proof("fail", [], "fail", "reject"),
    ),
    Mail(
        attach=[
            ("invoice.pdf.exe", "application/pdf", b"MZ" + bytes(60)),
            ("a.zip", "application/zip", b"PK\3\4" + bytes(30)),
        ]
    ),
    Mail(text="Send 0.5 BTC to 1BoatSLRHtKNngkdXEeobR76b53LETtpyT or I publish www.evil.example http://[::1]/ 1.2.3.4"),
    Mail(attach=[("x.html", "text/html", _HTML.encode()), ("\u202egpj.exe", "image/jpeg", b"MZ")]),
)
CORPUS: tuple[bytes, ...] = (b"", *(mail.raw() for mail in _MAILS), _HTML.encode())
_TEMPLATES = [mail.arrival() for mail in _MAILS]


def check(data: bytes) -> None:
    """With proofs of every kind; then the text alone as HTML."""
    parsed = parse(data)
    for which in (0, 3):
        model = _TEMPLATES[which]
        recipient = Recipient(0, "ten_1", "bob@ours.example", 7, Via())
        arrival = Arrival("inb_1", NOW, "c", len(data), "ann@partner.example", model.evidence, b"", (recipient,), data)
        seen = look(arrival, parsed, text)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=Look) == seen
        assert len(seen.domains) <= 100
        assert all(domain.isascii() and domain.isprintable() and " " not in domain for domain in seen.domains), (
            seen.domains
        )
        verdict = common(seen, (), (), (), None, 5.0)
        for reason in verdict.reasons:
            assert reason.rule
            assert len(reason.text) <= 1000, reason
            assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in reason.text), reason
    _check_html(data.decode("utf-8", "replace").lower())


def _check_html(html: str) -> None:
    found = links(html, html)
    assert len(found.addresses) <= 5
    assert all(len(defanged(host)) <= 240 for host in found.hosts)
    markup(html, len(html), 1, hides=hides(html.encode()))
    assert len(plain(html)) <= 2 * len(html) + 16
    assert len(words(html)) <= 2 * len(html) + 16
