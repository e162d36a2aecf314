"""What the demo sends is what it later expects to find."""

from __future__ import annotations

import msgspec
import pytest

from posthouse.cli.demo import mails
from posthouse.cli.demo.mails import CONVERSATIONS
from posthouse.cli.demo.post import Run
from posthouse.directory.model import fold
from posthouse.mail.rules import read_rules


@pytest.mark.parametrize("count", [5, 100, 1000])
def test_everybody_has_an_address_of_their_own(count: int) -> None:
    people = mails.people(count)
    assert len({person.address for person in people}) == len(people) == count
    for person in people:
        assert fold(person.address) == person.address
    careful = [person for person in people if person.address.endswith(mails.CAREFUL)]
    assert len(careful) == count // mails.CAREFUL_EVERY


@pytest.mark.parametrize("orders", [1, 25, 26, 499, 500, 10_000])
def test_the_orders_to_nobody_are_counted_right(orders: int) -> None:
    people = mails.people(7)
    to = [
        recipient["to"]["email"]
        for start in range(0, orders, mails.BATCH)
        for recipient in mails.batch(start, orders, people)["recipients"]
    ]
    assert len(to) == orders
    known = {person.address for person in people}
    assert sum(address not in known for address in to) == mails.nobodys(orders)


def test_letters_answer_what_came_before_them() -> None:
    people = mails.people(5)
    for letters in CONVERSATIONS:
        ids = [f"<{number}@mail.example>" for number in range(len(letters))]
        for place, one in enumerate(letters):
            body = mails.letter(one, ids[:place], people)
            assert one.by not in one.to
            assert ("headers" in body) is (one.answers is not None)
            if one.answers is not None:
                assert body["headers"]["In-Reply-To"] == ids[one.answers]
                assert body["headers"]["References"].split() == ids[: one.answers + 1]


def test_a_letters_message_id_is_at_its_senders_domain() -> None:
    people = mails.people(5)
    assert mails.message_id("msg_01", CONVERSATIONS[0][0], people) == f"<01@{mails.PEOPLE}>"


def test_the_rules_can_be_read() -> None:
    rules = [msgspec.json.encode(rule) for rule in mails.rules(mails.people(5))]
    assert [rule.name for rule in read_rules(rules)] == ["Orders", "Invoices"]


def test_copies_are_orders_codes_and_letters_to_those_who_are_there() -> None:
    run = Run(100, mails.people(20))
    assert run.wanted == 100 + 20 + 6
    assert run.copies == 100 - 2 + 20 + 9
