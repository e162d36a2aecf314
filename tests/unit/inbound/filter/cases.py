"""For each rule a message that meets it, and one that is close and does not."""

from __future__ import annotations

import io
import struct
import zipfile
from datetime import timedelta
from email.utils import format_datetime

from posthouse.inbound.filter.facts import GTUBE
from tests.unit.inbound.filter.mails import AT, Mail, proof

NOTHING = proof()
FAILS = proof("fail", dmarc="fail", policy="reject")


def zipped(*names: str, locked: bool = False) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 200)
    octets = bytearray(whole.getvalue())
    if locked:
        at = octets.find(b"PK\x01\x02")
        struct.pack_into("<H", octets, at + 8, 1)
    return bytes(octets)


def attached(name: str, octets: bytes = b"harmless octets", kind: str = "application/octet-stream") -> Mail:
    return Mail(attach=[(name, kind, octets)])


def dated(days: float) -> Mail:
    return Mail(without=frozenset({"Date"}), headers=[("Date", format_datetime(AT + timedelta(days=days)))])


def html(body: str, text: str | None = None) -> Mail:
    return Mail(text=text, html=f"<html><body>{body}</body></html>")


def lonely(subject: str = "Hello", **more: object) -> Mail:
    return Mail(subject=subject, auth=NOTHING, **more)  # type: ignore[arg-type]


LONG = "A letter of some length that a reader sees, about this and that and the weather of the week. "
FIFTY = ("Cc", ", ".join(f"u{n}@x.example" for n in range(60)))
MACHO = b"\xcf\xfa\xed\xfe" + bytes(80)
PE = b"MZ\x90\x00" + bytes(200)

