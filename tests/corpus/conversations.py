"""Conversations with their labels, made from a seed: people in several languages, lists, forwards,
changed subjects, clients with and without References, and mail of programs with equal subjects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from msgspec.structs import replace as struct_replace

from posthouse.mail.parsed import Addr, Parsed, Part

DAY = 86_400
START = 1_700_000_000
OWNER = Addr("Owner Person", "owner@example.com")
_PART = Part("1", "text/plain", 0, 0, 0, 100, 100)

_NAMES = """Ann Bob Carla Dmitri Elif Fatima Goran Hanna Ines Jürgen Kenji Li Mona Nils Olga Pavel Quinn Rosa Sven
Tomasz Uma Viktor Wei Xenia Yusuf Zoë""".split()
_FAMILIES = "Adler Brown Costa Dubois Eriksen Ferrari García Horvát Ivanova Jansen Kowalski Lindgren Müller".split()
_WORDS = """window garden invoice turbine release parser budget harbour lantern recipe meadow contract engine violin
server glacier museum pepper ticket bridge compiler orchard battery saddle marble pension harvest cable pigeon
kettle archive socket ladder timber quarry canvas buffer mutex thread packet ledger tariff depot furnace""".split()
_VERBS = "breaks moves needs blocks changes covers follows replaces explains delays repairs measures reaches".split()
_COMMON = ["Lunch?", "Meeting", "Question", "Hello", "Invoice", "Update", "Friday", "Holiday plans", "Call tomorrow"]
_LANGUAGES = [
    ("Re: ", "Fwd: ", "On Monday, {name} <{address}> wrote:"),
    ("RE: ", "FW: ", "-----Original Message-----\nFrom: {name} <{address}>"),
    ("AW: ", "WG: ", "Am Montag schrieb {name} <{address}>:"),
    ("Antw: ", "Doorst: ", "Op maandag schreef {name} <{address}>:"),
    ("SV: ", "VB: ", "Den måndag skrev {name} <{address}>:"),
    ("VS: ", "VL: ", "{name} <{address}> kirjoitti:"),
    ("RE : ", "TR : ", "Le lundi, {name} <{address}> a écrit :"),
    ("RES: ", "ENC: ", "Em segunda, {name} <{address}> escreveu:"),
    ("R: ", "I: ", "Il giorno lunedì {name} <{address}> ha scritto:"),
    ("Odp: ", "PD: ", "{name} <{address}> napisał(a):"),
    ("Ynt: ", "İlt: ", "{name} <{address}> şunu yazdı:"),
    ("回复：", "转发：", "{name} <{address}> 写道："),
    ("Re[2]: ", "Fwd: ", "{name} <{address}> wrote:"),
    ("Отв: ", "Пересл: ", "{name} <{address}> пишет:"),
]


@dataclass(frozen=True)
class Sample:
    """One mail and the conversation it belongs to."""

    parsed: Parsed
    text: str
    label: int

    @property
    def received_at(self) -> int:
        assert self.parsed.date is not None
        return self.parsed.date + 2_000_000


class Writer:
    """Makes the conversations of one account."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.people = [
            Addr(f"{first} {last}", f"{first}.{last}@host{i % 7}.example".lower())
            for i, (first, last) in enumerate((f, self.rng.choice(_FAMILIES)) for f in _NAMES * 2)
        ]
        self.serial = 0
        self.label = 0

    def new_id(self) -> str:
        self.serial += 1
        return f"{self.serial:x}.{self.rng.getrandbits(40):x}@mx{self.serial % 5}.example"

    def new_label(self) -> int:
        self.label += 1
        return self.label

    def sentences(self, count: int) -> list[str]:
        rng = self.rng
        return [
            f"The {rng.choice(_WORDS)} {rng.choice(_VERBS)} the {rng.choice(_WORDS)} near our {rng.choice(_WORDS)}."
            for _ in range(count)
        ]

    def subject(self) -> str:
        rng = self.rng
        if rng.random() < 0.15:
            return rng.choice(_COMMON)
        return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(2, 5))).capitalize()

    def delay(self) -> int:
        """Seconds until an answer: hours mostly, weeks at times."""
        return int(min(self.rng.lognormvariate(9.6, 1.7), 45 * DAY)) + 60

    def talk(
        self,
        at: int,
        circle: list[Addr],
        *,
        subject: str | None = None,
        size: int | None = None,
        list_id: str | None = None,
        label: int | None = None,
        head: Sample | None = None,
    ) -> Iterator[Sample]:
        """A conversation of a circle: each mail answers one before it."""
        rng = self.rng
        label = label or self.new_label()
        subject = subject or self.subject()
        size = size or min(1 + int(rng.expovariate(0.28)), 40)
        mails: list[Sample] = []
        for number in range(size):
            if not mails:
                author = rng.choice(circle)
                mail = self._mail(
                    at, author, circle, f"[{list_id.split('.')[0]}] {subject}" if list_id else subject, list_id, label
                )
                if head is not None:
                    mail = head
            else:
                parent = mails[-1] if rng.random() < 0.6 else rng.choice(mails)
                mail = self._answer(parent, circle, subject, list_id, label, aside=number)
            mails.append(mail)
            yield mail

    def _mail(self, at: int, author: Addr, circle: list[Addr], subject: str, list_id: str | None, label: int) -> Sample:
        body = self.sentences(self.rng.randint(2, 8))
        parsed = Parsed(
            size=2000,
            header_length=500,
            structure=_PART,
            message_id=self.new_id(),
            subject=subject,
            from_=(author,),
            to=self._recipients(author, circle, list_id),
            date=at * 1_000_000,
            list_id=list_id,
            list_post=list_id is not None,
            list_unsubscribe=list_id is not None,
            precedence="list" if list_id else None,
        )
        return Sample(parsed, "Hello,\n\n" + "\n".join(body) + "\n", label)

    def _recipients(self, author: Addr, circle: list[Addr], list_id: str | None) -> tuple[Addr, ...]:
        if list_id is not None:
            return (Addr("", list_id.replace(".", "@", 1)),)
        others = [one for one in circle if one is not author]
        return tuple(others) or (author,)

    def _answer(
        self, parent: Sample, circle: list[Addr], subject: str, list_id: str | None, label: int, aside: int
    ) -> Sample:
        rng = self.rng
        others = [one for one in circle if one.address != parent.parsed.from_[0].address]
        author = rng.choice(others or circle)
        reply, _, attribution = _LANGUAGES[hash_of(author.address) % len(_LANGUAGES)]
        tag = f"[{list_id.split('.')[0]}] " if list_id and rng.random() < 0.7 else ""
        assert parent.parsed.date is not None
        mail = self._mail(
            parent.parsed.date // 1_000_000 + self.delay(), author, circle, f"{reply}{tag}{subject}", list_id, label
        )
        chain, answered = self._ids(parent, hash_of(author.address) // 16 % 8)
        to = mail.parsed.to
        if list_id is not None and rng.random() < 0.5:
            to = (*to, parent.parsed.from_[0])
        parsed = struct_replace(mail.parsed, references=chain, in_reply_to=answered, to=to)
        style = rng.random()
        if style < 0.75:
            who = parent.parsed.from_[0]
            lines = [line for line in parent.text.split("\n") if line][:12]
            if style < 0.35:
                lines = lines[-4:]
            mark = "" if "\n" in attribution else "> "
            quoted = "\n".join(mark + line for line in lines)
            text = f"{mail.text}\n{attribution.format(name=who.name, address=who.address)}\n{quoted}\n"
        else:
            text = mail.text
        return replace(mail, parsed=parsed, text=text)

    @staticmethod
    def _ids(parent: Sample, client: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """References and In-Reply-To, as clients of eight habits write them."""
        message = (parent.parsed.message_id,) if parent.parsed.message_id else ()
        chain = (*(parent.parsed.references or parent.parsed.in_reply_to), *message)
        if client == 0:
            return (), message
        if client == 1:
            return chain, ()
        if client == 2:
            return chain[-3:], message
        return chain, message


def hash_of(text: str) -> int:
    return sum(ord(c) * (i + 7) for i, c in enumerate(text))


def account(seed: int, conversations: int = 240) -> list[Sample]:
    """One account's mail over about a year, in order of arrival."""
    writer = Writer(seed)
    rng = writer.rng
    lists = ["harbour-dev.lists.example", "choir.example.org", "kernel.vger.example"]
    mails: list[Sample] = []
    for _ in range(conversations):
        at = START + rng.randrange(360 * DAY)
        kind = rng.random()
        if kind < 0.42:
            mails += _personal(writer, at)
        elif kind < 0.72:
            mails += writer.talk(at, rng.sample(writer.people, 12), list_id=rng.choice(lists))
        elif kind < 0.80:
            mails += _changed(writer, at)
        elif kind < 0.86:
            mails += _forwarded(writer, at)
        else:
            mails += _program(writer, at)
    for _ in range(max(1, conversations // 40)):
        mails += _repeated(writer, START + rng.randrange(200 * DAY))
    return sorted(mails, key=lambda one: (one.received_at, one.parsed.message_id or ""))


def _personal(writer: Writer, at: int) -> Iterator[Sample]:
    circle = [OWNER, *writer.rng.sample(writer.people, writer.rng.choice([1, 1, 1, 2, 3, 5]))]
    mails = list(writer.talk(at, circle))
    yield from mails
    if writer.rng.random() < 0.05:  # came twice, by a list and directly
        yield struct_like(mails[0], precedence="list", list_id="choir.example.org")


def _changed(writer: Writer, at: int) -> Iterator[Sample]:
    """A reply begins another subject: a conversation of its own."""
    circle = [OWNER, *writer.rng.sample(writer.people, 3)]
    first = list(writer.talk(at, circle, size=writer.rng.randint(2, 6)))
    yield from first
    last = first[-1]
    assert last.parsed.date is not None and last.parsed.message_id is not None
    label, subject = writer.new_label(), writer.subject() + " instead"
    said = subject if writer.rng.random() < 0.5 else f"{subject} (was: {first[0].parsed.subject})"
    head = writer._mail(
        last.parsed.date // 1_000_000 + writer.delay(), writer.rng.choice(circle), circle, said, None, label
    )
    head = replace(
        head,
        parsed=struct_replace(
            head.parsed,
            references=(*last.parsed.references, last.parsed.message_id),
            in_reply_to=(last.parsed.message_id,),
        ),
    )
    yield from writer.talk(at, circle, subject=subject, label=label, head=head, size=writer.rng.randint(1, 5))


def _forwarded(writer: Writer, at: int) -> Iterator[Sample]:
    """Somebody forwards a mail; its readers talk on."""
    rng = writer.rng
    circle = [OWNER, *rng.sample(writer.people, 2)]
    mails = list(writer.talk(at, circle, size=rng.randint(1, 3)))
    yield from mails
    source = mails[-1]
    assert source.parsed.date is not None and source.parsed.message_id is not None
    _, forward, _ = rng.choice(_LANGUAGES)
    plain = mails[0].parsed.subject
    others = [circle[1], OWNER, *rng.sample(writer.people, 1)]
    mail = writer._mail(
        source.parsed.date // 1_000_000 + 3600, circle[1], others, f"{forward}{plain}", None, source.label
    )
    text = (
        f"See below.\n\n---------- Forwarded message ----------\nFrom: {source.parsed.from_[0].name}\n\n{source.text}"
    )
    references = (*source.parsed.references, source.parsed.message_id)
    yield replace(mail, parsed=struct_replace(mail.parsed, references=references), text=text)


def _program(writer: Writer, at: int) -> Iterator[Sample]:
    """Mail of a program, again and again with one subject; each mail stands alone. A third of the
    programs say what they are."""
    rng = writer.rng
    number = rng.randrange(10)
    sender = Addr(f"Shop {number}", f"noreply@shop{number}.example")
    subject = rng.choice(
        ["Your order", "Login alert", "Invoice", "Backup report", "Your statement is ready", "Reminder"]
    )
    honest = rng.randrange(3)
    for _ in range(rng.randint(3, 12)):
        mail = writer._mail(at, sender, [sender, OWNER], subject, None, writer.new_label())
        at += rng.randint(3600, 9 * DAY)
        if rng.random() < 0.15:
            mail = struct_like(mail, message_id=None)
        if honest == 0:
            mail = struct_like(mail, auto_submitted="auto-generated")
        elif honest == 1:
            mail = struct_like(mail, list_unsubscribe=True)
        yield mail


def _repeated(writer: Writer, at: int) -> Iterator[Sample]:
    """A report every day or week with one subject, and people answer it."""
    rng = writer.rng
    circle = [OWNER, *rng.sample(writer.people, 3)]
    step = rng.choice([1, 7, 7, 30])
    subject = rng.choice(["Daily standup notes", "Weekly status report", "Lunch today?", "Numbers of the month"])
    for number in range(rng.randint(3, 8)):
        start = at + number * step * DAY
        for mail in writer.talk(start, circle, subject=subject, size=rng.randint(1, 4)):
            assert mail.parsed.date is not None
            # Answers come before the next report does.
            late = min(mail.parsed.date // 1_000_000, start + int(step * DAY * 0.8))
            yield struct_like(mail, date=late * 1_000_000)


def struct_like(mail: Sample, **changes: object) -> Sample:
    return replace(mail, parsed=struct_replace(mail.parsed, **changes))


Damage = Callable[[list[Sample], random.Random], list[Sample]]


def _each(chance: float, **changes: object) -> Damage:
    def apply(mails: list[Sample], rng: random.Random) -> list[Sample]:
        return [struct_like(one, **changes) if rng.random() < chance else one for one in mails]

    return apply


def _cut(mails: list[Sample], rng: random.Random) -> list[Sample]:
    del rng
    return [struct_like(one, references=one.parsed.references[-1:]) for one in mails]


def _half(mails: list[Sample], rng: random.Random) -> list[Sample]:
    return [one for one in mails if rng.random() < 0.5]


def _cut_and_half(mails: list[Sample], rng: random.Random) -> list[Sample]:
    return _half(_cut(mails, rng), rng)


def _marked(mails: list[Sample], rng: random.Random) -> list[Sample]:
    """Gateways and lists write into subjects."""
    marks = ["[EXTERNAL] ", "[choir] ", "EXT: ", "***SPAM*** ", "[Harbour Dev] "]
    return [
        struct_like(one, subject=rng.choice(marks) + one.parsed.subject) if rng.random() < 0.4 else one for one in mails
    ]


def _marked_and_bare(mails: list[Sample], rng: random.Random) -> list[Sample]:
    return _each(1.0, references=(), in_reply_to=())(_marked(mails, rng), rng)


def _no_message_id(mails: list[Sample], rng: random.Random) -> list[Sample]:
    return _each(0.3, message_id=None)(mails, rng)


DAMAGES: dict[str, Damage] = {
    "intact": lambda mails, _: mails,
    "references dropped": _each(1.0, references=()),
    "in-reply-to dropped": _each(1.0, in_reply_to=()),
    "references cut to last": _cut,
    "30 % lose both": _each(0.3, references=(), in_reply_to=()),
    "all lose both": _each(1.0, references=(), in_reply_to=()),
    "half of mails missing": _half,
    "cut, and half missing": _cut_and_half,
    "tags added": _marked,
    "tags added, all lose both": _marked_and_bare,
    "30 % without Message-ID": _no_message_id,
}
