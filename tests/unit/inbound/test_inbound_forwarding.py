"""Whatever came in goes on unchanged, sealed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse import ids
from posthouse.domains.model import SigningKey
from posthouse.errors import Corrupt
from posthouse.inbound.decision import Order, Parcel
from posthouse.inbound.forwarding import Forwarding
from posthouse.inbound.model import Recipient, Via
from posthouse.mail.parse import parse
from posthouse.mail.srs import Srs
from posthouse.mailauth.dkim import generate_key
from posthouse.seal import Seal
from posthouse.storage.contents import Contents
from tests.unit.inbound.arrivals import ANN, BOB, NOW, account, arrival, decided, letter

NOTHING: Any = None  # small contents are only hashed: no store is asked


@cache
def _key() -> SigningKey:
    return SigningKey("acme.test", "s", "rsa-sha256", generate_key("rsa-sha256")[0])


async def _keys(tenant_id: str, names: frozenset[str]) -> Mapping[str, Sequence[SigningKey]]:
    return {"acme.test": (_key(),)}


async def _broken(tenant_id: str, names: frozenset[str]) -> Mapping[str, Sequence[SigningKey]]:
    raise Corrupt(detail="altered")


def sent_on(raw: bytes, *, sender: str = BOB, keys: Any = _keys) -> Parcel:
    contents = Contents(NOTHING, NOTHING, small=1 << 30, clock=lambda: NOW)
    forwarding = Forwarding(contents, Srs(b"k" * 32), keys, authserv_id="mx.acme.test", clock=lambda: NOW)
    came = arrival(raw, sender=sender, to=Recipient(0, "ten_1", ANN, 1, Via()))
    order = Order("forward", came, parse(raw), came.recipients[0], account(), ("carl@else.test",))
    return asyncio.run(forwarding.parcel(order, order.to))


def data(parcel: Parcel) -> bytes:
    assert parcel.content is not None
    assert parcel.content.data is not None
    return parcel.content.data


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.binary(max_size=200).map(lambda raw: letter() + raw)))
def test_any_octets_go_on_as_they_came(raw: bytes) -> None:
    message = data(sent_on(raw))
    assert message.endswith(raw)
    ours = message[: len(message) - len(raw)]
    assert b"Delivered-To: ann@acme.test\r\nReceived: from mx" in ours
    assert b"Return-Path" not in ours
    assert ours.startswith((b"ARC-Seal:", b"Delivered-To:"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_octets_are_decided_about(raw: bytes) -> None:
    decision = decided(account(forward=("c@else.test",), vacation={"text": "x"}), raw or b"\r\n")
    assert decision.mailboxes == ("inbox",)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=70), st.from_regex(r"[a-z]{1,20}\.test", fullmatch=True))
def test_any_reverse_path_leads_back_or_is_null(local: str, domain: str) -> None:
    path = f"{local}@{domain}"
    handover = sent_on(b"From: a@b.test\r\n\r\n", sender=path, keys=_broken).handover
    assert handover is not None
    assert len(handover.reverse_path.partition("@")[0]) <= 64
    if handover.reverse_path and domain != "acme.test":
        assert Srs(b"k" * 32).reverse(handover.reverse_path, NOW) == path


def test_a_key_that_cannot_be_used_holds_no_mail() -> None:
    assert data(sent_on(letter(), keys=_broken)).startswith(b"Delivered-To:")
    assert data(sent_on(letter())).startswith(b"ARC-Seal:")


def test_the_same_message_becomes_the_same_id() -> None:
    source = ids.new("inb")
    one = ids.derived("msg", source, "forward")
    assert ids.is_id(one, "msg")
    assert one == ids.derived("msg", source, "forward")
    assert one != ids.derived("msg", source, "answer")
    assert one[4:16] == source[4:16]


def test_derived_keys_follow_the_master_keys() -> None:
    old, new = bytes(32), b"n" * 32
    assert Seal([new, old]).derive("srs")[1:] == Seal([old]).derive("srs")
    assert Seal([old]).derive("srs") != Seal([old]).derive("other")


def test_what_went_on_once_does_not_go_on_again() -> None:
    once = data(sent_on(letter()))
    assert not decided(account(forward=("c@else.test",)), once).forwards
