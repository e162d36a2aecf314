"""The rules one by one, and the traps."""

from __future__ import annotations

import pytest
from thread_mails import ANN, BOB, EVE, OWNER, candidate, keys, parsed, placed

from posthouse.mail.parsed import Addr, Part
from posthouse.mail.threads import Batch, Candidate, place
from posthouse.mail.threads.place import MAX_CANDIDATES, choose

RE = "Re: Harbour plan for spring"
SAID = "The furnace in the old harbour needs a new valve. Will you order it before the week ends?"
QUOTED = "Yes.\n\nOn Monday, Ann <ann@example.com> wrote:\n> " + SAID


def test_what_answers_nothing_begins_a_thread() -> None:
    placement = placed(parsed(id="a"))
    assert placement.thread is None
    assert placement.why == "It answers nothing that is here, so it begins a thread."


def test_an_answer_joins_by_its_references() -> None:
    placement = placed(parsed(RE, id="b", refs="a", by=BOB, day=300), candidate(parsed(id="a")))
    assert placement.thread == "thr_1"
    assert placement.why == "It refers to a mail here by its Message-ID."


def test_a_parent_that_comes_late_joins_its_answer() -> None:
    placement = placed(parsed(id="a"), candidate(parsed(RE, id="b", answers="a", day=1)))
    assert placement.thread == "thr_1"
    assert placement.why == "A mail here refers to it by its Message-ID."


def test_a_missing_link_merges_into_the_older_thread() -> None:
    first = candidate(parsed(id="a"), email="eml_1", thread="thr_1")
    last = candidate(parsed(RE, id="c", answers="b", day=90), email="eml_2", thread="thr_2")
    placement = placed(parsed(RE, id="b", answers="a", day=80), last, first)
    assert (placement.thread, placement.merge) == ("thr_1", ("thr_2",))


def test_an_answer_under_another_subject_begins_a_related_thread() -> None:
    there = candidate(parsed(id="a"))
    for subject in ("Lunch on Friday", "Garden fence (was: Harbour plan for spring)", "Harbour plan for autumn"):
        placement = placed(parsed(subject, id="b", refs="a", answers="a", day=1), there)
        assert (placement.thread, placement.related) == (None, "thr_1")


@pytest.mark.parametrize(
    "subject", ["Harbour plan for sprnig", "Re: Harbor plan for spring", "Accepted: Harbour plan for spring", ""]
)
def test_a_small_difference_is_the_same_talk(subject: str) -> None:
    answer = parsed(subject, id="b", answers="a", by=OWNER, to=(ANN,), day=1)
    assert placed(answer, candidate(parsed(id="a"))).thread == "thr_1"
    stranger = parsed(subject, id="b", answers="a", by=EVE, to=(BOB,), day=1)
    assert placed(stranger, candidate(parsed(id="a"))).thread == (None if subject else "thr_1")


def test_another_number_is_another_subject() -> None:
    there = candidate(parsed("Numbers of week 12", id="a"))
    assert placed(parsed("Numbers of week 13", id="b", answers="a", day=1), there).thread is None


def test_a_delivery_report_belongs_to_its_mail() -> None:
    report = parsed(
        "Undelivered Mail Returned to Sender", id="b", refs="a", structure=Part("0", "multipart/report", 0, 0, 0, 1, 1)
    )
    placement = placed(report, candidate(parsed(id="a")))
    assert placement.thread == "thr_1"
    assert placement.why == "It reports on a mail here."


@pytest.mark.parametrize("refs", ["", "lost"])
def test_an_answer_without_its_parent_joins_by_subject_and_people(refs: str) -> None:
    answer = parsed(RE, id="b", refs=refs, by=BOB, to=(ANN, OWNER), day=2)
    placement = placed(answer, candidate(parsed(id="a", to=(BOB, OWNER))))
    assert placement.thread == "thr_1"
    assert "same people" in placement.why


@pytest.mark.parametrize(
    ("changes", "day"),
    [
        ({"subject": "Harbour plan for spring"}, 1),  # says not that it answers
        ({"by": EVE, "to": (OWNER,)}, 1),  # other people; the owner is no link
        ({"auto_submitted": "auto-generated"}, 1),
        ({"list_unsubscribe": True}, 1),
        ({"refs": "x y z"}, 1),  # a chain that would name it
        ({}, 500),
    ],
)
def test_a_mere_subject_is_not_enough(changes: dict[str, object], day: float) -> None:
    first = candidate(parsed(id="a", to=(BOB, OWNER)))
    answer = parsed(**{"subject": RE, "id": "b", "by": BOB, "to": (OWNER,), "day": day, **changes})  # type: ignore[arg-type]
    assert placed(answer, first).thread is None


def test_a_quotation_reaches_further_back_than_a_subject() -> None:
    first = candidate(parsed("Lunch?", id="a", to=(BOB, OWNER)), SAID)
    late = parsed("Re: Lunch?", id="b", by=BOB, to=(ANN,), day=100)
    assert placed(late, first).thread is None
    placement = placed(late, first, text=QUOTED)
    assert placement.thread == "thr_1"
    assert "quotes" in placement.why


