"""An address as the directory compares it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.directory import check
from posthouse.directory.model import AccountSettings, DomainSettings
from posthouse.directory.resolve import canonical
from posthouse.errors import Invalid

LOCAL = st.text(st.sampled_from("abcXYZ019.+-_%!#"), min_size=1, max_size=12)


@given(st.text(max_size=60))
def test_anything_is_folded_or_refused(text: str) -> None:
    try:
        folded = canonical(text)
    except Invalid:
        return
    assert canonical(folded) == folded
    assert folded.rpartition("@")[2] == folded.rpartition("@")[2].lower()


@given(LOCAL, st.sampled_from(["acme.test", "bücher.test"]))
def test_case_quotes_and_a_final_dot_do_not_matter(local: str, domain: str) -> None:
    try:
        folded = canonical(f"{local}@{domain}")
    except Invalid:  # dots at an end or two together
        return
    for spelling in (f"{local.upper()}@{domain.upper()}", f'"{local}"@{domain}', f"{local}@{domain}."):
        assert canonical(spelling) == folded


@given(LOCAL, LOCAL)
def test_a_route_in_a_local_part_never_changes_the_domain(local: str, other: str) -> None:
    for path in (
        f"{local}%{other}.example@acme.test",
        f"{other}.example!{local}@acme.test",
        f'"{local}@{other}.example"@acme.test',
    ):
        try:
            folded = canonical(path)
        except Invalid:
            continue
        assert folded.endswith("@acme.test")


@pytest.mark.parametrize("plus", ["", "+", "-", "=", "_"])
def test_separators(plus: str) -> None:
    assert check.domain_settings(DomainSettings(plus=plus)).plus == plus


@pytest.mark.parametrize("plus", ["++", "a", "@", '"', " ", "\n", "é"])
def test_no_separators(plus: str) -> None:
    with pytest.raises(Invalid):
        check.domain_settings(DomainSettings(plus=plus))


def test_lists_of_an_account_are_bounded() -> None:
    many = tuple(f"a{n}@b.test" for n in range(1001))
    for settings in (AccountSettings(allow=many), AccountSettings(block=many), AccountSettings(forward=many[:101])):
        with pytest.raises(Invalid):
            check.account_settings(settings)
    assert check.account_settings(AccountSettings(allow=many[:1000], forward=many[:100])).keep


def test_a_fault_names_its_place() -> None:
    with pytest.raises(Invalid) as caught:
        check.account_settings(AccountSettings(allow=("a@b.test", "nonsense")))
    assert [fault.pointer for fault in caught.value.faults] == ["/settings/allow/1"]
