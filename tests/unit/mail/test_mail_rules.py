from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.errors import Invalid, TooLarge
from posthouse.mail.parsed import Addr, Parsed, Part
from posthouse.mail.rules import MAX_RULES, MAX_TESTS, Incoming, Rule, apply, read_rules

TEXT = Part("1", "text/plain", 0, 0, 0, 10, 10)
BILL = Part("2", "application/pdf", 0, 0, 0, 10, 10, name="Rechnung März.PDF")
MAIL = Parsed(
    size=5000,
    header_length=100,
    structure=Part("0", "multipart/mixed", 0, 0, 0, 10, 10, children=(TEXT, BILL)),
    subject="Ihre RECHNUNG Nr. 12",
    from_=(Addr("Shop Service", "billing@shop.example"),),
    to=(Addr("", "ann@example.com"),),
    cc=(Addr("Bob Lee", "bob@example.com"),),
    attachments=("2",),
    list_id="news.shop.example",
)
FIELDS = {"x-mailer": ("Foo Mailer 2",), "x-empty": ("",)}


def incoming(mail: Parsed = MAIL, *, junk: bool = False, score: float = 0.0) -> Incoming:
    return Incoming(mail, lambda name: FIELDS.get(name, ()), lambda: "Please pay before Friday.\nStraße 5", junk, score)


def text(field: str, op: str, *values: str) -> dict[str, object]:
    return {"test": "text", "field": field, "op": op, "values": list(values)}


def rule(when: object, *then: object, name: str = "Bills", **more: object) -> bytes:
    return json.dumps({"name": name, "when": when, "then": list(then) or [{"do": "star"}], **more}).encode()


