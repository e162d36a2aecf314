"""What a subject says of its conversation: whether it answers, forwards, and which words are left.

RFC 5256 §2.1 defines the base subject for English; this is the same idea for the prefixes that
clients of other languages write, for counted ones (`RE[2]:`, `Re(3):`, `Re^2:`), and for the marks
that gateways put in front (`[EXTERNAL]`, `***SPAM***`). Ticket numbers stay: they tell one
conversation from the next.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b

import msgspec

MAX_SUBJECT = 512
"""Characters of a subject that are looked at."""
_ROUNDS = 24

_REPLY = (
    "re|aw|antw|antwort|sv|svar|vs|vastaus|odp|odpověď|odg|odgovor|ynt|yanıt|cevap|res|resp|resposta|respuesta"
    "|rif|rép|rép\\.|ref|réf|ant|atb|bls|balas|vá|válasz|răsp|re\\.|rv-re|vast|ats|atsakymas|ats\\.|отв|ответ|отг|відп"
    "|на|ha|απ|απάντηση|σχετ|رد|پاسخ|השב|תגובה|תשובה|trả lời|ตอบ|ตอบกลับ|回复|回覆|答复|答覆|返信|返|답장|회신"
)
_FORWARD = (
    "fw|fwd|wg|weitergeleitet|tr|tr\\.|rv|reenv|renv|enc|encaminhada|vb|vl|vs-fw|pd|pd\\.|doorst|doorgestuurd|ilt|i̇lt|trs|fs|inoltro"
    "|továbbítás|tov|přep|fwd\\.|prosl|proslj|redir|пер|пересл|переслано|пересланное сообщение|πρθ|προώθ|تحويل"
    "|إعادة توجيه|הועבר|chuyển tiếp|ส่งต่อ|转发|转寄|轉寄|轉發|転送|전달"
)
_COUNT = r"(?:\s?\[\d{1,3}\]|\s?\(\d{1,3}\)|\^\d{1,3}|\*\d{1,3}|\d{1,2})?"
# `Re:Zero` and `Re:CREATORS` are names; `Re:Hello` is what some clients write for a reply.
_NAMES = r"(?:zero|creators|monster|birth|coded|mind|form)\b"
_PREFIX = re.compile(
    rf"(?:(?P<reply>{_REPLY})|(?P<forward>{_FORWARD})){_COUNT}\s?[:：](?!{_NAMES}|//)\s*"
    r"|(?P<short>R|I)(?-i:\s?:\s+(?=\S))",
    re.IGNORECASE,
)
_TICKET = re.compile(
    r"#\s?\d{2,}"
    r"|\b(?:bug|issue|ticket|case|request|req|incident|inc|order|rt|pr|task|change|vorgang|anfrage|demande|caso|заявка)"
    r"\W{0,3}\d{2,}"
    r"|(?-i:\b[A-Z]{2,10}-\d{1,7}\b)|\b\d{5,}\b",
    re.IGNORECASE,
)
_RECURRING = frozenset(
    """
    daily weekly monthly quarterly yearly annual today tonight tomorrow monday tuesday wednesday thursday
    friday saturday sunday week weeks month months quarter standup täglich wöchentlich monatlich heute morgen
    woche monat quotidien hebdomadaire mensuel aujourd'hui demain semaine mois diario semanal mensual mensal
    hoy hoje mañana amanhã semana mes mês oggi domani settimana mese vandaag maand dagens vecka сегодня
    завтра неделя недели неделю месяц месяца dziś jutro tydzień bugün yarın hafta
    """.split()
)
_RECURRING_WIDE = re.compile("每日|每周|每週|每月|今天|明天|毎日|毎週|今日|明日|週報|周报")
_TAG = re.compile(r"\[([^\[\]]{1,80})\]\s*(?=\S)")
_WRAPPED = re.compile(rf"\[\s*(?:{_FORWARD})\s?[:：](?P<inner>.*)\]", re.IGNORECASE | re.DOTALL)
_NOISE = re.compile(
    r"(?:\*{2,}\s?(?:spam|external|ext|vir[ui]s|suspect)\s?\*{2,}|\{spam\??\}|(?:external|extern|ext)\s?:"
    r"|\((?:external|extern|ext)\))\s*(?=\S)",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"\s*(?:\((?:fwd|fw|forwarded|weitergeleitet)\)|[(\[](?:was|war|antes|era|était)\s?:[^()]*[)\]])\s*$", re.IGNORECASE
)
_SPACES = re.compile(r"\s+")
_BETWEEN = re.compile(r"[\W_]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class Subject(msgspec.Struct, frozen=True, gc=False):
    """`base`: what is left, in its own letters. `reply`, `forward`: the outermost prefix.
    `ticket`: a number in it names one thing. `recurring`: it speaks of a day or a
    period, so it comes again. `folded`: letters and digits only, for comparing, and a
    colon behind a leading label (`Accepted: Lunch`).
    `key`: 128 bits of that; 0 for a subject without any words."""

    base: str
    reply: bool
    forward: bool
    ticket: bool
    recurring: bool
    folded: str
    key: int


@lru_cache(maxsize=4096)
def read_subject(text: str) -> Subject:
    """Reads a decoded subject; anything is accepted. About 6 µs, less than 1 µs when seen before."""
    base, reply, forward = _strip(_plain(text[:MAX_SUBJECT]))
    folded = _fold(base)
    key = 0
    if folded:
        key = int.from_bytes(
            blake2b(folded.encode(errors="surrogatepass"), digest_size=16, person=b"subject").digest(), "big"
        )
    ticket = _DIGITS.search(base) is not None and _TICKET.search(base) is not None
    label, colon, rest = base.partition(": ")
    labelled = f"{_fold(label)}:{_fold(rest)}" if colon else folded
    return Subject(base, reply, forward, ticket, _recurs(base), labelled, key)


def _recurs(base: str) -> bool:
    words = base.lower().replace("?", " ").replace("!", " ").replace(",", " ").replace(":", " ").split()
    return not _RECURRING.isdisjoint(words) or (not base.isascii() and _RECURRING_WIDE.search(base) is not None)


_DIGITS = re.compile(r"\d")


def base_subject(text: str) -> str:
    """The subject without reply and forward prefixes, list tags and gateways' marks."""
    return read_subject(text).base


