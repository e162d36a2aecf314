"""What becomes of mail that fails DMARC, and of an address at RCPT."""

from __future__ import annotations

import pytest

from posthouse.directory.model import DmarcAction, DomainSettings, Resolution, Status, Target
from posthouse.inbound.policy import dmarc, override
from posthouse.inbound.recipients import refusal
from posthouse.mailauth.evidence import Arc, Authentication, Dkim, Dmarc, Spf

TRUSTED = frozenset({"list.test", "gate.test"})


def judged(disposition: str, *, arc: Arc | None = None, dkim: tuple[Dkim, ...] = ()) -> Authentication:
    found = Dmarc(
        "fail", "shop.bank.test", "bank.test", "reject" if disposition == "none" else disposition, disposition
    )
    return Authentication(Spf("fail", "bank.test"), Spf("none", "mx.test"), dkim, found, arc or Arc("none"))


@pytest.mark.parametrize(
    ("action", "disposition", "refuses", "junks"),
    [
        (DmarcAction.FOLLOW, "reject", True, True),
        (DmarcAction.FOLLOW, "quarantine", False, True),
        (DmarcAction.FOLLOW, "none", False, False),
        (DmarcAction.JUNK, "reject", False, True),
        (DmarcAction.JUNK, "quarantine", False, True),
        (DmarcAction.JUNK, "none", False, False),
        (DmarcAction.ACCEPT, "reject", False, False),
        (DmarcAction.ACCEPT, "quarantine", False, False),
    ],
)
def test_what_a_domain_makes_of_dmarc(action: DmarcAction, disposition: str, refuses: bool, junks: bool) -> None:
    verdict = dmarc(judged(disposition), action, None)
    assert (bool(verdict.refuse), bool(verdict.junk)) == (refuses, junks)
    for sentence in filter(None, (verdict.refuse, verdict.junk)):
        assert "bank.test asks by DMARC (p=" in sentence
        assert "shop.bank.test" in sentence


def test_what_is_excused_is_left_alone() -> None:
    verdict = dmarc(judged("reject"), DmarcAction.FOLLOW, "because")
    assert (verdict.refuse, verdict.junk) == ("", "")


@pytest.mark.parametrize(
    ("arc", "dkim", "excused"),
    [
        (Arc("pass", ("list.test",), first_results="mx.list.test; dmarc=pass header.from=bank.test"), (), True),
        (Arc("pass", ("list.test", "gate.test"), first_results="x; spf=fail; DMARC = Pass"), (), True),
        (Arc("pass", ("list.test",), first_results="mx.list.test; dmarc=fail"), (), False),
        (Arc("pass", ("list.test",), first_results="x; xdmarc=pass; dmarc=passed"), (), False),
        (Arc("pass", ("list.test",)), (), False),
        (Arc("pass", ("evil.test", "list.test"), first_results="x; dmarc=pass"), (), False),
        (Arc("fail", ("list.test",), first_results="x; dmarc=pass"), (), False),
        (Arc("pass", (), first_results="x; dmarc=pass"), (), False),
        (Arc("none"), (Dkim("pass", "list.test", "s"),), True),
        (Arc("pass", ("evil.test",), first_results="x; dmarc=pass"), (Dkim("pass", "list.test", "s"),), True),
        (Arc("none"), (Dkim("pass", "list.test", "s", covered=10),), False),
        (Arc("none"), (Dkim("fail", "list.test", "s"), Dkim("pass", "evil.test", "s")), False),
    ],
)
def test_who_is_trusted_may_excuse(arc: Arc, dkim: tuple[Dkim, ...], excused: bool) -> None:
    assert (override(judged("reject", arc=arc, dkim=dkim), TRUSTED) is not None) is excused
    assert override(judged("reject", arc=arc, dkim=dkim), frozenset()) is None
    assert override(judged("none", arc=arc, dkim=dkim), TRUSTED) is None  # nothing to excuse


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.UNKNOWN, "550 5.1.1"),
        (Status.FOREIGN, "550 5.7.1"),
        (Status.MALFORMED, "550 5.1.3"),
        (Status.DISABLED, "550 5.2.1"),
        (Status.LOOPS, "550 5.4.6"),
    ],
)
def test_each_status_has_its_code(status: Status, code: str) -> None:
    found = refusal(Resolution(status, "ann@elsewhere.example"), 0)
    assert found is not None
    assert f"{found[0].code} {found[0].enhanced}" == code
    assert found[0].text


def test_every_status_is_answered() -> None:
    assert all(refusal(Resolution(status, "a@b.test"), 0) for status in Status if status is not Status.FOUND)


@pytest.mark.parametrize(
    ("room", "most", "size", "code"),
    [
        (None, None, 10**9, None),
        (100, 1000, 0, None),
        (100, 1000, 100, None),
        (100, 1000, 101, "452 4.2.2"),
        (100, 1000, 1001, "552 5.2.3"),
        (0, 1000, 0, "452 4.2.2"),
        (-5, 1000, 0, "452 4.2.2"),
        (50, 0, 60, "452 4.2.2"),  # the domain's quota alone
    ],
)
def test_room(room: int | None, most: int | None, size: int, code: str | None) -> None:
    target = Target(1, "ten", "acme.test")
    found = refusal(
        Resolution(Status.FOUND, "a@acme.test", "ten", "acme.test", DomainSettings(), (target,), room, most), size
    )
    assert (None if found is None else f"{found[0].code} {found[0].enhanced}") == code
