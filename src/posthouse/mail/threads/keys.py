"""What is kept of an email so that later ones find it and can be compared with it.

Two things are kept: `Facts`, a small struct stored beside the email (`encode`, typically under
300 octets), and the index keys under which it must be found. A key is 17 octets, a letter and 128
bits, and never travels from one account to another:

    m  its Message-ID                                  every email
    i  an id it has or refers to, with its subject     its own, first 1 + last 50 references
    p  the Message-ID of its direct parent             emails with references
    s  its subject                                     emails that may be joined by subject

A first mail of a person has three (m, i, s), a newsletter two. Looked up are: `i` of all its ids,
`m` of its parent, `p` of its own id, and `s`: at most 54. All emails under one `i` key are
in one thread unless a person has split it, so the newest 4 rows are enough; of `m` and `p` 8, and of
`s` the newest 50.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from hashlib import blake2b

import msgspec

from posthouse.mail.parsed import Addr, Parsed
from posthouse.mail.threads.quotes import name_mark, read_excerpt
from posthouse.mail.threads.subject import Subject, read_subject

MAX_REFERENCES = 51
MAX_PEOPLE = 24
ROWS_OF_A_KEY = {"m": 8, "i": 4, "p": 8, "s": 50}
"""How many rows of a key, newest first, are enough, by its letter."""
_MAX_ID = 998
_KEPT_SUBJECT = 64  # characters

REPLY = 1
"""A reply prefix."""
FORWARD = 2
BULK = 4
"""Sent by a program to many: joined by ids only."""
REPORT = 8
"""A DSN, a read receipt or an answer of a calendar: belongs to its parent whatever its subject."""
OPEN = 16
"""Names no recipients."""
TICKET = 32
"""The subject has a number that names one thing."""
OURS = 64
"""Written by the account's owner."""
RECURRING = 128
"""The subject speaks of a day or a period, so it comes again."""

_DAY = 86_400
_EARLIEST = 631_152_000  # 1990: older dates are wrong clocks
_HALF = 64


class Facts(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What can be compared of an email. Hashes are 64 bits (ids, subject) or 32 (people, text)."""

    at: int
    """Seconds since 1970: its Date when that is credible, else when it came."""
    flags: int
    subject: int
    """0: no words."""
    text: str
    """The folded base subject, its first 64 characters."""
    message: int
    """Its Message-ID; 0: none."""
    parent: int
    """The id it answers directly; 0: none known."""
    refs: tuple[int, ...]
    people: tuple[int, ...]
    """From, Reply-To, To and Cc without the account's own addresses."""
    author: int
    name: int
    """The author's display name."""
    list_id: int
    own: tuple[int, ...] = ()
    quoted: tuple[int, ...] = ()
    cited: tuple[int, ...] = ()


class Keys(msgspec.Struct, frozen=True, gc=False):
    """`facts` to be stored, `index`: the keys it is found by, `lookups`: the keys to look up."""

    facts: Facts
    index: tuple[bytes, ...]
    lookups: tuple[bytes, ...]


class Candidate(msgspec.Struct, gc=False):
    """An email that has its place. `thread_id`s sort by when they were made."""

    email_id: str
    thread_id: str
    facts: Facts


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Facts)


def encode(facts: Facts) -> bytes:
    """The stored form."""
    return _encoder.encode(facts)


def decode(data: bytes) -> Facts:
    """Back from the stored form.

    :raises msgspec.MsgspecError: damaged bytes.
    """
    return _decoder.decode(data)


def thread_keys(parsed: Parsed, *, received_at: int, text: str = "", own: Collection[str] = ()) -> Keys:
    """
    :param received_at: µs since 1970.
    :param text: the beginning of what is shown, as plain text with quotes (2,000 characters are
        read); empty leaves quotations out of the evidence.
    :param own: the account's addresses in lower case. All mail of an account has them in
        common, so they say nothing.
    """
    subject = read_subject(parsed.subject)
    message = id_hash(parsed.message_id) if parsed.message_id else 0
    ids, parent = _references(parsed)
    facts = _facts(parsed, subject, (message, parent, ids), (received_at, text, own))
    topic = subject.key
    linked = [b"i" + (one ^ topic).to_bytes(16, "big") for one in ([message, *ids] if message else ids)]
    index = list(linked)
    lookups = linked
    if message:
        index.append(b"m" + message.to_bytes(16, "big"))
        lookups.append(b"p" + message.to_bytes(16, "big"))
    if parent:
        index.append(b"p" + parent.to_bytes(16, "big"))
        lookups.append(b"m" + parent.to_bytes(16, "big"))
    if joins_by_subject(facts):
        index.append(b"s" + topic.to_bytes(16, "big"))
        lookups.append(index[-1])
    return Keys(facts, tuple(index), tuple(lookups))


