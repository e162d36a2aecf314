"""A small generated corpus: kinds of honest mail and kinds of spam, each in some variants."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.unit.inbound.filter.cases import PE, zipped
from tests.unit.inbound.filter.mails import Mail, proof

Kind = Callable[[random.Random], Mail]

FIRMS = ("harbour", "lindenhof", "oakfield", "nordlicht", "brightdesk", "kiosk24", "tabula", "velo-werk")
PEOPLE = ("Ann Lee", "Jürgen Groß", "Chloé Martin", "Paul O'Neill", "Marta Nowak", "李 小龙", "Иван Петров")
TOPICS = ("the garden", "our train", "next week's dinner", "the report", "two photos", "a question about the roof")


def firm(r: random.Random) -> str:
    return f"{r.choice(FIRMS)}.example"


def sentences(r: random.Random, count: int) -> str:
    pool = (
        "we met at the station and walked along the river until it rained",
        "the second part is ready and you will find it in the folder",
        "thank you for your patience while we moved to the new office",
        "the children liked the museum more than they had expected",
        "prices stay as they are until the end of the quarter",
        "let me know whether Tuesday or Thursday suits you better",
    )
    return ". ".join(r.choice(pool).capitalize() for _ in range(count)) + "."


def word(name: str) -> str:
    import base64

    return name if name.isascii() else f"=?utf-8?b?{base64.b64encode(name.encode()).decode()}?="


def personal(r: random.Random) -> Mail:
    name, domain = r.choice(PEOPLE), r.choice(["gmail.com", "web.de", firm(r)])
    return Mail(
        from_=f"{word(name)} <p{r.randrange(99)}@{domain}>",
        subject=r.choice(["", "Re: "]) + r.choice(TOPICS),
        text=f"Hi Bob,\n\n{sentences(r, 4)}\n\n{name}\n",
        auth=proof("pass", [domain], "pass"),
        host=f"mx.{domain}",
    )


def small_server(r: random.Random) -> Mail:
    """An honest person whose server has SPF and nothing else, and a plain name."""
    domain = firm(r)
    return Mail(
        from_=f"ann@{domain}", subject=r.choice(TOPICS), text=sentences(r, 5),
        auth=proof("pass", envelope=domain), host=f"v{r.randrange(900)}.hoster.example",
    )  # fmt: skip


def nothing_set_up(r: random.Random) -> Mail:
    """A machine in somebody's office: no SPF, no DKIM."""
    return Mail(from_=f"scanner@{firm(r)}", subject="Scan from the second floor", text="See the file.", auth=proof(),
                attach=[("scan_001.pdf", "application/pdf", b"%PDF-1.4")])  # fmt: skip


def newsletter(r: random.Random) -> Mail:
    domain = firm(r)
    links = "".join(
        f'<p>{sentences(r, 2)} <a href="https://click.esp.example/c/{n}">{text}</a></p>'
        for n, text in enumerate(["Read more", f"www.{domain}", "Unsubscribe", "View in browser"])
    )
    preheader = f'<div style="display:none;font-size:0">{sentences(r, 1)}{"&nbsp;&zwnj;" * 90}</div>'
    return Mail(
        from_=f"{domain.partition('.')[0].title()} <news@{domain}>", subject="News of November: 20% off",
        text=None if r.random() < 0.3 else f"{sentences(r, 6)} https://click.esp.example/c/1",
        html=f"<html><head><style>p{{margin:0}}</style></head><body>{preheader}{links}<img src='https://esp.example/o.gif'></body></html>",
        headers=[("List-Unsubscribe", "<https://esp.example/u>"), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
                 ("Precedence", "bulk"), ("Reply-To", f"hello@{domain}")],
        auth=proof("pass", [domain, "esp.example"], "pass", envelope="bounce.esp.example"), host="o1.mta.esp.example",
    )  # fmt: skip


def receipt(r: random.Random) -> Mail:
    domain = firm(r)
    return Mail(
        from_=f'"Orders" <noreply@{domain}>', subject=f"Your order {r.randrange(10**6)}",
        text=f"Thank you for your payment. {sentences(r, 2)}\nhttps://{domain}/orders/1",
        html=f'<p>{sentences(r, 3)}</p><a href="https://{domain}/orders/1">https://{domain}/orders/1</a>',
        attach=[("invoice.pdf", "application/pdf", b"%PDF-1.7")], headers=[("Auto-Submitted", "auto-generated")],
        auth=proof("pass", [domain], "pass"),
    )  # fmt: skip


def security_notice(r: random.Random) -> Mail:
    """Honest mail with the words of phishing, proved."""
    return Mail(
        from_='"PayPal" <service@paypal.com>', subject="Unusual activity",
        text="We saw unusual activity. Please verify your account within 24 hours.\nhttps://www.paypal.com/signin",
        html='<p>We saw unusual activity on your account.</p><a href="https://www.paypal.com/signin">Sign in</a>',
        auth=proof("pass", ["paypal.com"], "pass", "reject"), host="mx1.paypal.com",
    )  # fmt: skip


