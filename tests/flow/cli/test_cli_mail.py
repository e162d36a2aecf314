"""Accounts, mailboxes, import and export by command, on a data directory of their own."""

from __future__ import annotations

import io
import json
import mailbox
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.cli import main
from posthouse.mail import mbox

ROOT = Path(__file__).resolve().parents[3]
ANN = "ann@example.com"


class Line:
    """The command line over one data directory; each command opens the storage by itself."""

    def __init__(self, directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capfd = capfd

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """What it printed as JSON; of a failure, on standard error."""
        out, err = self.text(*arguments, "--json", code=code)
        return json.loads(out or err)

    def text(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self._capfd.readouterr()
        done = main([*arguments, "--data-dir", str(self.directory / "data")])
        out, err = self._capfd.readouterr()
        assert done == code, f"{arguments}: {out}{err}"
        return out, err

    def octets(self, *arguments: str) -> bytes:
        ran = subprocess.run(
            [sys.executable, "-m", "posthouse", *arguments, "--data-dir", str(self.directory / "data")],
            capture_output=True,
            timeout=60,
            check=True,
            env=environment(),
        )
        return ran.stdout

    def raws(self, name: str = "inbox") -> list[bytes]:
        """The octets of a mailbox, the oldest first, by the API's own export of each."""
        target = self.directory / f"raws-{time.monotonic_ns()}"
        self("export", ANN, str(target), "--format", "eml", "--mailbox", name)
        return [file.read_bytes() for file in sorted(target.rglob("*.eml"))]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def line(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    for name in list(os.environ):
        if name.startswith("POSTHOUSE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    made = Line(tmp_path, capfd)
    assert "mail" in made("init")["key"]["scopes"]
    made("mail-domain", "add", "example.com")
    made("account", "add", ANN, "--name", "Ann")
    yield made
    assert made("check", "--deep")["found"] == 0


def letter(number: int, *, body: str = "Hi.", answers: int | None = None) -> bytes:
    lines = [
        f"From: Bob <bob{number}@example.org>",
        f"Subject: {'Re: ' if answers is not None else ''}Plans {number if answers is None else answers}",
        f"Message-ID: <{number}@example.org>",
        f"Date: Sun, 22 Nov 2026 10:{number // 60 % 60:02}:{number % 60:02} +0000",
    ]
    if answers is not None:
        lines.append(f"In-Reply-To: <{answers}@example.org>")
    return ("\r\n".join([*lines, "", body, ""])).encode()


STRANGE = [
    letter(1),
    letter(2, body="From here on\r\n>From there\r\n>>From where"),
    b"Subject: odd\r\n\r\nmixed\nline\r\nends\r\n",
    b"Subject: \xe4\xff\x00\r\nX:\r\n\r\n\x00\x01\r\n\r\n\r\n",
    b"Subject: only a header\r\n\r\n",
    letter(3, body="From x@y.example Sun Nov 22 10:00:05 2026\r\n\r\nFrom x@y.example Sun Nov 22 10:00:05 2026"),
    letter(1),
]


def write_mbox(path: Path, raws: list[bytes]) -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
    path.write_bytes(b"".join(mbox.entry(raw, sender="bob@example.org", at=at) for raw in raws))


# -- round trips ------------------------------------------------------------------------------


def test_an_mbox_goes_in_and_comes_out(line: Line, tmp_path: Path) -> None:
    write_mbox(tmp_path / "old.mbox", STRANGE)
    done = line("import", ANN, str(tmp_path / "old.mbox"))
    assert (done["imported"], done["skipped"], done["mailboxes"]) == (7, 0, {"Inbox": 7})
    assert line.raws() == STRANGE
    line("export", ANN, str(tmp_path / "out"), "--format", "mbox")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
        "Archive.mbox",
        "Drafts.mbox",
        "Inbox.mbox",
        "Junk.mbox",
        "Sent.mbox",
        "Trash.mbox",
    ]
    data = (tmp_path / "out" / "Inbox.mbox").read_bytes()
    assert [mbox.message(data, piece) for piece in mbox.pieces(data)] == STRANGE
    box = mailbox.mbox(tmp_path / "out" / "Inbox.mbox")
    assert len(box) == 7
    box.close()
    assert line("export", ANN, str(tmp_path / "out"), code=1)["code"] == "file_exists"
    again = line("import", ANN, str(tmp_path / "out"), "--mailbox", "Back")
    assert again["imported"] == 7
    assert line.raws("Back/Inbox") == STRANGE


def test_a_maildir_goes_in_and_comes_out_with_folders_and_flags(line: Line, tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "Maildir")
    sub = box.add_folder("Entw&APw-rfe.2026")
    sent = box.add_folder("Sent Items")
    for n, raw in enumerate(STRANGE):
        message = mailbox.MaildirMessage(b"")
        message.set_subdir("cur" if n % 2 else "new")
        message.set_flags("FS" if n % 2 else "")
        key = (box, sub, sent)[n % 3].add(message)
        folder = ("", ".Entw&APw-rfe.2026", ".Sent Items")[n % 3]
        (file,) = (tmp_path / "Maildir" / folder).glob(f"*/{key}*")
        file.write_bytes(mbox.with_lf(raw))
        os.utime(file, (1_700_000_000 + n, 1_700_000_000 + n))
    done = line("import", ANN, str(tmp_path / "Maildir"))
    assert done["mailboxes"] == {"Inbox": 3, "Entwürfe/2026": 2, "Sent Items": 2}
    assert line.raws() == STRANGE[0::3]
    assert line.raws("Entwürfe/2026") == STRANGE[1::3]
    assert line.raws("sent") == STRANGE[2::3]
    shown = line("mailbox", "show", ANN, "inbox", "--emails")
    assert [one["keywords"] for one in shown] == [[], ["$flagged", "$seen"], []]
    assert shown[0]["received_at"] == "2023-11-14T22:13:26.000000Z"
    line("message", "flag", ANN, str(shown[0]["id"]), "--add", "work", "--star")
    line("export", ANN, str(tmp_path / "out"), "--format", "maildir")
    line("export", ANN, str(tmp_path / "out"), "--format", "maildir")  # again: nothing is there twice
    back = mailbox.Maildir(tmp_path / "out", create=False)
    assert set(back.list_folders()) >= {"Entw&APw-rfe.2026", "Sent", "Trash"}
    assert sorted(one.get_flags() for one in back) == ["", "FS", "Fa"]
    assert len(back.get_folder("Entw&APw-rfe.2026")) == 2
    assert (tmp_path / "out" / "dovecot-keywords").read_text() == "0 work\n"
    assert line("import", ANN, str(tmp_path / "out"), "--mailbox", "Back")["imported"] == 7
    assert sorted(line.raws("Back")) == sorted(STRANGE[0::3])
    kept = line("mailbox", "show", ANN, "Back", "--emails")
    assert {tuple(one["keywords"]) for one in kept} == {(), ("$flagged", "$seen"), ("$flagged", "work")}
    # A message that a reader moves and flags meanwhile is the same message.
    (moved,) = (
        (tmp_path / "Maildir" / "new").glob("*")[:1] if False else list((tmp_path / "Maildir" / "new").iterdir())[:1]
    )
    moved.rename(tmp_path / "Maildir" / "cur" / f"{moved.name}:2,S")
    assert line("import", ANN, str(tmp_path / "Maildir"))["imported"] == 0


def test_eml_files_go_in_and_come_out(line: Line, tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    (folder / "Bills").mkdir(parents=True)
    (folder / "notes.txt").write_text("no mail")
    (folder / "a.eml").write_bytes(letter(1))
    (folder / "Bills" / "b.EML").write_bytes(letter(2).replace(b"\r\n", b"\n"))
    (folder / "Bills" / "empty.eml").write_bytes(b"")
    done = line("import", ANN, str(folder), code=1)
    assert done["mailboxes"] == {"Inbox": 1, "Bills": 1}
    assert [one["reason"] for one in done["refused"]] == ["It is empty."]
    assert line.raws("Bills") == [letter(2)]
    line("mailbox", "create", ANN, "Odd: a?b*c")
    single = tmp_path / "single"
    single.write_bytes(letter(3))
    assert line("import", ANN, str(single), "--mailbox", "Odd: a?b*c")["imported"] == 1
    line("export", ANN, str(tmp_path / "out"), "--format", "eml")
    assert (tmp_path / "out" / "Odd%3A a%3Fb%2Ac").is_dir()
    again = line("import", ANN, str(tmp_path / "out"), "--label", "again")
    assert again["mailboxes"]["Odd: a?b*c"] == 1
    assert line("import", ANN, str(tmp_path / "out"), "--label", "again")["skipped"] == 3
    nothing = line("import", ANN, str(tmp_path / "data"), code=1)
    assert nothing["code"] == "no_mail"
    assert line("import", ANN, str(tmp_path / "absent"), code=1)["code"] == "system"


def test_an_mbox_that_grows_is_gone_on_with(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "grows.mbox"
    write_mbox(path, [letter(n) for n in range(5)])
    assert line("import", ANN, str(path))["imported"] == 5
    assert line("import", ANN, str(path))["imported"] == 0
    write_mbox(path, [letter(n) for n in range(8)])
    assert line("import", ANN, str(path))["imported"] == 3
    assert line.raws() == [letter(n) for n in range(8)]
    write_mbox(path, [letter(0), *(letter(n, body="x") for n in range(9))])
    assert line("import", ANN, str(path), code=1)["code"] == "mbox_broken"


def test_a_quota_stops_an_import_that_goes_on_later(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "much.mbox"
    write_mbox(path, [letter(n, body="x" * 1000) for n in range(300)])
    line("account", "quota", ANN, "250kB")
    assert line("import", ANN, str(path), code=1)["code"] == "over_quota"
    assert 0 < line("account", "show", ANN)["emails"] < 300
    line("account", "quota", ANN, "0")
    line("import", ANN, str(path))
    assert line("account", "show", ANN)["emails"] == 300


@pytest.mark.parametrize("kind", ["mbox", "maildir"])
def test_an_import_that_is_killed_goes_on(line: Line, tmp_path: Path, kind: str) -> None:
    raws = [letter(n, body="word " * 200) for n in range(1500)]
    path = tmp_path / "source"
    if kind == "mbox":
        write_mbox(path, raws)
    else:
        for name in ("cur", "new", "tmp"):
            (path / name).mkdir(parents=True)
        for n, raw in enumerate(raws):
            (path / "cur" / f"{1_700_000_000 + n}.M{n}.host:2,S").write_bytes(mbox.with_lf(raw))
    line("account", "show", ANN)
    command = [
        sys.executable,
        "-m",
        "posthouse",
        "import",
        ANN,
        str(path),
        "--json",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    killed = 0
    for pause in (0.9, 1.1, 1.3, 1.5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait(20) == -signal.SIGKILL
    assert killed
    done = line("import", ANN, str(path))
    assert done["imported"] + done["skipped"] == 1500 if kind == "maildir" else done["imported"] <= 1500
    assert line("account", "show", ANN)["emails"] == 1500
    assert sorted(line.raws()) == sorted(raws)


# -- reading ------------------------------------------------------------------------------------


def test_an_inbox_is_read_marked_moved_and_split(line: Line, tmp_path: Path) -> None:
    write_mbox(tmp_path / "in.mbox", [letter(1), letter(2, answers=1), letter(4, body="\x1b[31mred")])
    line("import", ANN, str(tmp_path / "in.mbox"))
    out, _ = line.text("mailbox", "show", ANN)
    assert out.startswith("Inbox: 2 conversations, 2 unread")
    assert "Bob (2)" in out
    assert "\x1b[31mred" not in out
    (first, second) = line("mailbox", "show", ANN)
    shown, _ = line.text("message", "show", ANN, str(second["id"]))
    assert "Bob <bob2@example.org>" in shown
    assert "Hi." in shown
    assert line.octets("message", "show", ANN, str(second["id"]), "--raw") == letter(2, answers=1)
    assert line.octets("message", "show", ANN, str(second["id"]), "--part", "1") == b"Hi.\r\n"
    headers, _ = line.text("message", "show", ANN, str(second["id"]), "--headers")
    assert "In-Reply-To: <1@example.org>" in headers
    line("message", "flag", ANN, str(first["id"]), "--read", "--star")
    line.text("message", "flag", ANN, str(first["id"]), code=2)
    marked, _ = line.text("mailbox", "show", ANN, "--emails")
    assert any(text.split()[0] == "!" for text in marked.splitlines()[2:])
    line("message", "move", ANN, str(first["id"]), "--to", "Archive")
    assert line("message", "move", ANN, "999", "--to", "Archive", code=1)["missing"] == [999]
    assert line("message", "move", ANN, "1", "--to", "Nowhere", code=1)["code"] == "mailbox_not_found"
    boxes = {box["path"]: box for box in line("mailbox", "list", ANN)}
    assert (boxes["Archive"]["total"], boxes["Archive"]["unread"]) == (1, 0)
    made = line("thread", "split", ANN, str(second["thread"]), str(second["id"]))
    assert line("thread", "merge", ANN, str(second["thread"]), str(made["thread"]))["thread"] == second["thread"]
    assert len(line("thread", "show", ANN, str(second["thread"]))["emails"]) == 2
    assert line("message", "search", ANN, "plans") == {"emails": [], "dropped": []}  # nothing is indexed yet
    assert line("reindex", ANN)["queued"] == 3
    assert line("reindex")["queued"] == 3


def test_mailboxes_are_made_renamed_and_removed(line: Line) -> None:
    assert line("mailbox", "create", ANN, "Projects/2026/May")["path"] == "Projects/2026/May"
    assert line("mailbox", "rename", ANN, "projects/2026/may", "June")["path"] == "Projects/2026/June"
    assert line("mailbox", "rename", ANN, "Projects/2026/June", "/June")["path"] == "June"
    line("mailbox", "remove", ANN, "Projects/2026")
    tree, _ = line.text("mailbox", "list", ANN)
    assert tree.index("Inbox") < tree.index("Trash") < tree.index("June") < tree.index("Projects")
    assert line("mailbox", "remove", ANN, "inbox", code=1)["code"] == "mailbox_has_role"


def test_people_and_their_addresses(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert line("account", "passwd", ANN)["password"] is True
    assert line("account", "passwd", ANN, "--none")["password"] is False
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert line("account", "passwd", ANN, code=1)["code"] == "invalid_request"
    monkeypatch.setattr(sys, "stdin", io.StringIO("another secret\n"))
    line("account", "add", "bob@example.com", "--quota", "5GB", "--password")
    assert line("account", "show", "bob@example.com")["quota"] == 5_000_000_000
    changed = line("account", "set", ANN, "--vacation", "Away", "--block", "@casino.example", "--no-keep")
    assert changed["settings"]["vacation"] == {"text": "Away"}
    assert line("account", "set", ANN, "--vacation", "", "--block", "")["settings"]["block"] == []
    assert line("alias", "add", "team@example.com", ANN, "bob@example.com")["kind"] == "group"
    assert [one["address"] for one in line("alias", "list")] == ["team@example.com"]
    line("alias", "remove", "team@example.com")
    assert (
        line("mail-domain", "set", "example.com", "--spam", "refuse", "--quota", "1GB")["settings"]["spam"] == "refuse"
    )
    assert [one["name"] for one in line("mail-domain", "list")] == ["example.com"]
    assert line("mail-domain", "remove", "example.com", code=1)["code"] == "mail_domain_in_use"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    line.text("account", "remove", "bob@example.com", code=130)
    line("account", "remove", "bob@example.com", "--yes")
    assert [one["address"] for one in line("account", "list")] == [ANN]
    for words in (["account", "list"], ["alias", "list"], ["mail-domain", "list"], ["inbound", "list"]):
        line.text(*words)
    line.text("inbound", "refused")
    line.text("account", "show", ANN)
    line.text("mail-domain", "show", "example.com")
    assert line("explain", "inb_x", code=1)["code"] == "arrival_not_found"
    assert line("explain", "rfs_x", code=1)["code"] == "refusal_not_found"
    assert line("explain", "msg_x", code=1)["code"] == "message_not_found"
    assert line("inbound", "list", "--address", ANN) == line("inbound", "refused", "--to", ANN) == []
