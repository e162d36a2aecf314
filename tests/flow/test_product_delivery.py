"""From the HTTP API to the recipient's server: what arrives, when, and what is told about it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dkim
import pytest
from house import DOMAIN, house, read, sink


def _published(domain: dict[str, Any]) -> Any:
    records = {f"{record['name']}.".encode(): record["value"].encode() for record in domain["records"]}

    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name)

    return txt


async def test_what_was_put_in_is_what_arrives(tmp_path: Path) -> None:
    picture, paper = bytes(range(256)) * 40, "Ümläut 📎".encode() * 100
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        name = await post.send(
            ["Bób <bob@there.example>"],
            cc=["carol@there.example"],
            bcc=["dave@there.example"],
            reply_to=["help@sender.example"],
            subject="Grüße ✉ an alle, die diesen sehr langen Betreff lesen mögen, der umbrochen werden muss",
            text="Plain text, ünïcode, and a long line: " + "x" * 2000 + "\n.\nEnd\n",
            html='<p>Rich <b>text</b> 漢字</p><img src="cid:logo">',
            headers={"X-Order": "42"},
            attachments=[
                {
                    "filename": "logo.png",
                    "content": b64encode(picture).decode(),
                    "content_type": "image/png",
                    "content_id": "logo",
                },
                {"filename": "Bräf €.pdf", "content": b64encode(paper).decode(), "content_type": "application/pdf"},
            ],
        )
        await post.until(name, "delivered")
        kept = list(peer.messages)
    assert sorted(address for one in kept for address in one.entry.to) == [
        f"{who}@there.example" for who in ("bob", "carol", "dave")
    ]
    message = read(kept[0].data)
    assert message["Subject"].startswith("Grüße ✉ an alle")
    assert message["To"].addresses[0].display_name == "Bób"
    assert message["Cc"].addresses[0].addr_spec == "carol@there.example"
    assert message["Bcc"] is None
    assert message["X-Order"] == "42"
    assert b"dave" not in kept[0].data
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n").endswith("x" * 2000 + "\n.\nEnd\n")
    assert "漢字" in html.get_content()
    parts = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert parts["logo.png"].get_content() == picture
    assert parts["logo.png"]["Content-ID"].strip("<>").startswith("logo")
    assert parts["Bräf €.pdf"].get_content() == paper


async def test_signatures_are_good_by_the_published_keys(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        body = {
            "name": "news",
            "subject": "News for {{ name }}",
            "html": "<style>p { color: red }</style><p>Dear {{ name }}: {{ what }}</p>",
        }
        await post.post("/v1/templates", body)
        people = [
            {"to": f"n{n}@there.example", "variables": {"name": f"Nö {n} <&>", "what": "✓ " * n}} for n in range(30)
        ]
        answer = await post.post(
            "/v1/messages/batch",
            {"from": f"ann@{DOMAIN}", "template": "news", "stream": "broadcast", "recipients": people},
            202,
        )
        for result in answer["results"]:
            await post.until(result["id"], "delivered")
        kept, published = list(peer.messages), _published(post.domain)
    assert len(kept) == 30
    assert {read(one.data)["Subject"] for one in kept} == {f"News for Nö {n} <&>" for n in range(30)}
    for one in kept:
        checker = dkim.DKIM(one.data)
        assert checker.verify(0, dnsfunc=published)
        assert checker.verify(1, dnsfunc=published)
        html = read(one.data).get_body(("html",))
        assert html is not None
        assert 'style="color: red' in html.get_content()
        assert "&lt;&amp;&gt;" in html.get_content()


async def test_a_batch_of_independent_messages_fails_one_by_one(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        good = {"from": f"a@{DOMAIN}", "to": ["b@there.example"], "subject": "Hi", "text": "Hi\n"}
        bad = {**good, "to": ["not an address"]}
        answer = await post.post("/v1/messages/batch", {"messages": [good, bad, good]}, 202)
        assert answer["results"][1]["error"]["errors"][0]["pointer"] == "/messages/1/to/0"
        for place in (0, 2):
            await post.until(answer["results"][place]["id"], "delivered")
        refused = await post.post("/v1/messages/batch", {"messages": [good, bad], "all_or_nothing": True}, 422)
        assert refused["code"] == "batch_refused"
        assert peer.counts.accepted == 2


async def test_scheduled_moved_and_canceled(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        moved, canceled = (
            await post.send("m@there.example", send_at=later),
            await post.send("c@there.example", send_at=later),
        )
        assert (await post.get(f"/v1/messages/{moved}"))["status"] == "scheduled"
        assert (await post.post(f"/v1/messages/{canceled}/cancel"))["status"] == "canceled"
        soon = (datetime.now(UTC) + timedelta(seconds=0.4)).isoformat()
        assert (await post.http.patch(f"/v1/messages/{moved}", json={"send_at": soon})).status_code == 200
        await post.until(moved, "delivered")
        assert [entry.entry.to for entry in peer.messages] == [["m@there.example"]]
        assert (await post.post(f"/v1/messages/{moved}/cancel", status=409))["code"] == "message_final"
        assert "Canceled through the API" in await post.story(canceled)
        assert "Put to " in await post.story(moved)


async def test_suppression_before_the_attempt_and_by_evidence(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        await post.post("/v1/suppressions", {"address": "no@there.example", "reason": "unsubscribe"})
        stopped = await post.send("no@there.example")
        assert (await post.until(stopped))["status"] == "suppressed"
        assert "unsubscribe" in await post.story(stopped)
        gone = await post.send("bounce-550-5.1.1@there.example")
        message = await post.until(gone, "bounced")
        assert message["recipients"][0]["reply"]["enhanced"] == "5.1.1"
        assert "does not exist" in await post.story(gone)
        again = await post.send("bounce-550-5.1.1@there.example")
        assert (await post.until(again))["status"] == "suppressed"
        held = await post.get("/v1/suppressions/bounce-550-5.1.1@there.example")
        assert "550 5.1.1" in str(held)
        refused = await post.send("bounce-550-5.7.1@there.example")
        await post.until(refused, "bounced")
        other = await post.send("bounce-550-5.7.1@there.example")
        assert (await post.until(other))["status"] == "bounced", "a policy refusal says nothing about the address"


@pytest.mark.parametrize(
    ("address", "said"), [("defer-2@there.example", "451 4.3.0"), ("greylist-1@there.example", "4.7.1")]
)
async def test_refused_for_now_then_delivered(tmp_path: Path, address: str, said: str) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        name = await post.send(address)
        message = await post.until(name, "delivered")
        assert message["recipients"][0]["attempts"] >= 2
        story = await post.story(name)
        assert said in story
        assert "Next attempt at" in story
        types = [event["type"] for event in await post.events(name)]
        assert types[:3] == ["accepted", "rendered", "deferred"]
        assert types[-1] == "delivered"


async def test_one_message_to_many_is_told_recipient_by_recipient(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        name = await post.send(["ok@there.example", "bounce@there.example", "defer-1@there.example"])
        end = asyncio.get_running_loop().time() + 20
        while True:
            states = {
                r["address"].partition("@")[0]: r["status"]
                for r in (await post.get(f"/v1/messages/{name}"))["recipients"]
            }
            if states == {"ok": "delivered", "bounce": "bounced", "defer-1": "delivered"}:
                break
            assert asyncio.get_running_loop().time() < end, states
            await asyncio.sleep(0.05)
        sent = [address for one in peer.messages for address in one.entry.to]
        assert sorted(sent) == ["defer-1@there.example", "ok@there.example"]
        types = [event["type"] for event in await post.events(name)]
        assert types.count("delivered") == 2
        assert types.count("bounced") == 1


async def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    async with sink() as peer, house(tmp_path, sink=peer) as post:
        name = await post.send("a@there.example")
        await post.until(name, "delivered")
        other = await post.post("/v1/tenants", {"name": "second"})
        made = await post.http.post(f"/v1/tenants/{other['id']}/keys", json={"name": "k", "scopes": ["send", "read"]})
        assert made.status_code < 300, made.text
        headers = {"Authorization": f"Bearer {made.json()['secret']}"}
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/explain"),
            ("GET", "/content"),
            ("POST", "/cancel"),
        ):
            answer = await post.http.request(method, f"/v1/messages/{name}{path}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")
        assert (await post.http.get("/v1/messages", headers=headers)).json()["data"] == []


async def test_the_content_shown_is_what_was_sent(tmp_path: Path) -> None:
    async with sink(tls=False) as peer, house(tmp_path, sink=peer) as post:
        name = await post.send("a@there.example")
        await post.until(name, "delivered")
        shown = (await post.http.get(f"/v1/messages/{name}/content")).content
        assert shown == peer.messages[0].data
        metrics = (await post.http.get("/metrics")).text
        for metric in ("posthouse_accepted_total", "posthouse_outcomes_total", "posthouse_delivery_seconds_bucket"):
            assert metric in metrics
        assert "there.example" not in metrics