def mailing_list(r: random.Random) -> Mail:
    """The list broke the author's signature; the author's domain asks to refuse."""
    return Mail(
        from_=f"{word(r.choice(PEOPLE))} <a@{firm(r)}>", subject="Re: [dev] release plan", text=sentences(r, 8),
        headers=[("List-Id", "<dev.lists.forge.example>"), ("List-Post", "<mailto:dev@lists.forge.example>"),
                 ("List-Unsubscribe", "<mailto:dev-leave@lists.forge.example>"), ("In-Reply-To", "<9@x.example>"),
                 ("Precedence", "list"), ("To", "dev@lists.forge.example")], without=frozenset({"To"}),
        auth=proof("pass", ["lists.forge.example"], "fail", r.choice(["none", "quarantine", "reject"]),
                   envelope="lists.forge.example", broken=["author.example"]),
    )  # fmt: skip


def forwarded(r: random.Random) -> Mail:
    """By a plain forwarder: SPF fails, the signature survives."""
    domain = firm(r)
    return Mail(from_=f"ann@{domain}", subject=r.choice(TOPICS), text=sentences(r, 3),
                auth=proof("fail", [domain], "pass", envelope=domain), host="out.university.example")  # fmt: skip


def forwarded_unsigned(r: random.Random) -> Mail:
    domain = firm(r)
    return Mail(from_=f"ann@{domain}", subject=r.choice(TOPICS), text=sentences(r, 3),
                auth=proof("softfail", envelope=domain), host="out.university.example")  # fmt: skip


def contact_form(r: random.Random) -> Mail:
    domain = firm(r)
    return Mail(from_=f"website@{domain}", subject="Contact form", text=f"Name: Ann\n{sentences(r, 2)}",
                headers=[("Reply-To", "someone@gmail.com")], auth=proof("pass", envelope=domain))  # fmt: skip


def cron(r: random.Random) -> Mail:
    return Mail(from_="root@db1.nordlicht.example", subject="Cron <root@db1> backup", text="ok\n" * 3,
                without=frozenset({"Message-ID"}), auth=proof("pass", envelope="nordlicht.example"))  # fmt: skip


def bounce(r: random.Random) -> Mail:
    domain = firm(r)
    return Mail(from_=f"Mail Delivery System <mailer-daemon@{domain}>", subject="Undelivered Mail Returned to Sender",
                text="No such user.", reverse_path="", auth=proof(dkim=[domain]))  # fmt: skip


def sources(r: random.Random) -> Mail:
    return Mail(
        subject="the patch", text=sentences(r, 2), attach=[("patch.zip", "application/zip", zipped("a.py", "README"))]
    )


def colleague(r: random.Random) -> Mail:
    return Mail(from_="Carl <carl@ours.example>", subject="Are you available?",
                text="Quick task: the wire transfer for the fair.", auth=proof("pass", ["ours.example"], "pass"))  # fmt: skip


HAM: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        personal, small_server, nothing_set_up, newsletter, receipt, security_notice, mailing_list, forwarded,
        forwarded_unsigned, contact_form, cron, bounce, sources, colleague,
    )
}  # fmt: skip


def throwaway(r: random.Random) -> str:
    return f"{''.join(r.choices('abcdefghkmnprstuvwxz', k=9))}.{r.choice(['top', 'xyz', 'click', 'example'])}"


def phish_brand(r: random.Random) -> Mail:
    domain = throwaway(r)
    return Mail(
        from_=f'"PayPal Support" <service@{domain}>', subject="Your account has been limited",
        text="Verify your account within 24 hours.",
        html=f'<p>Your account has been limited. Verify your account.</p><a href="https://{domain}/x">www.paypal.com/signin</a>',
        auth=r.choice([proof(), proof("pass", envelope=domain)]), host=f"vps.{domain}",
    )  # fmt: skip


def phish_lookalike(r: random.Random) -> Mail:
    domain = r.choice(["paypa1.com", "rnicrosoft.com", "xn--pple-43d.com", "arnazon.com"])
    return Mail(
        from_=f"Service <no-reply@{domain}>", subject="Password expires",
        text=f"Your password expires. Keep current password: https://{domain}/login", auth=proof("pass", [domain], "pass"),
    )  # fmt: skip


def phish_form(r: random.Random) -> Mail:
    domain = throwaway(r)
    return Mail(
        from_=f'"Mailbox helpdesk" <help@{domain}>', subject="MAILBOX QUOTA EXCEEDED",
        text=None,
        html="<p>Your mailbox is full. Validate your account.</p>"
        '<form action="http://192.0.2.9/p"><input type="password"></form>',
        auth=proof("softfail"), host=None,
    )  # fmt: skip


