"""The examining process: `examine` on a core of its own. Run by `pool.py`.

A request has messages, the answer what was found of each, in order. The first answer, to the
setup, is empty.
"""

from __future__ import annotations

import gc
import signal
import socket

import msgspec

from posthouse.inbound.examine import Examined, Given, examine
from posthouse.net.child import read_frame, write_frame

REQUEST = msgspec.msgpack.Decoder(list[Given])
ANSWER = msgspec.msgpack.Decoder(list[Examined])
encode = msgspec.msgpack.Encoder().encode


def main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # As the server: what is here now stays, and what messages leave is mostly free of cycles.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    sock = socket.socket(fileno=descriptor)
    answer = b""
    if read_frame(sock) is None:
        return
    while write_frame(sock, answer):
        frame = read_frame(sock)
        if frame is None:
            return
        answer = encode([examine(one) for one in REQUEST.decode(frame)])
