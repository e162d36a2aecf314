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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from posthouse.cli import main
from posthouse.mail import maildir, mbox

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = iter(range(1, 1000))


class Line:
    """The command line over one data directory, with an account of its own."""

    def __init__(self, data: Path, capfd: pytest.CaptureFixture[str], number: int = 0) -> None:
        self.data = data
        self.domain = f"d{number}.example"
        self.ann = f"ann@{self.domain}"
        self._capfd = capfd

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """What it printed as JSON; of a failure, on standard error."""
        out, err = self.text(*arguments, "--json", code=code)
        return json.loads(out or err)

    def text(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        self._capfd.readouterr()
        done = main([*arguments, "--data-dir", str(self.data)])
        out, err = self._capfd.readouterr()
        assert done == code, f"{arguments}: {out}{err}"
        return out, err

    def octets(self, *arguments: str) -> bytes:
        ran = subprocess.run(
            [sys.executable, "-m", "posthouse", *arguments, "--data-dir", str(self.data)],
            capture_output=True,
            timeout=60,
            check=True,
            env=environment(),
        )
        return ran.stdout

    def raws(self, name: str = "inbox") -> list[bytes]:
        """The octets of a mailbox, the oldest first."""
        target = self.data.parent / f"raws-{time.monotonic_ns()}"
        self("export", self.ann, str(target), "--format", "eml", "--mailbox", name)
        return [file.read_bytes() for file in sorted(target.rglob("*.eml"))]

    def settle(self) -> None:
        self("mail-domain", "add", self.domain)
        self("account", "add", self.ann, "--name", "Ann")


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a server that runs."""
    data = tmp_path_factory.mktemp("mail") / "data"
    command = [sys.executable, "-m", "posthouse"]
    made = subprocess.run(
        [*command, "init", "--json", "--data-dir", str(data)],
        capture_output=True,
        timeout=60,
        check=True,
        env=environment(),
        cwd=data.parent,
    )
    assert "mail" in json.loads(made.stdout)["key"]["scopes"]
    log = (data.parent / "log").open("wb")
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", "--data-dir", str(data)],
        stdout=log,
        stderr=log,
        env=environment(),
        cwd=data.parent,
    )
    end = time.monotonic() + 60
    while not (data / "serve.json").exists():
        assert process.poll() is None, (data.parent / "log").read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
    yield data
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    log.close()
    assert "Traceback" not in (data.parent / "log").read_text()


@pytest.fixture
def line(
    served: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Line]:
    _clean(tmp_path, monkeypatch)
    made = Line(served, capfd, next(NUMBERS))
    made.settle()
    yield made
    assert made("check", "--deep")["found"] == 0


@pytest.fixture
def alone(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Without a server: each command opens the storage by itself."""
    _clean(tmp_path, monkeypatch)
    made = Line(tmp_path / "data", capfd)
    made("init")
    made.settle()
    yield made
    assert made("check", "--deep")["found"] == 0


def _clean(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("POSTHOUSE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(directory)


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
    done = line("import", line.ann, str(tmp_path / "old.mbox"))
    assert (done["imported"], done["skipped"], done["mailboxes"]) == (7, 0, {"Inbox": 7})
    assert line.raws() == STRANGE
    line("message", "flag", line.ann, "2", "--add", "work", "--star", "--read")
    line("export", line.ann, str(tmp_path / "out"), "--format", "mbox")
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
    assert line("export", line.ann, str(tmp_path / "out"), code=1)["code"] == "file_exists"
    again = line("import", line.ann, str(tmp_path / "out"), "--mailbox", "Back")
    assert again["imported"] == 7
    assert line.raws("Back/Inbox") == STRANGE
    kept = line("mailbox", "show", line.ann, "Back/Inbox", "--emails")
    assert [one["keywords"] for one in kept if one["keywords"]] == [["$flagged", "$seen", "work"]]


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
    done = line("import", line.ann, str(tmp_path / "Maildir"))
    assert done["mailboxes"] == {"Inbox": 3, "Entwürfe/2026": 2, "Sent Items": 2}
    assert line.raws() == STRANGE[0::3]
    assert line.raws("Entwürfe/2026") == STRANGE[1::3]
    assert line.raws("sent") == STRANGE[2::3]
    shown = line("mailbox", "show", line.ann, "inbox", "--emails")
    assert [one["keywords"] for one in shown] == [[], ["$flagged", "$seen"], []]
    assert shown[0]["received_at"] == "2023-11-14T22:13:26.000000Z"
    line("message", "flag", line.ann, str(shown[0]["id"]), "--add", "work", "--star")
    line("export", line.ann, str(tmp_path / "out"), "--format", "maildir")
    line("export", line.ann, str(tmp_path / "out"), "--format", "maildir")  # again: nothing is there twice
    back = mailbox.Maildir(tmp_path / "out", create=False)
    assert set(back.list_folders()) >= {"Entw&APw-rfe.2026", "Sent", "Trash"}
    assert sorted(one.get_flags() for one in back) == ["", "FS", "Fa"]
    assert len(back.get_folder("Entw&APw-rfe.2026")) == 2
    assert (tmp_path / "out" / "dovecot-keywords").read_text() == "0 work\n"
    assert line("import", line.ann, str(tmp_path / "out"), "--mailbox", "Back")["imported"] == 7
    assert sorted(line.raws("Back")) == sorted(STRANGE[0::3])
    kept = line("mailbox", "show", line.ann, "Back", "--emails")
    assert {tuple(one["keywords"]) for one in kept} == {(), ("$flagged", "$seen"), ("$flagged", "work")}
    # A message that a reader moves and flags meanwhile is the same message.
    moved = next((tmp_path / "Maildir" / "new").iterdir())
    moved.rename(tmp_path / "Maildir" / "cur" / f"{maildir.base_name(moved.name)}:2,S")
    assert line("import", line.ann, str(tmp_path / "Maildir"))["imported"] == 0


def test_eml_files_go_in_and_come_out(line: Line, tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    (folder / "Bills").mkdir(parents=True)
    (folder / "notes.txt").write_text("no mail")
    (folder / "a.eml").write_bytes(letter(1))
    (folder / "Bills" / "b.EML").write_bytes(letter(2).replace(b"\r\n", b"\n"))
    (folder / "Bills" / "empty.eml").write_bytes(b"")
    done = line("import", line.ann, str(folder), code=1)
    assert done["mailboxes"] == {"Inbox": 1, "Bills": 1}
    assert [one["reason"] for one in done["refused"]] == ["It is empty."]
    assert line.raws("Bills") == [letter(2)]
    line("mailbox", "create", line.ann, "Odd: a?b*c")
    single = tmp_path / "single"
    single.write_bytes(letter(3))
    assert line("import", line.ann, str(single), "--mailbox", "Odd: a?b*c")["imported"] == 1
    line("export", line.ann, str(tmp_path / "out"), "--format", "eml")
    assert (tmp_path / "out" / "Odd%3A a%3Fb%2Ac").is_dir()
    again = line("import", line.ann, str(tmp_path / "out"), "--label", "again")
    assert again["mailboxes"]["Odd: a?b*c"] == 1
    assert line("import", line.ann, str(tmp_path / "out"), "--label", "again")["skipped"] == 3
    (tmp_path / "Nothing").mkdir()
    nothing = line("import", line.ann, str(tmp_path / "Nothing"), code=1)
    assert nothing["code"] == "no_mail"
    assert line("import", line.ann, str(tmp_path / "absent"), code=1)["code"] == "system"


def test_an_mbox_that_grows_is_gone_on_with(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "grows.mbox"
    write_mbox(path, [letter(n) for n in range(5)])
    assert line("import", line.ann, str(path))["imported"] == 5
    assert line("import", line.ann, str(path))["imported"] == 0
    write_mbox(path, [letter(n) for n in range(8)])
    assert line("import", line.ann, str(path))["imported"] == 3
    assert line.raws() == [letter(n) for n in range(8)]
    write_mbox(path, [letter(0), *(letter(n, body="x") for n in range(9))])
    assert line("import", line.ann, str(path), code=1)["code"] == "mbox_broken"


def test_a_quota_stops_an_import_that_goes_on_later(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "much.mbox"
    write_mbox(path, [letter(n, body="x" * 1000) for n in range(300)])
    line("account", "quota", line.ann, "250kB")
    assert line("import", line.ann, str(path), code=1)["code"] == "over_quota"
    assert 0 < line("account", "show", line.ann)["emails"] < 300
    line("account", "quota", line.ann, "0")
    line("import", line.ann, str(path))
    assert line("account", "show", line.ann)["emails"] == 300


@pytest.mark.parametrize("kind", ["mbox", "maildir"])
def test_an_import_that_is_killed_goes_on(line: Line, tmp_path: Path, kind: str) -> None:
    raws = [letter(n, body="word " * 50) for n in range(1200)]
    path = tmp_path / "source"
    if kind == "mbox":
        write_mbox(path, raws)
    else:
        for name in ("cur", "new", "tmp"):
            (path / name).mkdir(parents=True)
        for n, raw in enumerate(raws):
            (path / "cur" / f"{1_700_000_000 + n}.M{n}.host:2,S").write_bytes(mbox.with_lf(raw))
    assert killed(line, path, (200, 600))
    before = line("account", "show", line.ann)["emails"]
    done = line("import", line.ann, str(path))
    # The server may have finished a batch after the command that sent it was gone.
    assert 0 < done["imported"] <= 1200 - before
    assert line("account", "show", line.ann)["emails"] == 1200
    assert sorted(line.raws()) == sorted(raws)


def killed(line: Line, path: Path, counts: Sequence[int]) -> int:
    """How often the command was killed, each time when about so many were stored."""
    kills = 0
    for count in counts:
        command = [sys.executable, "-m", "posthouse", "import", line.ann, str(path), "--data-dir", str(line.data)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        while process.poll() is None and line("account", "show", line.ann)["emails"] < count:
            time.sleep(0.01)
        process.kill()
        kills += process.wait(20) == -signal.SIGKILL
    return kills


def test_without_a_server_an_import_that_is_killed_goes_on_too(alone: Line, tmp_path: Path) -> None:
    raws = [letter(n) for n in range(1000)]
    path = tmp_path / "source"
    write_mbox(path, raws)
    command = [sys.executable, "-m", "posthouse", "import", alone.ann, str(path), "--data-dir", str(alone.data)]
    for pause in (1.0, 1.3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        process.kill()
        process.wait(20)
    alone("import", alone.ann, str(path))
    assert alone("account", "show", alone.ann)["emails"] == 1000
    assert alone.raws() == raws
    assert alone("reindex")["queued"] == 1000


# -- reading ------------------------------------------------------------------------------------


def test_an_inbox_is_read_marked_moved_and_split(line: Line, tmp_path: Path) -> None:
    write_mbox(tmp_path / "in.mbox", [letter(1), letter(2, answers=1), letter(4, body="\x1b[31mred")])
    line("import", line.ann, str(tmp_path / "in.mbox"))
    out, _ = line.text("mailbox", "show", line.ann)
    assert out.startswith("Inbox: 2 conversations, 2 unread")
    assert "Bob (2)" in out
    assert "\x1b[31mred" not in out
    (first, second) = line("mailbox", "show", line.ann)
    shown, _ = line.text("message", "show", line.ann, str(second["id"]))
    assert "Bob <bob2@example.org>" in shown
    assert "Hi." in shown
    assert line.octets("message", "show", line.ann, str(second["id"]), "--raw") == letter(2, answers=1)
    assert line.octets("message", "show", line.ann, str(second["id"]), "--part", "1") == b"Hi.\r\n"
    headers, _ = line.text("message", "show", line.ann, str(second["id"]), "--headers")
    assert "In-Reply-To: <1@example.org>" in headers
    line("message", "flag", line.ann, str(first["id"]), "--read", "--star")
    line.text("message", "flag", line.ann, str(first["id"]), code=2)
    marked, _ = line.text("mailbox", "show", line.ann, "--emails")
    assert any(text.split()[0] == "!" for text in marked.splitlines()[2:])
    line("message", "move", line.ann, str(first["id"]), "--to", "Archive")
    assert line("message", "move", line.ann, "999", "--to", "Archive", code=1)["missing"] == [999]
    assert line("message", "move", line.ann, "1", "--to", "Nowhere", code=1)["code"] == "mailbox_not_found"
    boxes = {box["path"]: box for box in line("mailbox", "list", line.ann)}
    assert (boxes["Archive"]["total"], boxes["Archive"]["unread"]) == (1, 0)
    made = line("thread", "split", line.ann, str(second["thread"]), str(second["id"]))
    assert line("thread", "merge", line.ann, str(second["thread"]), str(made["thread"]))["thread"] == second["thread"]
    assert len(line("thread", "show", line.ann, str(second["thread"]))["emails"]) == 2
    assert line("reindex", line.ann)["queued"] == 3
    end = time.monotonic() + 20
    while len((found := line("message", "search", line.ann, "plans", "-a*"))["emails"]) < 3:
        assert time.monotonic() < end
    assert found["dropped"] == [{"text": "a*", "reason": "short_prefix"}]
    assert len(line("message", "search", line.ann, "plans", "-31mred")["emails"]) == 2


def test_mailboxes_are_made_renamed_and_removed(line: Line) -> None:
    assert line("mailbox", "create", line.ann, "Projects/2026/May")["path"] == "Projects/2026/May"
    assert line("mailbox", "rename", line.ann, "projects/2026/may", "June")["path"] == "Projects/2026/June"
    assert line("mailbox", "rename", line.ann, "Projects/2026/June", "/June")["path"] == "June"
    line("mailbox", "remove", line.ann, "Projects/2026")
    tree, _ = line.text("mailbox", "list", line.ann)
    assert tree.index("Inbox") < tree.index("Trash") < tree.index("June") < tree.index("Projects")
    assert line("mailbox", "remove", line.ann, "inbox", code=1)["code"] == "mailbox_has_role"


def test_people_and_their_addresses(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert line("account", "passwd", line.ann)["password"] is True
    assert line("account", "passwd", line.ann, "--none")["password"] is False
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    assert line("account", "passwd", line.ann, code=1)["code"] == "invalid_request"
    monkeypatch.setattr(sys, "stdin", io.StringIO("another secret\n"))
    line("account", "add", f"bob@{line.domain}", "--quota", "5GB", "--password")
    assert line("account", "show", f"bob@{line.domain}")["quota"] == 5_000_000_000
    changed = line("account", "set", line.ann, "--vacation", "Away", "--block", "@casino.example", "--no-keep")
    assert changed["settings"]["vacation"] == {"text": "Away"}
    assert line("account", "set", line.ann, "--vacation", "", "--block", "")["settings"]["block"] == []
    assert line("alias", "add", f"team@{line.domain}", line.ann, f"bob@{line.domain}")["kind"] == "group"
    assert [one["address"] for one in line("alias", "list")] == [f"team@{line.domain}"]
    line("alias", "remove", f"team@{line.domain}")
    assert line("mail-domain", "set", line.domain, "--spam", "refuse", "--quota", "1GB")["settings"]["spam"] == "refuse"
    assert line.domain in [one["name"] for one in line("mail-domain", "list", "--limit", "1000")]
    assert line("mail-domain", "remove", line.domain, code=1)["code"] == "mail_domain_in_use"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    line.text("account", "remove", f"bob@{line.domain}", code=130)
    line("account", "remove", f"bob@{line.domain}", "--yes")
    assert [one["address"] for one in line("account", "list", "--domain", line.domain)] == [line.ann]
    for words in (["account", "list"], ["alias", "list"], ["mail-domain", "list"], ["inbound", "list"]):
        line.text(*words)
    line.text("inbound", "refused")
    line.text("account", "show", line.ann)
    line.text("mail-domain", "show", line.domain)
    assert line("explain", "inb_x", code=1)["code"] == "arrival_not_found"
    assert line("explain", "rfs_x", code=1)["code"] == "refusal_not_found"
    assert line("explain", "msg_x", code=1)["code"] == "message_not_found"
    assert line("inbound", "list", "--address", line.ann) == line("inbound", "refused", "--to", line.ann) == []
