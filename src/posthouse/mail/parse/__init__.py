"""Reads a message, whatever it is: never raises, in time and memory linear in its size.

1. `fields` cuts the header block.
2. `words`, `charsets`, `addresses`, `dates` and `parameters` say what the fields mean, as the RFCs
   have it and as clients write it.
3. `structure` cuts the body into the tree of its parts, each with where it lies.
4. `bodies` says which parts show the message (RFC 8621 §4.1.4).
5. `decoding`, `html` and `reading` give what a part holds: octets, text, words.
6. `message` puts it together, with the `flaws` it met on the way.

Raw octets are never kept: everything is an offset into the message.
"""

from __future__ import annotations

from posthouse.mail.parse.fields import Raw, header_fields, unfold
from posthouse.mail.parse.flaws import FLAWS
from posthouse.mail.parse.message import parse
from posthouse.mail.parse.reading import content, decoded, search_text, text
from posthouse.mail.parse.words import decode_words

__all__ = [
    "FLAWS",
    "Raw",
    "content",
    "decode_words",
    "decoded",
    "header_fields",
    "parse",
    "search_text",
    "text",
    "unfold",
]
