"""A job as a record of a topic, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit
from zlib import crc32

import msgspec

from posthouse.errors import Misconfigured
from posthouse.storage.queue.base import Job, Lane

LARGE = 256 * 1024
"""Octets of a payload above which it lies in a blob."""


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The value, in JSON. Stage and lane are the topic's. `blob`: where the payload lies."""

    id: str
    tenant: str
    due_at: int
    attempts: int = 0
    payload: str | None = None
    key: str | None = None
    blob: str | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode


@dataclass(frozen=True, slots=True)
class Login:
    """`mechanism`: one of `MECHANISMS`."""

    user: str
    password: str = field(repr=False)
    mechanism: str


@dataclass(frozen=True, slots=True)
class Options:
    """`servers`: `HOST:PORT,…`. `partitions` and `replication`: of topics that are made.
    `ca`: a file of certificates to trust in place of the system's."""

    servers: str
    prefix: str = "posthouse"
    partitions: int = 12
    replication: int = 1
    tls: bool = False
    ca: str = ""
    login: Login | None = None

    def client(self) -> dict[str, str]:
        """How to reach the brokers, in librdkafka's words."""
        # A broker that is back is found within a second, not ten.
        said = {"bootstrap.servers": self.servers, "reconnect.backoff.max.ms": "1000"}
        if self.login is not None:
            said |= {
                "sasl.mechanism": self.login.mechanism,
                "sasl.username": self.login.user,
                "sasl.password": self.login.password,
            }
        protocol = ("SASL_" if self.login is not None else "") + ("SSL" if self.tls else "PLAINTEXT")
        return {
            **said,
            "security.protocol": protocol,
            **({"ssl.ca.location": self.ca} if self.ca else {}),
        }

    def topic(self, stage: str, lane: int) -> str:
        return f"{self.prefix}.{stage}.{Lane(lane).name.lower()}"

    def topics(self, stage: str) -> list[str]:
        return [self.topic(stage, lane) for lane in Lane]

    def stage_and_lane(self, topic: str) -> tuple[str, int] | None:
        """None: it is not one of ours."""
        head, _, name = topic.rpartition(".")
        if not head.startswith(f"{self.prefix}.") or name.upper() not in Lane.__members__:
            return None
        return head[len(self.prefix) + 1 :], int(Lane[name.upper()])


MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_NUMBERS = {"partitions": 10_000, "replication": 100}
_NAMES = {"prefix", "tls", "ca", "sasl"}
_SAID = {"true": True, "false": False}


def options(url: str) -> Options:
    """
    :param url: `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?OPTION=VALUE&…]`; the options are
        `prefix`, `partitions`, `replication`, `tls=true`, `ca=FILE`, `sasl=MECHANISM`.
    :raises Misconfigured:
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    if parts.scheme != "kafka" or not parts.netloc or parts.path.strip("/"):
        raise Misconfigured("queue.url: kafka://HOST:PORT[,HOST:PORT…] is expected")
    if unknown := given.keys() - {*_NAMES, *_NUMBERS}:
        raise Misconfigured(f"queue.url: unknown option {', '.join(sorted(unknown))}")
    numbers: dict[str, int] = {}
    for name, most in _NUMBERS.items():
        if name in given:
            if not given[name].isdecimal() or not 1 <= int(given[name]) <= most:
                raise Misconfigured(f"queue.url: {name} is a number from 1 to {most}")
            numbers[name] = int(given[name])
    login, at, servers = parts.netloc.rpartition("@")
    if given.get("tls", "false") not in _SAID:
        raise Misconfigured("queue.url: tls is true or false")
    tls = _SAID[given.get("tls", "false")]
    if "ca" in given and not tls:
        raise Misconfigured("queue.url: ca needs tls=true")
    return Options(
        servers,
        given.get("prefix", "posthouse"),
        **numbers,
        tls=tls,
        ca=given.get("ca", ""),
        login=_login(login if at else None, given.get("sasl"), tls),
    )


def _login(said: str | None, mechanism: str | None, tls: bool) -> Login | None:
    if said is None:
        if mechanism is not None:
            raise Misconfigured("queue.url: sasl needs kafka://USER:PASSWORD@HOST:PORT")
        return None
    user, colon, password = said.partition(":")
    if not user or not colon:
        raise Misconfigured("queue.url: kafka://USER:PASSWORD@HOST:PORT is expected")
    mechanism = (mechanism or "SCRAM-SHA-512").upper()
    if mechanism not in MECHANISMS:
        raise Misconfigured(f"queue.url: sasl is one of {', '.join(MECHANISMS)}")
    if mechanism == "PLAIN" and not tls:
        raise Misconfigured("queue.url: sasl=PLAIN says the password as it is: it needs tls=true")
    return Login(unquote(user), unquote(password), mechanism)


def mark(text: str) -> int:
    """CRC-32: of a key it chooses the partition, of an id it stands for the job in a row's `held`."""
    return crc32(text.encode())


def partition_of(job: Job, partitions: int) -> int:
    """The same for every copy of a job."""
    return mark(job.key or job.id) % partitions
