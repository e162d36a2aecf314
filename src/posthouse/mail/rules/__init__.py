"""A person's own filter rules: data, checked once and then applied to each incoming mail.

A rule in JSON:

    {"name": "Bills",
     "when": {"test": "all", "of": [
         {"test": "text", "field": "from", "op": "ends", "values": ["@shop.example"]},
         {"test": "not", "of": {"test": "size", "over": 5000000}}]},
     "then": [{"do": "file", "mailbox": "Archive/Bills"}, {"do": "read"}, {"do": "stop"}]}

Tests: `text` (fields from, to, cc, recipients, subject, list_id, body, attachment; ops is, contains,
matches, starts, ends; any of the values, case ignored; `*` and `?` in matches), `header` (the same
with a name; op exists), `size` (over, under; octets), `has_attachment`, `spam` (junk, or a score
over), `all`, `any`, `not`. An address is the one of a domain when the value begins with `@`.
Actions: file (a mailbox by name, or by role), keyword, read, star, forward (keep), discard, junk,
not_junk, stop. Rules apply in order, each that fits, until one says stop.
"""

from posthouse.mail.rules.apply import Incoming, Step, apply
from posthouse.mail.rules.check import read_rules
from posthouse.mail.rules.model import (
    MAX_DEPTH,
    MAX_RULES,
    MAX_TESTS,
    Action,
    All,
    Any,
    Discard,
    File,
    Forward,
    HasAttachment,
    Header,
    Junk,
    Keyword,
    Not,
    NotJunk,
    Read,
    Rule,
    Size,
    Spam,
    Star,
    Stop,
    Test,
    Text,
    said,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_RULES",
    "MAX_TESTS",
    "Action",
    "All",
    "Any",
    "Discard",
    "File",
    "Forward",
    "HasAttachment",
    "Header",
    "Incoming",
    "Junk",
    "Keyword",
    "Not",
    "NotJunk",
    "Read",
    "Rule",
    "Size",
    "Spam",
    "Star",
    "Step",
    "Stop",
    "Test",
    "Text",
    "apply",
    "read_rules",
    "said",
]
