"""The statements that change mailboxes, each over a whole batch."""

LOCK = """
SELECT number, tenant_id, domain, quota, modseq + 1, used, emails, next_email, next_thread, next_mailbox
FROM account WHERE number = ANY($1) AND state <> 'deleted' ORDER BY number FOR UPDATE"""

BOXES_BY_ROLE = """
SELECT m.account, m.id, m.name, m.role, m.uidnext FROM {v(account int, role text)}
CROSS JOIN mailbox m WHERE m.account = v.account AND m.role = v.role"""

BOXES_BY_ID = """
SELECT m.account, m.id, m.name, m.role, m.uidnext FROM {v(account int, id int)}
CROSS JOIN mailbox m WHERE m.account = v.account AND m.id = v.id"""

THREADS = """
SELECT t.account, t.id, t.emails, t.unread, t.latest_at, t.related,
       b.mailbox, b.total, b.unread, b.latest_at, b.latest_email
FROM {v(account int, id int)} CROSS JOIN thread t
LEFT JOIN thread_mailbox b ON b.account = v.account AND b.thread = v.id
WHERE t.account = v.account AND t.id = v.id"""

EMAILS = """
SELECT e.account, e.id, e.thread, e.size, e.received_at, e.keywords, e.content, m.mailbox, m.uid
FROM {v(account int, id int)} CROSS JOIN email e
LEFT JOIN membership m ON m.account = v.account AND m.email = v.id
WHERE e.account = v.account AND e.id = v.id"""

EMAILS_OF_THREADS = """
SELECT e.account, e.id, e.thread, e.size, e.received_at, e.keywords, e.content, m.mailbox, m.uid
FROM {v(account int, thread int)} CROSS JOIN email e
LEFT JOIN membership m ON m.account = v.account AND m.email = e.id
WHERE e.account = v.account AND e.thread = v.thread"""

NEWEST_HERE = """
SELECT v.account, v.thread, v.mailbox, e.received_at, e.id
FROM {v(account int, thread int, mailbox int)} CROSS JOIN email e CROSS JOIN membership m
WHERE e.account = v.account AND e.thread = v.thread
    AND m.account = v.account AND m.email = e.id AND m.mailbox = v.mailbox"""

NEWEST = """
SELECT v.account, v.thread,
       (SELECT max(e.received_at) FROM email e WHERE e.account = v.account AND e.thread = v.thread)
FROM {v(account int, thread int)}"""

# -- what a thread is found by ---------------------------------------------------------------

# The newest of each key only: a subject may be that of many thousands.
KNOWN = """
SELECT v.n, e.account, e.id, e.thread, e.threading
FROM {v(n int, account int, key bytes)} CROSS JOIN thread_key k
JOIN email e ON e.account = v.account AND e.id = k.email
WHERE k.account = v.account AND k.key = v.key
  AND k.email >= coalesce((SELECT o.email FROM thread_key o WHERE o.account = v.account AND o.key = v.key
                           ORDER BY o.email DESC LIMIT 1 OFFSET $1), 0)"""

OVERRIDES = "SELECT account, id, kind, data FROM thread_override WHERE account = ANY($1) ORDER BY account, id"

# -- emails ------------------------------------------------------------------------------------

_EMAIL = """account int, id int, thread int, content text, size int, received_at int, sent_at int,
    message_id text, subject text, sender text, preview text, keywords text, attachments int, detail bytes,
    inbound_id text, trace bytes, verdict text, threading bytes, modseq int"""
NEW_EMAILS = f"""
INSERT INTO email (account, id, thread, content, size, received_at, sent_at, message_id, subject, sender, preview,
    keywords, attachments, detail, inbound_id, trace, verdict, threading, modseq, created_modseq)
SELECT v.account, v.id, v.thread, v.content, v.size, v.received_at, v.sent_at, v.message_id, v.subject, v.sender,
    v.preview, v.keywords, v.attachments, v.detail, v.inbound_id, v.trace, v.verdict, v.threading, v.modseq, v.modseq
FROM {{v({_EMAIL})}}"""  # noqa: S608 - a constant

EMAILS_CHANGED = """
UPDATE email SET thread = v.thread, keywords = v.keywords, modseq = v.modseq
FROM {v(account int, id int, thread int, keywords text, modseq int)}
WHERE email.account = v.account AND email.id = v.id"""

EMAILS_GONE = "DELETE FROM email WHERE (account, id) IN (SELECT v.account, v.id FROM {v(account int, id int)})"

