"""The receiving side over HTTP: from an address to its emails, their octets, and what changed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from letters import RAW, Letter, item, put
from running import Running

from posthouse.accounts.model import TENANT_SCOPES
from posthouse.storage.search.base import unavailable
from posthouse.storage.search.query import Query

NUMBERS = iter(range(1000))


class Ann:
    """An account of alice's at a domain of its own, by paths below it."""

    def __init__(self, api: Running) -> None:
        self.domain = f"m{next(NUMBERS)}.example"
        self.address = f"ann@{self.domain}"
        self.http = api.alice
        assert self.http.post("/v1/mail-domains", json={"name": self.domain}).status_code == 201
        made = self.http.post("/v1/accounts", json={"address": self.address, "name": "Ann"})
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]

    def get(self, path: str, code: int = 200, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        reply = self.http.get(f"/v1/accounts/{self.id}{path}", params=query, headers=headers)
        assert reply.status_code == code, reply.text
        return reply

    def ask(self, method: str, path: str, body: object = None, code: int = 200) -> Any:
        reply = self.http.request(method, f"/v1/accounts/{self.id}{path}", json=body)
        assert reply.status_code == code, reply.text
        return reply.json() if reply.content else None

    def put(self, raw: bytes, **more: Any) -> dict[str, int]:
        return put(self.http, self.id, item(raw, **more))[0]

    def boxes(self) -> dict[str, dict[str, Any]]:
        return {box["path"]: box for box in self.get("/mailboxes").json()["data"]}


@pytest.fixture
def ann(api: Running) -> Iterator[Ann]:
    yield Ann(api)
    findings = api.run(_findings(api))
    assert findings == []


async def _findings(api: Running) -> list[str]:
    found = [one async for one in api.services.mail.check.all(deep=True)]
    return [f"{one.code}: {one.text}" for one in found if one.subject != "none"]  # `letters` keeps no content


def letter(number: int, answers: int | None = None, subject: str = "Plans", body: str = "Hi.") -> bytes:
    lines = [
        "From: Bob <bob@example.org>",
        f"Subject: {subject}",
        f"Message-ID: <{number}@example.org>",
        f"Date: Sun, 22 Nov 2026 10:{number % 60:02}:00 +0000",
    ]
    if answers is not None:
        lines.append(f"In-Reply-To: <{answers}@example.org>")
    return ("\r\n".join([*lines, "", body, ""])).encode()


# -- domains, accounts, aliases ---------------------------------------------------------------


def test_settings_of_a_mail_domain_are_changed_one_by_one(api: Running, ann: Ann) -> None:
    path = f"/v1/mail-domains/{ann.domain}"
    assert api.alice.patch(path, json={"settings": {"greylist": True}}).json()["settings"]["greylist"] is True
    changed = api.alice.patch(path, json={"settings": {"spam": "refuse", "quota": 5}}).json()["settings"]
    assert changed == {
        "spam": "refuse",
        "dmarc": "follow",
        "greylist": True,
        "plus": "+",
        "quota": 5,
        "quota_all": 0,
    }
    assert api.alice.get(path).json()["settings"] == changed
    refused = api.alice.patch(path, json={"settings": {"plus": "@"}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/settings/plus")
    assert api.alice.delete(path).json()["code"] == "mail_domain_in_use"
    assert api.bob.post("/v1/mail-domains", json={"name": ann.domain}).status_code == 409


def test_an_account_is_changed_and_removed_with_its_mail(api: Running, ann: Ann) -> None:
    ann.put(RAW)
    path = f"/v1/accounts/{ann.address}"
    rule = {"name": "Bills", "when": {"test": "size", "over": 5}, "then": [{"do": "read"}]}
    changed = api.alice.patch(path, json={"name": "Ann Lee", "quota": 10**9, "settings": {"rules": [rule]}}).json()
    assert (changed["name"], changed["quota"], changed["emails"]) == ("Ann Lee", 10**9, 1)
    kept = api.alice.patch(path, json={"settings": {"block": ["@casino.example"], "vacation": {"text": "Away"}}})
    assert kept.json()["settings"]["rules"] == [rule]
    assert kept.json()["settings"]["vacation"] == {"text": "Away"}
    assert api.alice.patch(path, json={"settings": {"vacation": None}}).json()["settings"]["vacation"] is None
    for settings, pointer in (
        ({"rules": [{**rule, "then": [{"do": "fly"}]}]}, "/settings/rules/0/then/0"),
        ({"vacation": {"text": ""}}, "/settings/vacation"),
        ({"allow": ["x"]}, "/settings/allow/0"),
        ({"forward": ["a@b@c"]}, "/settings/forward/0"),
    ):
        refused = api.alice.patch(path, json={"settings": settings})
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["pointer"].startswith(pointer), refused.text
    assert api.alice.delete(path).status_code == 204
    assert api.alice.get(path).json()["code"] == "account_not_found"
    again = api.alice.post("/v1/accounts", json={"address": ann.address})
    assert again.json()["emails"] == 0


def test_a_password_is_checked_kept_as_a_hash_and_never_shown(api: Running, ann: Ann) -> None:
    check = api.services.mail.directory.check_password
    secret = "correct horse battery"
    body = {"address": f"bob@{ann.domain}", "password": secret}
    made = api.alice.post("/v1/accounts", json=body, headers={"Idempotency-Key": f"k-{ann.domain}"})
    again = api.alice.post("/v1/accounts", json=body, headers={"Idempotency-Key": f"k-{ann.domain}"})
    assert again.json() == made.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert secret not in made.text
    assert api.run(check(f"bob@{ann.domain}", secret)).address == f"bob@{ann.domain}"
    short = api.alice.patch(f"/v1/accounts/bob@{ann.domain}", json={"password": "short"})
    assert short.status_code == 422
    assert api.alice.patch(f"/v1/accounts/bob@{ann.domain}", json={"password": None}).status_code == 200
    with pytest.raises(Exception, match="Wrong address or password"):
        api.run(check(f"bob@{ann.domain}", secret))


def test_aliases_lead_somewhere(api: Running, ann: Ann) -> None:
    made = api.alice.post("/v1/aliases", json={"address": f"Sales@{ann.domain}", "targets": [ann.address]})
    assert (made.json()["kind"], made.json()["address"]) == ("alias", f"sales@{ann.domain}")
    other = api.alice.post(
        "/v1/aliases", json={"address": f"sales@{ann.domain}", "targets": [ann.address, "b@example.org"]}
    )
    assert other.json()["kind"] == "group"
    absent = api.alice.post("/v1/aliases", json={"address": f"x@{ann.domain}", "targets": [f"nobody@{ann.domain}"]})
    assert absent.json()["errors"][0]["pointer"] == "/targets/0"
    everything = api.alice.post("/v1/aliases", json={"address": f"@{ann.domain}", "targets": [ann.address]})
    assert everything.json()["kind"] == "catch_all"
    assert api.alice.get(f"/v1/aliases/@{ann.domain}").status_code == 200
    assert api.alice.delete(f"/v1/aliases/sales@{ann.domain}").status_code == 204
    assert api.alice.delete(f"/v1/aliases/sales@{ann.domain}").json()["code"] == "alias_not_found"
    assert api.alice.get("/v1/aliases/none").status_code == 404


def test_a_key_bound_to_a_domain_reaches_its_accounts_only(api: Running, ann: Ann) -> None:
    other = Ann(api)
    api.alice.post("/v1/domains", json={"name": ann.domain})
    body = {"name": "k", "scopes": sorted(TENANT_SCOPES), "domain": ann.domain}
    bound = api.client(api.alice.post("/v1/keys", json=body).json()["secret"])
    assert bound.get(f"/v1/accounts/{ann.id}").status_code == 200
    assert bound.get(f"/v1/accounts/{other.id}").status_code == 404
    assert bound.get(f"/v1/accounts/{other.address}/mailboxes/inbox/emails").status_code == 404
    assert [one["address"] for one in bound.get("/v1/accounts").json()["data"]] == [ann.address]
    assert bound.get("/v1/accounts", params={"domain": other.domain}).json()["data"] == []
    assert [one["name"] for one in bound.get("/v1/mail-domains").json()["data"]] == [ann.domain]
    for path, given in (
        ("/v1/accounts", {"address": f"x@{other.domain}"}),
        ("/v1/aliases", {"address": f"x@{other.domain}", "targets": ["a@example.org"]}),
        ("/v1/mail-domains", {"name": "new.example"}),
    ):
        assert bound.post(path, json=given).json()["code"] == "key_bound"
    assert bound.get("/v1/inbound").json()["code"] == "key_bound"
    assert bound.get("/v1/refusals").json()["code"] == "key_bound"


# -- mailboxes and emails -----------------------------------------------------------------------


def test_mailboxes_make_a_tree_with_counts(ann: Ann) -> None:
    assert [box["role"] for box in ann.boxes().values()] == ["inbox", "drafts", "sent", "archive", "junk", "trash"]
    bills = ann.ask("POST", "/mailboxes", {"name": "Bills"}, 201)
    year = ann.ask("POST", "/mailboxes", {"name": "2026", "parent": bills["id"]}, 201)
    assert year["path"] == "Bills/2026"
    assert ann.ask("PATCH", f"/mailboxes/{bills['id']}", {"name": "Invoices"})["path"] == "Invoices"
    assert "Invoices/2026" in ann.boxes()
    assert ann.ask("POST", "/mailboxes", {"name": "Invoices"}, 409)["code"] == "mailbox_exists"
    assert ann.ask("DELETE", "/mailboxes/inbox", code=409)["code"] == "mailbox_has_role"
    ann.put(RAW, mailboxes=[year["id"]])
    assert ann.boxes()["Invoices/2026"]["unread"] == 1
    assert ann.ask("DELETE", f"/mailboxes/{year['id']}", code=409)["code"] == "mailbox_has_emails"
    ann.ask("DELETE", f"/mailboxes/{year['id']}?emails=trash", code=204)
    assert ann.boxes()["Trash"]["total"] == 1
    assert ann.get("/mailboxes/nonsense", 404).json()["code"] == "mailbox_not_found"


def test_a_page_of_emails_and_one_of_threads(ann: Ann) -> None:
    put(ann.http, ann.id, *(item(letter(n, answers=n - 1 if n % 2 else None, subject=f"S{n // 2}")) for n in range(10)))
    first = ann.get("/mailboxes/inbox/emails", limit=4).json()
    assert (first["total"], len(first["data"])) == (10, 4)
    assert first["data"][0]["senders"] == [{"name": "Bob", "address": "bob@example.org"}]
    assert "emails" not in first["data"][0]
    ids = [one["id"] for one in first["data"]]
    cursor = first["next"]
    while cursor:
        page = ann.get("/mailboxes/inbox/emails", limit=4, cursor=cursor).json()
        ids += [one["id"] for one in page["data"]]
        cursor = page["next"]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 10
    threads = ann.get("/mailboxes/inbox/emails", threads=True).json()
    assert (threads["total"], [one["emails"] for one in threads["data"]]) == (5, [2] * 5)
    wrong = ann.get("/mailboxes/inbox/emails", 422, threads=True, cursor=first["next"])
    assert wrong.json()["code"] == "cursor_invalid"


def test_an_email_tells_what_is_known_of_it(api: Running, ann: Ann) -> None:
    one = Letter(api, ann.address)
    tenant = api.alice.get("/v1/me").json()["tenant"]["id"]
    one.arrived(tenant)
    shown = ann.get(f"/emails/{one.email}", body=True).json()
    assert shown["subject"] == "Grüße"
    assert {"name": "Subject", "value": "Grüße"} in shown["headers"]
    assert shown["from"] == [{"name": "Bob", "address": "bob@example.org"}]
    assert shown["structure"]["type"] == "text/plain"
    assert shown["authentication"]["spf"]["result"] == "pass"
    assert shown["body"] == {"text": "The quick brown fox.\n", "source": "text/plain", "truncated": False}
    assert "body" not in ann.get(f"/emails/{one.email}").json()
    for wrong in ("999", "x", "9" * 40, "-1"):
        assert ann.get(f"/emails/{wrong}", 404).json()["code"] == "email_not_found"


def test_html_alone_is_shown_as_its_words(ann: Ann) -> None:
    raw = b"Content-Type: text/html; charset=utf-8\r\n\r\n<style>p{}</style><p>Hello <b>Ann</b></p><script>x()</script>\r\n"
    made = ann.put(raw)
    body = ann.get(f"/emails/{made['id']}", body=True).json()["body"]
    assert body["source"] == "text/html"
    assert "Hello" in body["text"]
    assert "<" not in body["text"]


def test_keywords_and_mailboxes_change_in_one_step(ann: Ann) -> None:
    ids = [ann.put(letter(n))["id"] for n in range(3)]
    done = ann.ask("PATCH", f"/emails/{ids[0]}", {"mailboxes": ["archive"], "add_keywords": ["$Seen", "work"]})
    assert done["missing"] == []
    assert ann.boxes()["Archive"]["total"] == 1
    assert ann.boxes()["Inbox"]["unread"] == 2
    many = ann.ask(
        "PATCH", "/emails", {"emails": [*ids, 999], "add_mailboxes": ["trash"], "remove_mailboxes": ["inbox"]}
    )
    assert many["missing"] == [999]
    assert (ann.boxes()["Trash"]["total"], ann.boxes()["Inbox"]["total"]) == (3, 0)
    refused = ann.ask("PATCH", f"/emails/{ids[1]}", {"mailboxes": [77], "add_keywords": ["x"]}, 404)
    assert refused["code"] == "mailbox_not_found"
    assert ann.get(f"/emails/{ids[1]}").json()["keywords"] == []
    assert ann.ask("PATCH", f"/emails/{ids[1]}", {"add_keywords": ["a b"]}, 422)["code"] == "keyword"
    assert ann.ask("PATCH", f"/emails/{ids[1]}", {"mailboxes": []}, 422)
    ann.ask("DELETE", f"/emails/{ids[1]}", code=204)
    assert ann.ask("DELETE", f"/emails/{ids[1]}", code=404)["code"] == "email_not_found"
    assert ann.ask("PATCH", f"/emails/{ids[1]}", {"add_keywords": ["x"]}, 404)["code"] == "email_not_found"


# -- octets ---------------------------------------------------------------------------------------


def test_the_raw_email_is_what_came_whole_and_by_range(api: Running, ann: Ann) -> None:
    raw = b"Subject: x\n\xff\r\n\r\nodd \x00 octets" + b"z" * 200_000
    made = ann.put(raw)
    path = f"/emails/{made['id']}/raw"
    whole = ann.get(path)
    assert whole.content == raw
    assert whole.headers["content-type"] == "message/rfc822"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    for asked, got in (
        ("bytes=0-9", raw[:10]),
        ("bytes=5-", raw[5:]),
        ("bytes=-7", raw[-7:]),
        ("bytes=3-3", raw[3:4]),
        (f"bytes=10-{10**12}", raw[10:]),
    ):
        reply = ann.get(path, 206, headers={"Range": asked})
        assert reply.content == got
        assert reply.headers["content-range"].endswith(f"/{len(raw)}")
    assert ann.get(path, 416, headers={"Range": f"bytes={len(raw)}-"}).headers["content-range"] == f"bytes */{len(raw)}"
    for whole_anyway in ("bytes=0-1,3-4", "octets=0-1", "bytes=5-2", "bytes=-"):
        assert ann.get(path, headers={"Range": whole_anyway}).content == raw
    etag = whole.headers["etag"]
    assert ann.get(path, 206, headers={"Range": "bytes=0-0", "If-Range": etag}).content == raw[:1]
    assert ann.get(path, headers={"Range": "bytes=0-0", "If-Range": '"other"'}).content == raw
    assert ann.http.head(f"/v1/accounts/{ann.id}{path}").headers["content-length"] == str(len(raw))
    one = Letter(api, ann.address)
    trace = b"Received: from here\r\nAuthentication-Results: mail.example.com; spf=pass\r\n"
    api.run(api.records.write(lambda tx: tx.run("UPDATE email SET trace = $1 WHERE id = $2", trace, one.email)))
    with_trace = f"/emails/{one.email}/raw"
    assert ann.get(with_trace, trace=True).content == trace + RAW
    assert ann.get(with_trace).content == RAW
    edge = len(trace)
    for start, end in ((0, 3), (edge - 2, edge + 2), (edge, edge + 9), (0, edge + 1), (edge + 4, edge + len(RAW) - 1)):
        got = ann.get(with_trace, 206, headers={"Range": f"bytes={start}-{end}"}, trace=True)
        assert got.content == (trace + RAW)[start : end + 1]


def _mixed(kind: str, data: bytes, name: str, encoding: str = "base64") -> bytes:
    body = base64.encodebytes(data).replace(b"\n", b"\r\n") if encoding == "base64" else data
    return (
        b"Subject: files\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
        b"--b\r\nContent-Type: "
        + kind.encode()
        + b'\r\nContent-Disposition: attachment; filename="'
        + name.encode()
        + b'"\r\nContent-Transfer-Encoding: '
        + encoding.encode()
        + b"\r\n\r\n"
        + body
        + b"\r\n--b--\r\n"
    )


@pytest.mark.parametrize(
    ("kind", "shown", "how"),
    [
        ("image/png", "image/png", "inline"),
        ("text/html", "application/octet-stream", "attachment"),
        ("image/svg+xml", "application/octet-stream", "attachment"),
        ("application/xhtml+xml", "application/octet-stream", "attachment"),
        ("text/javascript", "application/octet-stream", "attachment"),
        ("application/pdf", "application/octet-stream", "attachment"),
        ("text/csv; charset=utf-8", "text/plain; charset=utf-8", "attachment"),
        ('text/plain; charset="x;y"', "text/plain; charset=us-ascii", "attachment"),
        ("message/rfc822", "message/rfc822", "attachment"),
    ],
)
def test_a_part_is_decoded_and_cannot_run(ann: Ann, kind: str, shown: str, how: str) -> None:
    data = bytes(range(256)) * 40
    if kind == "message/rfc822":
        data = RAW
    made = ann.put(_mixed(kind, data, "../..\\Grüße\x07.html", "base64" if kind != "message/rfc822" else "8bit"))
    part = f"/emails/{made['id']}/parts/2"
    reply = ann.get(part)
    assert reply.headers["content-type"] == shown
    assert reply.headers["content-disposition"].startswith(how)
    assert "/" not in reply.headers["content-disposition"].split("filename=")[1].split('"')[1]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.content == data
    some = ann.get(part, 206, headers={"Range": "bytes=100-149"})
    assert some.content == data[100:150]
    assert some.headers["content-range"] == f"bytes 100-149/{len(data)}"
    assert ann.get(f"/emails/{made['id']}/parts/9", 404).json()["code"] == "part_not_found"


# -- conversations, search, changes -----------------------------------------------------------


def test_a_thread_is_split_and_merged(ann: Ann) -> None:
    first = ann.put(letter(1))
    second = ann.put(letter(2, answers=1, subject="Re: Plans"))
    assert second["thread"] == first["thread"]
    shown = ann.get(f"/threads/{first['thread']}").json()
    assert [one["id"] for one in shown["emails"]] == [first["id"], second["id"]]
    assert shown["unread"] == 2
    made = ann.ask("POST", f"/threads/{first['thread']}/split", {"emails": [second["id"]]})
    assert made["thread"] != first["thread"]
    wrong = ann.ask("POST", f"/threads/{first['thread']}/split", {"emails": [first["id"], second["id"]]}, 422)
    assert (wrong["code"], wrong["errors"][0]["pointer"]) == ("not_in_thread", "/emails/1")
    merged = ann.ask("POST", f"/threads/{made['thread']}/merge", {"threads": [first["thread"]]})
    assert merged["thread"] == first["thread"]
    assert len(ann.get(f"/threads/{merged['thread']}").json()["emails"]) == 2
    assert ann.get("/threads/99", 404).json()["code"] == "thread_not_found"
    assert ann.ask("POST", f"/threads/{merged['thread']}/merge", {"threads": [99]}, 404)["code"] == "thread_not_found"


def test_search_says_what_it_left_out(api: Running, ann: Ann, monkeypatch: pytest.MonkeyPatch) -> None:
    from posthouse.storage.search.base import Doc

    ids = [ann.put(letter(n, body=f"A zebra and {n} lions"))["id"] for n in range(3)]
    mail = api.services.mail
    number = api.run(mail.directory.get_account(api.alice.get("/v1/me").json()["tenant"]["id"], ann.id)).number
    docs = [Doc(str(number), str(n), n, text="a zebra") for n in [*ids, 999]]
    api.run(mail.search.index(docs))
    found = ann.get("/search", q="zebra a*", limit=3).json()
    assert [one["id"] for one in found["data"]] == [ids[2], ids[1]]
    assert found["dropped"] == [{"text": "a*", "reason": "short_prefix"}]
    rest = ann.get("/search", q="zebra a*", limit=3, cursor=found["next"]).json()
    assert [one["id"] for one in rest["data"]] == [ids[0]]
    assert ann.get("/search").json()["data"] == []

    async def away(account: str, query: Query, **_: object) -> None:
        raise unavailable("the file is gone")

    monkeypatch.setattr(type(mail.search), "query", staticmethod(away))
    refused = ann.get("/search", 503, q="zebra")
    assert refused.json()["code"] == "search_unavailable"
    assert "gone" not in refused.text
    assert ann.get("/mailboxes/inbox/emails").json()["total"] == 3


def test_changes_lead_from_one_state_to_the_next(ann: Ann) -> None:
    start = ann.get("/changes").json()
    assert start["changes"] == []
    made = ann.put(RAW)
    ann.ask("PATCH", f"/emails/{made['id']}", {"add_keywords": ["$seen"]})
    told = ann.get("/changes", since=start["until"]).json()
    assert ("email", made["id"], "created") in {(one["kind"], one["id"], one["op"]) for one in told["changes"]}
    assert told["more"] is False
    assert ann.get("/changes", since=told["until"]).json()["changes"] == []
    assert ann.get("/changes", 422, since=told["until"] + 1).json()["code"] == "changes_forgotten"


# -- import -----------------------------------------------------------------------------------


def test_an_import_is_repeated_without_harm(ann: Ann) -> None:
    items = [item(letter(n), source="old.mbox", position=100 * (n + 1), mailboxes=["archive"]) for n in range(3)]
    first = put(ann.http, ann.id, *items[:2])
    assert all("id" in one for one in first)
    again = put(ann.http, ann.id, *items)
    assert [bool(one) for one in again] == [False, False, True]
    assert ann.boxes()["Archive"]["total"] == 3
    marks = ann.ask("POST", "/import/marks", {"sources": ["old.mbox", "other"]})
    assert marks == {"positions": {"old.mbox": 300}}
    files = [item(letter(n), source=f"file {n}") for n in range(4)]
    assert len([one for one in put(ann.http, ann.id, *files, files[0]) if one]) == 4
    assert len([one for one in put(ann.http, ann.id, *files) if one]) == 0
    assert ann.boxes()["Inbox"]["total"] == 4


def test_an_import_keeps_time_and_keywords(ann: Ann) -> None:
    made = ann.put(letter(1), keywords=["$SEEN", "$flagged"], received_at="2001-02-03T04:05:06Z")
    shown = ann.get(f"/emails/{made['id']}").json()
    assert (shown["received_at"], shown["keywords"]) == ("2001-02-03T04:05:06.000000Z", ["$flagged", "$seen"])
    told = ann.put(b"Received: by x; Tue, 5 Mar 2019 10:00:00 +0100\r\n" + letter(2))
    assert ann.get(f"/emails/{told['id']}").json()["received_at"] == "2019-03-05T09:00:00.000000Z"
    dated = ann.put(b"Date: Sun, 22 Nov 2009 10:00:00 +0000\r\n\r\nHi\r\n")
    assert ann.get(f"/emails/{dated['id']}").json()["received_at"] == "2009-11-22T10:00:00.000000Z"
    future = ann.put(b"Date: Sun, 22 Nov 2099 10:00:00 +0000\r\n\r\nHi\r\n")
    assert ann.get(f"/emails/{future['id']}").json()["received_at"] < "2099"


def test_an_import_is_bounded_and_all_or_nothing(ann: Ann) -> None:
    big = item(b"Subject: x\r\n\r\n" + b"a" * 5_000_000)
    refused = ann.ask("POST", "/import", {"emails": [big, big]}, 413)
    assert refused["code"] == "body_too_large"
    gone = ann.ask("POST", "/import", {"emails": [item(RAW), item(RAW, mailboxes=["nowhere"])]}, 404)
    assert gone["code"] == "mailbox_not_found"
    alone = b"Subject: x\r\n\r\n" + b"a line of text\r\n" * 2_300_000  # 36.8 MB, as SMTP takes it
    made = ann.put(alone)
    assert ann.get(f"/emails/{made['id']}/raw", 206, headers={"Range": "bytes=-3"}).content == b"t\r\n"
    ann.ask("DELETE", f"/emails/{made['id']}", code=204)
    mixed = ann.ask("POST", "/import", {"emails": [item(RAW), item(RAW, source="x", position=1)]}, 422)
    assert mixed["errors"][0]["pointer"] == "/emails"
    ann.ask("PATCH", "", {"quota": 300})
    full = ann.ask("POST", "/import", {"emails": [item(RAW, source="q", position=n) for n in range(3)]}, 429)
    assert full["code"] == "over_quota"
    assert ann.boxes()["Inbox"]["total"] == 0
    assert ann.ask("POST", "/import/marks", {"sources": ["q"]}) == {"positions": {}}


# -- arrivals and refusals --------------------------------------------------------------------


def test_arrivals_show_each_tenant_its_own_recipients(api: Running, ann: Ann) -> None:
    alice, bob = (client.get("/v1/me").json()["tenant"]["id"] for client in (api.alice, api.bob))
    one = Letter(api, ann.address)
    both = one.arrived(alice, bob)
    alone = one.arrived(alice, state="accepted")
    shown = api.alice.get("/v1/inbound", params={"account": ann.address}).json()["data"]
    assert [entry["id"] for entry in shown] == [alone, both]
    assert shown[1]["recipients"][0]["mailboxes"] == ["Inbox"]
    assert [r["address"] for r in shown[1]["recipients"]] == ["Rcpt0@alices.example"]
    theirs = api.bob.get(f"/v1/inbound/{both}").json()
    assert [r["address"] for r in theirs["recipients"]] == ["Rcpt1@alices.example"]
    assert ann.address not in api.bob.get(f"/v1/inbound/{both}/explain").text
    assert api.bob.get(f"/v1/inbound/{alone}").status_code == 404
    waiting = api.alice.get("/v1/inbound", params={"state": "accepted", "account": ann.id}).json()["data"]
    assert [entry["id"] for entry in waiting] == [alone]
    page = api.alice.get("/v1/inbound", params={"address": "RCPT0@alices.example", "limit": 1}).json()
    assert (page["data"][0]["id"], bool(page["next"])) == (alone, True)
    later = api.alice.get("/v1/inbound", params={"since": "2090-01-01T00:00:00Z"}).json()
    assert later == {"data": [], "next": None}
    told = api.alice.get(f"/v1/inbound/{both}/explain").json()
    assert told["status"] == "stored"
    assert any("It begins a conversation" in one["text"] for one in told["story"])
    assert api.alice.get("/v1/inbound/inb_x").json()["code"] == "arrival_not_found"
    api.run(api.records.write(lambda tx: tx.run("DELETE FROM inbound_rcpt WHERE inbound_id = $1", alone)))


def test_refusals_are_told_to_whom_they_concern(api: Running, ann: Ann) -> None:
    tenant = api.alice.get("/v1/me").json()["tenant"]["id"]
    one = Letter(api, ann.address)
    mine, nobodys = one.refused(tenant), one.refused("")
    assert api.alice.get(f"/v1/refusals/{mine}").json()["reply"].startswith("550")
    assert "550 5.1.1 nobody" in api.alice.get(f"/v1/refusals/{mine}/explain").text
    assert api.bob.get(f"/v1/refusals/{mine}").status_code == 404
    assert api.alice.get(f"/v1/refusals/{nobodys}").status_code == 404
    assert api.operator.get(f"/v1/refusals/{nobodys}/explain").status_code == 200
    found = api.alice.get("/v1/refusals", params={"recipient": "no@ALICES.example", "peer": "192.0.2.9"}).json()["data"]
    assert mine in [entry["id"] for entry in found]
    assert api.alice.get("/v1/refusals", params={"peer": "192.0.2.1"}).json()["data"] == []
    assert api.alice.get("/v1/refusals", params={"foreign": True}).status_code == 403
    foreign = api.operator.get("/v1/refusals", params={"foreign": True}).json()["data"]
    assert nobodys in [entry["id"] for entry in foreign]


def test_a_page_of_the_journal_costs_a_bounded_number_of_rows(
    api: Running, ann: Ann, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posthouse.inbound import journal

    monkeypatch.setattr(journal, "LOOKED_AT", 3)
    tenant = api.alice.get("/v1/me").json()["tenant"]["id"]
    one = Letter(api, ann.address)
    wanted = one.arrived(tenant)
    ids = [one.arrived(tenant, state="discarded") for _ in range(10)]
    found: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        query = {"account": ann.id, "state": "stored", **({"cursor": cursor} if cursor else {})}
        page = api.alice.get("/v1/inbound", params=query).json()
        found += [entry["id"] for entry in page["data"]]
        cursor, pages = page["next"], pages + 1
    assert found == [wanted]
    assert pages > 3
    assert wanted not in ids


# -- upkeep ---------------------------------------------------------------------------------------


def _ended(api: Running, task: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        told = api.operator.get(f"/v1/tasks/{task['id']}").json()
        if told["state"] != "running":
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def test_a_check_finds_and_mends(api: Running, ann: Ann) -> None:
    ann.put(RAW)
    spoil = "UPDATE mailbox SET total = 7 WHERE id = 1 AND account = (SELECT number FROM account WHERE id = $1)"
    api.run(api.records.write(lambda tx: tx.run(spoil, ann.id)))
    told = _ended(api, api.operator.post("/v1/tasks/check", json={}).json())
    assert told["state"] == "done"
    assert told["found"] == 1
    assert any("7" in one["text"] for one in told["findings"])
    mended = _ended(api, api.operator.post("/v1/tasks/check", json={"mend": True, "deep": True}).json())
    assert mended["mended"]
    assert ann.boxes()["Inbox"]["total"] == 1
    assert api.operator.get("/v1/tasks/tsk_none").json()["code"] == "task_not_found"


def test_reindexing_queues_every_email(api: Running, ann: Ann) -> None:
    ann.put(RAW)
    address = f"ops@ops-{ann.domain}"
    api.operator.post("/v1/mail-domains", json={"name": f"ops-{ann.domain}"})
    api.operator.post("/v1/accounts", json={"address": address})
    put(api.operator, address, item(RAW), item(RAW))
    one = _ended(api, api.operator.post(f"/v1/tasks/reindex/{address}", json={}).json())
    assert (one["state"], one["queued"]) == ("done", 2)
    every = _ended(api, api.operator.post("/v1/tasks/reindex", json={}).json())
    assert every["queued"] >= 1
