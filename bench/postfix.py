"""Posthouse beside Postfix with OpenDKIM from Debian's packages: the same messages of 8 KB, the
same sink, the same disk, one after the other.

Postfix is an instance of its own with configuration, queue and keys in a new directory; the
system's instance is never touched. A client with 20 pipelining connections hands the messages
over; the milter signs each with RSA-2048; they are relayed to the sink over cached
connections. Its time runs from the first message in to the last one that the sink has
accepted. Posthouse's runs from the first request to the last recorded outcome.

Alike: nothing is answered (250, 202) before it is on disk. Postfix syncs the queue file of
each message; a killed machine loses nothing of either. Not alike: Posthouse shares one sync
among the messages of a request, or of requests that arrive together, and stores a message's
variables where Postfix stores its octets. Posthouse also keeps a ledger and events that
outlast the delivery, where Postfix has a line in a log that is not synced; both may send the
message in flight again after a crash.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench import material, send
from bench.report import Report, main
from posthouse.smtpd.sink import Options, Sink

Message = tuple[str, bytes]
"""Recipient and octets."""
CONNECTIONS = 20
_WARM = 100
_POLICY = Path("/usr/sbin/policy-rc.d")
_DOMAIN = "example.com"
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
_MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/mail.log
maillog_file_prefixes = {root}
myhostname = bench.{domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{sink}
disable_dns_lookups = yes
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_milters = unix:{root}/milter/socket
milter_default_action = tempfail
in_flow_delay = 0
default_process_limit = 100
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
qmgr_message_active_limit = 100000
smtp_connection_cache_destinations = [127.0.0.1]
smtp_connection_reuse_time_limit = 300s
alias_maps =
alias_database =
"""
_OPENDKIM = """\
Socket local:{root}/milter/socket
UMask 000
Domain {domain}
Selector bench
KeyFile {root}/key.pem
Mode s
Canonicalization relaxed/simple
SignatureAlgorithm rsa-sha256
OversignHeaders From
RequireSafeKeys no
Background no
Syslog no
PidFile {root}/opendkim.pid
"""


class MissingError(RuntimeError):
    """Postfix or OpenDKIM is not installed, or we are not root."""


def install() -> None:
    """Debian's packages, without letting them start a service.

    :raises subprocess.CalledProcessError: apt-get failed.
    """
    held = _POLICY.exists()
    if not held:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        subprocess.run(
            ["debconf-set-selections"],
            input=b"postfix postfix/main_mailer_type select No configuration\n",
            check=True,
            timeout=60,
        )
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postfix", "opendkim"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=400,
        )
    finally:
        if not held:
            _POLICY.unlink()


def installed() -> bool:
    return Path("/usr/sbin/postfix").exists() and Path("/usr/sbin/opendkim").exists()


def run(count: int, connections: int = CONNECTIONS) -> tuple[float, float]:
    """Messages a second until the sink has them all, and until Postfix has taken them all.

    :raises MissingError: Postfix can only be started by root.
    :raises TimeoutError: the messages did not all arrive.
    """
    if os.geteuid() != 0:
        raise MissingError("Postfix can only be installed and started by root")
    if not installed():
        install()
    build = material.Builder()
    messages = [build(number) for number in range(count)]
    sink_port = material.free_port()
    with _instance(material.free_port(), sink_port) as port:
        uvloop.run(_check_signature(port, sink_port, messages[0]))
        with material.sink(port=sink_port) as sink:
            uvloop.run(_inject(port, messages[:_WARM], connections))
            sink.wait_for(_WARM, 60)
            sink.reset()
            started = time.time()
            uvloop.run(_inject(port, messages, connections))
            accepted = time.time()
            last = sink.wait_for(count, 60 + count / 10)
    return count / (last - started), count / (accepted - started)


async def _check_signature(port: int, sink_port: int, message: Message) -> None:
    """:raises RuntimeError: the milter does not sign."""
    async with Sink(Options(port=sink_port, tls=False)) as sink:
        await _inject(port, [message], 1)
        await sink.received(1)
        if b"\r\nDKIM-Signature:" not in b"\r\n" + sink.messages[0].data:
            raise RuntimeError("OpenDKIM did not sign")


# -- the instance -------------------------------------------------------------------------


@contextmanager
def _instance(port: int, sink: int) -> Generator[int, None, None]:
    root = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    root.chmod(0o755)
    signer: subprocess.Popen[bytes] | None = None
    try:
        _configure(root, port, sink)
        signer = subprocess.Popen(["/usr/sbin/opendkim", "-f", "-x", str(root / "opendkim.conf")])
        _wait_until((root / "milter" / "socket").exists, "the milter")
        _postfix(root, "start")
        _wait_until(lambda: _listens(port), "Postfix")
        yield port
    finally:
        with suppress(subprocess.SubprocessError):
            _postfix(root, "stop")
        if signer is not None:
            signer.terminate()
            with suppress(subprocess.TimeoutExpired):
                signer.wait(10)
            signer.kill()
        shutil.rmtree(root, ignore_errors=True)


def _configure(root: Path, port: int, sink: int) -> None:
    config = root / "config"
    for folder in ("config", "queue", "data", "milter"):
        (root / folder).mkdir(mode=0o755)
    owner = pwd.getpwnam("postfix")
    os.chown(root / "data", owner.pw_uid, owner.pw_gid)
    values = {"root": root, "port": port, "sink": sink, "domain": _DOMAIN}
    (config / "main.cf").write_text(_MAIN.format(**values))
    (config / "master.cf").write_text(_MASTER.format(**values))
    (root / "opendkim.conf").write_text(_OPENDKIM.format(**values))
    key = rsa.generate_private_key(65537, 2048)
    (root / "key.pem").touch(mode=0o600)
    (root / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def _postfix(root: Path, verb: str) -> None:
    subprocess.run(
        ["/usr/sbin/postfix", "-c", str(root / "config"), verb],
        check=verb == "start",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
    )


def _wait_until(there: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} is not there after {seconds:g} s")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


# -- the client ---------------------------------------------------------------------------


async def _inject(port: int, messages: Sequence[Message], connections: int) -> None:
    """Over `connections`, each with one message after the other."""
    todo = iter(messages)
    await asyncio.gather(*(_connection(port, todo) for _ in range(min(len(messages), connections))))


async def _connection(port: int, messages: Iterator[Message]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _replies(reader, 1)
    writer.write(b"EHLO client.example\r\n")
    await _replies(reader, 1)
    for address, data in messages:
        writer.write(f"MAIL FROM:<bounces@{_DOMAIN}>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode())
        await _replies(reader, 3)
        writer.write(data.replace(b"\n.", b"\n..") + b".\r\n")
        await _replies(reader, 1)
    writer.write(b"QUIT\r\n")
    writer.close()


async def _replies(reader: asyncio.StreamReader, count: int) -> None:
    async with asyncio.timeout(60):
        while count:
            line = await reader.readline()
            if line[:1] not in {b"2", b"3"}:
                raise RuntimeError(f"Postfix said {line!r}")
            count -= line[3:4] == b" "


def measure(arguments: argparse.Namespace) -> Report:
    """How many times faster Posthouse sends than Postfix with OpenDKIM, on the same sink."""
    postfix, accepted = run(arguments.messages, arguments.connections)
    posthouse, _, _ = send.run(arguments.messages)
    return Report(
        "postfix",
        {
            "times_faster": posthouse / postfix,
            "posthouse_per_second": posthouse,
            "postfix_per_second": postfix,
            "postfix_accepted_per_second": accepted,
        },
    )


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="of the client to Postfix")


if __name__ == "__main__":
    main(measure, options)