NEW_MEMBERS = """
INSERT INTO membership (account, mailbox, uid, email, thread, received_at, modseq, seen)
SELECT v.account, v.mailbox, v.uid, v.email, v.thread, v.received_at, v.modseq, v.seen
FROM {v(account int, mailbox int, uid int, email int, thread int, received_at int, modseq int, seen int)}"""

MEMBERS_CHANGED = """
UPDATE membership SET thread = v.thread, seen = v.seen, modseq = v.modseq
FROM {v(account int, mailbox int, uid int, thread int, seen int, modseq int)}
WHERE membership.account = v.account AND membership.mailbox = v.mailbox AND membership.uid = v.uid"""

_PLACE = "account int, mailbox int, uid int"
MEMBERS_GONE = f"""
DELETE FROM membership WHERE (account, mailbox, uid) IN
(SELECT v.account, v.mailbox, v.uid FROM {{v({_PLACE})}})"""  # noqa: S608 - a constant

EXPUNGED = """
INSERT INTO expunged (account, mailbox, modseq, uid)
SELECT v.account, v.mailbox, v.modseq, v.uid FROM {v(account int, mailbox int, modseq int, uid int)}"""

NEW_KEYWORDS = """
INSERT INTO keyword (account, keyword, email) SELECT v.account, v.keyword, v.email
FROM {v(account int, keyword text, email int)}"""

# One account at a time: SQLite finds no key (int, text, int) by a list of triples.
KEYWORDS_GONE = """
DELETE FROM keyword WHERE account = $1 AND (keyword, email) IN
(SELECT v.keyword, v.email FROM {v(keyword text, email int)})"""

NEW_KEYS = """
INSERT INTO thread_key (account, key, email) SELECT v.account, v.key, v.email
FROM {v(account int, key bytes, email int)} WHERE true ON CONFLICT DO NOTHING"""

KEYS_GONE = """
DELETE FROM thread_key WHERE account = $1 AND (key, email) IN
(SELECT v.key, v.email FROM {v(key bytes, email int)})"""

FACTS = """
SELECT e.account, e.id, e.threading FROM {v(account int, id int)}
CROSS JOIN email e WHERE e.account = v.account AND e.id = v.id"""

# -- threads, mailboxes, the account -----------------------------------------------------------

THREADS_WRITTEN = """
INSERT INTO thread (account, id, emails, unread, latest_at, related, modseq)
SELECT v.account, v.id, v.emails, v.unread, v.latest_at, v.related, v.modseq
FROM {v(account int, id int, emails int, unread int, latest_at int, related int, modseq int)} WHERE true
ON CONFLICT (account, id) DO UPDATE SET emails = excluded.emails, unread = excluded.unread,
    latest_at = excluded.latest_at, related = excluded.related, modseq = excluded.modseq"""

THREADS_GONE = "DELETE FROM thread WHERE (account, id) IN (SELECT v.account, v.id FROM {v(account int, id int)})"

SHARES_WRITTEN = """
INSERT INTO thread_mailbox (account, thread, mailbox, total, unread, latest_at, latest_email)
SELECT v.account, v.thread, v.mailbox, v.total, v.unread, v.latest_at, v.latest_email
FROM {v(account int, thread int, mailbox int, total int, unread int, latest_at int, latest_email int)} WHERE true
ON CONFLICT (account, thread, mailbox) DO UPDATE SET total = excluded.total, unread = excluded.unread,
    latest_at = excluded.latest_at, latest_email = excluded.latest_email"""

SHARES_GONE = """
DELETE FROM thread_mailbox WHERE (account, thread, mailbox) IN
(SELECT v.account, v.thread, v.mailbox FROM {v(account int, thread int, mailbox int)})"""

MAILBOXES_COUNTED = """
UPDATE mailbox SET total = mailbox.total + v.total, unread = mailbox.unread + v.unread,
    threads = mailbox.threads + v.threads, unread_threads = mailbox.unread_threads + v.unread_threads,
    uidnext = mailbox.uidnext + v.entered, modseq = v.modseq
FROM {v(account int, id int, total int, unread int, threads int, unread_threads int, entered int, modseq int)}
WHERE mailbox.account = v.account AND mailbox.id = v.id"""

CHANGES = """
INSERT INTO change (account, modseq, kind, id, op)
SELECT v.account, v.modseq, v.kind, v.id, v.op
FROM {v(account int, modseq int, kind text, id int, op text)}"""

ACCOUNTS_WRITTEN = """
UPDATE account SET modseq = v.modseq, used = v.used, emails = v.emails, next_email = v.next_email,
    next_thread = v.next_thread, next_mailbox = v.next_mailbox
FROM {v(number int, modseq int, used int, emails int, next_email int, next_thread int, next_mailbox int)}
WHERE account.number = v.number"""
