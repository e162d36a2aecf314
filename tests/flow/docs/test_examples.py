"""The examples of docs/quickstart.md, sending.md and receiving.md and of the README, typed as they stand, against a real
server and the sink."""

from __future__ import annotations

import mailbox
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = Path(__file__).with_name("commands.py")
LIMIT = 60.0
_BY_HAND = re.compile(
    r"^(make (setup|demo)|posthouse (init|sink|serve|explain msg_…)|export (KEY=ph_…|POSTHOUSE_RECEIVE__MX)|openssl s_client)"
)
"""What the fixture has done already, what holds a place for an id, what needs the world."""
_TOLD_TO_FAIL = ("bounce@example.org", "nobody@example.com")
_PRELUDE = """
exec 2>&1
failed() { code=$?; echo "$*" >> failed; return $code; }
posthouse() {
    local words=() word
    for word; do
        case $word in inb_…|rfs_…) word=$(cat "${word%…}") ;; esac
        words+=("$word")
    done
    "$PYTHON" -SE "$COMMANDS" "$SOCKET" "${words[@]}" || failed posthouse "${words[@]}"
}
curl() { "$PYTHON" "$CURL" "$@" || failed curl "$@"; }
swaks() {
    "$PYTHON" "$SWAKS" "$@" > said || failed swaks "$@"
    cat said
    for kind in inb_ rfs_; do grep -o "$kind[0-9a-f]*" said > found && mv found $kind; done
}
"""
"""`inb_…` and `rfs_…` in a page are the id that the last mail, or the last refusal, was given."""
_CURL = '''
"""As much of curl as the pages use, with an answer of 4xx or 5xx as a failure."""
import sys, urllib.error, urllib.request
args, headers, method, data, url = iter(sys.argv[1:]), {}, None, None, ""
for arg in args:
    if arg == "-H":
        name, _, value = next(args).partition(": ")
        headers[name] = value
    elif arg == "-X":
        method = next(args)
    elif arg == "-d":
        data = next(args).encode()
    elif arg not in ("-s", "-i"):
        url = arg
request = urllib.request.Request(url, data, headers, method=method)
try:
    sys.stdout.write(urllib.request.urlopen(request, timeout=30).read().decode())
except urllib.error.HTTPError as refused:
    sys.stdout.write(refused.read().decode())
    sys.exit(22)
'''
_SWAKS = '''
"""As much of swaks as the pages use, with a refusal as a failure. Prints the last reply."""
import smtplib, sys
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
host, _, port = given.pop("--server").partition(":")
sender, to, text = given.pop("--from"), given.pop("--to"), given.pop("--body", "This is a test.")
mail = EmailMessage()
mail["From"], mail["To"], mail["Date"] = sender, to, formatdate()
mail["Subject"], mail["Message-ID"] = given.pop("--h-Subject", "test"), make_msgid(domain="friend.test")
mail.set_content(text)
assert not given, given
with smtplib.SMTP(host, int(port), "client.friend.test", timeout=30) as client:
    client.ehlo()
    client.mail(sender)
    code, said = client.rcpt(to)
    if code == 250:
        code, said = client.data(mail.as_bytes(policy=SMTP))
    print(code, said.decode())
sys.exit(0 if code == 250 else 1)
'''


@dataclass
class Place:
    directory: Path
    environ: dict[str, str]
    url: str
    mx: str

    def type(self, page: str, prepared: str = "") -> str:
        """What the page's indented blocks print, in order, in one shell."""
        script = _PRELUDE + prepared + _examples(page)
        script = script.replace("http://127.0.0.1:8025", self.url).replace("127.0.0.1:2526", self.mx)
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=240,
            check=False,
        )
        return ran.stdout.decode()

    @property
    def failed(self) -> list[str]:
        """The commands that ended badly, but for those that the page tells to."""
        path = self.directory / "failed"
        lines = path.read_text().split("\n") if path.exists() else []
        return [line for line in lines if line and not any(one in line for one in _TOLD_TO_FAIL)]