def joins_by_subject(facts: Facts) -> bool:
    """Whether an equal subject may be evidence: never for bulk mail without a ticket's number."""
    return facts.subject != 0 and (not facts.flags & BULK or facts.flags & TICKET != 0)


@lru_cache(maxsize=4096)
def id_hash(text: str) -> int:
    """128 bits of a Message-ID; its domain in lower case. 0 for what cannot name one mail."""
    local, at, domain = text.strip(" <>\t")[:_MAX_ID].rpartition("@")
    if not at or not local:
        local, domain = domain, ""
        if len(local) < 8:  # `1`, `null`, `<>`: many mails' id
            return 0
    whole = f"{local}@{domain.lower()}"
    return int.from_bytes(blake2b(whole.encode(errors="surrogatepass"), digest_size=16, person=b"id").digest(), "big")


def _references(parsed: Parsed) -> tuple[list[int], int]:
    """The ids referred to, bounded and each once, and the direct parent's."""
    if not parsed.references and not parsed.in_reply_to and not parsed.thread_index:
        return [], 0
    chain = parsed.references
    if len(chain) > MAX_REFERENCES - 1:
        chain = (chain[0], *chain[-(MAX_REFERENCES - 3) :])
    answered = [id_hash(one) for one in parsed.in_reply_to[:1]]
    ids = [id_hash(one) for one in chain]
    parent = next((one for one in (*answered, *reversed(ids)) if one), 0)
    ids += answered
    if parsed.thread_index:
        ids.append(id_hash("thread-index:" + parsed.thread_index[:22]))
    own = id_hash(parsed.message_id) if parsed.message_id else 0
    return [one for one in dict.fromkeys(ids) if one and one != own], parent if parent != own else 0


def _facts(
    parsed: Parsed,
    subject: Subject,
    ids: tuple[int, int, list[int]],
    around: tuple[int, str, Collection[str]],
) -> Facts:
    message, parent, refs = ids
    received_at, text, own = around
    author = parsed.from_[0] if parsed.from_ else _NOBODY
    excerpt = read_excerpt(text)
    return Facts(
        _moment(parsed.date, received_at),
        _flags(parsed, subject, author.address.lower() in own),
        subject.key >> _HALF,
        subject.folded[:_KEPT_SUBJECT],
        message >> _HALF,
        parent >> _HALF,
        tuple([one >> _HALF for one in refs]),
        _people(parsed, own),
        name_mark(author.address or author.name),
        name_mark(author.name),
        name_mark(parsed.list_id) if parsed.list_id else 0,
        excerpt.own,
        excerpt.quoted,
        excerpt.cited,
    )


_NOBODY = Addr("", "")


def _moment(date: int | None, received_at: int) -> int:
    received = received_at // 1_000_000
    if date is None:
        return received
    sent = date // 1_000_000
    return sent if _EARLIEST <= sent <= received + _DAY else received


def _people(parsed: Parsed, own: Collection[str]) -> tuple[int, ...]:
    everyone = [*parsed.from_[:4], *parsed.reply_to[:4], *parsed.to[:MAX_PEOPLE], *parsed.cc[:MAX_PEOPLE]]
    # Archives spoil addresses (`ann at example.com`); what is left of them stands as the name.
    marks = [name_mark(one.address or one.name) for one in everyone if one.address.lower() not in own]
    return tuple([one for one in dict.fromkeys(marks) if one])[:MAX_PEOPLE]


def _flags(parsed: Parsed, subject: Subject, ours: bool) -> int:
    flags = REPLY if subject.reply else FORWARD if subject.forward else 0
    if parsed.structure.type in {"multipart/report", "text/calendar"} or parsed.auto_submitted == "auto-replied":
        flags |= REPORT
    if not parsed.to and not parsed.cc:
        flags |= OPEN
    if subject.ticket:
        flags |= TICKET
    if subject.recurring:
        flags |= RECURRING
    if ours:
        flags |= OURS
    return flags | BULK if _is_bulk(parsed, subject.reply) else flags


def _is_bulk(parsed: Parsed, reply: bool) -> bool:
    # Old list software says `Precedence: bulk` on what people write, and has no List-Post.
    if parsed.list_unsubscribe and not parsed.list_post:
        return True
    if parsed.auto_submitted is not None and parsed.auto_submitted != "no":
        return True
    return parsed.precedence in {"bulk", "junk"} and not reply and not parsed.list_post and parsed.list_id is None
