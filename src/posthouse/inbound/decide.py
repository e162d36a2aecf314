"""What people want done with their mail: rules, forwards and answers, over the filter's verdict.

1. Rules apply in order (`mail.rules`). Filing replaces the Inbox; discarding cancels only what
   is not filed (RFC 5228 §4.4); `junk` and `not_junk` overrule the verdict, but not a virus.
2. Junk goes to Junk, and a copy of it to nobody. Only rules that ask about spam file it.
3. The account's own forward applies to the rest; a message that would go in circles stays.
4. A vacation answer is due when RFC 3834 allows one, somebody reads the mail here, and its sender is
   proved: behind a front server (LMTP) that is the server's to see to.

Pure: the same message is decided the same way each time.
"""

from __future__ import annotations

from functools import lru_cache

from posthouse.directory.model import Account, AccountSettings
from posthouse.errors import Invalid, TooLarge
from posthouse.inbound.decision import Decision, Folders, by_verdict
from posthouse.inbound.fields import Fields
from posthouse.inbound.forwarding import circles, own_address
from posthouse.inbound.model import Arrival, Recipient, Verdict
from posthouse.inbound.proof import is_proved
from posthouse.mail import rules
from posthouse.mail.address import parse_mailbox
from posthouse.mail.parse import search_text
from posthouse.mail.parsed import Parsed
from posthouse.mail.rules.apply import MAX_TEXT
from posthouse.mail.vacation import Vacation, read_vacation, refusal
from posthouse.mailbox.model import SEEN, Role

_NO_VACATION = AccountSettings().vacation
FLAGGED = "$flagged"
JUNK = "$junk"


def decide(
    arrival: Arrival, parsed: Parsed, recipient: Recipient, account: Account, verdict: Verdict, folders: Folders
) -> Decision:
    """For a recipient with an account. See `inbound.decision.Decide`."""
    settings = account.settings
    if not (settings.rules or settings.forward or _has_vacation(settings)):
        return by_verdict(arrival, parsed, recipient, account, verdict, folders)
    header = Fields(arrival.raw)
    plan = _Plan(verdict, folders)
    _apply_rules(plan, arrival, parsed, settings, header)
    _forward(plan, settings, header, own_address(recipient, account))
    answer = _answers(plan, arrival, parsed, recipient, account, header)
    return plan.decision(answer=answer)


def elsewhere(arrival: Arrival, recipient: Recipient, verdict: Verdict) -> Decision:
    """For an alias that leads elsewhere: sent on, or with a reason neither kept nor sent on."""
    to = recipient.via.forward
    if verdict.junk:
        return Decision((), reasons=(f"It is junk, which is not sent on to {to}.",))
    why = circles(Fields(arrival.raw), own_address(recipient, None))
    return Decision((), reasons=(why,)) if why else Decision((), forwards=(to,))


class _Plan:
    """A decision while it is made."""

    def __init__(self, verdict: Verdict, folders: Folders) -> None:
        self._folders = folders
        self.junk = verdict.junk
        self.score = verdict.score
        self.virus = verdict.virus is not None
        self.files: list[tuple[int | str, str]] = []
        """Where, and by which rule."""
        self.about_spam: frozenset[str] = frozenset()
        self.words: dict[str, None] = {}
        self.forwards: dict[str, None] = {}
        self.discarded = False
        self.keep = True
        """Said by a forward; it counts only when the mail is sent on."""
        self.reasons: list[str] = []

    def step(self, step: rules.Step) -> None:
        self.reasons.append(step.reason)
        match step.action:
            case rules.File(mailbox=str(name)):
                self._file(name, step.rule)
            case rules.File(role=str(role)):
                self.files.append((role, step.rule))
            case rules.Keyword(names=names):
                self.words |= dict.fromkeys(name.lower() for name in names)
            case rules.Read():
                self.words[SEEN] = None
            case rules.Star():
                self.words[FLAGGED] = None
            case rules.Forward(to=to, keep=keep):
                self.forwards |= dict.fromkeys(parse_mailbox(one).address for one in to)
                self.keep &= keep
            case rules.Discard():
                self.discarded = True
            case rules.Junk():
                self.junk = True
            case rules.NotJunk():
                self._not_junk()
            case _:
                pass

    def _file(self, name: str, rule: str) -> None:
        number = self._folders.get(name)
        if number is None:
            self.files.append((Role.INBOX.value, rule))
            self.reasons.append(f"There is no mailbox {name}: it goes to the Inbox.")
        else:
            self.files.append((number, rule))

    def _not_junk(self) -> None:
        if self.virus:
            self.reasons.append("It carries a virus, so it is junk all the same.")
        else:
            self.junk = False

    def decision(self, *, answer: bool) -> Decision:
        words = dict(self.words)
        if self.junk:
            words[JUNK] = None
        return Decision(self.mailboxes, tuple(words), tuple(self.forwards), answer, tuple(self.reasons))

    @property
    def mailboxes(self) -> tuple[int | str, ...]:
        filed = tuple(dict.fromkeys(box for box, rule in self.files if not self.junk or rule in self.about_spam))
        if filed:
            return filed
        if self.discarded or (self.forwards and not self.keep):
            return ()
        return (Role.JUNK.value if self.junk else Role.INBOX.value,)


