"""The demo's side of the API: it furnishes the house before the mail comes, asks how far it is,
and reads in it afterwards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from posthouse.cli.demo import mails
from posthouse.cli.demo.check import public_keys
from posthouse.cli.demo.dns import Dns, quoted
from posthouse.cli.demo.mails import CAREFUL, PEOPLE, Person
from posthouse.cli.demo.processes import DOMAIN, HOST, Failed

_PAGE = 200
_SHOWN = 10
SEARCHED = "glazier thursday"
_ARRIVAL = re.compile(r"\binb_[0-9a-f]{32}\b")

Json = Mapping[str, Any]


# Before.


def furnish(http: httpx.Client, domain: Json, dns: Dns, people: Sequence[Person]) -> dict[str, str]:
    """Domains with their DNS records, a template, mailboxes with some rules; the public keys
    that signatures are checked with, by selector.

    :param domain: `DOMAIN`, as `posthouse init` told it.
    :raises Failed: a domain's records are not found to be right.
    """
    folk = _post(http, "/v1/domains", {"name": PEOPLE})
    _publish(dns, [domain, folk])
    for name in (DOMAIN, PEOPLE):
        checks = _post(http, f"/v1/domains/{name}/verify", {})["checks"]
        if wrong := [f"{one['purpose']}: {one['found']}" for one in checks if not one["ok"]]:
            raise Failed(f"The DNS records of {name} are not right: {', '.join(wrong)}")
    _post(http, "/v1/templates", {"name": "order", "subject": mails.SUBJECT, "html": mails.HTML})
    _post(http, "/v1/mail-domains", {"name": PEOPLE})
    _post(http, "/v1/mail-domains", {"name": CAREFUL, "settings": {"greylist": True}})
    for number, person in enumerate(people):
        rules = mails.rules(people) if number == 0 else []
        _post(http, "/v1/accounts", {"address": person.address, "name": person.name, "settings": {"rules": rules}})
    _post(http, f"/v1/accounts/{people[0].address}/mailboxes", {"name": mails.ORDERS})
    return public_keys(domain) | public_keys(folk)


def _publish(dns: Dns, domains: Sequence[Json]) -> None:
    """What `/v1/domains` asks for, with the strictest DMARC policy; and the host itself."""
    for domain in domains:
        for one in domain["records"]:
            value = "v=DMARC1; p=reject" if one["purpose"] == "dmarc" else one["value"]
            dns.publish(one["name"], one["type"], quoted(value) if one["type"] == "TXT" else value)
    dns.publish(HOST, "A", "127.0.0.1")
    dns.publish(HOST, "TXT", quoted("v=spf1 a -all"))
    dns.publish("1.0.0.127.in-addr.arpa", "PTR", HOST)
    for name in (DOMAIN, PEOPLE, CAREFUL):
        dns.publish(name, "MX", f"10 {HOST}")


# While.


def waiting(http: httpx.Client) -> int:
    """Jobs in all queues; what is in flight counts. For the operator."""
    depths = _get(http, "/v1/queue")["depths"]
    return sum(depth["ready"] + depth["delayed"] for depth in depths)


def stored(http: httpx.Client) -> int:
    """Emails in all mailboxes."""
    return sum(account["emails"] for account in every(http, "/v1/accounts"))


# After.


@dataclass(frozen=True, slots=True)
class Rooms:
    """What is shown of one person's mail, as the API tells it. `out`, `back`: the story of one
    mail on its way out, and of its arrival, with `authentication`; None when there is none.
    `rules`: what the person's own rules did to the invoice, in sentences."""

    person: Person
    mailboxes: list[Json]
    inbox: list[Json]
    found: list[Json]
    out: Json | None
    back: Json | None
    authentication: Json | None
    rules: list[str]


def look(http: httpx.Client, person: Person, story: Json | None, invoice: Json | None) -> Rooms:
    """:param story: a delivered message of the ledger, to be explained. :param invoice: as `mails.INVOICE`."""
    account = f"/v1/accounts/{person.address}"
    inbox = _get(http, f"{account}/mailboxes/inbox/emails", threads="true", limit=_SHOWN)["data"]
    arrival = _arrival(story) if story is not None else None
    return Rooms(
        person,
        [box for box in _get(http, f"{account}/mailboxes")["data"] if box["total"]],
        inbox,
        _get(http, f"{account}/search", q=SEARCHED)["data"],
        _get(http, f"/v1/messages/{story['id']}/explain") if story is not None else None,
        _get(http, f"/v1/inbound/{arrival}/explain") if arrival else None,
        _get(http, f"/v1/inbound/{arrival}")["evidence"]["auth"] if arrival else None,
        _reasons(http, invoice),
    )


def _reasons(http: httpx.Client, message: Json | None) -> list[str]:
    arrival = _arrival(message) if message is not None else None
    found = _get(http, f"/v1/inbound/{arrival}")["recipients"] if arrival else []
    return [sentence for one in found for sentence in one.get("reasons", [])]


def _arrival(message: Json) -> str | None:
    """The id of its arrival, which the receiving side gave with its 250."""
    for recipient in message["recipients"]:
        if found := _ARRIVAL.search((recipient.get("reply") or {}).get("text", "")):
            return found[0]
    return None


def every(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All pages of a list."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = _get(http, path, limit=_PAGE, **({} if cursor is None else {"cursor": cursor}))
        rows.extend(page["data"])
        cursor = page["next"]
        if cursor is None:
            return rows


def _get(http: httpx.Client, path: str, **query: str | int) -> Any:
    return http.get(path, params=query).raise_for_status().json()


def _post(http: httpx.Client, path: str, body: object) -> Any:
    return http.post(path, json=body).raise_for_status().json()
