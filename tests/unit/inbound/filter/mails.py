"""Messages to be judged: built, parsed, with the evidence that the gateway would have left."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from posthouse.clock import from_datetime
from posthouse.inbound.filter.facts import Facts, gather
from posthouse.inbound.filter.rule import reasons
from posthouse.inbound.filter.rules import RULES
from posthouse.inbound.model import Arrival, Evidence, Listing, Recipient, Via
from posthouse.mail.parse import parse, text
from posthouse.mail.parsed import Parsed
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOW = from_datetime(AT)


def proof(
    spf: str = "none",
    dkim: Sequence[str] = (),
    dmarc: str = "none",
    policy: str = "none",
    *,
    envelope: str = "sender.example",
    broken: Sequence[str] = (),
    arc: str = "none",
    covered: int | None = None,
) -> Authentication:
    """`dkim`: domains whose signatures pass; `broken`: those whose do not."""
    signatures = [Dkim("pass", domain, "s", covered=covered) for domain in dkim]
    signatures += [Dkim("fail", domain, "s") for domain in broken]
    disposition = policy if dmarc == "fail" else "none"
    return Authentication(
        Spf(spf, envelope),
        Spf("none", "helo.example", "helo"),
        tuple(signatures),
        Dmarc(dmarc, envelope, policy=policy, disposition=disposition),
        Arc(arc),
    )


@dataclass
class Mail:
    """A message and how it came. `attach`: (name, type, octets)."""

    from_: str = "Ann Lee <ann@partner.example>"
    subject: str = "Lunch on Friday"
    text: str | None = "Hi Bob,\n\nshall we have lunch on Friday? The usual place at noon would suit me.\n\nAnn\n"
    html: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    without: frozenset[str] = frozenset()
    attach: Sequence[tuple[str, str, bytes]] = ()
    auth: Authentication = field(default_factory=lambda: proof("pass", ["partner.example"], "pass"))
    to: str = "bob@ours.example"
    reverse_path: str = "ann@partner.example"
    peer: str = "192.0.2.7"
    host: str | None = "mail.partner.example"
    helo: str = "mail.partner.example"
    listener: str = "mx"
    flaws: tuple[str, ...] = ()
    listings: tuple[Listing, ...] = ()
    junk: str | None = None
    own_junk: str | None = None
    override: str | None = None
    account: int = 7

    def raw(self) -> bytes:
        fields = {
            "From": self.from_,
            "To": "Bob <bob@ours.example>",
            "Subject": self.subject,
            "Date": format_datetime(AT),
            "Message-ID": "<1@partner.example>",
            "MIME-Version": "1.0",
        }
        head = [(name, value) for name, value in fields.items() if name not in self.without]
        lines = [f"{name}: {value}" for name, value in [*head, *self.headers]]
        return ("\r\n".join(lines) + "\r\n").encode() + self._body()

    def _body(self) -> bytes:
        shown = [
            _leaf(kind, content)
            for kind, content in (("text/plain", self.text), ("text/html", self.html))
            if content is not None
        ]
        whole = shown[0] if len(shown) == 1 else _multipart("alternative", shown)
        if self.attach:
            whole = _multipart("mixed", [whole, *(_attached(*one) for one in self.attach)])
        return whole

    def arrival(self) -> Arrival:
        raw = self.raw()
        evidence = Evidence(
            peer=self.peer,
            helo=self.helo,
            host=self.host,
            auth=self.auth,
            listener=self.listener,
            flaws=(*self.flaws, "rdns_none") if self.host is None and self.listener == "mx" else self.flaws,
            listings=self.listings,
            junk=self.junk,
            dmarc_override=self.override,
        )
        recipient = Recipient(0, "ten_1", self.to, self.account, Via(junk=self.own_junk))
        return Arrival("inb_1", NOW, "c", len(raw), self.reverse_path, evidence, b"", (recipient,), raw)

    def pair(self) -> tuple[Arrival, Parsed]:
        arrival = self.arrival()
        return arrival, parse(arrival.raw)

    def facts(self) -> Facts:
        return gather(*self.pair(), text)


def fired(mail: Mail) -> dict[str, str]:
    """Code → sentence of the rules that apply."""
    return {reason.rule: reason.text for reason in reasons(RULES, mail.facts())}


def score(mail: Mail) -> float:
    return round(sum(reason.score for reason in reasons(RULES, mail.facts())), 2)


def _leaf(kind: str, content: str) -> bytes:
    head = f"Content-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    return head.encode() + content.replace("\n", "\r\n").encode()


def _attached(name: str, kind: str, octets: bytes) -> bytes:
    head = (
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; filename*=utf-8''{_percent(name)}\r\n\r\n"
    )
    return head.encode() + base64.encodebytes(octets).replace(b"\n", b"\r\n")


def _percent(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "".join(f"%{o:02X}" for o in c.encode()) for c in name)


def _multipart(kind: str, parts: Sequence[bytes]) -> bytes:
    mark = f"=_{kind}_{len(parts)}"
    head = f'Content-Type: multipart/{kind}; boundary="{mark}"\r\n\r\n'.encode()
    return head + b"".join(f"--{mark}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{mark}--\r\n".encode()
