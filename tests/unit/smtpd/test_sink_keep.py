from __future__ import annotations

import asyncio
import json
import mailbox
from contextlib import closing
from pathlib import Path

import pytest

from posthouse.smtpd.sink.journal import Entry, Journal, message_id
from posthouse.smtpd.sink.keep import Memory, keeper
from posthouse.smtpd.sink.options import Options

ENTRY = Entry(1.5, "a@x.test", ["b@y.test"], "250 2.0.0", "data", 40, "<1@x.test>", "TLSv1.3", "127.0.0.1")
DATA = b"Subject: one\r\n\r\nFrom here\r\n>From there\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"From: a\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n", "<1@x>"),
        (b"Message-Id:<1@x>\r\n\r\n", "<1@x>"),
        (b"message-id: \r\n <1@x>\r\n\r\n", "<1@x>"),
        (b"From: a\r\n\r\nMessage-ID: <body@x>\r\n", ""),
        (b"From: a\r\n\r\n\r\nmessage-id: <body@x>\r\n", ""),
        (b"", ""),
        (b"Message-ID: <cut@x", "<cut@x"),
        (b"Message-ID: <\xff@x>\r\n\r\n", "<\ufffd@x>"),
    ],
)
def test_message_id(data: bytes, expected: str) -> None:
    assert message_id(data) == expected


async def test_the_journal_is_in_the_file_soon_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for round_ in (1, 2):
        journal = Journal(path)
        journal.add(ENTRY)
        await asyncio.sleep(0.1)
        assert len(path.read_bytes().splitlines()) == 2 * round_ - 1
        journal.add(Entry(2.0, "", ["c@y.test"], "550 5.1.1", "rcpt"))
        journal.close()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[0] == {
        "at": 1.5,
        "from": "a@x.test",
        "to": ["b@y.test"],
        "outcome": "250 2.0.0",
        "stage": "data",
        "size": 40,
        "message_id": "<1@x.test>",
        "tls": "TLSv1.3",
        "peer": "127.0.0.1",
    }
    assert lines[1] == {"at": 2.0, "from": "", "to": ["c@y.test"], "outcome": "550 5.1.1", "stage": "rcpt"}


async def test_a_batch_is_written_when_it_is_large(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    for _ in range(513):
        journal.add(ENTRY)
    assert len((tmp_path / "log").read_bytes().splitlines()) == 512
    journal.close()


def test_eml(tmp_path: Path) -> None:
    for _ in range(2):  # a second run overwrites nothing
        keep = keeper(tmp_path / "mail", "eml")
        keep.add(ENTRY, DATA)
        keep.add(ENTRY, DATA)
    index = [json.loads(line) for line in (tmp_path / "mail" / "index.jsonl").read_bytes().splitlines()]
    assert len({line["file"] for line in index}) == 4
    assert all((tmp_path / "mail" / line["file"]).read_bytes() == DATA for line in index)
    assert index[0]["message_id"] == "<1@x.test>"


def test_mbox(tmp_path: Path) -> None:
    keep = keeper(tmp_path / "mail.mbox", "mbox")
    keep.add(ENTRY, DATA)
    keep.add(Entry(2.0, "", ["c@y.test"], "250 2.0.0", "data"), b"no line end")
    text = (tmp_path / "mail.mbox").read_bytes()
    assert b"\n>From here\n>>From there\n" in text
    assert b"From MAILER-DAEMON " in text
    with closing(mailbox.mbox(tmp_path / "mail.mbox", create=False)) as box:
        assert [message["Subject"] for message in box] == ["one", None]


def test_maildir(tmp_path: Path) -> None:
    keep = keeper(tmp_path / "mail", "maildir")
    keep.add(ENTRY, DATA)
    keep.add(ENTRY, DATA)
    with closing(mailbox.Maildir(tmp_path / "mail", create=False)) as box:
        assert [message["Subject"] for message in box] == ["one", "one"]


def test_memory_is_bounded_by_number_and_octets() -> None:
    memory = Memory(3, 100)
    for number in range(5):
        memory.add(ENTRY, b"%d" % number)
    assert [message.data for message in memory.messages] == [b"2", b"3", b"4"]
    memory.add(ENTRY, b"x" * 99)
    assert [len(message.data) for message in memory.messages] == [1, 99]
    memory.add(ENTRY, b"x" * 101)
    assert not memory.messages
    memory.add(ENTRY, b"y")
    assert len(memory.messages) == 1


def test_an_unknown_extension_is_said() -> None:
    with pytest.raises(ValueError, match="frobnication"):
        Options(off=frozenset({"frobnication"})).offer()
