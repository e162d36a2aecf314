"""The pieces that facts are made of, on what is written to deceive them."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.inbound.filter import names
from posthouse.inbound.filter.facts import gather
from posthouse.inbound.filter.files import files, zip_names
from posthouse.inbound.filter.links import MOST_HOSTS, defanged, links
from posthouse.inbound.filter.markup import markup
from posthouse.inbound.filter.rule import reasons
from posthouse.inbound.filter.rules import RULES
from posthouse.inbound.filter.wording import wording
from posthouse.inbound.model import Arrival, Evidence, Recipient, Via
from posthouse.mail.parse import parse, text
from tests.unit.inbound.filter.cases import PE, zipped
from tests.unit.inbound.filter.mails import NOW, Mail, proof


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("see http://one.example/x.", ("one.example",)),
        ("see (https://one.example), and www.two.example!", ("one.example", "two.example")),
        ("http://one.example:8080/a http://one.example/b", ("one.example",)),
        ("https://ann:pw@one.example/", ("one.example",)),
        ("https://one%2eexample/", ("one.example",)),
        ("http://bücher.example/", ("xn--bcher-kva.example",)),
        ("http:///nothing http://localhost/ ftp://x.example", ()),
    ],
)
def test_hosts_in_text(written: str, hosts: tuple[str, ...]) -> None:
    assert {host.removeprefix("www.") for host in links(written, "").hosts} == set(hosts)


@pytest.mark.parametrize(
    "written",
    [
        '<a href="https://evil.example/x">',
        "<a href='https://evil.example/x'>",
        "<a href=https://evil.example/x>",
        '<a class=y href = "//evil.example/x">',
        '<a href="https:\\\\evil.example\\x">',
        '<a href="&#104;ttps://evil.example/">',
        '<a href="https&colon;//evil.example/">',
        '<a href="https://evil&#46;example/">',
        '<area href="https://evil.example/">',
        '<form action="https://evil.example/">',
    ],
)
def test_hosts_in_html(written: str) -> None:
    assert links("", written).hosts == ("evil.example",)


@pytest.mark.parametrize("written", ["192.0.2.9", "0xc0000209", "3221225993", "192.0.521", "0xc0.0.2.9"])
def test_an_address_is_known_however_it_is_spelled(written: str) -> None:
    assert links(f"http://{written}/login", "").addresses == ("192.0.2.9",)


@pytest.mark.parametrize(
    ("shown", "target", "meant"),
    [
        ("www.bank.example", "https://evil.example/", True),
        ("https://bank.example/login", "https://evil.example/", True),
        ("<b>bank.example</b>", "https://evil.example/", True),
        ("bank.example", "http://192.0.2.9/", True),
        ("www.bank.example", "https://login.bank.example/", False),
        ("Click here", "https://evil.example/", False),
        ("report.pdf", "https://evil.example/", False),
        ("Version 2.10", "https://evil.example/", False),
    ],
)
def test_shown_and_target(shown: str, target: str, meant: bool) -> None:
    assert bool(links("", f'<p><a class="x" href="{target}">{shown}</a>').mismatched) is meant


def test_links_are_bounded() -> None:
    many = " ".join(f"http://h{n}.example/" for n in range(2000))
    assert len(links(many, "").hosts) <= MOST_HOSTS


def test_a_number_too_long_to_read_is_no_way_out() -> None:
    assert links("", f'<a href="&#{"9" * 5000};https://evil.example/">x</a>').hosts == ("evil.example",)


@pytest.mark.parametrize(
    "hostile",
    ["<a " * 12_000, '<a href="' * 3500, "<a href=x>" * 3000, "http://" * 4500, "href=" * 6000, "style=" * 5000,
     '<p style="display:none">' * 1300, "<" * 32_000, "<!--" * 8000, "<style>" * 4500, "&#x" * 10_000, "www." * 8000],
)  # fmt: skip
def test_hostile_text_costs_little(hostile: str) -> None:
    start = time.process_time()
    links(hostile, hostile)
    markup(hostile, 0, 1, hides=True)
    wording("", hostile)
    assert time.process_time() - start < 1.0


def test_a_host_in_a_sentence_is_no_link() -> None:
    assert defanged("evil.example") == "evil[.]example"


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("exarnple-works.example", "example-works.example", "alike"),
        ("0akfield.example", "oakfield.example", "alike"),
        ("oak-field.example", "oakfield.example", "alike"),
        ("oakfeild.example", "oakfield.example", "near"),
        ("oakfields.example", "oakfield.example", "near"),
        ("oakfield.example.evil.test", "oakfield.example", "below"),
        ("oakfield.test", "oakfield.example", None),
        ("mail.oakfield.example", "oakfield.example", None),
        ("meadow.example", "oakfield.example", None),
    ],
)
def test_domains_made_to_be_taken_for_another(one: str, other: str, how: str | None) -> None:
    found = names.imitates(one, other)
    assert (found.how if found else None) == how


def test_letters_of_another_script_look_the_same() -> None:
    cyrillic = names.ascii_host("оаkfiеld.example")
    found = names.imitates(cyrillic, "oakfield.example")
    assert found is not None
    assert found.how == "alike"
    assert names.deceptive_idn(cyrillic)


@pytest.mark.parametrize("host", ["bücher.example", "пример.рф", "δοκιμή.gr", "例え.jp", "münchen.de", "пример.com"])
def test_honest_names_in_other_scripts_deceive_nobody(host: str) -> None:
    assert not names.deceptive_idn(names.ascii_host(host))
    assert names.imitates_brand(names.ascii_host(host)) is None


@pytest.mark.parametrize("host", ["finance.com", "mail.paypal.com", "amazon.com.br", "apply.com", "grouped.example",
                                  "upsell.example", "stripes.example", "chasers.example"])  # fmt: skip
def test_names_near_a_brand_by_chance(host: str) -> None:
    assert names.imitates_brand(host) is None


@pytest.mark.parametrize(
    ("name", "brand"),
    [("PayPal", "paypal"), ("PаyPаl Security", "paypal"), ("Microsoft 365 Team", "microsoft"), ("Amazon Customer Service", "amazon"),
     ("Booking.com", "bookingcom"), ("Chase Utley", None), ("Apple Pie Friends", None), ("Ann Lee", None), ("", None)],
)  # fmt: skip
def test_display_names_that_speak_for_a_brand(name: str, brand: str | None) -> None:
    assert names.claimed_brand(name) == brand


@given(st.text(max_size=12), st.text(max_size=12))
def test_one_off_is_symmetric_and_never_equality(one: str, other: str) -> None:
    assert names.one_off(one, other) == names.one_off(other, one)
    assert not names.one_off(one, one)


@given(st.text(max_size=80))
def test_names_of_any_kind_are_read(name: str) -> None:
    names.claimed_brand(name)
    names.imitates_brand(names.ascii_host(name))
    names.imitates(names.ascii_host(name), "ours.example")
    names.deceptive_idn(names.ascii_host(name))
    names.hides_characters(name)
    assert all("@" in one for one in names.originals(name + "@x.example"))


def test_originals_of_an_address() -> None:
    assert "ann@example.com" in set(names.originals("ann@exarnple.com"))
    assert "ann@example.com" in set(names.originals(f"ann@{names.ascii_host('exаmple.com')}"))
    assert not set(names.originals("ann@plain.org"))


def test_the_names_in_a_zip_are_read_from_its_end() -> None:
    whole = zipped("a.txt", "b/c.js")
    assert [name for _, name in zip_names(whole)] == ["a.txt", "b/c.js"]
    assert [name for _, name in zip_names(whole[120:])] == ["a.txt", "b/c.js"]


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=200)
def test_damaged_zips_are_read_as_far_as_they_go(noise: bytes, cut: int) -> None:
    whole = zipped("a.txt", "b.js")
    list(zip_names(whole[:cut] + noise + whole[cut:]))
    list(zip_names(noise))


def test_a_long_archive_is_known_by_its_end() -> None:
    names_inside = [*(f"photo{n}.jpg" for n in range(400)), "run.vbs"]
    mail = Mail(attach=[("photos.zip", "application/zip", zipped(*names_inside))])
    arrival, parsed = mail.pair()
    assert [file.risk for file in files(arrival.raw, parsed)] == ["inside"]


def test_a_program_in_an_attachment_without_padding_or_name() -> None:
    body = base64.b64encode(PE).rstrip(b"=")
    raw = (
        b"From: a@b.example\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + body
    )
    assert [file.risk for file in files(raw, parse(raw))] == ["disguised"]


def judge_anything(raw: bytes) -> None:
    evidence = Evidence("192.0.2.1", "h\x00\u202e", None, proof())
    arrival = Arrival(
        "inb_1", NOW, "c", len(raw), "", evidence, b"", (Recipient(0, "t", "bob@ours.example", 1, Via()),), raw
    )
    for reason in reasons(RULES, gather(arrival, parse(raw), text)):
        assert reason.text.isprintable()


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_octets_are_judged(raw: bytes) -> None:
    judge_anything(raw)


PIECES = st.sampled_from(
    [b"From: =?utf-8?q?Pay=E2=80=AEPal?= <a@xn--ppl-hxb.com>\r\n", b"Subject: \xff\xfe\r\n", b"Reply-To: @\r\n", b"From: <@>\r\n",
     b"Content-Type: text/html; charset=utf-7\r\n", b"Content-Type: multipart/mixed; boundary=x\r\n", b"\r\n", b"--x\r\n", b"--x--\r\n",
     b"Content-Transfer-Encoding: base64\r\n", b"<a href=http://[::1]@x.y>b.example</a>", b"PK\x03\x04", b"UEsDBBQAAAAIAA==\r\n",
     b"Content-Disposition: attachment; filename=a.exe\r\n", b"http://%00%ff.example:99999999/", b"<a href='//&#x;'>", b"Date: 99\r\n",
     b"List-Id: <\r\n", b"http://1.1.1.1.1.1/ http://99999999999/ http://xn--\xc3\xbc.xn--/", b"To: a@b, c@d\r\n"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=20), max_size=25))
@settings(max_examples=200, deadline=None)
def test_mail_made_of_odd_pieces_is_judged(pieces: list[bytes]) -> None:
    judge_anything(b"".join(pieces))


@pytest.mark.parametrize("octet", ["\x00", "%00", "&#1;", "\x7f", "%0a", "\u202e"])
def test_a_host_holds_nothing_that_cannot_be_shown(octet: str) -> None:
    found = links("", f'<p><a href="http://ev{octet}il.example/">https://bank.example</a>')
    assert all(host.isprintable() for host in (*found.hosts, *found.addresses))
    assert all(shown.isprintable() and target.isprintable() for shown, target in found.mismatched)
