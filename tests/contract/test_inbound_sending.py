"""What leaves because something came in: written with it, once, and only where it may."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from typing import Any

import dkim
import pytest

from posthouse import clock as clocks
from posthouse.clock import DAY
from posthouse.errors import StorageUnavailable
from posthouse.events.handover import RELAY, Kind
from posthouse.inbound.model import State, Verdict
from posthouse.mailauth.message import Message
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.records.base import Records
from tests.contract.accept_house import codes
from tests.contract.directory_house import ACME
from tests.contract.inbound_house import LETTER, PROVED, UNPROVED, Inn

BOB = "bob@sender.test"
JUNK = Verdict(9.0, True)
VACATION = {"text": "Back on Monday.", "every_days": 3}


@pytest.fixture
async def inn(records: Records, local_blobs: Blobs, clock: Any, checked: None) -> AsyncIterator[Inn]:
    made = await Inn(records, local_blobs, clock).open()
    yield made
    await made.close()


async def refs(inn: Inn) -> dict[str, int]:
    return dict(await inn.post.rows("SELECT key, refs FROM content"))


# -- rules -------------------------------------------------------------------------------------


async def test_a_rule_files_by_the_full_name(inn: Inn) -> None:
    file = {"do": "file", "mailbox": "Work/Bills"}
    ann = await inn.account("ann@acme.test", {"name": "B", "when": {"test": "size", "over": 1}, "then": [file]})
    first = await inn.receive()
    work = await inn.mailboxes.create_mailbox(ann.number, "Work")
    await inn.mailboxes.create_mailbox(ann.number, "Bills", parent=work)
    second = await inn.receive(message=LETTER.replace(b"<1@", b"<2@"))
    assert (await inn.outcome(first)).mailboxes == ("Inbox",)
    assert "no mailbox Work/Bills" in " ".join((await inn.outcome(first)).reasons)
    assert (await inn.outcome(second)).mailboxes == ("Work/Bills",)


# -- forwarding --------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"Hi.\r\n", b"x" * 70 + b"\r\n"], ids=["small", "large"])
@pytest.mark.parametrize("keep", [True, False])
async def test_bytes_go_on_unchanged_behind_our_trace(inn: Inn, keep: bool, body: bytes) -> None:
    await inn.account(forward=("carl@else.test",), keep=keep)
    raw = LETTER + body * (2000 if len(body) > 10 else 1)
    name = await inn.receive(message=raw)
    one, data = await inn.sent()
    assert data.endswith(b"\r\n" + raw)
    ours = email.message_from_bytes(data[: -len(raw)] + b"\r\n")
    assert ours["Delivered-To"] == "ann@acme.test"
    assert "by mx.acme.test" in ours["Received"]
    assert ours["Authentication-Results"].startswith("mx.acme.test")
    assert ours["Return-Path"] is None
    assert (one.kind, one.recipients, one.sender) == (Kind.FORWARD, ("carl@else.test",), BOB)
    assert one.reverse_path.startswith("SRS0=")
    assert one.reverse_path.endswith("=sender.test=bob@acme.test")
    assert inn.srs.reverse(one.reverse_path, inn.clock()) == BOB
    outcome = await inn.outcome(name)
    assert outcome.state is (State.STORED if keep else State.FORWARDED)
    assert outcome.reasons[-1] == f"It goes to carl@else.test as {one.id}."
    assert await inn.post.rows("SELECT id FROM job WHERE stage = $1", RELAY) == [(one.id,)]
    assert {key: count for key, count in (await refs(inn)).items() if count} == {
        one.content: 1,
        **({(await inn.post.rows("SELECT content FROM email"))[0][0]: 1} if keep else {}),
    }


async def test_paths_that_cannot_be_rewritten_become_null_and_null_stays(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",))
    await inn.receive(sender=f"{'b' * 60}@sender.test")
    await inn.receive(sender="")
    assert [one.reverse_path for one in await inn.handed()] == ["", ""]
    assert {one.report_to for one in await inn.handed()} == {None, f"{'b' * 60}@sender.test"}


async def test_an_alias_to_several_elsewhere_is_one_message(inn: Inn) -> None:
    await inn.account()
    await inn.directory.directory.set_alias(ACME, "all@acme.test", ["ann@acme.test", "x@else.test", "y@else.test"])
    name = await inn.receive("all@acme.test")
    one, data = await inn.sent()
    assert set(one.recipients) == {"x@else.test", "y@else.test"}
    assert b"Delivered-To: all@acme.test\r\n" in data
    assert one.written_to == "all@acme.test"
    assert sorted(outcome.state for outcome in await inn.outcomes(name)) == ["forwarded", "forwarded", "stored"]


async def test_a_catch_all_that_leads_elsewhere_sends_on_by_the_address_written_to(inn: Inn) -> None:
    await inn.directory.directory.set_alias(ACME, "@acme.test", ["x@else.test"])
    await inn.receive("Some.One@acme.test")
    _, data = await inn.sent()
    assert b"Delivered-To: some.one@acme.test\r\n" in data


async def test_a_loop_ends_in_the_inbox_or_is_told(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",), keep=False)
    await inn.directory.directory.set_alias(ACME, "sales@acme.test", ["x@else.test"])
    back = b"Delivered-To: ann@acme.test\r\nDelivered-To: sales@acme.test\r\n" + LETTER
    name = await inn.receive(message=back)
    assert (await inn.outcome(name)).state is State.STORED
    assert await inn.handed() == []
    lost = await inn.receive("sales@acme.test", message=back)
    assert (await inn.outcome(lost)).state is State.FAILED
    one, data = await inn.sent()
    assert (one.kind, one.recipients, one.reverse_path, one.sign) == (Kind.REPORT, (BOB,), "", True)
    told = email.message_from_bytes(data)
    assert told["From"] == "Mail Delivery System <postmaster@acme.test>"
    assert told["To"] == BOB
    assert told["In-Reply-To"] == "<1@sender.test>"
    assert b"sales@acme.test" in data
    assert b"else.test" not in data


async def test_junk_is_not_forwarded(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",), keep=False)
    inn.judge.verdict = JUNK
    outcome = await inn.outcome(await inn.receive())
    assert (outcome.state, outcome.mailboxes) == (State.STORED, ("Junk",))
    assert await inn.handed() == []


# -- who is told -------------------------------------------------------------------------------


async def test_a_forward_carries_what_its_sender_may_be_told(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",))
    await inn.receive()
    one, _ = await inn.sent()
    assert one.report_to == BOB
    assert one.header == LETTER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    inn.post.auth = UNPROVED
    await inn.receive(message=LETTER.replace(b"<1@", b"<2@"))
    assert {(one.report_to, bool(one.header)) for one in await inn.handed()} == {(BOB, True), (None, False)}


@pytest.mark.parametrize("auth", [PROVED, UNPROVED], ids=["proved", "unproved"])
async def test_an_account_that_went_is_told_where_the_envelope_was_proved(inn: Inn, auth: Any) -> None:
    await inn.account()
    inn.post.auth = auth
    await inn.post.send("ann@acme.test", message=LETTER, sender=BOB)
    await inn.records.write(lambda tx: tx.run("UPDATE account SET state = 'deleted'"))
    await inn.work()
    ((text, state),) = await inn.post.rows("SELECT outcome, state FROM inbound_rcpt")
    assert state == "failed"
    if auth is PROVED:
        one, data = await inn.sent()
        assert f"{BOB} is told by {one.id}." in text
        assert one.recipients == (BOB,)
        assert b"Final-Recipient: rfc822; ann@acme.test" in data
    else:
        assert await inn.handed() == []
        assert "Nobody was told: nothing proves that it came from there." in text
    assert await inn.post.rows("SELECT refs FROM content WHERE refs <> 0") == [(1,)] * (auth is PROVED)
    await inn.records.write(lambda tx: tx.run("UPDATE account SET state = 'active'"))


# -- bounces of what was sent on ---------------------------------------------------------------


async def test_a_bounce_of_a_forward_goes_back(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",))
    await inn.receive()
    (forward,) = await inn.handed()
    bounce = b"From: mailer-daemon@else.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\nNo.\r\n"
    for path in (forward.reverse_path, forward.reverse_path.lower()):
        before = {one.id for one in await inn.handed()}
        name = await inn.receive(path, message=bounce, sender="")
        (back,) = [one for one in await inn.handed() if one.id not in before]
        assert (back.recipients, back.reverse_path, back.report_to) == ((BOB,), "", None)
        assert (await inn.post.contents.get(back.content)).endswith(bounce)
        assert (await inn.outcome(name)).state is State.FORWARDED


async def test_rewritten_addresses_are_refused_but_for_notices_of_ours_in_time(inn: Inn) -> None:
    await inn.account()
    path = inn.srs.forward(BOB, "acme.test", inn.clock())
    local = path.partition("@")[0]
    forged = path.replace("=bob@", "=eve@")
    assert codes((await inn.post.send(path, sender=BOB))[0]) == ["550 5.7.1"]
    assert codes((await inn.post.send(forged, sender=""))[0]) == ["550 5.1.1"]
    assert codes((await inn.post.send(f"{local}@elsewhere.test", sender=""))[0]) == ["550 5.7.1"]
    assert codes((await inn.post.send(path, sender=""))[0]) == [None]
    inn.clock.advance(23 * DAY / 1_000_000)
    assert codes((await inn.post.send(path, sender=""))[0]) == ["550 5.7.1"]
    await inn.directory.directory.set_alias(ACME, "@acme.test", ["ann@acme.test"])
    assert codes((await inn.post.send(forged, sender=""))[0]) == ["550 5.1.1"]
    await inn.work()


# -- seals -------------------------------------------------------------------------------------


async def test_a_forward_is_sealed_with_the_domain_s_key(inn: Inn) -> None:
    inn.clock.at = clocks.now()  # the peer knows what time it is
    await inn.account(forward=("carl@else.test",))
    await inn.domains.create(ACME, "acme.test")
    await inn.receive()
    _, data = await inn.sent()
    published = {
        one.name: one.value.encode() for one in inn.domains.dns_records(await inn.domains.get(ACME, "acme.test"))
    }
    result, sets, reason = dkim.arc_verify(data, dnsfunc=lambda name, timeout=5: published.get(name.decode()[:-1]))
    assert (result, len(sets)) == (b"pass", 1), reason
    assert Message(data).names[:3] == [b"arc-seal", b"arc-message-signature", b"arc-authentication-results"]
    assert b"spf=pass" in Message(data).fields[2]


async def test_mail_from_our_front_server_is_not_sealed(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",))
    await inn.domains.create(ACME, "acme.test")
    await inn.post.send("ann@acme.test", message=LETTER, sender=BOB, listener="lmtp")
    await inn.work()
    one, data = await inn.sent()
    assert b"ARC-Seal" not in data
    assert one.report_to is None


# -- answers -----------------------------------------------------------------------------------


async def test_a_sender_is_answered_once_in_so_many_days(inn: Inn) -> None:
    await inn.account(vacation=VACATION)
    first = await inn.receive()
    one, data = await inn.sent()
    told = email.message_from_bytes(data)
    assert (one.kind, one.recipients, one.reverse_path, one.sign) == (Kind.ANSWER, (BOB,), "", True)
    assert one.report_to is None
    assert told["Auto-Submitted"] == "auto-replied"
    assert told["From"] == "Ann <ann@acme.test>"
    assert f"An automatic answer goes to {BOB} as {one.id}." in (await inn.outcome(first)).reasons
    second = await inn.receive(message=LETTER.replace(b"<1@", b"<2@"))
    assert len(await inn.handed()) == 1
    assert "No automatic answer: the sender had one within 3 days." in (await inn.outcome(second)).reasons
    inn.clock.advance(3 * 86400)
    await inn.receive(message=LETTER.replace(b"<1@", b"<3@"))
    await inn.receive(message=LETTER.replace(b"<1@", b"<4@"), sender="eve@sender.test")
    assert [one.recipients[0] for one in await inn.handed()] == [BOB, BOB, "eve@sender.test"]


async def test_two_mails_of_one_batch_get_one_answer(inn: Inn) -> None:
    await inn.account(vacation=VACATION)
    for number in (b"<1@", b"<2@", b"<3@"):
        await inn.post.send("ann@acme.test", message=LETTER.replace(b"<1@", number), sender=BOB)
    await inn.work()
    assert len(await inn.handed()) == 1
    assert len(await inn.post.rows("SELECT 1 FROM email")) == 3


async def test_old_answers_are_forgotten(inn: Inn) -> None:
    await inn.account(vacation=VACATION)
    await inn.receive()
    inn.clock.advance(61 * 86400)
    await inn.receive(message=LETTER.replace(b"<1@", b"<2@"), sender="eve@sender.test")
    assert len(await inn.post.rows("SELECT 1 FROM answered")) == 1


# -- repeats -----------------------------------------------------------------------------------


async def test_a_lost_lease_sends_nothing_and_the_next_worker_sends_once(inn: Inn) -> None:
    await inn.account(forward=("carl@else.test",), vacation=VACATION)
    await inn.post.send("ann@acme.test", message=LETTER, sender=BOB)
    mine = await inn.claim()
    inn.clock.advance(61)
    theirs = await inn.claim()
    await inn.store(mine)
    assert await inn.handed() == []
    assert await inn.post.rows("SELECT 1 FROM answered") == []
    await inn.store(theirs)
    await inn.store(theirs)
    assert {one.kind for one in await inn.handed()} == {Kind.FORWARD, Kind.ANSWER}
    assert len(await inn.handed()) == 2
    assert set((await refs(inn)).values()) == {1}


async def test_storage_that_fails_at_the_end_undoes_all(inn: Inn, monkeypatch: pytest.MonkeyPatch) -> None:
    await inn.account(forward=("carl@else.test",), vacation=VACATION)
    await inn.post.send("ann@acme.test", message=LETTER, sender=BOB)

    async def away(*_: object) -> None:
        raise StorageUnavailable(detail="away")

    with monkeypatch.context() as patched:
        patched.setattr(inn.store, "_indexing", away)
        with pytest.raises(StorageUnavailable):
            await inn.work()
    assert await inn.handed() == []
    assert await inn.post.rows("SELECT 1 FROM answered") == []
    inn.clock.advance(61)
    await inn.work()
    assert len(await inn.handed()) == 2
    assert set((await refs(inn)).values()) == {1}


async def test_two_workers_answer_a_sender_once(inn: Inn) -> None:
    await inn.account(vacation=VACATION)
    for number in (b"<1@", b"<2@"):
        await inn.post.send("ann@acme.test", message=LETTER.replace(b"<1@", number), sender=BOB)
    jobs = await inn.claim()
    other = Inn(inn.records, inn.post.blobs, inn.clock)
    await asyncio.gather(inn.store(jobs[:1]), other.store(jobs[1:]))
    await other.close()
    assert len(await inn.handed()) == 1
