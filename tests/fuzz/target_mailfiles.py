"""Files of other mail programs: mbox and the names in a Maildir. What we write, we read again."""

from __future__ import annotations

import mmap
from datetime import UTC, datetime

from posthouse.errors import Invalid
from posthouse.mail import maildir, mbox

_AT = datetime(2023, 1, 2, 10, 0, tzinfo=UTC)
_LINE = b"From ann@example.com Mon Jan  2 10:00:00 2023\n"
_ONE = (
    b"From: ann@example.com\nSubject: x\nStatus: RO\nX-Status: AF\n\n>From here\n>>From there\nFrom me to you\nbody\n\n"
)
CORPUS: tuple[bytes, ...] = (
    b"",
    b"no mbox\n",
    _LINE + _ONE,
    (_LINE + _ONE) * 3,
    _LINE + b"Content-Length: 20\nContent-Type: text/plain\n\nFrom x Mon Jan 2 10:\n\n" + _LINE + b"Subject: y\n\nz\n",
    (_LINE + _ONE).replace(b"\n", b"\r\n"),
    b"From - Tue, 3 Jan 2023 11:22 +0100\nX-Mozilla-Status: 0001\n\nx\n\nFrom b Wed Feb 29 23:59:60 PST 2023\n\ny\n",
    mbox.entry(
        b"Subject: x\r\n\r\nFrom me\r\n>From you\r\n", sender="a b", at=_AT, keywords=("$seen", "$draft", "own")
    ),
    b"\n\n" + _LINE + b"\n" * 50 + _LINE,
    b".Archive.2026:2,FRS",
    b"1672653600.M1P2.host,S=10:2,abSTZ",
    b".Entw&APw-rfe.&AC4-.&-.&Jjo",
)


def check(data: bytes) -> None:
    """As an mbox file of every form, then as a mail to put into one, then as a name."""
    for form in ("auto", "rd", "o", "cl", "cl2"):
        _check_pieces(data, form)
    _check_entry(data)
    _check_name(data.decode("utf-8", "replace"))


def _check_pieces(data: bytes, form: mbox.Form) -> None:
    found = _pieces(data, form)
    before = 0
    for piece in found:
        if piece is None:
            continue
        assert before <= piece.start <= piece.end <= piece.after <= len(data)
        assert piece.after > before
        assert piece.envelope.startswith(b"From ")
        assert b"\n" not in piece.envelope
        message = mbox.message(data, piece)
        assert len(message) <= 2 * (piece.end - piece.start)
        assert all(word and " " not in word for word in mbox.keywords(data, piece))
        moment = mbox.received_at(piece.envelope)
        assert moment is None or moment.tzinfo is not None
        before = piece.after
    if form == "auto" and found and found[0] is not None:
        # Where one ends the next begins, so a reader may stop and go on.
        assert _pieces(data, form, found[0].after) == found[1:]
        with mmap.mmap(-1, len(data)) as mapped:
            mapped[:] = data
            assert _pieces(mapped, form) == found
            assert mbox.message(mapped, found[0]) == mbox.message(data, found[0])


def _pieces(data: bytes | mmap.mmap, form: mbox.Form, start: int = 0) -> list[mbox.Piece | None]:
    """None stands for the place from which on it is no mbox."""
    found: list[mbox.Piece | None] = []
    try:
        found.extend(mbox.pieces(data, start, form))
    except Invalid as error:
        assert error.code == "mbox_broken"
        found.append(None)
    return found


def _check_entry(raw: bytes) -> None:
    words = ["$seen", "$flagged", "own"]
    entry = mbox.entry(raw, sender=raw[:40].decode("latin-1"), at=_AT, keywords=words)
    both = entry + mbox.entry(b"Subject: y\r\n\r\nz\r\n", sender="b", at=_AT)
    found = list(mbox.pieces(both, form="rd"))
    assert len(found) == 2
    assert mbox.keywords(both, found[0]) == sorted(words)
    assert mbox.received_at(found[0].envelope) == _AT
    again = mbox.message(both, found[0])
    if b"\r\n" in raw and raw.endswith(b"\r\n"):
        assert again == raw, (again, raw)
    else:
        assert again.replace(b"\r\n", b"\n").rstrip(b"\r\n") == mbox.with_lf(raw).replace(b"\r\n", b"\n").rstrip(
            b"\r\n"
        )


def _check_name(name: str) -> None:
    base = maildir.base_name(name)
    assert name.removesuffix("\n").startswith(base.removesuffix("\n"))
    words = maildir.keywords(name, ("own", "other"))
    if words:
        assert maildir.keywords(base + maildir.flags(words, ("own", "other")), ("own", "other")) == words
    path = maildir.folder(name)
    assert maildir.decode(maildir.encode(name)) == name
    directory = maildir.directory([name])
    assert directory.isascii()
    assert "/" not in directory
    assert not name or maildir.folder(directory) == (name,)
    assert all(path)
