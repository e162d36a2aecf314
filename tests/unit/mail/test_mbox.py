"""mbox both ways: what is written is read back octet for octet, by us and by the standard library."""

from __future__ import annotations

import mailbox
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail import mbox

AT = datetime(2026, 11, 22, 10, 0, 5, tzinfo=UTC)
WORDS = ["$seen", "$flagged work", "", "work", "$seen $flagged work"]
NOTED = b"Status: O\r\nX-Status: \r\nX-Keywords:\r\nX-Exported-By: Posthouse"
LINE = b"From bob@example.org Sun Nov 22 10:00:05 2026\n"

lines = st.one_of(
    st.sampled_from(
        [
            b"From here on",
            b">From x",
            b">>From y",
            b"From a@b.example Sun Nov 22 10:00:05 2026",
            b"",
            b" ",
            b"From ",
            b"Content-Length: 10",
            NOTED,
            b">",
            b"\xff\x00",
        ]
    ),
    st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b"")),
)
messages = st.lists(lines, min_size=1, max_size=12).map(lambda found: b"\r\n".join(found) + b"\r\n")
"""As mail comes: every line ends in CR LF."""


def read(data: bytes, form: mbox.Form = "auto", start: int = 0) -> list[bytes]:
    return [mbox.message(data, piece) for piece in mbox.pieces(data, start, form)]


@settings(max_examples=300, deadline=None)
@given(st.lists(messages, max_size=5))
def test_what_is_written_is_read_back(given_: list[bytes]) -> None:
    words = [sorted({"$seen", "$flagged", "work"} & set(words.split())) for words in WORDS[: len(given_)]]
    data = b"".join(
        mbox.entry(raw, sender="bob@example.org", at=AT, keywords=own) for raw, own in zip(given_, words, strict=True)
    )
    assert read(data, "rd") == given_
    assert [mbox.keywords(data, piece) for piece in mbox.pieces(data, form="rd")] == words
    pieces = list(mbox.pieces(data, form="rd"))
    for n, piece in enumerate(pieces):
        assert read(data, "rd", piece.after) == given_[n + 1 :]
        assert mbox.received_at(piece.envelope) == AT


@settings(max_examples=200, deadline=None)
@given(st.lists(messages, max_size=4))
def test_what_is_written_needs_no_hint_unless_it_says_a_length(given_: list[bytes]) -> None:
    honest = [raw.replace(b"Content-Length", b"Content-Size") for raw in given_]
    data = b"".join(mbox.entry(raw, sender="bob@example.org", at=AT, keywords=["$seen"]) for raw in honest)
    assert read(data) == honest


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["auto", "rd", "o", "cl", "cl2"]))
def test_any_octets_are_read_or_refused(data: bytes, form: mbox.Form) -> None:
    for each in (data, LINE + data, LINE + data + b"\n" + LINE + data):
        try:
            pieces = list(mbox.pieces(each, form=form))
        except Invalid as error:
            assert error.code == "mbox_broken"
            continue
        ends = [piece.after for piece in pieces]
        assert ends == sorted(set(ends))
        assert all(piece.start <= piece.end <= piece.after <= len(each) for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60).map(lambda one: one.replace(b"a", b"\r\n").replace(b"b", b"\n").replace(b"c", b"\r")))
def test_line_ends_come_back(raw: bytes) -> None:
    if b"\r\n" in raw or b"\n" not in raw:
        assert mbox.with_crlf(mbox.with_lf(raw)) == raw
    else:
        assert mbox.with_crlf(raw).replace(b"\r\n", b"\n") == raw


def test_the_standard_library_reads_what_we_write(tmp_path: Path) -> None:
    raws = [b"Subject: %d\r\n\r\nFrom me\r\n>From you\r\n\r\nend %d\r\n" % (n, n) for n in range(5)]
    path = tmp_path / "x.mbox"
    words = ["$answered", "$draft", "$flagged", "$seen", "$junk"]
    path.write_bytes(b"".join(mbox.entry(raw, sender="bob@example.org", at=AT, keywords=words) for raw in raws))
    box = mailbox.mbox(path)
    try:
        assert [message["subject"] for message in box] == ["0", "1", "2", "3", "4"]
        assert box[0].get_from() == "bob@example.org Sun Nov 22 10:00:05 2026"
        assert set(box[0].get_flags()) >= set("ROAF")
        assert box[0]["x-keywords"] == "$junk"
        assert box.get_bytes(box.keys()[1]).endswith(b"\n>From me\n>>From you\n\nend 1\n")
    finally:
        box.close()


