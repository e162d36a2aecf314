"""The parent's end of a child: frames in any pieces, and who is taken for hung."""

from __future__ import annotations

import asyncio
import subprocess
from typing import cast

import pytest

from posthouse.net.child import LENGTH, Child


class Process:
    """A child that cannot be seen from here."""

    pid = 7

    def __init__(self) -> None:
        self.killed = False

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> int:
        return 0


class Transport(asyncio.Transport):
    """Where frames go; what was written is in `frames`."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self.child = child
        self.frames: list[bytes] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def writelines(self, list_of_data: object) -> None:
        self.frames.append(b"".join(cast("list[bytes]", list_of_data)))

    def abort(self) -> None:
        self.child.connection_lost(None)


class Recorded(Child):
    """`more`: frames to give, one after each answer."""

    def __init__(self, patience: float, more: int = 0) -> None:
        super().__init__(cast("subprocess.Popen[bytes]", Process()), patience, start=patience)
        self.seen: list[str | bytes] = []
        self.more = more
        self.transport = Transport(self)
        self.connection_made(self.transport)
        self.write(b"setup")

    def began(self) -> None:
        self.seen.append("began")

    def answered(self, frame: bytes) -> bool:
        self.seen.append(frame)
        if self.more:
            self.more -= 1
            self.write(b"next")
            return True
        return False

    def died(self) -> None:
        self.seen.append("died")

    def hung(self) -> None:
        self.seen.append("hung")


def frame(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
async def test_frames_come_in_any_pieces(size: int) -> None:
    child = Recorded(5.0)
    said = frame(b"") + frame(b"one") + frame(b"") + frame(b"three" * 50)
    for at in range(0, len(said), size):
        child.data_received(said[at : at + size])
    assert child.seen == ["began", b"one", b"", b"three" * 50]
    assert child.transport.frames == [frame(b"setup")]


async def test_one_that_does_not_answer_its_setup_is_ended() -> None:
    child = Recorded(0.05)
    await asyncio.sleep(0.2)
    assert child.seen == ["hung", "died"]
    assert not child.ready


async def test_each_answer_is_waited_for_anew_and_none_when_nothing_is_due() -> None:
    child = Recorded(0.2, more=4)
    child.data_received(frame(b""))
    child.write(b"first")
    for _ in range(5):
        await asyncio.sleep(0.1)
        child.data_received(frame(b"x"))
    await asyncio.sleep(0.4)
    assert child.seen == ["began", *[b"x"] * 5]
    child.write(b"last")
    await asyncio.sleep(0.4)
    assert child.seen[-2:] == ["hung", "died"]
