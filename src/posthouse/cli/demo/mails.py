"""What the demo sends: orders to everybody, sign-in codes in a lane of their own, and people
who write to each other. Addresses are of mailboxes on the demo's server, but for some that
nobody has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posthouse.cli.demo.processes import DOMAIN

PEOPLE = "mail.example"
CAREFUL = "careful.example"
"""Greylists whom it does not know yet."""
NOBODY_EVERY = 50
"""Each 50th order goes to an address that nobody has."""
CAREFUL_EVERY = 20
BATCH = 500
ACCOUNTANT = 2
"""The place in the list of whom the first person's invoices are sent on to."""
FORWARDS = 1
ORDERS = "Orders"
"""The first person's mailbox for them."""
INVOICE = "Invoice 2026-117 for the boat"

SUBJECT = "Your order {{ order }} is on its way, {{ name }}"
HTML = """\
<!DOCTYPE html>
<html><head><title>Your order</title><style>
  body { font-family: sans-serif; color: #222 } td { padding: 4px 12px 4px 0; border-bottom: 1px solid #ddd }
</style></head><body>
<p>Dear {{ name }},</p>
<p>your parcel with order <b>{{ order }}</b> has left our house and should be with you on {{ day }}.</p>
<table>{% for item in items %}<tr><td>{{ item.what }}</td><td>{{ item.price }}</td></tr>{% endfor %}</table>
<p><a href="https://shop.example/orders/{{ order }}">Follow your parcel</a></p>
<p>Warm regards<br>The Shop</p>
</body></html>
"""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_FIRST = ("Ada", "Bjørn", "Chloé", "Dmitrij", "Eleni", "Fatma", "Günther", "Hanako", "Íris", "José")
_LAST = ("Abe", "Berg", "Costa", "Dahl", "Evans", "Fox", "Gray", "Hahn", "Ito", "Jung")
_ASCII = str.maketrans("øéüÍ", "oeuI")


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    address: str

    @property
    def written(self) -> str:
        return f"{self.name} <{self.address}>"


def people(count: int) -> list[Person]:
    """One for each mailbox. Each 20th is at the careful domain; the first never is."""
    found: list[Person] = []
    for number in range(count):
        first, last = _FIRST[number % 10], _LAST[number // 10 % 10]
        suffix = "" if number < 100 else str(number // 100 + 1)
        domain = CAREFUL if number % CAREFUL_EVERY == CAREFUL_EVERY - 1 else PEOPLE
        local = f"{first}.{last}{suffix}".translate(_ASCII).lower()
        found.append(Person(f"{first} {last}", f"{local}@{domain}"))
    return found


def batch(start: int, wanted: int, to: Sequence[Person]) -> dict[str, Any]:
    """Orders from number `start` on, as `POST /v1/messages/batch` takes them."""
    return {
        "from": f"The Shop <orders@{DOMAIN}>",
        "template": "order",
        "stream": "broadcast",
        "recipients": [_order(number, to) for number in range(start, min(start + BATCH, wanted))],
    }


def _order(number: int, to: Sequence[Person]) -> dict[str, Any]:
    person = to[number % len(to)]
    address = f"nobody{number}@{PEOPLE}" if _is_nobodys(number) else person.address
    name = person.name.partition(" ")[0]
    items = [{"what": f"Thing no. {number + n}", "price": f"{(number * 7 + n) % 90 + 9}.90 €"} for n in range(1, 6)]
    variables = {"name": name, "order": f"A-{number:06d}", "day": _DAYS[number % 5], "items": items}
    return {"to": {"email": address, "name": person.name}, "variables": variables}


def urgent(number: int, to: Sequence[Person]) -> dict[str, Any]:
    """A sign-in code, as `POST /v1/messages` takes it."""
    return {
        "from": f"The Shop <security@{DOMAIN}>",
        "to": [to[number % min(len(to), CAREFUL_EVERY - 1)].address],
        "subject": "Your sign-in code",
        "text": f"Your code is {number * 7919 % 1_000_000:06d}.\n",
        "stream": "critical",
    }


def rules(to: Sequence[Person]) -> list[dict[str, Any]]:
    """Of the first person: orders have a mailbox of their own, invoices go to the accountant too."""
    return [
        {
            "name": "Orders",
            "when": {"test": "text", "field": "from", "op": "is", "values": [f"orders@{DOMAIN}"]},
            "then": [{"do": "file", "mailbox": ORDERS}],
        },
        {
            "name": "Invoices",
            "when": {"test": "text", "field": "subject", "op": "starts", "values": ["invoice"]},
            "then": [{"do": "star"}, {"do": "forward", "to": [to[ACCOUNTANT].address]}],
        },
    ]


def nobodys(orders: int) -> int:
    """Of so many orders, those to addresses that nobody has."""
    return (orders + NOBODY_EVERY // 2 - 1) // NOBODY_EVERY


def _is_nobodys(number: int) -> bool:
    return number % NOBODY_EVERY == NOBODY_EVERY // 2


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail of a conversation. `by`, `to`: places in the list of people. `answers`: the
    letter before it in the same conversation that its headers name; None: they name none,
    as those of some phones and gateways do."""

    by: int
    to: tuple[int, ...]
    subject: str
    text: str
    answers: int | None = None


CONVERSATIONS: tuple[tuple[Letter, ...], ...] = (
    (
        Letter(1, (0, 2), "Picnic on Sunday", "Shall we meet at the lake on Sunday, around noon?\n"),
        Letter(2, (0, 1), "Re: Picnic on Sunday", "Yes! I bring bread and cheese.\n", answers=0),
        Letter(
            1,
            (0, 2),
            "Re: Picnic on Sunday",
            "Then I bring plates.\n\n> Yes! I bring bread and cheese.\n",
            answers=1,
        ),
    ),
    (
        Letter(3, (0,), "The broken window in the hall", "The glazier can come on Tuesday or on Thursday. Which?\n"),
        Letter(
            3,
            (0,),
            "AW: The broken window in the hall",
            "He just called: Thursday at nine it is.\n\n> The glazier can come on Tuesday or on Thursday. Which?\n",
        ),
    ),
    (Letter(4, (0,), INVOICE, "Dear Ada, here is the invoice for the boat: 117.00 €.\n"),),
)


def letter(one: Letter, ids: Sequence[str], to: Sequence[Person]) -> dict[str, Any]:
    """:param ids: Message-IDs of the letters before it in its conversation."""
    body: dict[str, Any] = {
        "from": to[one.by % len(to)].written,
        "to": list(dict.fromkeys(to[number % len(to)].address for number in one.to)),
        "subject": one.subject,
        "text": one.text,
    }
    if one.answers is not None:
        body["headers"] = {"In-Reply-To": ids[one.answers], "References": " ".join(ids[: one.answers + 1])}
    return body


def message_id(name: str, one: Letter, to: Sequence[Person]) -> str:
    """The Message-ID of an accepted letter: its id, at its sender's domain."""
    return f"<{name.removeprefix('msg_')}@{to[one.by % len(to)].address.partition('@')[2]}>"