def test_we_read_what_the_standard_library_writes(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "x.mbox")
    raws = [b"Subject: %d\n\nFrom me to you\n\nand more\n" % n for n in range(4)]
    for n, raw in enumerate(raws):
        message = mailbox.mboxMessage(raw)
        message.set_from("bob@example.org", AT.timetuple())
        message.set_flags("RF" if n % 2 else "")
        box.add(message)
    box.close()
    data = (tmp_path / "x.mbox").read_bytes()
    found = read(data)
    assert len(found) == 4
    assert [one.endswith(b"\r\n\r\nFrom me to you\r\n\r\nand more\r\n") for one in found] == [True] * 4
    assert [mbox.keywords(data, piece) for piece in mbox.pieces(data)] == [[], ["$flagged", "$seen"]] * 2


@pytest.mark.parametrize("form", ["auto", "cl", "cl2"])
def test_a_length_that_fits_bounds_a_message(form: mbox.Form) -> None:
    body = b"Hello\n\nFrom bob Sun Nov 22 10:00:05 2026\n>From\n"
    whole = b"Subject: x\nContent-Length: %d\n\n" % len(body) + body
    data = LINE + whole + b"\n" + LINE + whole + b"\n"
    assert read(data, form) == [whole.replace(b"\n", b"\r\n")] * 2


def test_a_length_that_does_not_fit_is_not_heeded() -> None:
    for length in (b"3", b"99999", b"-1", b"9" * 30):
        one = b"Subject: x\nContent-Length: " + length + b"\n\nHello\n"
        data = (LINE + one + b"\n") * 2
        assert read(data) == [one.replace(b"\n", b"\r\n")] * 2


def test_the_forms_differ_in_what_they_unquote() -> None:
    body = b"Subject: x\n\n>From a\n>>From b\n"
    data = LINE + body + b"\n"
    assert read(data, "rd") == [b"Subject: x\r\n\r\nFrom a\r\n>From b\r\n"]
    assert read(data, "o") == [b"Subject: x\r\n\r\nFrom a\r\n>>From b\r\n"]
    assert read(data, "cl2") == [b"Subject: x\r\n\r\n>From a\r\n>>From b\r\n"]


def test_text_that_begins_with_from_is_no_new_message() -> None:
    body = b"Subject: x\n\nDear all,\n\nFrom now on we meet later.\n\nFrom Tuesday at 10:30, that is.\n"
    assert read(LINE + body + b"\n" + LINE + body) == [body.replace(b"\n", b"\r\n")] * 2


def test_the_end_of_a_file_and_empty_lines() -> None:
    assert read(b"") == []
    assert read(b"\n\r\n" + LINE + b"Subject: x\n\nHi") == [b"Subject: x\r\n\r\nHi"]
    assert read(LINE.rstrip()) == []
    crlf = LINE.replace(b"\n", b"\r\n") + b"Subject: x\r\n\r\nHi\r\n\r\n"
    assert read(crlf * 2) == [b"Subject: x\r\n\r\nHi\r\n"] * 2


def test_a_file_that_changed_is_refused() -> None:
    data = LINE + b"Subject: x\n\nHi\n\n"
    for start in (3, len(data) + 1):
        with pytest.raises(Invalid, match="no mbox file") as refused:
            read(data, start=start)
        assert refused.value.code == "mbox_broken"
    assert read(data, start=len(data)) == []


@pytest.mark.parametrize(
    ("line", "hour"),
    [
        (b"From a Sun Nov 22 10:00:05 2026", 10),
        (b"From a Sun Nov 22 10:00:05 +0200 2026", 8),
        (b"From a Sun Nov 22 10:00 PST 2026", 10),
        (b"From a", None),
        (b"From a Sun Nov 99 10:00:05 2026", None),
    ],
)
def test_the_time_of_the_envelope(line: bytes, hour: int | None) -> None:
    found = mbox.received_at(line)
    assert (None if found is None else found.hour) == hour
