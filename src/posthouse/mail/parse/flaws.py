"""What can be wrong with a message: stable codes, each with its sentence.

Evidence for the filter and for `explain`. No flaw stops a message from being parsed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

FLAWS: Final = MappingProxyType(
    {
        "bad_base64": "A part said to be base64 holds other characters.",
        "bad_content_type": "A Content-Type is not type/subtype and was read as text/plain.",
        "bad_date": "The Date is not one that RFC 5322 allows.",
        "bad_encoded_word": "A header has an encoded word that does not decode as it says.",
        "bad_from": "The From header has no address.",
        "bad_message_id": "The Message-ID is not <left@right>.",
        "bare_newline": "Lines end in CR or LF alone.",
        "duplicate_header": "A header that may stand once stands more than once.",
        "eight_bit_header": "The header has octets that are neither ASCII nor UTF-8.",
        "encoded_composite": "A multipart or an attached message has a transfer encoding, which RFC 2045 §6.4 forbids.",
        "header_too_long": "A line of the header is longer than 998 octets.",
        "hidden_text": "The HTML hides text from its reader.",
        "many_from": "There is more than one From header, or one with several addresses and no Sender.",
        "mbox_line": "The message begins with the From line of an mbox.",
        "mime_in_8bit": "A part said to be 7bit has octets beyond ASCII.",
        "no_boundary": "A multipart has no boundary that its body uses, so its body was read as text.",
        "no_close": "A multipart ends without its closing boundary.",
        "no_date": "There is no Date header.",
        "no_from": "There is no From header.",
        "no_message_id": "There is no Message-ID header.",
        "no_separator": "The header ends in a line that is no field, without an empty line.",
        "nul": "The message has NUL octets.",
        "text_too_long": "A line of the body is longer than 998 octets.",
        "too_deep": "Parts lie deeper in each other than 100 levels; what is deeper was kept closed.",
        "too_many_headers": "There are more than 10,000 header fields; the rest were not looked at.",
        "too_many_parts": "There are more than 10,000 parts; the rest were not looked at.",
        "unknown_charset": "A part is in a character set that nobody knows.",
        "unknown_encoding": "A part has a transfer encoding that nobody knows.",
        "utf8_header": "The header has UTF-8 outside of encoded words (RFC 6532).",
    }
)
"""Code → sentence."""
