"""The judge of receiving: it knows the promise and nothing of how it is kept.

Every letter of a 250 lies in exactly one mailbox of each of its recipients, whole; nothing is
there twice, and nothing that nobody brought; what the mailboxes count is what lies in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256

from tests.crash.receive_load import Claim
from tests.receiving import Held


def judge(accepted: Sequence[Claim], held: Mapping[str, Held], unanswered: Sequence[Claim] = ()) -> list[str]:
    """Broken promises, in words.

    :param unanswered: brought and not acknowledged: each may be there or not, never twice.
    """
    wanted = {(account, claim.digest): claim.number for claim in accepted for account in claim.accounts}
    allowed = {(account, claim.digest): claim.number for claim in unanswered for account in claim.accounts}
    there: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for account, one in held.items():
        there.update((account, sha256(raw).hexdigest()) for raw, _ in one.letters)
        wrong += _counts(account, one)
    wrong += [
        f"{account}: letter {number} is lost" for (account, key), number in wanted.items() if not there[account, key]
    ]
    for (account, key), count in there.items():
        number = wanted.get((account, key), allowed.get((account, key)))
        if number is None:
            wrong.append(f"{account}: holds a letter that nobody brought")
        elif count > 1:
            wrong.append(f"{account}: letter {number} is there {count} times")
    return wrong


def _counts(account: str, held: Held) -> list[str]:
    found = Counter(mailbox for _, mailbox in held.letters)
    wrong: list[str] = []
    for mailbox in held.mailboxes:
        name = mailbox.role or mailbox.name
        if (mailbox.total, mailbox.unread) != (found[name], found[name]):
            wrong.append(f"{account}: {name} counts {mailbox.total}, unread {mailbox.unread}, and holds {found[name]}")
        if mailbox.uidnext <= mailbox.total:
            wrong.append(f"{account}: {name} holds {mailbox.total} and its next UID is {mailbox.uidnext}")
    return wrong
