"""The mail listeners: from a TCP connection to a `Conversation` that decides.

    async with Gateway(begin, Options("mx.example.com", [Listener("mx", "", 25)], Spooling(path))):
        ...

1. `admission` counts the connection, or refuses it with 421; the PROXY header of a trusted
   load balancer (`smtp.proxy`) says who is really there.
2. `connection` is the transport: back-pressure both ways, STARTTLS, the last reply that has to
   get through; `clocks` says when a session is overdue.
3. `dialogue` drives the core (`smtp.server`) with the answers of the conversation.
4. `spool` collects the message, in memory or in a file without a name, and gives it to
   `Conversation.end` as bytes or as a map.
5. `gateway` listens and drains.
"""

from posthouse.smtpd.gateway.gateway import Gateway
from posthouse.smtpd.gateway.options import Listener, Options, Pace, Spooling, Timeouts

__all__ = ["Gateway", "Listener", "Options", "Pace", "Spooling", "Timeouts"]