def is_reply(text: str) -> bool:
    """Whether the outermost prefix says that it answers something."""
    return read_subject(text).reply


def is_forward(text: str) -> bool:
    """Whether the outermost prefix, or a trailing `(fwd)`, says that it forwards something."""
    return read_subject(text).forward


def _plain(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _SPACES.sub(" ", text).strip()


def _strip(text: str) -> tuple[str, bool, bool]:
    if ":" not in text and "：" not in text and text[:1] not in {"[", "*", "{", "("} and not text.endswith(")"):
        return text, False, False
    reply = forward = decided = False
    for _ in range(_ROUNDS):
        found = _PREFIX.match(text)
        if found is not None:
            if not decided:
                reply = found["reply"] is not None or (found["short"] or "").upper() == "R"
                forward = not reply
                decided = True
            text = text[found.end() :]
            continue
        shorter, forwards = _strip_marks(text)
        if shorter == text:
            break
        if forwards and not decided:
            forward = decided = True
        text = shorter
    return text.strip(), reply, forward


def _strip_marks(text: str) -> tuple[str, bool]:
    """Takes one mark off, and says whether it was a forwarder's."""
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped is not None:
        return wrapped["inner"].strip(), True
    for mark in (_TAG, _NOISE):
        found = mark.match(text)
        if found is not None and (mark is _NOISE or _TICKET.search(found[1]) is None):
            return text[found.end() :], False
    found = _TRAILING.search(text) if text.endswith((")", "]")) else None
    if found is not None and found.start() > 0:
        return text[: found.start()], "fw" in found[0].lower()
    return text, False


def _fold(base: str) -> str:
    """Letters and digits, without case. Where nearly all of them are ASCII the others go too, so
    that a client which mangled an accent still names the same subject."""
    if base.isascii():
        return _BETWEEN.sub("", base).lower() or base.replace(" ", "")
    whole = _BETWEEN.sub("", unicodedata.normalize("NFKC", base).casefold())
    ascii_only = _NOT_ASCII.sub("", whole)
    if len(ascii_only) >= 8 and len(whole) - len(ascii_only) <= len(whole) // 4:
        return ascii_only
    return whole or base.replace(" ", "")
