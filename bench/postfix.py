"""Postfix with OpenDKIM from Debian's packages, on loopback, sending to the same sink.

    python -m bench.postfix --messages 5000 --json

An instance of its own: configuration, queue and keys in a new directory under /var/spool
(so that the queue is on a disk, as in the real thing); the system's instance is never
touched. A pipelining client injects over SMTP; each message is queued with fsync, signed
with RSA-2048 by the milter, and relayed to the sink. The time runs from the first injected
message to the last one that the sink has accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from posthouse.smtpd.sink import Options, Sink
from posthouse.smtpd.sink.processes import Group

CONNECTIONS = 20
SIZE = 8192
_POLICY = Path("/usr/sbin/policy-rc.d")
_DOMAIN = "shop.example"
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
smtpd_milters = inet:127.0.0.1:{milter}
milter_default_action = tempfail
in_flow_delay = 0
default_process_limit = 100
default_destination_concurrency_limit = 50
initial_destination_concurrency = 50
qmgr_message_active_limit = 100000
smtp_connection_cache_destinations = 127.0.0.1
alias_maps =
alias_database =
"""
_OPENDKIM = """\
Socket inet:{milter}@127.0.0.1
Domain {domain}
Selector bench
KeyFile {root}/key.pem
Mode s
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
RequireSafeKeys no
Background no
Syslog no
PidFile {root}/opendkim.pid
"""


class MissingError(RuntimeError):
    """Postfix or OpenDKIM is not installed, or we are not root."""


@dataclass(frozen=True, slots=True)
class Instance:
    root: Path
    port: int
    sink: int


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


def measure(count: int, *, connections: int = CONNECTIONS) -> dict[str, float | int | str]:
    """`per_second` until the sink has all `count` messages, `accepted_per_second` by Postfix alone.

    :raises MissingError: what is needed is not here.
    :raises TimeoutError: the messages did not all arrive within a second for ten of them, and a minute.
    """
    if os.geteuid() != 0:
        raise MissingError("Postfix can only be started by root")
    if not installed():
        raise MissingError("Postfix and OpenDKIM are not installed: python -m bench.postfix --install")
    port, milter, sink = _free_ports(3)
    with _instance(port, milter, sink) as instance:
        return uvloop.run(_measure(instance, count, connections))


async def _measure(instance: Instance, count: int, connections: int) -> dict[str, float | int | str]:
    async with Sink(Options(port=instance.sink, tls=False)) as sink:
        await _inject(instance.port, 1, 1)
        await sink.received(1)
        signature = b"\r\nDKIM-Signature:" in b"\r\n" + sink.messages[0].data
        size = len(sink.messages[0].data)
    if not signature:
        raise RuntimeError("OpenDKIM did not sign")
    async with Group(Options(port=instance.sink, tls=False, check=False), 1) as group:
        started = time.time()
        await _inject(instance.port, count, connections)
        accepted = time.time() - started
        async with asyncio.timeout(60 + count / 10):
            while (counts := await group.counts()).accepted < count:  # noqa: ASYNC110 - another process counts
                await asyncio.sleep(0.05)
        seconds = counts.last_at - started
    return {
        "name": "postfix",
        "messages": count,
        "octets": size,
        "connections": connections,
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds, 1),
        "accepted_per_second": round(count / accepted, 1),
    }


# -- the instance -------------------------------------------------------------------------


@contextmanager
def _instance(port: int, milter: int, sink: int) -> Generator[Instance, None, None]:
    root = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir="/var/spool"))
    root.chmod(0o755)
    signer: subprocess.Popen[bytes] | None = None
    try:
        _configure(root, port, milter, sink)
        signer = subprocess.Popen(["/usr/sbin/opendkim", "-f", "-x", str(root / "opendkim.conf")])
        _wait_for(milter)
        _postfix(root, "start")
        _wait_for(port)
        yield Instance(root, port, sink)
    finally:
        with suppress(subprocess.SubprocessError):
            _postfix(root, "stop")
        if signer is not None:
            signer.terminate()
            with suppress(subprocess.TimeoutExpired):
                signer.wait(10)
            signer.kill()
        shutil.rmtree(root, ignore_errors=True)


def _configure(root: Path, port: int, milter: int, sink: int) -> None:
    config = root / "config"
    for folder in ("config", "queue", "data"):
        (root / folder).mkdir(mode=0o755)
    owner = pwd.getpwnam("postfix")
    os.chown(root / "data", owner.pw_uid, owner.pw_gid)
    values = {"root": root, "port": port, "milter": milter, "sink": sink, "domain": _DOMAIN}
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


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(port: int, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


# -- the client ---------------------------------------------------------------------------


def message(number: int, size: int = SIZE) -> bytes:
    """One message of `size` octets, as a client would submit it."""
    head = (
        f"From: Shop <news@{_DOMAIN}>\r\nTo: user{number}@sink.example\r\nSubject: Your order {number}\r\n"
        f"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{number}.bench@{_DOMAIN}>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    ).encode()
    line = b"Your order left our house and will be with you soon, as promised.\r\n"
    return (head + line * (size // len(line)))[: size - 2].rstrip(b"\r\n") + b"\r\n"


async def _inject(port: int, count: int, connections: int) -> None:
    numbers = iter(range(count))
    await asyncio.gather(*(_connection(port, numbers) for _ in range(min(count, connections))))


async def _connection(port: int, numbers: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _replies(reader, 1)
    writer.write(b"EHLO client.example\r\n")
    await _replies(reader, 1)
    for number in numbers:
        writer.write(f"MAIL FROM:<bounces@{_DOMAIN}>\r\nRCPT TO:<user{number}@sink.example>\r\nDATA\r\n".encode())
        await _replies(reader, 3)
        writer.write(message(number) + b".\r\n")
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Postfix with OpenDKIM, sending to the sink.")
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--install", action="store_true", help="install Debian's packages first")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.install and not installed():
        install()
    try:
        figures = measure(arguments.messages, connections=arguments.connections)
    except MissingError as missing:
        sys.exit(str(missing))
    if arguments.json:
        print(json.dumps({"name": "postfix", "figures": figures, "bars": {}, "met": {}}))
    else:
        for name, value in figures.items():
            print(f"{name:>20}  {value}")


if __name__ == "__main__":
    main()
