"""The demo's own judge has to see what is wrong."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from posthouse.cli.demo import check
from posthouse.cli.demo.check import Copy
from posthouse.mailauth.dkim import Signer, sign

MAIL = (
    b"From: The Shop <shop@example.com>\r\nTo: ann@example.org\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n folded\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nHello \r\nbody\r\n\r\n"
)


@pytest.fixture(scope="module")
def signed() -> tuple[bytes, dict[str, str]]:
    rsa, ed = generate_private_key(65537, 2048), Ed25519PrivateKey.generate()
    signers = [Signer("example.com", "r1", rsa), Signer("example.com", "e1", ed)]
    rsa_public = rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ed_public = ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    keys = {
        "r1": f"v=DKIM1; k=rsa; p={b64encode(rsa_public).decode()}",
        "e1": f"v=DKIM1; k=ed25519; p={b64encode(ed_public).decode()}",
    }
    return sign(MAIL, signers, int(time.time())) + MAIL, keys


def test_good_signatures_are_good(signed: tuple[bytes, dict[str, str]]) -> None:
    assert check.verified(*signed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"body", b"bodY"),
        (b"ann@example.org", b"bob@example.org"),
        (b"Subject:", b"Subject: x\r\nSubject:"),
        (b"To: ann", b"X-To: ann"),
        (b"s=r1", b"s=r2"),
    ],
)
def test_a_change_is_seen(signed: tuple[bytes, dict[str, str]], old: bytes, new: bytes) -> None:
    message, keys = signed
    changed = message.replace(old, new)
    assert changed != message
    assert not check.verified(changed, keys)


def test_unsigned_is_not_verified(signed: tuple[bytes, dict[str, str]]) -> None:
    assert check.count_verified([MAIL, signed[0]], signed[1]) == (1, 2)


def _message(
    number: int, status: str, attempts: int = 1, *, to: tuple[str, ...] = ("ann@example.com",)
) -> dict[str, Any]:
    at = f"2026-11-22T10:00:0{number}.500000Z"
    return {
        "id": f"msg_{number}",
        "status": status,
        "stream": "broadcast",
        "created_at": "2026-11-22T10:00:00.000000Z",
        "recipients": [{"address": one, "status": status, "attempts": attempts, "updated_at": at} for one in to],
    }


def _copy(number: int, address: str = "ann@example.com", trace: bytes = b"", *mailboxes: str) -> Copy:
    return Copy(address, f"{number}@shop.example", mailboxes or ("Inbox",), trace)


def test_what_agrees() -> None:
    messages = [_message(1, "delivered"), _message(2, "bounced"), _message(3, "delivered", attempts=2)]
    found = check.tally(["msg_1", "msg_2", "msg_3"], messages, [_copy(1), _copy(3)])
    assert (found.lost, found.unexplained, found.duplicates, found.deferred) == ([], [], 0, 1)
    assert found.states == {"delivered": 2, "bounced": 1}
    assert found.stored == 2
    assert found.latency["broadcast"] == check.Latency(3.5, 3.5, 3.5, 3.5)


def test_what_is_missing_is_lost() -> None:
    """Not in the ledger; not final; delivered, and in no mailbox."""
    messages = [_message(2, "deferred"), _message(3, "delivered")]
    found = check.tally(["msg_1", "msg_2", "msg_3"], messages, [_copy(2)])
    assert sorted(found.lost) == ["msg_1", "msg_2 to ann@example.com", "msg_3 to ann@example.com"]


def test_each_recipient_has_its_own() -> None:
    messages = [_message(1, "delivered", to=("ann@example.com", "bob@example.com"))]
    found = check.tally(["msg_1"], messages, [_copy(1), _copy(1)])
    assert found.lost == ["msg_1 to bob@example.com"]
    assert found.duplicates == 1


def test_twice_and_unexplained_are_counted() -> None:
    copies = [_copy(1), _copy(1), _copy(9), _copy(1, "bob@example.com")]
    found = check.tally(["msg_1"], [_message(1, "delivered")], copies)
    assert found.duplicates == 1
    assert found.unexplained == ["msg_9 to ann@example.com", "msg_1 to bob@example.com"]


def test_what_a_mailbox_sent_on_is_in_another() -> None:
    ledger = [_message(1, "delivered"), _message(2, "delivered", to=("bob@example.com",))]
    found = check.tally(["msg_1"], ledger, [_copy(1), _copy(1, "bob@example.com")])
    assert (found.forwarded, found.duplicates, found.unexplained, found.lost) == (1, 0, [], [])
    assert check.tally(["msg_1"], ledger, [_copy(1)]).lost == ["forwarded to bob@example.com"]


def test_authentication_needs_all_three() -> None:
    passes = b"Authentication-Results: x; spf=pass; dkim=pass; dmarc=pass\r\n"
    copies = [
        _copy(1, "ann@example.com", passes),
        _copy(2, "ann@example.com", passes.replace(b"spf=pass", b"spf=none")),
    ]
    found = check.tally(["msg_1", "msg_2"], [_message(1, "delivered"), _message(2, "delivered")], copies)
    assert found.authenticated == 1
    assert check.tally([], [], [_copy(1, "ann@example.com", b"", "Junk")]).junk == 1


def test_the_story_is_of_one_that_needed_two_attempts() -> None:
    plain, again, foreign = _message(1, "delivered"), _message(2, "delivered", 2), _message(3, "delivered", 2)
    assert check.worth_telling(["msg_1", "msg_2"], [foreign, plain, again]) is again
    assert check.worth_telling(["msg_1"], [foreign, plain]) is plain
    assert check.worth_telling(["msg_3"], [_message(3, "bounced")]) is None