def fits(when: object, **how: object) -> bool:
    return bool(apply(read_rules([rule(when)]), incoming(**how)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "when",
    [
        text("from", "is", "BILLING@shop.example"),
        text("from", "is", "@shop.example"),
        text("from", "ends", "@shop.example"),
        text("from", "contains", "shop service"),
        text("from", "starts", "nobody", "billing@"),
        text("from", "matches", "*@sh?p.example"),
        text("from", "matches", "shop * <*@*.example>"),
        text("to", "is", "ann@example.com"),
        text("cc", "is", "bob lee"),
        text("recipients", "ends", "@example.com"),
        text("subject", "contains", "rechnung"),
        text("subject", "matches", "ihre*nr. ??"),
        text("list_id", "is", "news.shop.example"),
        text("body", "contains", "PAY BEFORE"),
        text("body", "contains", "STRASSE"),
        text("attachment", "ends", ".pdf"),
        text("attachment", "contains", "ma\u0308rz"),
        {"test": "header", "name": "X-Mailer", "op": "starts", "values": ["foo"]},
        {"test": "header", "name": "x-mailer", "op": "exists"},
        {"test": "size", "over": 4999},
        {"test": "size", "over": 10, "under": 5001},
        {"test": "has_attachment"},
        {"test": "not", "of": {"test": "spam"}},
        {"test": "any", "of": [text("subject", "is", "x"), text("subject", "starts", "ihre")]},
        {
            "test": "all",
            "of": [{"test": "has_attachment"}, {"test": "not", "of": text("from", "is", "@other.example")}],
        },
    ],
)
def test_a_test_that_holds(when: object) -> None:
    assert fits(when)
    assert not fits({"test": "not", "of": when})


@pytest.mark.parametrize(
    "when",
    [
        text("from", "is", "@hop.example"),
        text("from", "starts", "@hop"),
        text("to", "is", "bob@example.com"),
        text("subject", "matches", "rechnung"),
        text("subject", "matches", "*nr. ?"),
        text("subject", "matches", "*rechnung*rechnung*"),
        {"test": "header", "name": "x-other", "op": "exists"},
        {"test": "size", "over": 5000},
        {"test": "size", "under": 5000},
        {"test": "spam"},
        {"test": "spam", "over": 5.0},
    ],
)
def test_a_test_that_does_not(when: object) -> None:
    assert not fits(when)


def test_the_verdict_can_be_asked_for() -> None:
    assert fits({"test": "spam"}, junk=True)
    assert fits({"test": "spam", "over": 5.0}, score=5.1)


def test_rules_apply_in_order_until_one_says_stop() -> None:
    every = {"test": "size", "over": 0}
    rules = read_rules(
        [
            rule({"test": "spam"}, {"do": "discard"}, name="Never"),
            rule(every, {"do": "read"}, name="Off", enabled=False),
            rule(
                every,
                {"do": "file", "mailbox": "Archive/Bills"},
                {"do": "keyword", "names": ["$Work", "bill"]},
                name="Bills",
            ),
            rule(
                every,
                {"do": "forward", "to": ["bob@example.com"], "keep": False},
                {"do": "stop"},
                {"do": "star"},
                name="Out",
            ),
            rule(every, {"do": "junk"}, name="After"),
        ]
    )
    steps = apply(rules, incoming())
    assert [one.reason for one in steps] == [
        "The rule “Bills” fits: filed in Archive/Bills.",
        "The rule “Bills” fits: marked $Work, bill.",
        "The rule “Out” fits: forwarded to bob@example.com and not kept.",
    ]


def test_every_action_has_its_words() -> None:
    actions = [
        {"do": "file", "role": "archive"},
        *({"do": one} for one in ("read", "star", "discard", "junk", "not_junk")),
    ]
    steps = apply(read_rules([rule({"test": "size", "over": 0}, *actions)]), incoming())
    assert [one.reason.partition(": ")[2] for one in steps] == [
        "filed in Archive.",
        "marked as read.",
        "starred.",
        "discarded.",
        "treated as junk.",
        "never junk.",
    ]


def test_the_body_is_asked_for_only_when_a_rule_looks_at_it() -> None:
    def never() -> str:
        raise AssertionError("nobody asked")

    nobody: Callable[[str], tuple[str, ...]] = lambda name: ()  # noqa: E731
    assert not apply(read_rules([rule(text("subject", "is", "x"))]), Incoming(MAIL, nobody, never))


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b"{", "/1"),
        (b"[]", "/1"),
        (b"\xff", "/1"),
        (b'{"name":"x","when":{"test":"size","over":1},"then":[]}', "/1/then"),
        (rule({"test": "size"}), "/1/when"),
        (rule({"test": "all", "of": []}), "/1/when/of"),
        (rule({"test": "all", "of": [text("from", "like", "x")]}), "/1/when/of/0/op"),
        (
            rule({"test": "not", "of": {"test": "any", "of": [text("from", "is", "x"), {"test": "size"}]}}),
            "/1/when/of/of/1",
        ),
        (rule(text("from", "is")), "/1/when/values"),
        (rule(text("from", "is", "")), "/1/when/values/0"),
        (rule({"test": "header", "name": "a b", "op": "exists"}), "/1/when/name"),
        (rule({"test": "header", "name": "a", "op": "is"}), "/1/when/values"),
        (rule({"test": "header", "name": "a", "op": "exists", "values": ["x"]}), "/1/when/values"),
        (rule({"test": "size", "over": 1, "undr": 2}), "/1/when"),
        (rule({"test": "spam"}, {"do": "file"}), "/1/then/0"),
        (rule({"test": "spam"}, {"do": "file", "mailbox": "A", "role": "junk"}), "/1/then/0"),
        (rule({"test": "spam"}, {"do": "file", "mailbox": "A\u202eB"}), "/1/then/0/mailbox"),
        (rule({"test": "spam"}, {"do": "star"}, {"do": "forward", "to": ["a@b.example", "nobody"]}), "/1/then/1/to/1"),
        (rule({"test": "spam"}, {"do": "keyword", "names": ["\\Seen"]}), "/1/then/0/names/0"),
        (rule({"test": "spam"}, name="a\nb"), "/1/name"),
    ],
)
def test_what_is_wrong_is_pointed_at(raw: bytes, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_rules([rule({"test": "spam"}), raw])
    assert [one.pointer for one in caught.value.faults] == [pointer]


def test_rules_and_tests_are_bounded() -> None:
    with pytest.raises(TooLarge):
        read_rules([rule({"test": "spam"})] * (MAX_RULES + 1))
    with pytest.raises(Invalid):
        read_rules([rule({"test": "any", "of": [{"test": "spam"}] * MAX_TESTS})])
    deep: object = {"test": "spam"}
    for _ in range(8):
        deep = {"test": "not", "of": deep}
    with pytest.raises(Invalid):
        read_rules([rule(deep)])
    with pytest.raises(Invalid):
        read_rules([b'{"name":"x","then":[{"do":"star"}],"when":' + b'{"test":"not","of":' * 100_000])


def test_a_hostile_pattern_and_text_cost_little() -> None:
    hostile = "*".join("a" * 7 for _ in range(30)) + "*b"
    rules = read_rules([rule(text("subject", "matches", *([hostile[:250]] * 50)))] * 20)
    mail = Parsed(size=1, header_length=1, structure=TEXT, subject="a" * 20_000)
    began = time.process_time()
    assert not apply(rules, incoming(mail))
    assert time.process_time() - began < 2


@settings(max_examples=150)
@given(st.text(max_size=30), st.text(alphabet="ab*?é", min_size=1, max_size=12))
def test_wildcards_are_what_a_simple_matcher_says(subject: str, pattern: str) -> None:
    subject = "".join(c for c in subject if c.isprintable())
    folded = subject.casefold()

    def simple(at: int, p: int) -> bool:
        if p == len(pattern):
            return at == len(folded)
        if pattern[p] == "*":
            return any(simple(to, p + 1) for to in range(at, len(folded) + 1))
        return at < len(folded) and pattern[p] in {"?", folded[at]} and simple(at + 1, p + 1)

    if pattern.count("*") <= 3 and folded == subject and folded.isascii() and folded:
        mail = Parsed(size=1, header_length=1, structure=TEXT, subject=subject)
        assert bool(apply(read_rules([rule(text("subject", "matches", pattern))]), incoming(mail))) == simple(0, 0)


_tests = st.recursive(
    st.one_of(
        st.builds(
            text,
            st.sampled_from(["from", "subject", "body"]),
            st.sampled_from(["is", "contains", "ends"]),
            st.text(min_size=1, max_size=5),
        ),
        st.builds(lambda n: {"test": "size", "over": n}, st.integers(0, 9999)),
        st.sampled_from([{"test": "spam"}, {"test": "has_attachment"}]),
    ),
    lambda inner: st.one_of(
        st.builds(lambda of: {"test": "all", "of": of}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda of: {"test": "any", "of": of}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda of: {"test": "not", "of": of}, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(_tests)
def test_not_turns_everything_round(when: dict[str, object]) -> None:
    try:
        rules = read_rules([rule(when), rule({"test": "not", "of": when})])
    except Invalid:
        return  # nested too deep, or a lone surrogate
    assert [len(apply([one], incoming())) for one in rules] in ([0, 1], [1, 0])


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(raw: bytes) -> None:
    try:
        (one,) = read_rules([raw])
    except Invalid as error:
        assert error.faults
    else:
        assert isinstance(one, Rule)


@pytest.mark.parametrize("raw", [b'{"n\xffme":"x"}', b'{"name":"\xff"}', b"\xff", b""])
def test_what_is_not_utf8_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_rules([raw])
    assert caught.value.code == "invalid_rule"
