"""Clients of other people, and our own, deliver to the gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest
from heard import House, gateway, until
from tests.flow.scripted_server import certificate
from tests.peers import need

from posthouse.net.smtp import connect
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.smtp.command import Rcpt
from posthouse.smtp.outcome import Envelope
from posthouse.smtp.parameter import Notify, OriginalRecipient, Ret
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Listener
from posthouse.smtpd.gateway.options import LOOPBACK

CI = os.environ.get("CI") == "true"
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "services" / "postfix.sh"
NO = Reply(550, "5.1.1", ("No such mailbox",))


def mail(octets: int = 0) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@client.test", "b@mx.test", "Hello"
    message.set_content("Hello\n.\n..dots\n" + "x" * 70 * (octets // 70))
    return message


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("octets", [0, 2_000_000])
async def test_aiosmtplib(tmp_path: Path, tls: bool, octets: int) -> None:
    certificate(tmp_path, "mx.test")
    files = {"certificate": tmp_path / "mx.test.pem", "key": tmp_path / "mx.test.key"}
    house = House()
    async with gateway(house, tmp_path / "spool", **files) as running:
        errors, reply = await aiosmtplib.send(
            mail(octets),
            hostname="127.0.0.1",
            port=running.ports[0],
            start_tls=tls,
            validate_certs=False,
            timeout=20,
        )
    assert (errors, reply) == ({}, "2.0.0 Kept")
    assert b"\r\n.\r\n..dots\r\n" in house.messages[0]
    assert (house.tls[-1] is not None) is tls
    assert house.kinds == ["mmap" if octets else "bytes"]


async def test_our_own_client(tmp_path: Path) -> None:
    certificate(tmp_path, "mx.test")
    files = {"certificate": tmp_path / "mx.test.pem", "key": tmp_path / "mx.test.key"}
    seen: list[Rcpt] = []

    def known(command: Rcpt) -> Reply | None:
        seen.append(command)
        return NO if command.forward_path.startswith("nobody") else None

    house = House(rcpt=known)
    envelope = Envelope(
        "é@client.test",
        ("b@mx.test", "nobody@mx.test"),
        smtputf8=True,
        ret=Ret.HEADERS,
        envid="id+1",
        notify=(Notify.FAILURE,),
        orcpt=(OriginalRecipient("rfc822", "old@mx.test"), None),
    )
    async with gateway(house, tmp_path / "spool", **files) as running:
        policy = TlsPolicy(TlsMode.REQUIRED, verify=False)
        connection = await connect("127.0.0.1", running.ports[0], name="client.test", tls=policy)
        for _ in range(3):
            delivery = await connection.deliver(envelope, b"Subject: x\r\n\r\n.dot\r\n" * 1000)
            assert [reply.code for reply in delivery.replies] == [250, 550]
        await connection.quit()
        await house.lost()
    assert house.messages == [b"Subject: x\r\n\r\n.dot\r\n" * 1000] * 3
    assert (house.mails[0].reverse_path, house.mails[0].envid, house.mails[0].ret) == (
        "é@client.test",
        "id+1",
        Ret.HEADERS,
    )
    assert seen[0].notify == (Notify.FAILURE,)
    assert seen[0].orcpt == OriginalRecipient("rfc822", "old@mx.test")
    assert house.steps == ["connected", "hello", "hello", *["mail", "rcpt", "rcpt", "end"] * 3, "lost"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], b"<-  250 2.0.0 Kept"),
        (["--pipeline"], b"<-  250 2.0.0 Kept"),
        (["--to", "nobody@mx.test"], b"<** 550 5.1.1"),
        (["--protocol", "LMTP"], b"<-  250 2.0.0 Kept"),
        (["--data", "Subject: dots\\n\\n.\\n..\\n.x\\n"], b"<-  250 2.0.0 Kept"),
        (["--proxy-version", "2", "--proxy-family", "AF_INET", "--proxy-protocol", "STREAM", "--proxy-command", "PROXY", "--proxy-source", "203.0.113.9",
          "--proxy-source-port", "4000", "--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"], b"<-  250 2.0.0 Kept"),
    ],
)  # fmt: skip
async def test_swaks(tmp_path: Path, arguments: list[str], expected: bytes) -> None:
    await asyncio.to_thread(need, "swaks")
    house = House(rcpt=lambda command: NO if command.forward_path.startswith("nobody") else None)
    listeners = (Listener("mx"), Listener("lmtp"), Listener("mx", proxies=LOOPBACK))
    async with gateway(house, tmp_path / "spool", *listeners) as running:
        port = running.ports[2 if "--proxy-version" in arguments else "LMTP" in arguments]
        to = [] if "--to" in arguments else ["--to", "b@mx.test"]
        process = await asyncio.create_subprocess_exec(
            "swaks",
            *("--server", f"127.0.0.1:{port}", "--from", "a@client.test", *to, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    assert expected in out, out.decode()
    assert house.talks[0].peer.address == ("203.0.113.9" if "--proxy-version" in arguments else "127.0.0.1")


@pytest.fixture
def services() -> Iterator[Path]:
    """A directory that Postfix's user can enter, as pytest's own are not."""
    if not CI and (os.geteuid() != 0 or not Path("/usr/sbin/postfix").exists()):
        pytest.skip("Postfix is not installed, or we are not root (scripts/services/postfix.sh install)")
    folder = Path(tempfile.mkdtemp(prefix="posthouse-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    postfix(folder, "stop")
    shutil.rmtree(folder, ignore_errors=True)


def postfix(services: Path, verb: str, transport: str = "") -> str:
    environment = {**os.environ, "SERVICES_DIR": str(services), "POSTFIX_TRANSPORT": transport}
    done = subprocess.run(
        ["bash", str(SCRIPT), verb], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("kind", "transport"), [("mx", "smtp:[127.0.0.1]:{}"), ("lmtp", "lmtp:inet:127.0.0.1:{}")])
async def test_postfix_sends(tmp_path: Path, services: Path, kind: str, transport: str) -> None:
    """Many small ones, a large one, one for three recipients of whom one is deferred once."""
    certificate(tmp_path, "mx.test")
    files = {"certificate": tmp_path / "mx.test.pem", "key": tmp_path / "mx.test.key"}
    deferred: list[str] = []

    def known(command: Rcpt) -> Reply | None:
        if command.forward_path == "later@mx.test" and not deferred:
            deferred.append(command.forward_path)
            return Reply(451, "4.7.1", ("Greylisted",))
        return None

    house = House(rcpt=known)
    listener = Listener("lmtp") if kind == "lmtp" else Listener("mx")
    async with gateway(house, tmp_path / "spool", listener, per_address=0, **files) as running:
        url = await asyncio.to_thread(postfix, services, "start", transport.format(running.ports[0]))
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=int(url.rpartition(":")[2]), start_tls=False) as submit:
            for number in range(20):
                await submit.send_message(mail(), recipients=[f"{number}@mx.test"])
            await submit.send_message(mail(1_000_000), recipients=["large@mx.test"])
            await submit.send_message(mail(), recipients=["a@mx.test", "b@mx.test", "later@mx.test"])
        await until(lambda: len(house.messages) == 23, 60)
    assert sorted(house.kinds) == ["bytes"] * 22 + ["mmap"]
    assert all(b"\r\n.\r\n..dots\r\n" in message for message in house.messages)
    assert {tls.version for tls in house.tls if tls} == {"TLSv1.3"}
    assert deferred == ["later@mx.test"]