def test_a_quotation_stands_for_a_missing_prefix() -> None:
    answer = parsed(id="b", by=BOB, to=(ANN,), day=1)
    first = candidate(parsed(id="a", to=(BOB,)), SAID)
    assert placed(answer, first).thread is None
    assert placed(answer, first, text=QUOTED).thread == "thr_1"


def test_two_notifications_with_one_subject_stay_apart() -> None:
    shop = {"by": EVE, "to": (OWNER,)}
    assert (
        placed(parsed("Your order", id="b", day=1, **shop), candidate(parsed("Your order", id="a", **shop))).thread
        is None
    )  # type: ignore[arg-type]


def test_a_ticket_joins_what_its_tracker_says_of_it() -> None:
    bug = {"subject": "[Bug 90210] Crash at start", "auto_submitted": "auto-generated", "by": EVE}
    first = candidate(parsed(id="a", **bug))  # type: ignore[arg-type]
    assert placed(parsed(id="b", day=3, **bug), first).thread == "thr_1"  # type: ignore[arg-type]


def test_a_list_joins_people_who_do_not_name_each_other() -> None:
    home = {"list_id": "choir.example.org", "list_post": True, "list_unsubscribe": True}
    first = candidate(parsed("[choir] Harbour plan for spring", id="a", by=ANN, to=(), **home))
    placement = placed(parsed("Re: [choir] Harbour plan for spring", id="b", by=EVE, to=(), day=9, **home), first)
    assert placement.thread == "thr_1"
    assert "list" in placement.why


def test_the_nearest_of_two_talks_with_one_subject_is_meant() -> None:
    old = candidate(parsed(id="a", to=(BOB,)), email="eml_1", thread="thr_1")
    new = candidate(parsed(id="c", to=(BOB,), day=7), email="eml_2", thread="thr_2")
    placement = placed(parsed(RE, id="b", by=BOB, to=(ANN,), day=8), old, new)
    assert (placement.thread, placement.merge) == ("thr_2", ())


def test_the_true_parent_takes_an_answer_back() -> None:
    guessed = candidate(parsed(id="a", to=(BOB,)), email="eml_1", thread="thr_1")
    answer = candidate(parsed(RE, id="b", answers="c", by=BOB, to=(ANN,), day=8), email="eml_2", thread="thr_1")
    placement = placed(parsed(id="c", to=(BOB,), day=7), guessed, answer)
    assert placement.review == ("thr_1",)


def test_copies_of_one_mail_are_one_thread() -> None:
    copy = parsed(id="a", list_id="choir.example.org")
    placement = placed(copy, candidate(parsed(id="a")))
    assert placement.thread == "thr_1"
    assert "same Message-ID" in placement.why


def test_ids_that_name_each_other_do_no_harm() -> None:
    loop = candidate(parsed(RE, id="b", refs="a"))
    assert placed(parsed(RE, id="a", refs="b"), loop).thread == "thr_1"


def test_one_id_for_many_subjects_joins_none_of_them() -> None:
    there = [
        candidate(parsed(f"Report of plant {name}", id="constant"), email=f"eml_{name}", thread=f"thr_{name}")
        for name in ("north", "south")
    ]
    assert placed(parsed("Invoice for boats", id="constant"), *there).thread is None


def test_of_too_many_candidates_those_linked_and_near_are_compared() -> None:
    crowd = [candidate(parsed(id=f"x{i}", day=i), email=f"eml_{i:03}", thread=f"thr_{i}") for i in range(300)]
    linked = candidate(parsed(id="a", day=-900), email="eml_a", thread="thr_a")
    answer = keys(parsed(RE, id="b", refs="a", day=299))
    chosen = choose(answer.facts, [*crowd, linked])
    assert len(chosen) == MAX_CANDIDATES
    assert chosen[0] is linked
    assert crowd[299] in chosen
    assert crowd[0] not in chosen
    assert place(Candidate("eml_new", "", answer.facts), chosen).thread == "thr_a"


def test_a_batch_sees_its_own_emails_and_merges() -> None:
    batch = Batch(())
    threads: list[str] = []
    mails = [
        parsed(id="a"),
        parsed(RE, id="c", answers="b", by=EVE, to=(EVE,), day=70),
        parsed(RE, id="b", answers="a", day=60),
    ]
    for number, mail in enumerate(mails):
        found = keys(mail)
        placement = batch.place(f"eml_{number}", found)
        threads.append(placement.thread or f"thr_{number}")
        batch.put(f"eml_{number}", found, placement, threads[-1])
    assert threads == ["thr_0", "thr_1", "thr_0"]
    last = batch.place("eml_9", keys(parsed(RE, id="d", answers="c")))
    assert last.thread == "thr_0"


def test_an_archive_that_spoils_addresses_still_tells_people_apart() -> None:
    def spoilt(name: str) -> Addr:
        return Addr(f"{name} at example.com", "")

    first = candidate(parsed(id="a", by=spoilt("ann"), to=()))
    assert placed(parsed(RE, id="b", by=spoilt("bob"), to=(), day=3), first).thread == "thr_1"
    assert placed(parsed(RE, id="b", by=spoilt("bob"), to=(spoilt("ann"),), day=3), first).thread == "thr_1"
    assert placed(parsed(RE, id="b", by=spoilt("bob"), to=(spoilt("eve"),), day=3), first).thread is None
