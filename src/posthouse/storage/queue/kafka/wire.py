"""A job as a record of a topic, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit
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
class Options:
    """`servers`: `HOST:PORT,…`. `partitions` and `replication`: of topics that are made."""

    servers: str
    prefix: str = "posthouse"
    partitions: int = 12
    replication: int = 1

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


_NUMBERS = {"partitions": 10_000, "replication": 100}


def options(url: str) -> Options:
    """
    :param url: `kafka://HOST:PORT[,HOST:PORT…][?prefix=NAME&partitions=N&replication=N]`.
    :raises Misconfigured:
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    if parts.scheme != "kafka" or not parts.netloc or parts.path.strip("/"):
        raise Misconfigured("queue.url: kafka://HOST:PORT[,HOST:PORT…] is expected")
    if unknown := given.keys() - {"prefix", *_NUMBERS}:
        raise Misconfigured(f"queue.url: unknown option {', '.join(sorted(unknown))}")
    numbers: dict[str, int] = {}
    for name, most in _NUMBERS.items():
        if name in given:
            if not given[name].isdecimal() or not 1 <= int(given[name]) <= most:
                raise Misconfigured(f"queue.url: {name} is a number from 1 to {most}")
            numbers[name] = int(given[name])
    return Options(parts.netloc, given.get("prefix", "posthouse"), **numbers)


def mark(text: str) -> int:
    """CRC-32: of a key it chooses the partition, of an id it stands for the job in a row's `held`."""
    return crc32(text.encode())


def partition_of(job: Job, partitions: int) -> int:
    """The same for every copy of a job."""
    return mark(job.key or job.id) % partitions
