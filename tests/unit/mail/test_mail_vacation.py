from __future__ import annotations

import email
import email.policy
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail.address import mailbox
from posthouse.mail.parsed import Addr, Parsed, Part
from posthouse.mail.vacation import Vacation, answer, read_vacation, refusal, sender_key

ANN = mailbox("ann@example.com", "Ann Lee")
OWN = frozenset({"ann@example.com", "Ann.Lee@example.com"})
NOW = datetime(2025, 7, 4, 12, tzinfo=UTC)
MICROS = int(NOW.timestamp()) * 1_000_000
DAY = 86_400_000_000
AWAY = Vacation("Back on Monday.")


def parsed(**changes: object) -> Parsed:
    plain: dict[str, object] = {
        "size": 100,
        "header_length": 50,
        "structure": Part("1", "text/plain", 0, 0, 0, 10, 10),
        "subject": "Lunch",
        "from_": (Addr("Bob", "bob@other.example"),),
        "to": (Addr("", "ann@example.com"),),
        "message_id": "m1@other.example",
    }
    return Parsed(**{**plain, **changes})  # type: ignore[arg-type]


def why(
    mail: Parsed | None = None, path: str = "bob@other.example", setting: Vacation = AWAY, **more: object
) -> str | None:
    fields = more.pop("fields", {})
    assert isinstance(fields, dict)
    return refusal(
        setting,
        mail or parsed(),
        reverse_path=path,
        own=OWN,
        now=MICROS,
        header=lambda name: fields.get(name, ()),
        **more,  # type: ignore[arg-type]
    )


def test_a_person_gets_an_answer() -> None:
    assert why() is None
    assert why(parsed(to=(), cc=(Addr("", "ANN.lee@Example.com"),))) is None
    assert why(parsed(auto_submitted="no")) is None
    assert why(fields={"x-auto-response-suppress": ("DR, RN",)}) is None


@pytest.mark.parametrize(
    "path",
    """mailer-daemon@x.example MAILER-DAEMON@x.example owner-list@x.example list-owner@x.example list-request@x.example
    noreply@x.example no-reply@x.example no_reply+7@x.example do-not-reply@x.example shop-noreply@x.example
    list-bounces@x.example bounce+abc=7@x.example listserv@x.example SRS0=ab=cd=x.example=bob@y.example
    prvs=1=bob@x.example postmaster@x.example @x.example ann@example.com""".split(),
)
def test_programs_lists_and_oneself_get_none(path: str) -> None:
    assert why(path=path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"auto_submitted": "auto-generated"}, "Auto-Submitted"),
        ({"auto_submitted": "auto-replied"}, "Auto-Submitted"),
        ({"precedence": "bulk"}, "Precedence is bulk"),
        ({"precedence": "list"}, "Precedence"),
        ({"list_id": "choir.example"}, "list"),
        ({"list_unsubscribe": True}, "list"),
        ({"structure": Part("0", "multipart/report", 0, 0, 0, 1, 1)}, "report"),
        ({"from_": (Addr("", "noreply@other.example"),)}, "author"),
        ({"from_": (Addr("", "ann.lee@example.com"),)}, "itself"),
        ({"to": (Addr("", "everybody@example.com"),)}, "To or Cc"),
        ({"to": (), "bcc": (Addr("", "ann@example.com"),)}, "To or Cc"),
    ],
)
def test_what_no_person_wrote_to_the_account_gets_none(changes: dict[str, object], says: str) -> None:
    assert says in (why(parsed(**changes)) or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"list-help": ("<x>",)},
        {"list-archive": ("<x>",)},
        {"x-auto-response-suppress": ("DR, OOF",)},
        {"feedback-id": ("1",)},
    ],
)
def test_fields_of_lists_and_programs_are_heeded(fields: dict[str, tuple[str, ...]]) -> None:
    assert why(fields=fields)


def test_a_notice_is_never_answered() -> None:
    assert "null" in (why(path="") or "")


