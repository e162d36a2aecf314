"""The fast path and the whole protocol say the same, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.smtpd.sink.options import Options
from posthouse.smtpd.sink.session import Session
from posthouse.smtpd.sink.state import State


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.out: deque[bytes] = deque()
        self.closed = False

    def write(self, data: Any) -> None:
        self.out.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def talk(groups: list[bytes], step: int, options: Options) -> tuple[bytes, dict[str, object], list[Any], int]:
    """Each group in one piece (`step` 0), as a client sends it, or in pieces of `step` octets."""
    state, wire = State(options), Wire()
    session = Session(state)
    session.connection_made(wire)
    session.data_received(b"EHLO x.test\r\n")
    before = len(wire.out)
    for group in groups:
        for at in range(0, len(group), step or len(group)):
            if not wire.closed:
                session.data_received(group[at : at + (step or len(group))])
    report = state.counts.report()
    kept = [
        (m.entry.sender, m.entry.to, m.entry.size, m.entry.message_id, m.entry.outcome, m.data)
        for m in state.memory.messages
    ]
    writes = len(wire.out) - before
    return b"".join(wire.out), {key: report[key] for key in ("accepted", "octets", "refused", "dropped")}, kept, writes


BODY = b"Subject: x\r\nMessage-ID: <1@x.test>\r\n\r\nHello\r\n"
HEAD = b"MAIL FROM:<a.b+1@x.test> SIZE=40 BODY=8BITMIME\r\nRCPT TO:<u@y.test>\r\n"


def bdat(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"BDAT %d LAST\r\n" % len(body) + body


def data(body: bytes, head: bytes = HEAD) -> list[bytes]:
    return [head + b"DATA\r\n", body.replace(b"\r\n.", b"\r\n..") + b".\r\n"]


CASES = [
    [bdat(BODY)],
    data(BODY),
    data(BODY + b".\r\n..x\r\n"),
    data(b""),
    data(b"\r\n"),
    data(b".\r\n"),
    [HEAD + b"DATA\r\n", b"ab\r\n", b"c\r\n.\r\n"],
    [HEAD + b"DATA\r\n", b"ab\n.\n\r\n.\r\n"],
    [HEAD + b"DATA\r\n", b"a\r\n.\r\n" + bdat(BODY)],
    [HEAD + b"DATA\r\nx\r\n.\r\n"],
    [HEAD + b"DATA\r\n", b"x" * 1200 + b"\r\n.\r\n"],
    [bdat(b"bare\nlf")],
    [bdat(b"bare\rcr")],
    [bdat(b"nul\0")],
    [bdat(b"x" * 999)],
    [bdat(b"x" * 1001)],
    [bdat(BODY) + bdat(BODY)],
    [bdat(BODY, b"MAIL FROM:<>\r\nRCPT TO:<u@y.test>\r\n")],
    [bdat(BODY, HEAD + b"RCPT TO:<bounce@y.test>\r\n")],
    [bdat(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<Bounce+1@y.test>\r\n")],
    [bdat(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<spam@y.test>\r\n")],
    data(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<defer-1@y.test>\r\n"),
    [bdat(BODY, b"MAIL FROM:<a..b@x.test>\r\nRCPT TO:<u@y.test>\r\n")],
    [bdat(BODY, b"MAIL FROM:<a@-x.test>\r\nRCPT TO:<u@y.test>\r\n")],
    [bdat(BODY, b"MAIL FROM:<a@x.test> SIZE=9999999\r\nRCPT TO:<u@y.test>\r\n")],
    [bdat(BODY, b"MAIL FROM:<%s@x.test>\r\nRCPT TO:<u@y.test>\r\n" % (b"l" * 64))],
    [bdat(BODY, b"MAIL FROM:<%s@x.test>\r\nRCPT TO:<u@y.test>\r\n" % (b"l" * 65))],
    [bdat(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<u@%s>\r\n" % b".".join([b"d" * 40] * 5))],
    [bdat(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<u@x-.test>\r\n")],
    [b"RSET\r\n"],
    [b"NOOP\r\n"],
]
GROUPS = st.one_of(
    st.sampled_from(CASES),
    st.binary(max_size=30).map(lambda body: [bdat(body)]),
    st.from_regex(rb"\A[A-Za-z0-9_=+.-]{1,24}\Z").map(
        lambda local: [bdat(BODY, b"MAIL FROM:<%s@x.test>\r\nRCPT TO:<u%s@y-1.test>\r\n" % (local, local))]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(GROUPS, max_size=5).map(lambda many: [group for groups in many for group in groups]), st.integers(1, 9))
def test_fast_and_whole_agree(groups: list[bytes], step: int) -> None:
    async def both() -> None:
        fast = await talk(groups, 0, Options(tls=False))
        whole = await talk(groups, step, Options(tls=False))
        assert fast[:3] == whole[:3]

    asyncio.run(both())


@pytest.mark.parametrize("groups", CASES)
async def test_each_case_agrees(groups: list[bytes]) -> None:
    assert (await talk(groups, 0, Options(tls=False)))[:3] == (await talk(groups, 1, Options(tls=False)))[:3]


@pytest.mark.parametrize("groups", [[bdat(BODY)], data(BODY)])
async def test_the_fast_path_writes_once_a_group(groups: list[bytes]) -> None:
    replies, report, kept, writes = await talk(groups * 3, 0, Options(tls=False))
    assert writes == 3 * len(groups)
    assert report["accepted"] == 3
    assert kept[0] == ("a.b+1@x.test", ["u@y.test"], len(BODY), "<1@x.test>", "250 2.0.0", BODY)
    assert replies.endswith(b"250 2.0.0 Ok\r\n")


async def test_a_mix_reaches_the_fast_path() -> None:
    groups = [bdat(BODY, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<u%d@y.test>\r\n" % number) for number in range(400)]
    resets = [part for group in groups for part in (group, b"RSET\r\n")]
    options = Options(tls=False, mix="bounce=25%", seed=3)
    fast, slow = await talk(resets, 0, options), await talk(resets, 50, options)
    assert fast[:3] == slow[:3]
    assert 60 < fast[1]["refused"]["550 5.1.1"] < 140  # type: ignore[index]


async def test_without_check_plain_bodies_are_taken_as_they_are() -> None:
    groups = [bdat(b"bare\nlf"), *data(b"long" * 300 + b"\r\n")]
    assert (await talk(groups, 0, Options(tls=False, check=False)))[1]["accepted"] == 2
    assert (await talk(groups, 0, Options(tls=False)))[1]["accepted"] == 0
