"""What the conversation is asked, in which order, and what its answers do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from heard import BODY, ENVELOPE, OK, House, client, gateway, until

from posthouse.smtp.command import Mail, Rcpt
from posthouse.smtp.parameter import Notify, Ret
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Listener

NO = Reply(550, "5.1.1", ("No such mailbox",))
LATER = Reply(451, "4.7.1", ("Greylisted",))


async def test_a_message_from_greeting_to_quit(tmp_path: Path) -> None:
    house = House()
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        assert await peer.message() == b"250 2.0.0 Kept"
        assert await peer.message(b"Subject: two\r\n\r\n.\r\n..\r\n") == b"250 2.0.0 Kept"
        assert await peer.say(b"QUIT\r\n") == [b"221 2.0.0 Bye"]
        assert await peer.ended() == b""
        await house.lost()
    transaction = ["mail", "rcpt", "end"]
    assert house.steps == ["connected", "hello", *transaction, *transaction, "lost"]
    assert house.messages == [BODY, b"Subject: two\r\n\r\n.\r\n..\r\n"]
    assert house.kinds == ["bytes", "bytes"]
    assert (house.talks[0].peer.address, house.talks[0].peer.listener) == ("127.0.0.1", "mx")
    assert not house.talks[0].peer.trusted


@pytest.mark.parametrize(
    ("answers", "codes"),
    [
        ({"mail": LATER}, [b"451", b"503", b"503"]),
        ({"rcpt": NO}, [b"250", b"550", b"554"]),
        ({"end": lambda _: given([NO])}, [b"250", b"250", b"354", b"550"]),
        ({"rcpt": lambda _: soon(LATER)}, [b"250", b"451", b"554"]),
        ({"rcpt": lambda _: soon(None)}, [b"250", b"250", b"354", b"250"]),
        ({"mail": ZeroDivisionError("a fault")}, [b"451", b"503", b"503"]),
        ({"rcpt": lambda _: soon(ZeroDivisionError())}, [b"250", b"451", b"554"]),
        ({"end": ZeroDivisionError("a fault")}, [b"250", b"250", b"354", b"451"]),
        ({"end": lambda _: soon(ZeroDivisionError())}, [b"250", b"250", b"354", b"451"]),
        ({"end": lambda _: soon([OK, OK])}, [b"250", b"250", b"354", b"451"]),
        ({"end": lambda _: soon([])}, [b"250", b"250", b"354", b"451"]),
        ({"end": lambda _: Later([OK])}, [b"250", b"250", b"354", b"250"]),
    ],
)
async def test_answers(tmp_path: Path, answers: dict[str, Any], codes: list[bytes]) -> None:
    house = House(**answers)
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        found = await peer.say(ENVELOPE + b"DATA\r\n", 3)
        if found[-1][:3] == b"354":
            found += await peer.say(BODY + b".\r\n")
        assert [line[:3] for line in found] == codes
        assert await peer.say(b"NOOP\r\n") == [b"250 2.0.0 Ok"]  # the session goes on


async def soon(answer: Any) -> Any:
    await asyncio.sleep(0.02)
    if isinstance(answer, Exception):
        raise answer
    return answer


def given(answer: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future


class Later:
    """Awaitable, and neither a future nor a coroutine."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __await__(self) -> Any:
        yield from asyncio.sleep(0.01).__await__()
        return self.answer


async def test_pipelined_commands_wait_for_answers_in_order(tmp_path: Path) -> None:
    replies = iter([NO, None, LATER, None])
    house = House(rcpt=lambda _: soon(next(replies)))
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        lines = b"".join(b"RCPT TO:<%d@mx.test>\r\n" % number for number in range(4))
        body = b"BDAT %d LAST\r\n" % len(BODY) + BODY
        found = await peer.say(b"MAIL FROM:<>\r\n" + lines + body + b"NOOP\r\n", 7)
        assert [line[:3] for line in found] == [b"250", b"550", b"250", b"451", b"250", b"250", b"250"]
    assert house.steps == ["connected", "hello", "mail", "rcpt", "rcpt", "rcpt", "rcpt", "end", "lost"]


@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO again.test\r\n", b"QUIT\r\n", b""])
async def test_a_transaction_without_a_message_is_reset_once(tmp_path: Path, end: bytes) -> None:
    house = House()
    async with gateway(house, tmp_path) as running:
        async with client(running.ports[0]) as peer:
            await peer.say(ENVELOPE, 2)
            if end:
                await peer.say(end)
        await house.lost()
    after = {b"EHLO again.test\r\n": ["reset", "hello", "lost"]}.get(end, ["reset", "lost"])
    assert house.steps == ["connected", "hello", "mail", "rcpt", *after]


