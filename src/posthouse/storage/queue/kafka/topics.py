"""The topics of the stages: made when they are missing, and how far each one reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import confluent_kafka
import structlog
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from posthouse.errors import StorageUnavailable
from posthouse.storage.queue.kafka.partitions import Name
from posthouse.storage.queue.kafka.producer import told
from posthouse.storage.queue.kafka.wire import Options

log = structlog.get_logger("queue")

_SECONDS = 10.0
_TRIES = 40
_PAUSE = 0.05
_SETTINGS = {
    # Nothing is deleted by age or size: what is done is deleted up to the low-water mark.
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "max.message.bytes": "2000000",
}


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    id: str
    partitions: int


class Topics:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._admin: Any = None
        self._known: dict[str, Topic] = {}
        self._making = asyncio.Lock()

    async def of(self, stage: str) -> Mapping[str, Topic]:
        """By name, one for each lane.

        :raises StorageUnavailable:
        """
        names = self._options.topics(stage)
        if any(name not in self._known for name in names):
            async with self._making:
                for topic in await self._call(self._ensure, names):
                    self._known[topic.name] = topic
        return {name: self._known[name] for name in names}

    def partitions(self, topic: str) -> int:
        """Of a topic that was asked for before."""
        return self._known[topic].partitions

    async def all(self) -> list[Topic]:
        """Those of every stage that the brokers hold."""
        return await self._call(self._listed)

    async def ends(self, topics: Sequence[Topic]) -> dict[Name, int]:
        """The offset after the last record of each partition."""
        names = [(topic.name, number) for topic in topics for number in range(topic.partitions)]
        return await self._call(self._ends, names) if names else {}

    async def clean(self, marks: Mapping[Name, int]) -> None:
        """The records below these offsets are needed no more."""
        if marks:
            await self._call(self._delete, marks)

    async def ready(self) -> None:
        await self._call(lambda: self._client().list_topics(timeout=_SECONDS))

    def close(self) -> None:
        self._admin = None

    async def _call(self, work: Any, *args: Any) -> Any:
        """A topic that was just made is not known to every broker at once: asked again."""
        left = _TRIES
        while True:
            try:
                return await asyncio.to_thread(work, *args)
            except confluent_kafka.KafkaException as error:
                left -= 1
                if not left or not _passing(error):
                    raise StorageUnavailable(detail=f"kafka: {error}") from error
            await asyncio.sleep(_PAUSE)

    # On a thread.

    def _client(self) -> Any:
        if self._admin is None:
            settings: dict[str, Any] = {
                **self._options.client(),
                "log_level": 0,
                "error_cb": told("admin"),
            }
            self._admin = AdminClient(settings)
        return self._admin

    def _ensure(self, names: Sequence[str]) -> list[Topic]:
        found = self._described(names)
        missing = [name for name in names if name not in found]
        if missing:
            made = self._client().create_topics(
                [
                    NewTopic(name, self._options.partitions, self._options.replication, config=_SETTINGS)
                    for name in missing
                ],
                operation_timeout=_SECONDS,
                request_timeout=_SECONDS,
            )
            for future in made.values():
                _made(future)
            found |= self._described(missing)
        if lacking := [name for name in names if name not in found]:
            raise confluent_kafka.KafkaException(
                confluent_kafka.KafkaError(confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART, lacking[0])
            )
        return list(found.values())

    def _described(self, names: Sequence[str]) -> dict[str, Topic]:
        wanted = confluent_kafka.TopicCollection(list(names))
        found: dict[str, Topic] = {}
        for name, future in self._client().describe_topics(wanted, request_timeout=_SECONDS).items():
            try:
                about = future.result()
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() != confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            else:
                found[name] = Topic(name, str(about.topic_id), len(about.partitions))
        return found

    def _listed(self) -> list[Topic]:
        topics = self._client().list_topics(timeout=_SECONDS).topics
        return [
            Topic(name, "", len(about.partitions))
            for name, about in topics.items()
            if self._options.stage_and_lane(name) is not None
        ]

    def _ends(self, names: Sequence[Name]) -> dict[Name, int]:
        wanted = {TopicPartition(*name): OffsetSpec.latest() for name in names}
        answers = self._client().list_offsets(wanted, request_timeout=_SECONDS)
        return {(one.topic, one.partition): future.result().offset for one, future in answers.items()}

    def _delete(self, marks: Mapping[Name, int]) -> None:
        wanted = [TopicPartition(*name, offset) for name, offset in marks.items()]
        for future in self._client().delete_records(wanted, request_timeout=_SECONDS).values():
            future.result()


def _made(future: Any) -> None:
    """Another process may have been faster."""
    try:
        future.result()
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() != confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS:
            raise


_PASSING = {
    confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE,
    confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION,
    confluent_kafka.KafkaError._UNKNOWN_PARTITION,
    confluent_kafka.KafkaError._UNKNOWN_TOPIC,
}


def _passing(error: confluent_kafka.KafkaException) -> bool:
    return isinstance(error.args[0], confluent_kafka.KafkaError) and error.args[0].code() in _PASSING
