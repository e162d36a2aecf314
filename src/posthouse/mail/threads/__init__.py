"""Conversations: which emails belong together. Keys and decisions, no storage.

1. `thread_keys` reads a parsed message once: what is kept of it (`Facts`), under which keys later
   mail finds it, and which keys it looks up itself.
2. `Batch` (or `place` for one email) decides: ids prove; a reply whose ancestors are not here
   joins the one mail it was most likely written after, by subject, people, time and quotations.
3. The result depends on the set of emails only. Where a late mail corrects an earlier guess,
   `Placement.review` names the threads that `rethread` makes anew.
4. What people split and merged (`Override`) is kept as data and wins over all evidence.
"""

from posthouse.mail.threads.batch import Batch
from posthouse.mail.threads.keys import ROWS_OF_A_KEY, Candidate, Facts, Keys, decode, encode, thread_keys
from posthouse.mail.threads.overrides import Override
from posthouse.mail.threads.place import MAX_CANDIDATES, Placement, place
from posthouse.mail.threads.rethread import Group, rethread
from posthouse.mail.threads.subject import base_subject, is_forward, is_reply

__all__ = [
    "MAX_CANDIDATES",
    "ROWS_OF_A_KEY",
    "Batch",
    "Candidate",
    "Facts",
    "Group",
    "Keys",
    "Override",
    "Placement",
    "base_subject",
    "decode",
    "encode",
    "is_forward",
    "is_reply",
    "place",
    "rethread",
    "thread_keys",
]