CASES: dict[str, tuple[Mail, Mail]] = {
    "spf_fail": (Mail(auth=FAILS), Mail(auth=proof("fail", ["partner.example"], "pass"))),
    "spf_softfail": (Mail(auth=proof("softfail")), Mail(auth=proof("softfail", ["partner.example"], "pass"))),
    "spf_broken": (Mail(auth=proof("permerror")), Mail(auth=proof("temperror"))),
    "unproved": (Mail(auth=NOTHING), Mail(auth=proof("pass", envelope="bounces.example"))),
    "dkim_failed": (Mail(auth=proof(broken=["partner.example"])), Mail(auth=proof(dkim=["partner.example"], broken=["list.example"]))),
    "dkim_uncovered": (Mail(auth=proof(dkim=["partner.example"], covered=5)), Mail()),
    "dmarc_fail": (Mail(auth=proof("pass", dmarc="fail", policy="none")), Mail(auth=FAILS)),
    "dmarc_quarantine": (Mail(auth=proof(dmarc="fail", policy="quarantine")), Mail(auth=FAILS)),
    "dmarc_reject": (Mail(auth=FAILS), Mail(auth=proof(dmarc="fail", policy="reject", arc="pass"), override="A trusted forwarder sealed it.")),
    "dmarc_pass": (Mail(), Mail(auth=NOTHING)),
    "from_ours": (Mail(from_="boss@ours.example", auth=NOTHING), Mail(from_="boss@ours.example", auth=proof(dkim=["ours.example"]))),
    "no_reverse_dns": (Mail(flaws=("rdns_unconfirmed",)), Mail(host=None, listener="lmtp")),
    "generic_host": (lonely(host="192-0-2-7.pool.isp.example"), lonely(host="mx-7.partner.example")),
    "helo_ip": (Mail(flaws=("helo_ip",)), Mail()),
    "helo_unresolvable": (Mail(flaws=("helo_unresolvable",)), Mail()),
    "helo_ours": (Mail(helo="ours.example"), Mail(helo="ours.example.net")),
    "helo_unqualified": (Mail(flaws=("helo_unqualified",)), Mail(flaws=("helo_ip",))),
    "sender_unresolvable": (Mail(flaws=("sender_unresolvable",)), Mail(flaws=("sender_null_mx",))),
    "sender_null_mx": (Mail(flaws=("sender_null_mx",)), Mail(flaws=("sender_unresolvable",))),
    "early_talker": (Mail(flaws=("early_talker",)), Mail()),
    "session_odd": (Mail(flaws=("spoke_backwards",)), Mail(flaws=("helo_ip",))),
    "date_future": (dated(3), dated(0.5)),
    "date_past": (dated(-20), dated(-400)),
    "date_ancient": (dated(-400), dated(-20)),
    "no_subject": (Mail(subject=""), Mail(subject="x")),
    "shouting": (Mail(subject="BUY THIS THING NOW"), Mail(subject="NATO UNESCO")),
    "fake_reply": (Mail(subject="Re: our call"), Mail(subject="Re: our call", headers=[("In-Reply-To", "<2@ours.example>")])),
    "hidden_characters": (Mail(subject="Acc\u200bount not\u200bice"), Mail(subject="می\u200cخواهم 👨\u200d👩\u200d👧")),
    "mixed_scripts": (Mail(from_="=?utf-8?b?UNCw0YFr?= <a@partner.example>"), Mail(subject="Привет Bob")),
    "not_addressed": (Mail(without=frozenset({"To"})), Mail(without=frozenset({"To"}), reverse_path="")),
    "many_visible": (Mail(headers=[FIFTY]), Mail()),
    "name_address": (Mail(from_='"boss@ours.example" <x@partner.example>'), Mail(from_='"ann@partner.example" <x@mail.partner.example>')),
    "name_brand": (Mail(from_='"PayPal Support Team" <a@partner.example>'), Mail(from_='"Apple Pie Friends" <a@partner.example>')),
    "rank_freemail": (Mail(from_='"Ann Lee, CEO" <ann.lee@gmail.com>'), Mail(from_='"Ann Lee, CEO" <ann.lee@partner.example>')),
    "reply_to_freemail": (Mail(headers=[("Reply-To", "x@gmail.com")]), Mail(headers=[("Reply-To", "x@partner.example")])),
    "bulk_no_unsubscribe": (
        Mail(headers=[("Precedence", "bulk")]),
        Mail(headers=[("Precedence", "bulk"), ("List-Unsubscribe", "<https://partner.example/u>")]),
    ),
    "mailing_list": (
        Mail(headers=[("List-Id", "<x.lists.example>"), ("List-Post", "<mailto:x@lists.example>")]),
        lonely(headers=[("List-Id", "<x.lists.example>"), ("List-Post", "<mailto:x@lists.example>")]),
    ),
    "lookalike": (Mail(from_="a@paypa1.com"), Mail(from_="a@paypal.com")),
    "lookalike_near": (Mail(from_="a@microsofft.com"), Mail(from_="a@macrosystems.com")),
    "lookalike_inside": (Mail(from_="a@paypal-billing.example"), Mail(from_="a@pineapple-billing.example")),
    "lookalike_below": (Mail(from_="a@paypal.com.secure.example"), Mail(from_="a@mail.paypal.com")),
    "link_lookalike": (Mail(text="See https://rnicrosoft.com/login now"), Mail(text="See https://microsoft.com/login now")),
    "link_imitates": (Mail(text="See https://paypal.com.evil.example/x"), Mail(text="See https://www.paypal.com/x")),
    "deceptive_idn": (Mail(text="See https://xn--pple-43d.com/"), Mail(text="See https://xn--bcher-kva.example/")),
    "link_address": (Mail(text="See http://0x7f.1/x"), Mail(text="See http://127.example.com/x")),
    "link_userinfo": (Mail(text="See https://www.bank.example@evil.example/"), Mail(text="See https://ann@partner.example/")),
    "link_mismatch": (
        html(f'{LONG}<a href="https://evil.example/x">www.bank.example</a>'),
        html(f'{LONG}<a href="https://click.esp.example/x">www.partner.example</a> <a href="https://x.example">notes.pdf</a>'),
    ),
    "link_shortener": (Mail(text="See https://bit.ly/abc"), Mail(text="See https://orbit.ly/abc")),
    "link_script": (html(f'{LONG}<a href="javascript:go()">go</a>'), html(f"{LONG}Type javascript:go()")),
    "html_password": (html(f'{LONG}<form><input type="password"></form>'), html(f'{LONG}<form><input type="text"></form>')),
    "html_form": (html(f'{LONG}<form action="https://x.example"><input></form>'), html(f"{LONG}a form")),
    "html_script": (html(f"{LONG}<script>go()</script>"), html(f"{LONG}a script")),
    "html_refresh": (html(f'<meta http-equiv="refresh" content="0;url=https://x.example">{LONG}'), html(f'<meta http-equiv="content-type">{LONG}')),
    "html_hidden": (
        html(f'{LONG}<div style="display:none">{LONG * 8}</div>'),
        html(f'<div style="display:none">{LONG}{"&nbsp;&zwnj;" * 200}</div>{LONG}'),
    ),
    "image_only": (html('<a href="https://x.example"><img src="https://x.example/a.png"></a>'), html(f'<a href="https://x.example"><img src="a.png"></a>{LONG}')),
    "program": (attached("setup.exe"), attached("www.partner.com")),
    "program_disguised": (attached("photo.jpg", PE), attached("setup.exe", PE)),
    "program_inside": (attached("a.zip", zipped("readme.txt", "run.js")), attached("a.zip", zipped("readme.txt"))),
    "double_extension": (attached("invoice.pdf.exe"), attached("jquery.min.js")),
    "turned_name": (attached("invoice_\u202efdp.txt"), attached("חשבון.pdf")),
    "macros": (attached("a.docx", zipped("word/vbaProject.bin")), attached("a.docx", zipped("word/document.xml"))),
    "locked_archive": (attached("a.zip", zipped("a.txt", locked=True)), attached("a.zip", zipped("a.txt"))),
    "locked_password": (
        Mail(text="The password is 1234.", attach=[("a.zip", "application/zip", zipped("a.txt", locked=True))]),
        Mail(text="The password is 1234.", attach=[("a.zip", "application/zip", zipped("a.txt"))]),
    ),
    "page_attached": (attached("invoice.html", b"<html>", "text/html"), attached("notes.txt", b"notes", "text/plain")),
    "gtube": (Mail(text=GTUBE.decode()), Mail(text=GTUBE.decode()[:-1])),
    "advance_fee": (Mail(text="As next of kin you receive the inheritance."), Mail(text="The inheritance was modest.")),
    "advance_fee_plain": (
        Mail(text="My late client, deceased, had no next of kin. As beneficiary you get ten million dollars. Strictly confidential."),
        Mail(text="As next of kin you receive the inheritance."),
    ),
    "account_threat": (Mail(text="Unusual activity: verify your account within 24 hours."), Mail(text="We reply within 24 hours.")),
    "account_threat_unproved": (
        lonely(text="Verify your account: https://x.example/"),
        Mail(text="Verify your account: https://partner.example/"),
    ),
    "extortion": (Mail(text="I hacked your webcam. Pay in bitcoin or I send the video to all your contacts."), Mail(text="The price of bitcoin fell.")),
    "extortion_coin": (
        Mail(text="I recorded you. Pay bitcoin to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa soon."),
        Mail(text="Our bitcoin wallet is 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, thanks."),
    ),
    "pills": (Mail(text="Cheap Viagra for you"), Mail(text="Cheap aspirin for you")),
    "gain": (Mail(text="A passive income is nice."), Mail(text="Double your income. An online casino with free spins.")),
    "gain_plain": (Mail(text="An online casino with free spins."), Mail(text="A passive income is nice.")),
    "errand": (
        Mail(from_="Boss <b@gmail.com>", text="Are you available? I need a gift card."),
        Mail(text="Are you available? I need a gift card."),
    ),
    "split_words": (Mail(text="ver\u200bify yo\u200bur acc\u200bount no\u200bw"), Mail(text="plain words")),
    "mixed_text": (Mail(text="vеrify yоur аccount раssword"), Mail(text="Привет, Bob, как дела with you")),
    "flaw_bad_base64": (Mail(), Mail()),
}  # fmt: skip
del CASES["flaw_bad_base64"]
