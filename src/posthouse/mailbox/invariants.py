"""What must be true of every account, each as a question that is answered by the things for
which it is not: `$1` is the account, `$2` how many answers are wanted at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Invariant:
    """`sentence` is filled with the columns of an answer, in order. `over`: asked for a range of
    these numbers at a time, from `$3` to `$4`, since it looks at each of them."""

    code: str
    sentence: str
    sql: str
    over: Literal["", "email", "thread"] = ""


# Neither read nor a draft; the words of `email.keywords` stand between blanks.
UNREAD = "CASE WHEN {0}.keywords LIKE '% $seen %' OR {0}.keywords LIKE '% $draft %' THEN 0 ELSE 1 END"
_UNREAD = UNREAD.format("e")
_WORDS = """CASE WHEN e.keywords = '' THEN 0
    ELSE length(e.keywords) - length(replace(e.keywords, ' ', '')) - 1 END"""
# By thread, then by email: SQLite keeps to a CROSS JOIN's order, and to an index that has all it reads
# of `membership`; else it would walk the mailbox.
_HERE = """FROM email e CROSS JOIN membership m
    WHERE e.account = $1 AND e.thread = b.thread AND m.account = $1 AND m.email = e.id AND m.mailbox = b.mailbox"""

EVERY = (
    Invariant(
        "mailbox_counts",
        "mailbox {} says {} emails, {} unread; there are {}, {}",
        """SELECT id, total, unread, n, u FROM (SELECT m.id, m.total, m.unread,
            (SELECT count(*) FROM membership c WHERE c.account = $1 AND c.mailbox = m.id) AS n,
            (SELECT coalesce(sum(1 - c.seen), 0) FROM membership c WHERE c.account = $1 AND c.mailbox = m.id) AS u
            FROM mailbox m WHERE m.account = $1) m
        WHERE total <> n OR unread <> u LIMIT $2""",
    ),
    Invariant(
        "mailbox_threads",
        "mailbox {} says {} threads, {} with unread ones; there are {}, {}",
        """SELECT id, threads, unread_threads, n, u FROM (SELECT m.id, m.threads, m.unread_threads,
            (SELECT count(*) FROM thread_mailbox b WHERE b.account = $1 AND b.mailbox = m.id) AS n,
            (SELECT count(*) FROM thread_mailbox b JOIN thread t ON t.account = $1 AND t.id = b.thread
             WHERE b.account = $1 AND b.mailbox = m.id AND t.unread > 0) AS u
            FROM mailbox m WHERE m.account = $1) m
        WHERE threads <> n OR unread_threads <> u LIMIT $2""",
    ),
    Invariant(
        "mailbox_parent",
        "mailbox {} lies below {}, which does not exist",
        """SELECT m.id, m.parent FROM mailbox m WHERE m.account = $1 AND m.parent <> 0
        AND NOT EXISTS (SELECT 1 FROM mailbox p WHERE p.account = $1 AND p.id = m.parent) LIMIT $2""",
    ),
    Invariant(
        "inbox",
        "there are {} mailboxes with the role of the inbox",
        """SELECT n FROM (SELECT count(*) AS n FROM mailbox WHERE account = $1 AND role = 'inbox') c
        WHERE n <> 1 LIMIT $2""",
    ),
    Invariant(
        "uidnext",
        "mailbox {} would give uid {} next and has given {}",
        """SELECT id, uidnext, uid FROM (SELECT m.id, m.uidnext,
            CASE WHEN c.uid > c.gone THEN c.uid ELSE c.gone END AS uid
            FROM (SELECT b.id,
                (SELECT coalesce(max(uid), 0) FROM membership c WHERE c.account = $1 AND c.mailbox = b.id) AS uid,
                (SELECT coalesce(max(uid), 0) FROM expunged x WHERE x.account = $1 AND x.mailbox = b.id) AS gone
                FROM mailbox b WHERE b.account = $1) c
            JOIN mailbox m ON m.account = $1 AND m.id = c.id) m
        WHERE uidnext <= uid LIMIT $2""",
    ),
    Invariant(
        "expunged",
        "uid {} of mailbox {} is expunged and there",
        """SELECT x.uid, x.mailbox FROM expunged x
        JOIN membership m ON m.account = $1 AND m.mailbox = x.mailbox AND m.uid = x.uid
        WHERE x.account = $1 LIMIT $2""",
    ),
    Invariant(
        "membership_dangling",
        "uid {} of mailbox {} is email {}: one of the two does not exist",
        """SELECT m.uid, m.mailbox, m.email FROM membership m WHERE m.account = $1
        AND (NOT EXISTS (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = m.email)
          OR NOT EXISTS (SELECT 1 FROM mailbox b WHERE b.account = $1 AND b.id = m.mailbox)) LIMIT $2""",
    ),
    Invariant(
        "membership_twice",
        "email {} is {} times in mailbox {}",
        """SELECT email, count(*), mailbox FROM membership WHERE account = $1
        GROUP BY mailbox, email HAVING count(*) > 1 LIMIT $2""",
    ),
    Invariant(
        "membership_differs",
        "uid {} of mailbox {} does not say of email {} what its row says",
        f"""SELECT m.uid, m.mailbox, m.email FROM membership m
        JOIN email e ON e.account = $1 AND e.id = m.email
        WHERE m.account = $1 AND m.email BETWEEN $3 AND $4 AND (m.thread <> e.thread OR m.received_at <> e.received_at
            OR m.seen <> 1 - {_UNREAD}) LIMIT $2""",  # noqa: S608 - a constant
        over="email",
    ),
    Invariant(
        "email_nowhere",
        "email {} is in no mailbox",
        """SELECT e.id FROM email e WHERE e.account = $1 AND e.id BETWEEN $3 AND $4
        AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.account = $1 AND m.email = e.id) LIMIT $2""",
        over="email",
    ),
    Invariant(
        "keyword_stale",
        "email {} is found by a keyword that it has not: {}",
        """SELECT k.email, k.keyword FROM keyword k WHERE k.account = $1 AND NOT EXISTS
            (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = k.email
             AND e.keywords LIKE '% ' || k.keyword || ' %') LIMIT $2""",
    ),
    Invariant(
        "keyword_missing",
        "the emails have {} keywords, and are found by {}",
        f"""SELECT n, k FROM (SELECT coalesce(sum({_WORDS}), 0) AS n,
            (SELECT count(*) FROM keyword WHERE account = $1) AS k FROM email e WHERE e.account = $1) c
        WHERE n <> k LIMIT $2""",  # noqa: S608 - a constant
    ),
    Invariant(
        "thread_counts",
        "thread {} says {} emails, {} unread, the newest of {}; there are {}, {}, {}",
        f"""SELECT id, emails, unread, latest_at, n, u, at FROM (SELECT t.id, t.emails, t.unread, t.latest_at,
            (SELECT count(*) FROM email e WHERE e.account = $1 AND e.thread = t.id) AS n,
            (SELECT coalesce(sum({_UNREAD}), 0) FROM email e WHERE e.account = $1 AND e.thread = t.id) AS u,
            (SELECT coalesce(max(e.received_at), 0) FROM email e WHERE e.account = $1 AND e.thread = t.id) AS at
            FROM thread t WHERE t.account = $1 AND t.id BETWEEN $3 AND $4) t
        WHERE n = 0 OR emails <> n OR unread <> u OR latest_at <> at LIMIT $2""",  # noqa: S608 - a constant
        over="thread",
    ),
    Invariant(
        "thread_missing",
        "email {} is of thread {}, which does not exist",
        """SELECT e.id, e.thread FROM email e WHERE e.account = $1
        AND NOT EXISTS (SELECT 1 FROM thread t WHERE t.account = $1 AND t.id = e.thread) LIMIT $2""",
    ),
    Invariant(
        "thread_mailbox",
        "of thread {}, mailbox {} is said to have {} emails, {} unread, the newest {} of {}; that is not so",
        f"""SELECT thread, mailbox, total, unread, latest_email, latest_at FROM (SELECT b.*,
            (SELECT count(*) {_HERE}) AS n,
            (SELECT coalesce(sum({_UNREAD}), 0) {_HERE}) AS u,
            (SELECT coalesce(max(e.received_at), 0) {_HERE}) AS at,
            (SELECT coalesce(max(e.id), 0) {_HERE} AND e.received_at = b.latest_at) AS newest
            FROM thread_mailbox b WHERE b.account = $1 AND b.thread BETWEEN $3 AND $4) b
        WHERE n = 0 OR total <> n OR unread <> u OR latest_at <> at OR latest_email <> newest LIMIT $2""",  # noqa: S608
        over="thread",
    ),
    Invariant(
        "thread_mailbox_missing",
        "thread {} has emails in mailbox {} that it does not count",
        """SELECT DISTINCT m.thread, m.mailbox FROM membership m WHERE m.account = $1
        AND NOT EXISTS (SELECT 1 FROM thread_mailbox b
            WHERE b.account = $1 AND b.thread = m.thread AND b.mailbox = m.mailbox) LIMIT $2""",
    ),
    Invariant(
        "thread_key_dangling",
        "email {} is looked for by a key, and does not exist",
        """SELECT DISTINCT k.email FROM thread_key k WHERE k.account = $1
        AND NOT EXISTS (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = k.email) LIMIT $2""",
    ),
    Invariant(
        "account_used",
        "{} emails of {} octets are said to be there; there are {} of {}",
        """SELECT a.emails, a.used, c.n, c.octets FROM account a,
            (SELECT count(*) AS n, coalesce(sum(size), 0) AS octets FROM email WHERE account = $1) c
        WHERE a.number = $1 AND (a.emails <> c.n OR a.used <> c.octets) LIMIT $2""",
    ),
    Invariant(
        "account_next",
        "the next numbers of an email, a thread, a mailbox are {}, {}, {}: some were given already",
        """SELECT a.next_email, a.next_thread, a.next_mailbox FROM account a WHERE a.number = $1
        AND (a.next_email <= (SELECT coalesce(max(id), 0) FROM email WHERE account = $1)
          OR a.next_thread <= (SELECT coalesce(max(id), 0) FROM thread WHERE account = $1)
          OR a.next_mailbox <= (SELECT coalesce(max(id), 0) FROM mailbox WHERE account = $1)) LIMIT $2""",
    ),
    Invariant(
        "modseq",
        "{} {} has modseq {}, beyond the account's",
        """SELECT c.kind, c.id, c.modseq FROM (
            SELECT 'email' AS kind, id, modseq FROM email WHERE account = $1
            UNION ALL SELECT 'thread', id, modseq FROM thread WHERE account = $1
            UNION ALL SELECT 'mailbox', id, modseq FROM mailbox WHERE account = $1
            UNION ALL SELECT 'uid', uid, modseq FROM membership WHERE account = $1
            UNION ALL SELECT 'expunged uid', uid, modseq FROM expunged WHERE account = $1
            UNION ALL SELECT 'change of ' || kind, id, modseq FROM change WHERE account = $1) c
        JOIN account a ON a.number = $1 WHERE c.modseq > a.modseq LIMIT $2""",
    ),
    Invariant(
        "modseq_order",
        "email {} was made at modseq {}, after its last change at {}",
        """SELECT id, created_modseq, modseq FROM email WHERE account = $1 AND created_modseq > modseq LIMIT $2""",
    ),
    Invariant(
        "change_missing",
        "{} {} changed at modseq {}, and the change log does not say so",
        """SELECT c.kind, c.id, c.modseq FROM (
            SELECT 'email' AS kind, id, modseq FROM email WHERE account = $1
            UNION ALL SELECT 'thread', id, modseq FROM thread WHERE account = $1
            UNION ALL SELECT 'mailbox', id, modseq FROM mailbox WHERE account = $1) c
        JOIN account a ON a.number = $1
        WHERE c.modseq > a.change_floor AND NOT EXISTS (SELECT 1 FROM change h
            WHERE h.account = $1 AND h.modseq = c.modseq AND h.kind = c.kind AND h.id = c.id) LIMIT $2""",
    ),
    Invariant(
        "change_stale",
        "the change log says that {} {} was {} at modseq {}; it is there, or it is not",
        """SELECT h.kind, h.id, h.op, h.modseq
        FROM (SELECT kind, id, max(modseq) AS modseq FROM change WHERE account = $1 GROUP BY kind, id) l
        JOIN change h ON h.account = $1 AND h.modseq = l.modseq AND h.kind = l.kind AND h.id = l.id
        WHERE (h.op = 'destroyed') = (CASE h.kind
            WHEN 'email' THEN EXISTS (SELECT 1 FROM email e WHERE e.account = $1 AND e.id = h.id)
            WHEN 'thread' THEN EXISTS (SELECT 1 FROM thread t WHERE t.account = $1 AND t.id = h.id)
            ELSE EXISTS (SELECT 1 FROM mailbox m WHERE m.account = $1 AND m.id = h.id) END) LIMIT $2""",
    ),
)