def _apply_rules(plan: _Plan, arrival: Arrival, parsed: Parsed, settings: AccountSettings, header: Fields) -> None:
    if not settings.rules:
        return
    found = _rules(tuple([bytes(one) for one in settings.rules]))
    if isinstance(found, str):
        plan.reasons.append(found)
        return
    plan.about_spam = frozenset(rule.name for rule in found if _asks_about_spam(rule.when))
    mail = rules.Incoming(parsed, header, lambda: _body(arrival, parsed), plan.junk, plan.score)
    for step in rules.apply(found, mail):
        plan.step(step)
    if plan.junk and plan.files and not plan.about_spam:
        plan.reasons.append("It is junk: only a rule that asks about spam files that.")


def _body(arrival: Arrival, parsed: Parsed) -> str:
    return search_text(arrival.raw, parsed, most=MAX_TEXT)


def _forward(plan: _Plan, settings: AccountSettings, header: Fields, own: str) -> None:
    if settings.forward:
        plan.forwards |= dict.fromkeys(settings.forward)
        plan.keep &= settings.keep
    plan.forwards.pop(own, None)
    if not plan.forwards:
        return
    why = "It is junk, which is not forwarded." if plan.junk else circles(header, own)
    if why:
        plan.reasons.append(why)
        plan.forwards.clear()


def _answers(
    plan: _Plan, arrival: Arrival, parsed: Parsed, recipient: Recipient, account: Account, header: Fields
) -> bool:
    vacation = vacation_of(account.settings)
    if vacation is None or not vacation.enabled:
        return False
    if plan.discarded and not plan.mailboxes:
        plan.reasons.append("No automatic answer: the mail is discarded.")
        return False
    own = {account.address, recipient.address, *(one for one in recipient.via.aliases if not one.startswith("@"))}
    why = refusal(
        vacation,
        parsed,
        reverse_path=arrival.reverse_path,
        own=own,
        now=arrival.received_at,
        header=header,
        junk=plan.junk,
    )
    if why is None and arrival.evidence.listener != "lmtp" and not is_proved(arrival):
        why = "Nothing proves that it came from the address that would get it."
    if why is not None:
        plan.reasons.append(f"No automatic answer. {why}")
    return why is None


def vacation_of(settings: AccountSettings) -> Vacation | None:
    """None: there is none, or it cannot be read, which was refused when it was set."""
    return _vacation(bytes(settings.vacation)) if _has_vacation(settings) else None


def _has_vacation(settings: AccountSettings) -> bool:
    # Most accounts have the very object of the default.
    return settings.vacation is not _NO_VACATION and bytes(settings.vacation) not in (b"", b"null")


@lru_cache(maxsize=4096)
def _vacation(raw: bytes) -> Vacation | None:
    try:
        return read_vacation(raw)
    except Invalid:
        return None


@lru_cache(maxsize=1024)
def _rules(raws: tuple[bytes, ...]) -> tuple[rules.Rule, ...] | str:
    """Or why there are none: mail must come in whatever its rules are."""
    try:
        return rules.read_rules(raws)
    except (Invalid, TooLarge) as error:
        return f"The account's rules cannot be read, so none applies: {error.public}"


def _asks_about_spam(test: rules.Test) -> bool:
    match test:
        case rules.Spam():
            return True
        case rules.All(of=tests) | rules.Any(of=tests):
            return any(_asks_about_spam(one) for one in tests)
        case rules.Not(of=one):
            return _asks_about_spam(one)
        case _:
            return False


def names_mailboxes(settings: AccountSettings) -> bool:
    """Whether `decide` needs the account's folders."""
    return any(b'"mailbox"' in bytes(one) for one in settings.rules)
