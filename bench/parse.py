"""Messages parsed in a second, beside the standard email package and fast-mail-parser (Rust, the
fastest that the registry has). The two are asked for what they can say of subject, addresses,
date, parts, text and a preview; neither says where a part lies, which parts show the message, or
what is wrong with it.

    python -m bench parse [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import email
import email.policy
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage

import fast_mail_parser

from bench.report import Report, main
from posthouse.mail.address import mailbox
from posthouse.mail.build import Attachment, Content, Headers, build
from posthouse.mail.parse import parse

_TRACE = (
    b"Return-Path: <bounce@mail.example.com>\r\n"
    b"Received: from mx1.example.org (mx1.example.org [192.0.2.7])\r\n\tby store.example.org with LMTP id aB3dEf;\r\n"
    b"\tMon, 02 Jan 2023 10:00:02 +0000 (UTC)\r\n"
    b"Received: from out.example.com (out.example.com [198.51.100.9])\r\n"
    b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
    b"\tby mx1.example.org (Postfix) with ESMTPS id 4NlqWx0cQmz9\r\n"
    b"\tfor <user@example.org>; Mon, 02 Jan 2023 10:00:01 +0000 (UTC)\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n"
    b" h=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n"
    b" b=" + b"dGhpcyBpcyBub3QgYSBzaWduYXR1cmUsIGJ1dCBhcyBsb25nIGFzIG9uZSBvZiBSU0EtMjA0OA" * 4 + b"\r\n"
    b"X-Mailer: Mailer 5.1\r\nList-Unsubscribe: <https://example.com/u/1>\r\n"
)
_WORDS = (
    "the parcel left our house today and will be with you soon follow it change day or send to neighbour please see"
    " meeting notes attached let me know what you think regards order number invoice total für grüße straße naïve"
).split()


def corpus(seed: int = 7) -> dict[str, list[bytes]]:
    """Kind → messages: what a mailbox gets, in about its proportions."""
    dice = random.Random(seed)
    kinds: dict[str, tuple[int, Callable[[random.Random], Content]]] = {
        "plain": (60, lambda dice: Content(text=_prose(dice, 3500))),
        "alternative": (60, lambda dice: _both(dice, 1200, 2600)),
        "newsletter": (30, lambda dice: _both(dice, 3000, 40_000)),
        "attachment": (20, _with_attachment),
        "forwarded": (10, _with_message),
    }
    return {
        kind: [_message(dice, number, make(dice)) for number in range(count)] for kind, (count, make) in kinds.items()
    }


def _prose(dice: random.Random, size: int) -> str:
    lines: list[str] = []
    while size > 0:
        lines.append(" ".join(dice.choice(_WORDS) for _ in range(11)))
        size -= len(lines[-1]) + 1
    return "\n".join(lines)


def _both(dice: random.Random, text: int, html: int) -> Content:
    rows = [f'<tr><td style="padding:4px 8px;color:#333333">{_prose(dice, 60)}</td></tr>\n' for _ in range(html // 125)]
    page = f"<!DOCTYPE html>\n<html><head><title>x</title></head><body><table>\n{''.join(rows)}</table></body></html>\n"
    return Content(text=_prose(dice, text), html=page)


def _with_attachment(dice: random.Random) -> Content:
    both = _both(dice, 1000, 2000)
    paper = Attachment("Rechnung für März.pdf", "application/pdf", dice.randbytes(60_000))
    return Content(text=both.text, html=both.html, attachments=(paper,))


def _with_message(dice: random.Random) -> Content:
    inner = _message(dice, 0, _both(dice, 1000, 2000))
    return Content(text=_prose(dice, 500), attachments=(Attachment("mail.eml", "message/rfc822", inner),))


def _message(dice: random.Random, number: int, content: Content) -> bytes:
    headers = Headers(
        from_=mailbox("ann@example.com", "Ann Müller" if number % 2 else "Ann Lee"),
        to=tuple(mailbox(f"user{n}@example.org", f"User {n}") for n in range(1 + number % 3)),
        subject=("Grüße: " if number % 3 == 0 else "Re: ") + _prose(dice, 30),
        date=datetime.fromtimestamp(1_700_000_000 + number, UTC),
        message_id=f"<{number}.{dice.random()}@example.com>",
    )
    return _TRACE + build(headers, content, seed=str(number))


def standard(message: bytes) -> object:
    """The same answers from the standard library, as its documentation has it."""
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    people = [
        (each.display_name, each.addr_spec)
        for name in ("From", "Sender", "Reply-To", "To", "Cc", "Bcc")
        for value in parsed.get_all(name, [])
        for each in value.addresses
    ]
    parts = [
        (part.get_content_type(), part.get_content_charset(), part.get_content_disposition(), part.get_filename())
        for part in parsed.walk()
    ]
    shown = parsed.get_body(("plain", "html"))
    text = shown.get_content() if shown is not None else ""
    preview = " ".join(str(text)[:1024].split())[:256]
    return str(parsed["Subject"]), parsed["Date"].datetime, parsed["Message-ID"], people, parts, preview


def rust(message: bytes) -> object:
    """The same answers from fast-mail-parser."""
    parsed = fast_mail_parser.parse_email(message)
    senders = [parsed.from_] if parsed.from_ is not None else []
    people = [
        (each.display_name, each.address)
        for group in (senders, parsed.reply_to, parsed.to, parsed.cc)
        for each in group
    ]
    shown = (parsed.text_plain or parsed.text_html or [""])[0]
    preview = " ".join(shown[:1024].split())[:256]
    return parsed.subject, parsed.date_parsed, people, [each.filename for each in parsed.attachments], preview


def per_message(function: Callable[[bytes], object], messages: list[bytes], rounds: int) -> float:
    """Seconds a message. Each one's best of the rounds counts: what else runs only adds."""
    total = 0.0
    for message in messages:
        best = float("inf")
        for _ in range(rounds):
            started = time.perf_counter()
            function(message)
            best = min(best, time.perf_counter() - started)
        total += best
    return total / len(messages)


def measure(arguments: argparse.Namespace) -> Report:
    """Messages parsed in a second, by one process."""
    kinds = corpus()
    every = [message for messages in kinds.values() for message in messages]
    ours = per_message(parse, every, arguments.rounds)
    theirs = per_message(standard, every, max(arguments.rounds // 5, 1))
    fastest = per_message(rust, every, arguments.rounds)
    figures: dict[str, float | str] = {
        "ratio_standard": theirs / ours,
        "ratio_fast_mail_parser": fastest / ours,
        "per_second": 1 / ours,
        "per_second_standard": 1 / theirs,
        "per_second_fast_mail_parser": 1 / fastest,
        "mb_per_second": sum(map(len, every)) / len(every) / ours / 1e6,
    }
    for kind, messages in kinds.items():
        figures[f"{kind}_us"] = per_message(parse, messages, arguments.rounds) * 1e6
    return Report("parse", figures, {"plain_us": ("<", 70), "alternative_us": ("<", 120)})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=20)


if __name__ == "__main__":
    main(measure, options)