def _examples(page: str) -> str:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    lines = [line[4:] for block in blocks for line in block.split("\n")]
    return "\n".join(line for line in lines if not _BY_HAND.match(line)) + "\n"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where commands.py listens."""
    path = tmp_path_factory.mktemp("commands") / "sock"
    process = subprocess.Popen([sys.executable, COMMANDS, "serve", path], env=_environ())
    try:
        _until(path.exists, process)
        yield path
    finally:
        process.terminate()
        process.wait(LIMIT)


@pytest.fixture
def place(tmp_path: Path, commands: Path) -> Iterator[Place]:
    for name, text in (("curl.py", _CURL), ("swaks.py", _SWAKS)):
        (tmp_path / name).write_text(text)
    api, mx, sink = (f"127.0.0.1:{_free_port()}" for _ in range(3))
    environ = _environ() | {
        "POSTHOUSE_DATA_DIR": str(tmp_path / "data"),
        "PYTHON": sys.executable,
        "CURL": str(tmp_path / "curl.py"),
        "SWAKS": str(tmp_path / "swaks.py"),
        "COMMANDS": str(COMMANDS),
        "SOCKET": str(commands),
        "POSTHOUSE_RECEIVE__MX": mx,
        "POSTHOUSE_RENDER__PROCESSES": "1",
        "POSTHOUSE_DNS__SERVERS": "127.0.0.1:9",  # nobody: the pages' names are not looked up
        "POSTHOUSE_DNS__TIMEOUT": "200ms",
    }
    place = Place(tmp_path, environ, f"http://{api}", mx)
    first = [sys.executable, COMMANDS, commands, "init", "--domain", "example.com"]
    subprocess.run(first, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, timeout=LIMIT, check=True)
    running = [
        _start(place, "sink", "--port", sink.partition(":")[2]),
        _start(place, "serve", "--port", api.partition(":")[2], "--sink", sink),
    ]
    try:
        for process, name, says in zip(running, ("sink", "serve"), ("listens on ", "serves at "), strict=True):
            _until(partial(_says, tmp_path / f"{name}.log", says), process)
        yield place
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(LIMIT)


def _environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(place: Place, *arguments: str) -> subprocess.Popen[bytes]:
    with (place.directory / f"{arguments[0]}.log").open("wb") as out:
        command = [sys.executable, "-m", "posthouse", *arguments]
        return subprocess.Popen(command, cwd=place.directory, env=place.environ, stdout=out, stderr=out)


def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


def _until(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LIMIT
    while not there():
        assert process.poll() is None and time.monotonic() < end, process.args
        time.sleep(0.05)


def test_the_quickstart(place: Place) -> None:
    printed = place.type("docs/quickstart.md", "export KEY=$(posthouse key create quickstart)\n")
    assert place.failed == [], printed
    assert "Order 1234 is on its way" in printed
    assert '"accepted":2' in printed
    assert "550 5.1.1" in printed
    assert "Traceback" not in printed


def test_sending_by_example(place: Place) -> None:
    printed = place.type("docs/sending.md")
    assert place.failed == [], printed
    assert '"refused":1' in printed
    assert '"status":"canceled"' in printed
    assert "Welcome, Bob" in printed
    once = re.findall(r'^\{"id":"(msg_\w+)","status":"queued","recipients"', printed, re.MULTILINE)
    assert len(once) - len(set(once)) == 1, "the repeated request gave another id"
    assert "Traceback" not in printed


def test_receiving(place: Place) -> None:
    page = (ROOT / "docs" / "receiving.md").read_text()
    rules = re.search(r"^```json\n(\[.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert rules is not None
    (place.directory / "rules.json").write_text(rules[1])
    box = mailbox.Maildir(place.directory / "old-mail")
    old = mailbox.MaildirMessage(b"From: eve@friend.test\r\nSubject: Old times\r\n\r\nDo you remember?\r\n")
    old.add_flag("S")
    box.add(old)
    printed = place.type("docs/receiving.md")
    assert place.failed == [], printed
    assert "550 5.1.1 Nobody here has this address" in printed
    assert "as email 1 of thread 1" in printed
    assert "The sender was told “550 5.1.1" in printed
    assert "All is as it should be." in printed
    assert "Traceback" not in printed
    kept = [one["Subject"] for one in mailbox.Maildir(place.directory / "backup" / ".Archive", create=False)]
    assert kept == ["Old times"]


def test_the_readme(place: Place) -> None:
    printed = place.type("README.md", "export KEY=$(posthouse key create readme)\n")
    assert place.failed == [], printed
    assert "Lunch" in printed
    assert "as email 1 of thread 1" in printed
