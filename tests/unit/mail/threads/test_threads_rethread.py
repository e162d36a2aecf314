"""One partition, whatever the order, and what people decided."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus.judge import Account
from thread_mails import ANN, BOB, OWNER, candidate, keys, parsed

from posthouse.mail.parsed import Parsed
from posthouse.mail.threads import Candidate, Keys, Override, rethread

RE = "Re: Harbour plan for spring"
SENTENCES = ["The quick brown fox jumps over it all", "Another long sentence about many things"]
IDS = [f"id{i}" for i in range(7)]


@st.composite
def mails(draw: st.DrawFn) -> tuple[Parsed, str]:
    refs = draw(st.lists(st.sampled_from(IDS), max_size=3, unique=True))
    base = draw(
        st.sampled_from(["Harbour plan", "Harbour plan", "Harbour plam", "Lunch", "", "x: Harbour plan", "Bug #12345"])
    )
    mail = parsed(
        draw(st.sampled_from(["", "Re: ", "Re: ", "Fwd: "])) + base,
        id=draw(st.sampled_from([None, *IDS])),
        refs=" ".join(refs),
        answers=refs[-1] if refs and draw(st.booleans()) else "",
        by=draw(st.sampled_from([ANN, BOB, OWNER])),
        to=tuple(draw(st.lists(st.sampled_from([ANN, BOB, OWNER]), max_size=2, unique=True))),
        day=draw(st.sampled_from([0, 0.4, 1, 2, 3, 5, 18, 70])),
        auto_submitted=draw(st.sampled_from([None, None, None, "auto-generated"])),
        list_id=draw(st.sampled_from([None, None, "choir.example.org"])),
    )
    text = draw(st.sampled_from(SENTENCES)) + ".\n"
    if draw(st.booleans()):
        text += f"On Monday, Ann <ann@example.com> wrote:\n> {draw(st.sampled_from(SENTENCES))}.\n"
    return mail, text


def arranged(found: list[Keys], order: list[int], size: int) -> tuple[Account, frozenset[frozenset[int]]]:
    """Delivers in this order and in batches; the partition, by number in `found`."""
    account = Account()
    arrivals = [(f"eml_{at:03}", found[number]) for at, number in enumerate(order)]
    for at in range(0, len(arrivals), size):
        account.deliver(arrivals[at : at + size])
    groups: dict[str, set[int]] = {}
    for (email_id, _), number in zip(arrivals, order, strict=True):
        groups.setdefault(account.emails[email_id].thread_id, set()).add(number)
    return account, frozenset(map(frozenset, groups.values()))


@settings(max_examples=200, deadline=None)
@given(st.lists(mails(), min_size=2, max_size=8, unique_by=repr), st.integers(0, 2**32), st.integers(1, 9))
def test_any_order_and_any_batches_give_one_partition(found: list[tuple[Parsed, str]], seed: int, size: int) -> None:
    read = [keys(mail, text) for mail, text in found]
    order = list(range(len(read)))
    _, expected = arranged(read, order, 1)
    random.Random(seed).shuffle(order)
    account, partition = arranged(read, order, size)
    assert partition == expected
    anew = rethread(account.emails.values())
    assert frozenset(frozenset(order[int(one[4:])] for one in group.emails) for group in anew) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(mails(), min_size=2, max_size=8), st.data())
def test_overrides_hold_in_any_order(found: list[tuple[Parsed, str]], data: st.DataObject) -> None:
    read = [(f"eml_{at}", keys(mail, text)) for at, (mail, text) in enumerate(found)]
    names = [name for name, _ in read]
    picked = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    kind = data.draw(st.sampled_from(["split", "merge"]))
    overrides = [Override(1, kind, tuple(picked))]  # type: ignore[arg-type]
    threads = {
        one: group.emails
        for group in rethread([Candidate(n, "", k.facts) for n, k in read], overrides)
        for one in group.emails
    }
    assert sorted(threads) == sorted(names)
    assert len({threads[one] for one in picked}) == 1
    plain = {
        one: group.emails for group in rethread([Candidate(n, "", k.facts) for n, k in read]) for one in group.emails
    }
    if kind == "merge":
        assert all(set(plain[one]) <= set(threads[one]) for one in names)


def talk() -> list[Candidate]:
    return [
        candidate(parsed(id="a"), email="eml_1", thread="thr_1"),
        candidate(parsed(RE, id="b", answers="a", day=1), email="eml_2", thread="thr_1"),
        candidate(parsed(RE, id="c", refs="a b", answers="b", day=2), email="eml_3", thread="thr_1"),
        candidate(parsed(RE, id="d", answers="a", day=3), email="eml_4", thread="thr_1"),
    ]


def grouped(emails: list[Candidate], *overrides: Override) -> list[tuple[str | None, str]]:
    return [(group.thread, " ".join(one[-1] for one in group.emails)) for group in rethread(emails, overrides)]


def test_a_split_takes_what_answers_it_later_along() -> None:
    split = Override(1, "split", ("eml_2",))
    assert grouped(talk(), split) == [("thr_1", "1 4"), (None, "2 3")]
    later = candidate(parsed(RE, id="e", refs="a b c", answers="c", day=9), email="eml_5", thread="")
    assert grouped([*talk(), later], split) == [("thr_1", "1 4"), (None, "2 3 5")]


def test_a_split_of_the_first_mail_leaves_it_the_id() -> None:
    assert grouped(talk(), Override(1, "split", ("eml_1",))) == [("thr_1", "1 2 3 4")]
    assert grouped(talk(), Override(1, "split", ("eml_3", "eml_4"))) == [("thr_1", "1 2"), (None, "3 4")]


def test_a_merge_holds_until_a_later_split() -> None:
    other = candidate(parsed("Garden fence", id="g", day=5), email="eml_7", thread="thr_7")
    merge = Override(1, "merge", ("eml_7", "eml_1"))
    assert grouped([*talk(), other], merge) == [("thr_1", "1 2 3 4 7")]
    assert grouped([*talk(), other], merge, Override(2, "split", ("eml_7",))) == [("thr_1", "1 2 3 4"), ("thr_7", "7")]
    again = (merge, Override(2, "split", ("eml_7",)), Override(3, "merge", ("eml_7", "eml_2")))
    assert grouped([*talk(), other], *again) == [("thr_1", "1 2 3 4 7")]


def test_an_override_of_emails_that_are_gone_is_ignored() -> None:
    assert grouped(talk(), Override(1, "merge", ("eml_8", "eml_9"))) == [("thr_1", "1 2 3 4")]


def test_new_mail_honours_a_split_at_once() -> None:
    account = Account([Override(1, "split", ("eml_1",))])
    account.deliver([("eml_0", keys(parsed(id="a"))), ("eml_1", keys(parsed(RE, id="b", answers="a", day=1)))])
    account.deliver([("eml_2", keys(parsed(RE, id="c", refs="a b", answers="b", day=2)))])
    account.deliver([("eml_3", keys(parsed(RE, id="d", refs="a", answers="a", day=3)))])
    threads = [account.emails[f"eml_{i}"].thread_id for i in range(4)]
    assert threads[0] == threads[3] != threads[1] == threads[2]