def spoofed_ours(r: random.Random) -> Mail:
    return Mail(
        from_="IT <admin@ours.example>", subject="Password expires today", text="Your password expires: http://192.0.2.8/ours",
        auth=proof("fail", envelope="ours.example"), host="192-0-2-7.pool.isp.example", helo="ours.example",
    )  # fmt: skip


def spoofed_dmarc(r: random.Random) -> Mail:
    return Mail(
        from_="Bank <service@bank.example>", subject="Account suspended", text="Account suspended: https://bit.ly/x1",
        auth=proof("fail", dmarc="fail", policy="reject"), host=None,
    )  # fmt: skip


def advance_fee(r: random.Random) -> Mail:
    return Mail(
        from_=f'"Barrister {r.choice(PEOPLE[3:4])}" <office@{throwaway(r)}>', subject="CONFIDENTIAL PROPOSAL",
        text="I am the lawyer of a deceased client who had no next of kin. As beneficiary you receive the inheritance of "
        "ten million dollars. This is strictly confidential. God bless you.",
        headers=[("Reply-To", "barrister.x@gmail.com")], auth=r.choice([proof("pass"), proof()]), to="bob@ours.example",
        without=frozenset({"To"}),
    )  # fmt: skip


def sextortion(r: random.Random) -> Mail:
    return Mail(
        from_="you@ours.example", subject="I know your password",
        text="I hacked your device and recorded you through your webcam on an adult site. Pay 900 USD in bitcoin to "
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq or I send the video to all your contacts. You have 48 hours.",
        auth=r.choice([proof(), proof("softfail")]), host=None,
    )  # fmt: skip


def ceo_fraud(r: random.Random) -> Mail:
    return Mail(
        from_=f'"Dana Wolf, CEO" <d.wolf.office{r.randrange(99)}@gmail.com>', subject="Urgent request",
        text="Are you available? I am in a meeting. I need a gift card for a client, keep this confidential.",
        auth=proof("pass", ["gmail.com"], "pass"), host="mail-wr1.google.com",
    )  # fmt: skip


def malware(r: random.Random) -> Mail:
    name, octets = r.choice(
        [
            ("invoice.pdf.exe", PE),
            ("photo.jpg", PE),
            ("order.zip", zipped("order.js")),
            ("scan.iso", b"x" * 99),
            ("a.lnk", b"L"),
        ]
    )
    return Mail(from_=f"Accounts <a@{throwaway(r)}>", subject="Re: invoice", text="See the file.",
                attach=[(name, "application/octet-stream", octets)], auth=proof("softfail"))  # fmt: skip


def locked_malware(r: random.Random) -> Mail:
    return Mail(from_=f"a@{throwaway(r)}", subject="Fwd: documents", text="Open the archive. The password is 2211.",
                attach=[("documents.zip", "application/zip", zipped("documents.docx", locked=True))], auth=proof(), host=None)  # fmt: skip


def pills(r: random.Random) -> Mail:
    domain = throwaway(r)
    return Mail(
        from_=f"Health <h@{domain}>", subject="V\u200bia\u200bgra on sale", text=f"Viagra, Cialis, no prescription http://{domain}",
        auth=r.choice([proof("pass"), proof()]), headers=[("Precedence", "bulk")], host=None, flaws=("helo_unresolvable",),
    )  # fmt: skip


def image_spam(r: random.Random) -> Mail:
    domain = throwaway(r)
    return Mail(
        from_=f"Casino <c@{domain}>", subject="FREE SPINS FOR YOU", text=None,
        html=f'<a href="http://bit.ly/zz"><img src="http://{domain}/a.png"></a><p style="font-size:0">{sentences(r, 12)}</p>',
        auth=proof(), host="dyn-7.pool.isp.example", without=frozenset({"Message-ID"}),
    )  # fmt: skip


def casino(r: random.Random) -> Mail:
    domain = throwaway(r)
    return Mail(
        from_=f"Win <w@{domain}>", subject="Your bonus", text=f"Online casino: free spins, no deposit bonus http://{domain}/b",
        auth=proof("softfail"), host=None, headers=[("Precedence", "bulk")],
    )  # fmt: skip


def hidden_words(r: random.Random) -> Mail:
    return Mail(
        from_=f'"security@bank.example" <x@{throwaway(r)}>', subject="Аccount nоtice",
        text="ver\u200bify yo\u200bur acc\u200bount no\u200bw: https://www.bank.example@evil.example/", auth=proof(), host=None,
    )  # fmt: skip


SPAM: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        phish_brand, phish_lookalike, phish_form, spoofed_ours, spoofed_dmarc, advance_fee, sextortion, ceo_fraud,
        malware, locked_malware, pills, image_spam, casino, hidden_words,
    )
}  # fmt: skip


def variants(kind: Kind, count: int) -> Iterator[Mail]:
    for n in range(count):
        yield kind(random.Random(f"{kind.__name__}{n}"))
