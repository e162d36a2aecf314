"""Names in a Maildir: flags and folders."""

from __future__ import annotations

import mailbox
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail import maildir

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(names)
def test_a_name_comes_back(name: str) -> None:
    packed = maildir.encode(name)
    assert maildir.decode(packed) == name
    assert packed.isascii()
    assert not {"/", "."} & set(packed)


@given(st.lists(names, min_size=1, max_size=4))
def test_a_folder_comes_back(path: list[str]) -> None:
    assert maildir.folder(maildir.directory(path)) == tuple(path)


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        ("&U,BTFw-", "台北"),  # RFC 3501 §5.1.3
        ("Jos&AOk-", "José"),
        ("A &- B", "A & B"),
        ("Entw&APw-rfe", "Entwürfe"),
        ("&bad", "&bad"),
        ("&A-", "&A-"),
    ],
)
def test_modified_utf_7(packed: str, name: str) -> None:
    assert maildir.decode(packed) == name


def test_flags_both_ways() -> None:
    assert maildir.keywords("1.x:2,FS") == ["$flagged", "$seen"]
    assert maildir.keywords("1.x,S=3:2,Sab", ["work", "home"]) == ["$seen", "home", "work"]
    assert maildir.keywords("1.x:2,c", ["work"]) == []
    assert maildir.keywords("1.x") == []
    assert maildir.flags({"$seen", "$flagged", "home", "other"}, ["work", "home"]) == ":2,FSb"
    assert maildir.base_name("1.x,S=3:2,FS") == maildir.base_name("1.x,S=3") == "1.x,S=3"


def test_names_sort_as_the_messages_came() -> None:
    came = [
        "9.x",
        "17.M9P1Q2.h:2,S",
        "17.M10P1Q3.h",
        "17.M10P1Q12.h:2,",
        "17.M999999P1Q13.h",
        "18.M1P1Q14.h",
        "a",
        "b2",
        "b10",
    ]
    assert sorted(came[4:] + came[:4], key=maildir.in_order) == came
    assert maildir.in_order("1" * 250 + ":2,S")


def test_the_standard_library_agrees(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "box")
    message = mailbox.MaildirMessage(b"Subject: x\n\nHi\n")
    message.set_subdir("cur")
    message.set_flags("SFR")
    key = box.add(message)
    (file,) = (tmp_path / "box" / "cur").iterdir()
    assert maildir.base_name(file.name) == key
    assert maildir.keywords(file.name) == ["$answered", "$flagged", "$seen"]
    assert file.name == key + maildir.flags({"$answered", "$flagged", "$seen"})
