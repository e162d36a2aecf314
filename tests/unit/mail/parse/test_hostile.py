"""What is made to cost: each message of some megabytes in bounded time and memory, and what twice
as much costs is about twice the time. Sizes are small here so that the suite is quick; the bounds
are those of 36 MB."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posthouse.mail.parse import decode_words, decoded, header_fields, parse, search_text

WIRE = 36 << 20  # octets of the largest message
SECONDS = 4.0  # of parsing; loose, since tests share the machine
MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
HTML = b"Content-Type: text/html\n\n"
PLAIN = b"Content-Type: text/plain"


def filled(head: bytes, piece: bytes, tail: bytes = b"", size: int = WIRE) -> bytes:
    return head + piece * ((size - len(head)) // len(piece)) + tail


def nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i) for i in range(depth))


WHOLE: dict[str, Callable[[], bytes]] = {
    "one line": lambda: filled(b"", b"a"),
    "one line of body": lambda: filled(b"a: b\n\n", b"a"),
    "one header": lambda: filled(b"Subject: ", b"a"),
    "a hundred thousand headers": lambda: b"A: b\r\n" * 100_000 + b"\r\n",
    "millions of headers": lambda: filled(b"", b"To: a@b\n"),
    "millions of folds": lambda: filled(b"Subject:", b"\n "),
    "ten thousand deep": lambda: filled(nested(10_000), b"x\r\n"),
    "ten thousand messages deep": lambda: filled(b"Content-Type: message/rfc822\n\n" * 10_000, b"x\n"),
    "deep with a flood": lambda: filled(nested(101), b"\n--b"),
    "a million parts": lambda: MIXED + b"--b\r\n\r\nx\r\n" * 1_000_000,
    "almost boundaries": lambda: filled(MIXED, b"--bX\n"),
    "one almost boundary": lambda: filled(MIXED + b"--b", b" "),
    "base64 of padding": lambda: filled(b"Content-Transfer-Encoding: base64\n\n", b"A="),
    "escapes": lambda: filled(b"Content-Transfer-Encoding: quoted-printable\n\n", b"="),
    "blanks": lambda: filled(b"Content-Transfer-Encoding: quoted-printable\n\n", b" "),
    "tags that never end": lambda: filled(HTML, b'<a "'),
    "no tags": lambda: filled(HTML, b"<"),
    "entities": lambda: filled(HTML, b"&abcdefghijklmnopqrstuvwxyzabcde"),
    "uuencode": lambda: filled(b"Content-Transfer-Encoding: uuencode\n\nbegin 644 a\n", b"M#\n"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_largest_message_takes_a_moment(name: str) -> None:
    message = WHOLE[name]()
    started = time.process_time()
    parsed = parse(message)
    next(decoded(message, parsed.structure), b"")
    search_text(message, parsed)
    assert time.process_time() - started < SECONDS


VALUES: dict[str, Callable[[int], bytes]] = {
    "comments": lambda size: filled(b"To: ", b"(", size=size),
    "quotes": lambda size: filled(b"To: ", b'"\\', size=size),
    "brackets and quotes": lambda size: filled(b"To: ", b'<\\"', size=size),
    "brackets": lambda size: filled(b"To: ", b"<", size=size),
    "colons": lambda size: filled(b"To: ", b"a:", b";", size=size),
    "groups": lambda size: filled(b"To: ", b":;", size=size),
    "half addresses": lambda size: filled(b"To: ", b"a@", size=size),
    "half words": lambda size: filled(b"To: ", b"=?utf-8?q?a", size=size),
    "words that never end": lambda size: filled(b"Subject: ", b"=?a?q?", size=size),
    "words that end once": lambda size: filled(b"Subject: ", b"=?a?q?", b"?=", size=size),
    "words": lambda size: filled(b"Subject: ", b"=?utf-8?b?YQ=?= ", size=size),
    "marks": lambda size: filled(b"Subject: ", "\u0316\u0300".encode(), size=size),
    "parameters": lambda size: filled(PLAIN, b"; a=b", size=size),
    "semicolons": lambda size: filled(PLAIN, b"; ", size=size),
    "one parameter": lambda size: filled(PLAIN + b'; a="', b'\\"', size=size),
    "segments": lambda size: PLAIN + b"".join(b"; name*%d*=%%41" % i for i in range(size // 16)),
    "dates": lambda size: filled(b"Date: ", b"Mon, 1 ", size=size),
    "references": lambda size: filled(b"References: ", b"<", size=size),
    "ids": lambda size: filled(b"Message-ID: <", b"a@", size=size),
}


@pytest.mark.parametrize("name", VALUES)
def test_no_value_costs_the_square_of_its_length(name: str) -> None:
    message = VALUES[name](250_000)
    started = time.process_time()
    parse(message)
    for _, value, _, _ in header_fields(message):
        decode_words(value)
    assert time.process_time() - started < 1.0


def test_uuencode_does_not_blow_up() -> None:
    message = b"Content-Transfer-Encoding: uuencode\n\nbegin 644 a\n" + b"M\n" * 50_000
    assert sum(map(len, decoded(message, parse(message).structure))) < len(message)


_MEASURE = """
import resource, sys
from posthouse.mail.parse import parse
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
message = eval(sys.argv[1])
before = peak()
parse(message)
print(peak() - before)
"""


@pytest.mark.parametrize(
    "expression",
    [
        "b'a' * (36 << 20)",
        "b'Subject: ' + b'a' * (36 << 20)",
        "b'A:\\\\n' * (12 << 20)",
        "b'Subject:' + b'\\\\n ' * (18 << 20)",
        "b'a: b\\\\n' + b'x\\\\n' * (18 << 20)",
        "b'\\\\r' * (36 << 20)",
        "b'Content-Type: multipart/mixed; boundary=b\\\\n\\\\n' + b'--b\\\\n' * (9 << 20)",
    ],
)
def test_memory_is_bounded(expression: str) -> None:
    source = str(Path(__file__).parents[4] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURE, expression.replace("\\\\", "\\")],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(ran.stdout) < 160  # MB beside the message's own 36
