"""Batches: what is common, what is a recipient's own, and what happens when something fails."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import msgspec
import pytest

from posthouse.directory.model import AccountSettings
from posthouse.errors import Unavailable
from posthouse.inbound.filter.facts import Facts
from posthouse.inbound.filter.judge import Filter
from posthouse.inbound.filter.look import Classifier
from posthouse.inbound.filter.personal import PERSONAL, Pair
from posthouse.inbound.filter.scanner import Finding, Scanner
from posthouse.inbound.model import Arrival, Listing, Recipient, Verdict, Via
from posthouse.mail.parse import text
from posthouse.mail.parsed import Parsed, Part
from tests.unit.inbound.filter.mails import Mail, proof

SPOOFED = proof("fail", dmarc="fail", policy="reject")


class Correspondents:
    def __init__(self, *known: Pair) -> None:
        self.known = frozenset(known)
        self.asked: list[list[Pair]] = []

    async def __call__(self, pairs: Sequence[Pair]) -> AbstractSet[Pair]:
        self.asked.append(list(pairs))
        return self.known & set(pairs)


class Says:
    def __init__(self, finding: Finding | Exception) -> None:
        self.finding = finding

    async def scan(self, message: bytes) -> Finding:
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding


class Sure:
    def __init__(self, probability: float | None) -> None:
        self.value = probability

    def probability(self, facts: Facts, /) -> float | None:
        return self.value


async def judged(
    mail: Mail,
    settings: AccountSettings | None = None,
    *known: str,
    scanners: Sequence[Scanner] = (),
    classifier: Classifier | None = None,
) -> Verdict:
    correspondents = Correspondents(*((mail.account, one) for one in known))
    room = Filter(text, correspondents, scanners=scanners, classifier=classifier)
    (one,) = await room.judge([mail.pair()], {} if settings is None else {mail.account: settings})
    (verdict,) = one.recipients
    return verdict


def codes(verdict: Verdict) -> set[str]:
    return {reason.rule for reason in verdict.reasons}


PERSONAL_CASES: dict[str, tuple[tuple[Mail, AccountSettings | None, str], tuple[Mail, AccountSettings | None, str]]] = {
    "blocked": (
        (Mail(), AccountSettings(block=("@partner.example",)), ""),
        (Mail(), AccountSettings(block=("@partner.example",), allow=("ann@partner.example",)), ""),
    ),
    "allowed": (
        (Mail(), AccountSettings(allow=("@partner.example",)), ""),
        (Mail(auth=proof()), AccountSettings(allow=("@partner.example",)), ""),
    ),
    "allowed_unproved": (
        (Mail(auth=proof()), AccountSettings(allow=("ann@partner.example",)), ""),
        (Mail(), AccountSettings(allow=("ann@partner.example",)), ""),
    ),
    "correspondent": ((Mail(), None, "ann@partner.example"), (Mail(), None, "anna@partner.example")),
    "correspondent_unproved": ((Mail(auth=proof()), None, "ann@partner.example"), (Mail(auth=SPOOFED), None, "ann@partner.example")),
    "like_correspondent": (
        (Mail(from_="ann@exarnple.com"), None, "ann@example.com"),
        (Mail(from_="ann@exarnple.com"), None, "ann@exarnple.com"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", [rule.code for rule in PERSONAL])
async def test_the_rule_meets_what_it_is_for_and_not_what_is_close(code: str) -> None:
    met, close = PERSONAL_CASES[code]
    assert code in codes(await judged(met[0], met[1], met[2]))
    assert code not in codes(await judged(close[0], close[1], close[2]))


async def test_each_recipient_has_a_verdict_of_their_own() -> None:
    mail = Mail(text="Your free spins at the online casino", auth=proof("softfail"), host=None)
    arrival, parsed = mail.pair()
    people = tuple(Recipient(n, "ten_1", f"u{n}@ours.example", n, Via()) for n in (1, 2, 3, 0))
    arrival = msgspec.structs.replace(arrival, recipients=people)
    known = Correspondents((2, "ann@partner.example"))
    room = Filter(text, known)
    (one,) = await room.judge([(arrival, parsed)], {1: AccountSettings(block=("ann@partner.example",))})
    assert one.common.junk
    assert [verdict.junk for verdict in one.recipients] == [True, True, True, True]
    assert "blocked" in codes(one.recipients[0])
    assert one.recipients[0].score > one.common.score > one.recipients[1].score
    assert one.recipients[2] is one.recipients[3] is one.common
    assert len(known.asked) == 1


async def test_the_score_is_the_sum_of_the_reasons() -> None:
    verdict = await judged(
        Mail(listings=(Listing("bl.example", "127.0.0.2", 3.0),)), AccountSettings(allow=("@partner.example",))
    )
    assert verdict.score == pytest.approx(sum(reason.score for reason in verdict.reasons))
    assert {"address_list", "allowed"} <= codes(verdict)


async def test_a_batch_asks_for_correspondents_once_and_keeps_its_order() -> None:
    known = Correspondents()
    mails = [Mail(subject=f"S{n}", text="Viagra" if n % 2 else "Hello") for n in range(70)]
    out = await Filter(text, known).judge([mail.pair() for mail in mails], {})
    assert ["pills" in codes(one.common) for one in out] == [bool(n % 2) for n in range(70)]
    assert len(known.asked) == 1


async def test_policy_puts_into_junk_whatever_the_score_says() -> None:
    verdict = await judged(Mail(junk="DMARC asks for it."), AccountSettings(allow=("@partner.example",)))
    assert verdict.junk
    assert verdict.score < 0
    assert "policy" in codes(verdict)


async def test_policy_of_one_recipient_is_not_that_of_all() -> None:
    mail = Mail(own_junk="Its domain would have refused it.")
    (one,) = await Filter(text, Correspondents()).judge([mail.pair()], {})
    assert not one.common.junk
    assert one.recipients[0].junk
    assert "policy" in codes(one.recipients[0])


async def test_a_virus_is_junk_even_from_whom_the_account_allows() -> None:
    scanner = Says(Finding("clamd", virus="Eicar-Test-Signature"))
    verdict = await judged(
        Mail(), AccountSettings(allow=("@partner.example",)), "ann@partner.example", scanners=[scanner]
    )
    assert verdict.virus == "Eicar-Test-Signature"
    assert verdict.junk


@pytest.mark.parametrize("required", [False, True])
async def test_what_cannot_be_scanned_says_so(required: bool) -> None:
    verdict = await judged(Mail(), scanners=[Says(Finding("clamd", unscanned="it is too large", required=required))])
    assert verdict.scanner == "it is too large"
    assert verdict.junk is required
    assert "unscanned" in codes(verdict)


async def test_a_required_scanner_that_is_away_makes_the_job_wait() -> None:
    with pytest.raises(Unavailable):
        await judged(Mail(), scanners=[Says(Unavailable("it cannot be reached"))])


async def test_a_scanners_points_and_words_count_within_bounds() -> None:
    verdict = await judged(Mail(), scanners=[Says(Finding("hook", score=10**9, reasons=("bad\x00\u202e thing",)))])
    (reason,) = [one for one in verdict.reasons if one.rule == "scanner"]
    assert reason.score == 50.0
    assert reason.text.isprintable()
    assert (await judged(Mail(), scanners=[Says(Finding("hook", junk=True))])).junk
    assert not codes(await judged(Mail(), scanners=[Says(Finding("hook"))])) & {"scanner", "unscanned"}


@pytest.mark.parametrize(("probability", "score"), [(None, None), (0.5, 0.0), (1.0, 3.0), (0.0, -3.0), (7.0, 3.0)])
async def test_the_classifier_has_its_place(probability: float | None, score: float | None) -> None:
    verdict = await judged(Mail(), classifier=Sure(probability))
    assert verdict.probability == probability
    assert [one.score for one in verdict.reasons if one.rule == "learned"] == ([] if score is None else [score])


async def test_no_classifier_adds_nothing() -> None:
    verdict = await judged(Mail())
    assert verdict.probability is None
    assert "learned" not in codes(verdict)


async def test_a_failure_of_ours_holds_no_mail(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(message: bytes, part: Part, most: int) -> str:
        if b"break" in message:
            raise RuntimeError("a defect")
        return text(message, part, most)

    batch: list[tuple[Arrival, Parsed]] = [Mail(text="break").pair(), Mail(text="Viagra").pair()]
    first, second = await Filter(broken, Correspondents()).judge(batch, {})
    assert codes(first.common) == {"failed"}
    assert not first.common.junk
    assert "pills" in codes(second.common)