async def test_a_connection_lost_while_a_message_is_made_durable(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slowly() -> list[Reply]:
        await release.wait()
        return [OK]

    house = House(end=lambda _: slowly())
    async with gateway(house, tmp_path) as running:
        async with client(running.ports[0]) as peer:
            await peer.say(ENVELOPE + b"DATA\r\n", 3)
            peer.writer.write(BODY + b".\r\n")
            await until(lambda: len(house.messages) == 1)
            peer.reset()
        await house.lost()
        assert house.steps == ["connected", "hello", "mail", "rcpt", "end", "lost"]
        release.set()
        await asyncio.sleep(0.02)
    assert house.steps[-1] == "lost"


async def test_a_client_that_closes_its_side_still_gets_its_answer(tmp_path: Path) -> None:
    house = House(rcpt=lambda _: soon(None), end=lambda _: soon([OK]))
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        peer.writer.write(ENVELOPE + b"BDAT %d LAST\r\n" % len(BODY) + BODY)
        peer.writer.write_eof()
        assert (await peer.ended()).splitlines()[-1] == b"250 2.0.0 Kept"
        await house.lost()


@pytest.mark.parametrize(("code", "goes_on"), [(421, False), (554, True)])
async def test_refused_at_the_greeting(tmp_path: Path, code: int, goes_on: bool) -> None:
    house = House(connected=Reply(code, f"{code // 100}.7.1", ("Listed",)))
    async with gateway(house, tmp_path) as running, client(running.ports[0], b"") as peer:
        assert (await peer.replies())[0].startswith(b"%d " % code)
        if goes_on:
            assert await peer.say(b"EHLO x.test\r\nQUIT\r\n", 2) == [
                b"503 5.5.1 No service here; QUIT",
                b"221 2.0.0 Bye",
            ]
        assert await peer.ended() == b""


async def test_421_from_any_answer_closes(tmp_path: Path) -> None:
    house = House(rcpt=Reply(421, "4.7.0", ("Enough",)))
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        assert [line[:3] for line in await peer.say(ENVELOPE, 2)] == [b"250", b"421"]
        assert await peer.ended() == b""
        peer.writer.close()
        await house.lost()
    assert house.steps[-2:] == ["reset", "lost"]


async def test_lmtp_answers_for_each_recipient(tmp_path: Path) -> None:
    house = House(end=lambda _: given([OK, LATER, NO]))
    async with gateway(house, tmp_path, Listener("lmtp")) as running:
        async with client(running.ports[0], b"LHLO front.test\r\n") as peer:
            assert (await peer.say(b"EHLO x.test\r\n"))[0][:3] == b"500"
            lines = b"".join(b"RCPT TO:<%d@mx.test>\r\n" % number for number in range(3))
            await peer.say(b"MAIL FROM:<>\r\n" + lines + b"DATA\r\n", 5)
            assert [line[:3] for line in await peer.say(BODY + b".\r\n", 3)] == [b"250", b"451", b"550"]
        assert house.talks[0].peer.trusted


async def test_lmtp_with_chunks(tmp_path: Path) -> None:
    house = House()
    async with (
        gateway(house, tmp_path, Listener("lmtp")) as running,
        client(running.ports[0], b"LHLO front.test\r\n") as peer,
    ):
        await peer.say(b"MAIL FROM:<>\r\nRCPT TO:<a@mx.test>\r\nRCPT TO:<b@mx.test>\r\n", 3)
        assert await peer.say(b"BDAT 100\r\n" + BODY[:100]) == [b"250 2.0.0 Ok"]
        rest = BODY[100:]
        assert await peer.say(b"BDAT %d LAST\r\n" % len(rest) + rest, 2) == [b"250 2.0.0 Kept"] * 2
    assert house.messages == [BODY]


async def test_an_lmtp_peer_that_is_no_front_server_is_not_trusted(tmp_path: Path) -> None:
    house = House()
    async with (
        gateway(house, tmp_path, Listener("lmtp", fronts=())) as running,
        client(running.ports[0], b"LHLO front.test\r\n"),
    ):
        assert not house.talks[0].peer.trusted


async def test_parameters_come_through(tmp_path: Path) -> None:
    seen: list[Rcpt] = []
    house = House(rcpt=seen.append)
    async with gateway(house, tmp_path) as running, client(running.ports[0]) as peer:
        found = await peer.say(
            b"MAIL FROM:<a@x.test> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=q+2B1\r\n"
            b"RCPT TO:<\xc3\xa9@mx.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o@x.test\r\n",
            2,
        )
        assert [line[:3] for line in found] == [b"250", b"250"]
    mail: Mail = house.mails[0]
    assert (mail.size, mail.smtputf8, mail.ret, mail.envid) == (100, True, Ret.HEADERS, "q+1")
    assert seen[0].forward_path == "é@mx.test"
    assert seen[0].notify == (Notify.SUCCESS, Notify.DELAY)
    assert seen[0].orcpt is not None
    assert seen[0].orcpt.address == "o@x.test"
