from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.mail.srs import MAX_AGE_DAYS, Srs, is_srs

DAY = 86_400_000_000
NOW = 20_000 * DAY + 5
SRS = Srs(b"k" * 32)


def test_a_bounce_finds_its_way_back() -> None:
    address = SRS.forward("Ann.Lee+tag@a.example", "us.example", NOW)
    local, _, domain = address.partition("@")
    assert domain == "us.example"
    assert local.startswith("SRS0=")
    assert local.endswith("=a.example=Ann.Lee+tag")
    assert SRS.reverse(address, NOW + MAX_AGE_DAYS * DAY) == "Ann.Lee+tag@a.example"


def test_a_second_forwarder_keeps_the_first() -> None:
    first = Srs(b"a" * 16).forward("ann@a.example", "b.example", NOW)
    second = SRS.forward(first, "c.example", NOW)
    assert second.startswith("SRS1=")
    assert SRS.reverse(second, NOW) == first
    third_key = Srs(b"z" * 16)
    third = third_key.forward(second, "d.example", NOW)
    assert len(third) <= len(second)
    assert third_key.reverse(third, NOW) == first


def test_relays_may_change_case() -> None:
    address = SRS.forward("ann@a.example", "us.example", NOW)
    assert SRS.reverse(address.lower(), NOW) == "ann@a.example"
    assert SRS.reverse(address.upper(), NOW).lower() == "ann@a.example"


def test_the_null_path_and_our_own_stay() -> None:
    assert SRS.forward("", "us.example", NOW) == ""
    assert SRS.forward("ann@US.example", "us.example", NOW) == "ann@US.example"


def test_it_expires_and_is_not_from_the_future() -> None:
    address = SRS.forward("ann@a.example", "us.example", NOW)
    with pytest.raises(Invalid) as late:
        SRS.reverse(address, NOW + (MAX_AGE_DAYS + 1) * DAY)
    assert late.value.code == "srs_expired"
    assert SRS.reverse(address, NOW - DAY) == "ann@a.example"
    with pytest.raises(Invalid) as early:
        SRS.reverse(address, NOW - 3 * DAY)
    assert early.value.code == "srs_invalid"


def test_an_old_key_still_verifies() -> None:
    address = SRS.forward("ann@a.example", "us.example", NOW)
    assert Srs(b"n" * 16, (b"k" * 32,)).reverse(address, NOW) == "ann@a.example"
    with pytest.raises(Invalid):
        Srs(b"n" * 16).reverse(address, NOW)
    with pytest.raises(ValueError, match="16 octets"):
        Srs(b"short")


@pytest.mark.parametrize(
    "address",
    ["a" * 60 + "@long.example", '"a b"@a.example', "ann@[192.0.2.1]", "用户@a.example", "ann@a b", "@a.example"],
)
def test_what_cannot_be_rewritten_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        SRS.forward(address, "us.example", NOW)


locals_ = st.from_regex(r"[A-Za-z0-9._+=-]{1,20}", fullmatch=True)
hosts = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{2,6}){1,2}", fullmatch=True)


@given(locals_, hosts, st.integers(0, 60_000 * DAY), st.integers(0, MAX_AGE_DAYS))
def test_every_address_comes_back(local: str, host: str, now: int, age: int) -> None:
    assume(not is_srs(f"{local}@{host}") and host != "us.example")
    try:
        address = SRS.forward(f"{local}@{host}", "us.example", now)
    except Invalid as error:
        assert error.code == "srs_too_long"
        return
    assert len(address.rpartition("@")[0]) <= 64
    assert is_srs(address)
    assert SRS.reverse(address, now + age * DAY) == f"{local}@{host}"


@given(st.data())
def test_an_altered_address_is_refused(data: st.DataObject) -> None:
    address = SRS.forward("ann@a.example", "us.example", NOW)
    local = address.rpartition("@")[0]
    at = data.draw(st.integers(0, len(local) - 1))
    put = data.draw(st.sampled_from("abcxyz0123=+-.@"))
    changed = local[:at] + put + local[at + 1 :]
    assume(changed.lower() != local.lower())
    assume(not (at == 4 and put in "+-"))
    with pytest.raises(Invalid):
        SRS.reverse(f"{changed}@us.example", NOW)


@given(st.text(max_size=100))
def test_any_text_is_refused_or_reversed(text: str) -> None:
    for address in (text, f"SRS0={text}@us.example", f"SRS1=a=b={text}@us.example"):
        with pytest.raises(Invalid):
            SRS.reverse(address, NOW)


@pytest.mark.parametrize(
    "address",
    [
        "SRS1=aaaaaaaa=hop...example==bbbbbbbb=XY=far.example=bob@relay.example",
        "SRS1=aaaaaaaa=-==bbbbbbbb=XY=far.example=bob@relay.example",
        "ann@a..example",
        "ann@.example",
    ],
)
def test_what_would_lead_back_to_no_host_is_not_rewritten(address: str) -> None:
    with pytest.raises(Invalid) as caught:
        Srs(b"0123456789abcdef").forward(address, "next.example", 1_700_000_000_000_000)
    assert caught.value.code == "srs_unfit"