def test_a_sender_is_answered_once_in_some_days() -> None:
    assert "7 days" in (why(answered_at=MICROS - 6 * DAY) or "")
    assert why(answered_at=MICROS - 7 * DAY) is None
    assert sender_key("Bob@Other.example", AWAY) == sender_key("bob@other.example", AWAY)
    assert sender_key("bob@other.example", AWAY) != sender_key("bob@other.example", Vacation("Back on Tuesday."))


def test_it_has_its_time() -> None:
    setting = Vacation("x", begin=datetime(2025, 7, 4, 12, tzinfo=UTC), end=datetime(2025, 7, 5, tzinfo=UTC))
    assert why(setting=setting) is None
    assert why(setting=Vacation("x", begin=datetime(2025, 7, 5, tzinfo=UTC)))
    assert why(setting=Vacation("x", end=NOW))
    assert why(setting=Vacation("x", enabled=False))
    assert why(junk=True)


def test_the_answer_says_what_it_is() -> None:
    mail = parsed(subject="Lunch\r\nBcc: eve@evil.example", references=("r1@x.example", "bad id", "r2@x.example"))
    raw = answer(AWAY, mail, sender=ANN, reverse_path="bob@other.example", message_id="<a@example.com>", now=NOW)
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == "Auto: Lunch Bcc: eve@evil.example"
    assert message["Bcc"] is None
    assert message["To"] == "bob@other.example"
    assert message["From"] == "Ann Lee <ann@example.com>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<m1@other.example>"
    assert message["References"] == "<r1@x.example> <r2@x.example> <m1@other.example>"
    assert message.get_content() == "Back on Monday.\r\n"


def test_an_own_subject_and_long_references() -> None:
    mail = parsed(references=tuple(f"r{i}@x.example" for i in range(40)))
    raw = answer(
        Vacation("x", "Away"), mail, sender=ANN, reverse_path="bob@other.example", message_id="<a@example.com>", now=NOW
    )
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message["Subject"] == "Away"
    ids = message["References"].split()
    assert ids[0] == "<r0@x.example>"
    assert ids[-1] == "<m1@other.example>"
    assert len(ids) == 10


@given(st.text(max_size=300), st.lists(st.text(max_size=40), max_size=5), st.none() | st.text(max_size=40))
def test_no_mail_gets_a_field_into_the_answer(subject: str, references: list[str], message_id: str | None) -> None:
    mail = parsed(subject=subject, references=tuple(references), message_id=message_id)
    raw = answer(AWAY, mail, sender=ANN, reverse_path="bob@other.example", message_id="<a@example.com>", now=NOW)
    head = raw.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    allowed = b"From To Subject Date Message-ID Auto-Submitted Precedence X-Auto-Response-Suppress In-Reply-To References".split()
    allowed += b"MIME-Version Content-Type Content-Transfer-Encoding".split()
    assert set(names) <= set(allowed)
    assert len(names) == len(set(names))


def test_the_setting_is_read_and_checked() -> None:
    raw = {"text": "x", "from": "2025-07-01T00:00:00Z", "until": "2025-07-14T00:00:00+02:00", "every_days": 3}
    setting = read_vacation(json.dumps(raw).encode())
    assert setting.every_days == 3
    assert setting.begin == datetime(2025, 7, 1, tzinfo=UTC)
    for wrong in (
        {},
        {"text": ""},
        {**raw, "until": "2025-06-01T00:00:00Z"},
        {**raw, "from": "2025-07-01T00:00:00"},
        {**raw, "x": 1},
        {**raw, "every_days": 0},
    ):
        with pytest.raises(Invalid) as caught:
            read_vacation(json.dumps(wrong).encode())
        assert caught.value.code == "invalid_vacation"
    with pytest.raises(Invalid):
        read_vacation(b"\xff")


@pytest.mark.parametrize("raw", [b'{"t\xffxt":"x"}', b'{"text":"\xff"}', b"\xff", b""])
def test_what_is_not_utf8_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_vacation(raw)
    assert caught.value.code == "invalid_vacation"
