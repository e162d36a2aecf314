from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thread_mails import ANN, BOB, DAY, NOW, OWNER, keys, parsed

from posthouse.mail.threads import decode, encode
from posthouse.mail.threads.keys import BULK, MAX_REFERENCES, OPEN, OURS, REPLY, REPORT, TICKET, id_hash


def kinds(found: tuple[bytes, ...]) -> str:
    return "".join(sorted(chr(one[0]) for one in found))


def test_a_first_mail_has_three_keys_and_a_newsletter_two() -> None:
    assert kinds(keys(parsed(id="a")).index) == "ims"
    assert kinds(keys(parsed(id="a", list_unsubscribe=True)).index) == "im"
    assert kinds(keys(parsed(id="a")).lookups) == "ips"
    assert all(len(one) == 17 for one in keys(parsed(id="a", refs="b c")).index)


def test_an_answer_is_found_by_each_id_and_its_parent() -> None:
    found = keys(parsed("Re: Harbour plan for spring", id="c", refs="a b", answers="b"))
    assert kinds(found.index) == "iiimps"
    assert kinds(found.lookups) == "iiimps"


def test_keys_meet_where_ids_do() -> None:
    first = keys(parsed(id="a"))
    answer = keys(parsed("Re: Harbour plan for spring", id="b", answers="a"))
    other = keys(parsed("Something else entirely", id="b", answers="a"))
    assert set(first.index) & set(answer.lookups)
    assert set(answer.index) & set(first.lookups)
    assert {chr(one[0]) for one in set(first.index) & set(other.lookups)} == {"m"}


def test_long_references_keep_the_first_and_the_last() -> None:
    chain = " ".join(f"r{i}" for i in range(300))
    found = keys(parsed("Re: Harbour plan for spring", id="x", refs=chain, answers="r299", thread_index="T" * 22))
    assert len(found.facts.refs) <= MAX_REFERENCES
    assert len(found.lookups) <= 64
    for kept in ("r0", "r299", "r270"):
        assert id_hash(f"{kept}@mx.example") >> 64 in found.facts.refs


def test_only_the_domain_of_an_id_is_without_case() -> None:
    assert id_hash("<Abc@MX.Example>") == id_hash("Abc@mx.example") != id_hash("abc@mx.example")
    assert id_hash("1") == id_hash("") == id_hash("@x") == id_hash("<>") == 0
    assert id_hash("0123456789abcdef") != 0


def test_a_mail_that_refers_to_itself_has_no_parent() -> None:
    facts = keys(parsed(id="a", refs="a", answers="a")).facts
    assert facts.refs == ()
    assert facts.parent == 0


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"subject": "Re: Harbour"}, REPLY),
        ({"auto_submitted": "auto-generated"}, BULK),
        ({"precedence": "bulk"}, BULK),
        ({"list_unsubscribe": True}, BULK),
        ({"auto_submitted": "auto-replied"}, REPORT),
        ({"to": ()}, OPEN),
        ({"by": OWNER}, OURS),
        ({"subject": "No light [Ticket #4711]"}, TICKET),
    ],
)
def test_what_a_mail_is(changes: dict[str, object], flag: int) -> None:
    assert keys(parsed(**changes)).facts.flags & flag  # type: ignore[arg-type]
    assert not keys(parsed()).facts.flags & flag


@pytest.mark.parametrize(
    "changes",
    [
        {"list_unsubscribe": True, "list_post": True},
        {"precedence": "bulk", "subject": "Re: Harbour"},
        {"precedence": "list", "list_id": "harbour.example"},
        {"auto_submitted": "no"},
    ],
)
def test_what_people_write_to_lists_is_not_bulk(changes: dict[str, object]) -> None:
    assert not keys(parsed(**changes)).facts.flags & BULK  # type: ignore[arg-type]


def test_the_owner_is_no_evidence() -> None:
    assert keys(parsed(by=ANN, to=(OWNER, BOB))).facts.people == keys(parsed(by=ANN, to=(BOB,))).facts.people


def test_a_date_counts_when_it_is_credible() -> None:
    assert keys(parsed(day=3)).facts.at == NOW + 3 * DAY
    for date in (None, 0, (NOW + 500 * DAY) * 1_000_000):
        assert keys(parsed(date=date)).facts.at == NOW + 400 * DAY


@given(
    st.text(max_size=200),
    st.lists(st.text(max_size=60), max_size=70),
    st.lists(st.text(max_size=30), max_size=3),
    st.text(max_size=300),
)
def test_any_mail_has_bounded_keys_and_facts_that_come_back(
    subject: str, references: list[str], answers: list[str], text: str
) -> None:
    found = keys(parsed(subject, id="a", references=tuple(references), in_reply_to=tuple(answers)), text)
    assert len(found.lookups) <= 64
    assert len(found.index) <= 64
    assert len(set(found.index)) == len(found.index)
    stored = encode(found.facts)
    assert decode(stored) == found.facts
    assert len(stored) <= 1400
