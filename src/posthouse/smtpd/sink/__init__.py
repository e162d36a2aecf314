"""An SMTP server for development: it answers as the address tells it, counts, keeps or forgets.

    async with Sink(Options(port=0)) as sink:
        ...                                # send to 127.0.0.1, sink.port
        await sink.received(10)
        sink.counts, sink.messages

1. `behaviour` reads an address (`bounce@`, `defer-2@`, `slow-5@`, …) and says what to do.
2. `session` is one connection: the fast path for a plain message, else `smtp.server`.
3. `journal` writes a line of JSON per outcome; `keep` stores the messages.
4. `listener` puts them together as `Sink`; `stats` serves the counts; `processes` runs several.
"""

from posthouse.smtpd.sink.counts import Counts
from posthouse.smtpd.sink.journal import Entry
from posthouse.smtpd.sink.keep import Message
from posthouse.smtpd.sink.listener import Sink
from posthouse.smtpd.sink.options import Options

__all__ = ["Counts", "Entry", "Message", "Options", "Sink"]
