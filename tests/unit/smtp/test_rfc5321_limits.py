"""RFC 5321 §4.5.3, limit by limit: the constant, and the octet at which it holds.

A server may take more than the least that the RFC asks, never less.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from server_script import ENVELOPE, OFFER, Script, codes

from posthouse.smtp import body, command, offer, path, reply
from posthouse.smtp.offer import Limits
from posthouse.smtp.reply import Reply
from posthouse.smtpd.gateway import Options, Pace, Spooling, Timeouts
from posthouse.smtpd.gateway.options import COMMAND_MIN


def rcpt(address: str) -> int:
    script = Script()
    script.send(b"MAIL FROM:<>\r\n")
    return codes(script.send(f"RCPT TO:<{address}>\r\n".encode()))[0]


def test_local_part_4_5_3_1_1() -> None:
    assert path.MAX_LOCAL == 64
    assert rcpt("a" * 64 + "@mx.test") == 250
    assert rcpt("a" * 65 + "@mx.test") == 501
    assert rcpt('"' + "a" * 62 + '"@mx.test') == 250
    assert rcpt('"' + "a" * 63 + '"@mx.test') == 501


def test_domain_4_5_3_1_2() -> None:
    assert path.MAX_DOMAIN == 255
    script = Script(greet=False)
    script.send(b"")
    assert codes(script.send(b"EHLO " + b"d" * 255 + b"\r\n")) == [250]
    assert codes(script.send(b"EHLO " + b"d" * 256 + b"\r\n")) == [501]


def test_path_4_5_3_1_3() -> None:
    assert path.MAX_PATH == 256  # with the angle brackets
    labels = ".".join(["d" * 60] * 4)  # 243
    for extra, code in ((9, 250), (10, 250), (11, 501)):
        address = "a" * extra + "@" + labels
        assert rcpt(address) == code
        assert (len(address) + 2 <= 256) is (code == 250)


def test_command_line_4_5_3_1_4() -> None:
    assert command.MAX_COMMAND == 512  # with CR LF
    script = Script()
    assert codes(script.send(b"NOOP " + b"x" * (512 - 7) + b"\r\n")) == [250]
    assert codes(script.send(b"NOOP " + b"x" * (512 - 6) + b"\r\n")) == [500]
    assert command.MAX_ENVELOPE_COMMAND >= 512 + 26 + 17 + 11 + 109 + 28 + 500  # SIZE, BODY, SMTPUTF8, DSN, ORCPT
    assert command.MAX_AUTH == 12_288


@pytest.mark.parametrize("utf8", [False, True])
def test_reply_line_4_5_3_1_5(utf8: bool) -> None:
    wire = Reply(550, "5.7.1", ("long " * 1000 + "é" * 500 + "x" * 2000,)).encode(utf8=utf8)
    lines = wire.split(b"\r\n")[:-1]
    assert len(lines) > 10
    assert max(map(len, lines)) + 2 <= 512
    assert reply.MAX_LINE >= 512


def test_text_line_4_5_3_1_6() -> None:
    assert body.TEXT_LINE == Limits().text_line == 1000  # with CR LF, without the stuffed dot
    for first in (b"x", b"."):
        for length, code in ((1000, 250), (1001, 550)):
            script = Script()
            line = first + b"x" * (length - 3) + b"\r\n"
            script.send(ENVELOPE + b"DATA\r\n")
            wire = b"." + line if first == b"." else line
            assert codes(script.send(b"Subject: x\r\n\r\n" + wire + b".\r\n")) == [code]


def test_message_4_5_3_1_7() -> None:
    assert offer.MESSAGE_MIN == 65_536
    assert Limits().size >= 65_536
    for size, code in ((65_536, 250), (65_537, 552)):
        script = Script(OFFER, Limits(size=65_536))
        script.send(ENVELOPE + b"DATA\r\n")
        assert codes(
            script.send(
                b"x" * 510 + b"\r\n" + b"y" * (size - 65_536 + 510) + b"\r\n" + (b"z" * 510 + b"\r\n") * 126 + b".\r\n"
            )
        ) == [code]


def test_recipients_4_5_3_1_8_and_10() -> None:
    assert offer.RECIPIENTS_MIN == 100
    assert Limits().recipients >= 100
    script = Script(OFFER, Limits(recipients=100))
    found = codes(script.send(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@mx.test>\r\n" * 101))
    assert found == [250] * 101 + [452]
    script.send(b"DATA\r\n")
    assert codes(script.send(b"Subject: x\r\n.\r\n")) == [250]  # those before it still get it


def test_time_outs_4_5_3_2() -> None:
    assert COMMAND_MIN == 300  # §4.5.3.2.7
    assert Timeouts().command >= 300
    assert Timeouts().data >= 180  # §4.5.3.2.5: a client may take three minutes for a block
    assert Pace().window >= 180
    assert Timeouts().tls >= 30


def test_the_defaults_reach_the_gateway(tmp_path: Path) -> None:
    options = Options("mx.test", [], Spooling(tmp_path))
    assert options.timeouts == Timeouts()
    assert options.pace == Pace()
    assert options.limits == Limits()
