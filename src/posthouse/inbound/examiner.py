"""The examining process: `examine` on a core of its own. Run by `pool.py`.

A request has messages, the answer what was found of each, in order.
"""

from __future__ import annotations

import gc

import msgspec

from posthouse.inbound.examine import Examined, Given, examine
from posthouse.net.child import serve

REQUEST = msgspec.msgpack.Decoder(list[Given])
ANSWER = msgspec.msgpack.Decoder(list[Examined])
encode = msgspec.msgpack.Encoder().encode


def main(descriptor: int) -> None:
    # As the server: what is here now stays, and what messages leave is mostly free of cycles.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    serve(descriptor, lambda _: _answer)


def _answer(frame: bytearray) -> bytes:
    return encode([examine(one) for one in REQUEST.decode(frame)])
