"""Filling: what a value can and cannot do, and what a template cannot make it do."""

from __future__ import annotations

import html
import pickle
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.templates.compile import compile_version
from posthouse.templates.fill import HELD, MAX_VARIABLES, Filler, check_variables
from posthouse.templates.model import Filled, RenderFailed

BIG = "x" * 200_000
VARIABLES: dict[str, Any] = {"n": 1_000_000, "big": BIG, "items": [{"a": n} for n in range(3000)]}


def fill(html_source: str | None = None, text: str | None = None, subject: str = "s", **variables: Any) -> Filled:
    return Filler().fill(("t", 1), compile_version(subject, html_source, text), variables)


def test_html_is_escaped_and_the_others_are_not() -> None:
    filled = fill("<b>{{ v }}</b>", "{{ v }}", "{{ v }}", v="<&\"'>")
    assert filled == Filled("<&\"'>", "<b>&lt;&amp;&quot;&#x27;&gt;</b>", "<&\"'>")


@given(st.text(), st.sampled_from(["", "{% if true %}{% for i in [1] %}"]))
@settings(max_examples=150, deadline=None)
def test_a_value_never_leaves_text_or_attribute(value: str, around: str) -> None:
    close = "{% endfor %}{% endif %}" if around else ""
    filled = fill(f"<a href=\"{{{{ v }}}}\" title='{{{{ v }}}}'>{around}{{{{ v }}}}{close}</a>", v=value)
    assert filled.html is not None
    found = re.fullmatch(r"<a href=\"([^\"<>]*)\" title='([^'<>]*)'>([^<>]*)</a>", filled.html, re.DOTALL)
    assert found is not None
    expected = value.encode("utf-8", "replace").decode().replace("\0", "")
    assert {html.unescape(part) for part in found.groups()} <= {expected, html.unescape(html.escape(expected))}


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_a_subject_is_one_line(value: str) -> None:
    subject = fill(text="t", subject="Re: {{ v }}", v=value).subject
    assert subject.startswith("Re:")
    assert len(subject.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", subject)


SCRIPTS = ["Grüße", "Привет", "مرحبا", "שלום", "नमस्ते", "你好", "こんにちは", "👩‍👩‍👧", "e\u0301", "\u202eabc"]


@pytest.mark.parametrize("value", SCRIPTS)
def test_every_script_goes_through(value: str) -> None:
    assert fill("{{ v }}", "{{ v }}", "{{ v }}", v=value) == Filled(value, value, value)


@pytest.mark.parametrize(
    ("source", "given_", "name", "pointer"),
    [
        ("{{ name }}", {}, "name", "/variables/name"),
        ("a\n{{ order.id }}", {"order": {}}, "order.id", "/variables/order/id"),
        ("ü{{ a.b.c }}", {"a": {}}, "a.b", "/variables/a/b"),
        ("{% if gone %}x{% endif %}", {}, "gone", "/variables/gone"),
        ("{% for one in gone %}x{% endfor %}", {}, "gone", "/variables/gone"),
        ("{{ rows[3] }}", {"rows": []}, "rows[3]", "/variables"),
    ],
)
def test_a_missing_variable_is_named(source: str, given_: dict[str, Any], name: str, pointer: str) -> None:
    with pytest.raises(RenderFailed) as failed:
        fill(source, "t", **given_)
    line = source.count("\n") + 1
    assert failed.value.public.startswith(f"html, line {line}: `")
    assert name in failed.value.public
    assert failed.value.code == "variable_missing"
    assert failed.value.faults[0].pointer.startswith(pointer)


def test_a_default_is_not_missing() -> None:
    assert fill(text="{{ name|default('you') }}{% if name is defined %}!{% endif %}").text == "you"


HOSTILE = {
    "endless": "{% for i in range(10**9) %}a{% endfor %}",
    "nested loops": "{% for a in items %}{% for b in items %}{% for c in items %}{% endfor %}{% endfor %}{% endfor %}",
    "text times a number": "{{ n * big }}",
    "number times a text": "{{ 'a' * 100000000 }}",
    "list times a number": "{{ ([1] * 100000000)|length }}",
    "product of a branch": "{{ (big if n else 1) * n }}",
    "product of an attribute": "{{ n * {'a': big}.a }}",
    "wide format": "{{ '%1000000000d'|format(1) }}",
    "starred format": "{{ '%*d'|format(1000000000, 1) }}",
    "format by map": "{{ ['%1000000000d']|map('format', 1)|list }}",
    "wide indent": "{{ big|indent(100000000) }}",
    "replace": "{{ big|replace('x', big) }}",
    "join": "{{ range(10000)|join(big) }}",
    "json of json": "{{ '\"'" + "|string|tojson" * 60 + " }}",
    "batch": "{{ [1]|batch(1000000000, 'x') }}",
    "slice": "{{ [1]|slice(1000000000) }}",
    "doubling block": "{% set a = big %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 30 + "{{ a }}",
    "put out often": "{% for i in range(10000) %}{{ big }}{% endfor %}",
    "long text in a loop": "{% for i in range(10000) %}" + "y" * 50_000 + "{% endfor %}",
    "busy loop": "{% for i in items %}{% if big|list|sort|unique|join('') == 'x' %}{% endif %}{% endfor %}",
    "busy expressions": "{{ big|list|sort|unique|join('') }}" * 1000,
    "many constants": "{{ 'a' * 100000000 }}" * 500,
    "class": "{{ ''.__class__ }}",
    "wide date": "{{ 1|date('%1000000000Y') }}",
    "big power": "{{ 9999999 ** 999999 }}",
    "one expression": "{{ " + "~".join(["big"] * 100) + " }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_soon_in_a_clear_error(name: str) -> None:
    started = time.process_time()
    with pytest.raises(Invalid) as failed:
        fill(text=HOSTILE[name], **VARIABLES)
    assert time.process_time() - started < 20
    assert failed.value.code in {"render_failed", "variable_missing", "invalid_request"}
    assert len(failed.value.public) < 400


def test_products_of_numbers_work() -> None:
    assert fill(text="{{ a * b + 2 * -c.d[0] * 1.5 }}", a=2, b=3, c={"d": [4]}).text == "-6.0"
    assert fill(text="{{ items|length * 2 }} {{ 2 ** 3 * a|int }}", items=[1], a="3").text == "2 24"


def test_the_filters_of_ours_agree_with_the_language() -> None:
    assert fill(text="{{ '%.2f'|format(v) }}", v=3.14159).text == "3.14"
    assert fill(text="{{ v|join(', ') }}", v=[1, "b"]).text == "1, b"
    assert fill(text="{{ v|join(', ', attribute='n') }}", v=[{"n": 1}, {"n": 2}]).text == "1, 2"
    assert fill(text="{{ v|date('%d.%m.%Y') }}", v="2026-11-22T12:00:00Z").text == "22.11.2026"
    assert fill(text="{{ v|batch(2, 0) }}", v=[1, 2, 3]).text == "[[1, 2], [3, 0]]"
    assert fill(text="{{ v|slice(2) }}", v=[1, 2, 3]).text == "[[1, 2], [3]]"
    assert fill(text="{{ v|indent(2) }}", v="a\nb").text == "a\n  b"
    assert fill(text="{{ v|replace('a', 'b') }}", v="aa").text == "bb"
    assert fill(text="{{ v|wordwrap(10) }}", v="one two three four").text == "one two\nthree four"
    assert fill("<script>{{ v|tojson }}</script>", v={"a": "</script>&'"}).html == (
        '<script>{"a":"\\u003c/script\\u003e\\u0026\\u0027"}</script>'
    )


def test_blanks_are_eaten_as_the_language_says() -> None:
    source = "a {%- for i in [1, 2] -%} b {%- if i %} c {% endif -%} d {%- endfor %} e"
    import minijinja

    assert fill(text=source).text == minijinja.render_str(source)


def test_a_template_that_was_pushed_out_needs_its_source_again() -> None:
    filler = Filler()
    compiled = compile_version("{{ v }}", None, "t")
    for n in range(HELD + 1):
        filler.fill((f"t{n}", 1), compiled, {"v": str(n)})
    assert not filler.knows(("t0", 1))
    assert filler.knows((f"t{HELD}", 1))
    assert filler.fill((f"t{HELD}", 1), None, {"v": "again"}).subject == "again"


def test_a_long_subject_and_a_nul() -> None:
    with pytest.raises(RenderFailed, match="subject"):
        fill(text="t", subject="{{ v }}", v="x" * 3000)
    assert fill("<p>{{ v }}</p>", "{{ v }}", v="a\0b") == Filled("s", "<p>ab</p>", "ab")


def test_a_failure_crosses_processes() -> None:
    with pytest.raises(RenderFailed) as failed:
        fill(text="{{ gone }}")
    again = pickle.loads(pickle.dumps(failed.value))
    assert (again.public, again.code, again.faults) == (
        failed.value.public,
        failed.value.code,
        failed.value.faults,
    )


def test_variables_are_bounded() -> None:
    assert check_variables({"a": "é"}) == len(b'{"a":"\xc3\xa9"}')
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    for bad in ({"a": "x" * MAX_VARIABLES}, {"a": deep}, {"a": object()}):
        with pytest.raises(Invalid) as refused:
            check_variables(bad)
        assert refused.value.faults[0].pointer == "/variables"
    check_variables({"a": [[1]] * 100})


def test_variables_may_have_any_name() -> None:
    assert fill(text="{{ self }}{{ name }}{{ source }}", self=1, name=2, source=3).text == "123"
