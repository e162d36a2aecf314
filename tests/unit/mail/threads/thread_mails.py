"""Mails for the tests of this folder, with as little as a test needs to say."""

from __future__ import annotations

from posthouse.mail.parsed import Addr, Parsed, Part
from posthouse.mail.threads import Candidate, Keys, Placement, place, thread_keys

DAY = 86_400
NOW = 1_700_000_000
ANN, BOB, EVE, OWNER = (Addr(name.title(), f"{name}@example.com") for name in ("ann", "bob", "eve", "owner"))
OWN = frozenset({OWNER.address})


def parsed(
    subject: str = "Harbour plan for spring",
    *,
    id: str | None = None,  # noqa: A002
    refs: str = "",
    answers: str = "",
    by: Addr = ANN,
    to: tuple[Addr, ...] = (OWNER,),
    day: float = 0,
    **more: object,
) -> Parsed:
    """`refs`, `answers`: local parts of ids, apart by blanks. `day`: days after `NOW`."""
    changes: dict[str, object] = {
        "size": 1000,
        "header_length": 300,
        "structure": Part("1", "text/plain", 0, 0, 0, 10, 10),
        "subject": subject,
        "message_id": f"{id}@mx.example" if id else None,
        "references": tuple(f"{one}@mx.example" for one in refs.split()),
        "in_reply_to": tuple(f"{one}@mx.example" for one in answers.split()),
        "from_": (by,),
        "to": to,
        "date": int((NOW + day * DAY) * 1_000_000),
        **more,
    }
    return Parsed(**changes)  # type: ignore[arg-type]


def keys(mail: Parsed, text: str = "") -> Keys:
    return thread_keys(mail, received_at=(NOW + 400 * DAY) * 1_000_000, text=text, own=OWN)


def candidate(mail: Parsed, text: str = "", *, email: str = "eml_1", thread: str = "thr_1") -> Candidate:
    return Candidate(email, thread, keys(mail, text).facts)


def placed(mail: Parsed, *there: Candidate, text: str = "") -> Placement:
    return place(candidate(mail, text, email="eml_new", thread=""), there)
