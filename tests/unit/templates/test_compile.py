"""Compiling: what is refused, and that inlining and deriving lose nothing of the template."""

from __future__ import annotations

import re
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.errors import Invalid
from posthouse.templates import language
from posthouse.templates.compile import compile_version
from posthouse.templates.fill import Filler
from posthouse.templates.language import Kind
from posthouse.templates.markup import Masked, pieces
from posthouse.templates.model import MAX_PART, MAX_SUBJECT, Compiled

STYLE = "<style>.a{color:red} p{margin:0}</style>"


def html_of(source: str, warning: str | None = None) -> str:
    """Compiled, without what the meter adds."""
    compiled = compile_version("s", source, "t")
    if warning is None:
        assert compiled.warnings == ()
    else:
        assert warning in compiled.warnings[0]
    assert compiled.html is not None
    return re.sub(r'\{\{-? "" \}\}', "", compiled.html)


def text_of(source: str) -> str:
    compiled = compile_version("s", source, None)
    assert compiled.text_derived
    return re.sub(r'\{\{-? "" \}\}', "", compiled.text or "")


def pointer_of(subject: str = "s", html: str | None = None, text: str | None = "t") -> tuple[str, str]:
    with pytest.raises(Invalid) as refused:
        compile_version(subject, html, text)
    return refused.value.faults[0].pointer, refused.value.faults[0].message


@pytest.mark.parametrize(
    ("sources", "pointer", "message"),
    [
        (("{{ a", None, "t"), "/subject", "does not end"),
        (("s", "<p>\n{% if %}</p>", None), "/html", "line 2"),
        (("s", None, "a\n\n{{ a + }}"), "/text", "line 3"),
        (("s", None, "{{ a|nosuch }}"), "/text", "no filter `nosuch`"),
        (("s", None, "{{ 1 is strange }}"), "/text", "no test `strange`"),
        (("s", None, "{{ a.upper() }}"), "/text", "no function `upper`"),
        (("s", None, "{% include 'x' %}"), "/text", "`include`"),
        (("s", None, "{% macro x() %}{% endmacro %}"), "/text", "`macro`"),
        (("s", None, "{% for a in b recursive %}{% endfor %}"), "/text", "recursive"),
        (("s", None, "{% for a in b if a|sort %}{% endfor %}"), "/text", "`sort`"),
        (("s", None, "{% set a = b ~ b %}" + "{% set a = a ~ a %}" * 12), "/text", "too many others"),
        (("s", None, "{{ 1" + " + 1" * 400 + " }}"), "/text", "more than 300 parts"),
        (("s", None, "{% if a %}" + "{% elif a %}" * 400 + "{% endif %}"), "/text", "elif"),
        (("s", None, "{# open"), "/text", "does not end"),
        (("s", None, "{% raw %} open"), "/text", "does not end"),
        (("a\nb", None, "t"), "/subject", "one line"),
        (("s" * (MAX_SUBJECT + 1), None, "t"), "/subject", "at most"),
        (("s", "ü" * (MAX_PART // 2 + 1), None), "/html", "at most"),
        (("s", "a\n\x00b", None), "/html", "line 2: the control character U+0000"),
        (("s", None, "\ud800"), "/text", "surrogate"),
        (("s", None, None), "/html", "is needed"),
    ],
)
def test_what_is_wrong_is_said_where(sources: tuple[str, str | None, str | None], pointer: str, message: str) -> None:
    found = pointer_of(*sources)
    assert found[0] == pointer
    assert message in found[1]


def test_every_part_that_is_wrong_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        compile_version("{{", "{%", "{#")
    assert [fault.pointer for fault in refused.value.faults] == ["/subject", "/html", "/text"]


def test_styles_move_into_attributes() -> None:
    made = html_of(f'<html><head>{STYLE}</head><body><p class="a">x</p></body></html>')
    assert '<p class="a" style="margin: 0;color: red;">x</p>' in made
    assert "<style>" not in made


@pytest.mark.parametrize(
    "kept",
    [
        '<a href="https://x.example/{{ id }}?q={{ q|urlencode }}">x</a>',
        '<p style="width: {{ w }}px;">x</p>',
        '<p title="{{ \'">\' }}">x</p>',
        "{% if a %}<p>x</p>{% else %}<p>y</p>{% endif %}",
        "<table><tbody>{% for r in rows %}<tr><td>{{ r.a }}</td></tr>{% endfor %}</tbody></table>",
        "<table>{% for r in rows %}<tr><td>{{ r.a }}</td></tr>{% endfor %}</table>",
        '<!--[if mso]><table><tr><td width="{{ w }}">{% if a %}x{% endif %}</td></tr></table><![endif]-->',
        "<!--[if !mso]><!--><p>{{ a }}</p><!--<![endif]-->",
        '<td {% if a %}width="5"{% else %}width="6" align="{{ b }}"{% endif %} valign="top">x</td>',
        "<ul>{% for i in x %}<li>{{ i }}</li>{% endfor %}</ul>",
        "{# a note #}<p>{% raw %}{{ not_a_variable }}{% endraw %}</p>",
        "<textarea>{{ a }}</textarea>",
        "<p>{{ a }}{{ b }}</p>{{ c|safe }}",
    ],
)
def test_expressions_survive_inlining(kept: str) -> None:
    wrapped = kept if not kept.startswith("<td") else f"<table><tr>{kept}</tr></table>"
    made = html_of(
        f"<html><head>{STYLE}<title>{{{{ t }}}}</title></head><body><b class='a'>!</b>{wrapped}</body></html>"
    )
    assert '<b class="a" style="color: red;">' in made
    assert [s.source for s in language.scan(made) if s.kind is not Kind.TEXT] == [
        "{{ t }}",
        *(s.source for s in language.scan(kept) if s.kind is not Kind.TEXT),
    ]
    assert normal(kept) in normal(made)


def normal(source: str) -> str:
    """Without what inlining may change: style attributes."""
    return re.sub(r'\s*style="[^"]*"', "", source).replace("<td width", "<td width")


def test_expressions_in_css_are_copied() -> None:
    made = html_of("<style>p{color:{{ c }};width:{{ w }}px;background:url({{ u }})}</style><p>x</p><p>y</p>")
    assert made.count("color: {{ c }};width: {{ w }}px;background: url({{ u }});") == 2


def test_a_declaration_that_is_an_expression_stays() -> None:
    made = html_of(f'{STYLE}<p style="{{{{ extra }}}};top:1px">x</p>')
    assert 'style="margin: 0;{{ extra }};top: 1px"' in made.replace(";top:1px", ";top: 1px")


def test_rules_that_cannot_be_inlined_stay() -> None:
    made = html_of("<style>a:hover{color:red}@media (max-width:9px){a{color:blue}} a{top:0}</style><a>x</a>")
    assert "@media" in made
    assert ":hover" in made
    assert '<a style="top: 0;">' in made


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("<style>{% if a %}p{color:red}{% endif %}</style><p>x</p>", "statements"),
        (f"{STYLE}{{% if a %}}<div class='x'>{{% else %}}<div class='y'>{{% endif %}}x</div>", "well formed"),
        (f"{STYLE}<p {{% if a %}}class='x'{{% endif %}}>x</p>", "depends on a statement"),
        (f"{STYLE}<p>&#123;&#123; x }}}}</p>", "entity"),
        (f"{STYLE}{{% if a %}}<li>x{{% endif %}}<li>y", "well formed"),
    ],
)
def test_what_cannot_be_proved_is_left_as_it_is(source: str, why: str) -> None:
    assert html_of(source, why) == source


def test_dynamic_classes_keep_their_rules() -> None:
    assert ".a{color:red}" in html_of(f'{STYLE}<p class="{{{{ c }}}}">x</p>').replace(" ", "").replace(";}", "}")


def test_no_style_no_change() -> None:
    source = "<TABLE><tr {{ x }}><p>{% if a %}</TABLE>{% endif %}"
    assert html_of(source) == source


def test_nothing_is_fetched() -> None:
    source = f'<link rel="stylesheet" href="file:///etc/passwd">{STYLE}<style>@import url(http://127.0.0.1:9/x);</style><p>x</p>'
    assert "root:" not in html_of(source)


def test_links_variables_and_their_serialised_form() -> None:
    compiled = compile_version(
        "{{ s }}", '<a href="https://x.example/?a=1&amp;b={{ order.id }}">x</a><a href="{{ u }}">y</a>', None
    )
    assert compiled.links == ("https://x.example/?a=1&b={{ order.id }}", "{{ u }}")
    assert compiled.variables == ("order.id", "s", "u")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(compiled), type=Compiled) == compiled


def test_text_is_derived() -> None:
    assert text_of(
        "<head><title>no</title></head><body><h1>Hello &amp;\n {{ name }},</h1><p>see <a href='https://x.example'>this</a>"
        " or <a href='https://y.example'>https://y.example</a> <a href='mailto:a@b.example'>a@b.example</a></p>"
        "<ul><li>one</li><li>two<ul><li>in</li></ul></li></ul><ol><li>a</li><li>b</li></ol>"
        "<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr></table>"
        "<div style='display: none'>hidden</div><img alt='Logo'><br>a<br>b<pre>x\n  y</pre><hr>end"
    ) == (
        "Hello & {{ name }},\n\nsee this (https://x.example) or https://y.example a@b.example\n\n"
        "- one\n- two\n  - in\n\n1. a\n2. b\n\nA  B\n1  2\n\nLogo\na\nb\n\nx\n  y\n\n--------------------\n\nend\n"
    )


def test_loops_keep_their_lines_in_derived_text() -> None:
    compiled = compile_version(
        "s",
        "<p>Items:</p><ul>{%- for i in x -%}<li>{{- i -}}</li>{%- endfor -%}</ul>{% if n %}<p>{{ n }}</p>{% endif %}<p>Bye</p>",
        None,
    )
    fill = Filler().fill
    assert fill(("a", 1), compiled, {"x": ["a", "b"], "n": ""}).text == "Items:\n\n- a\n- b\n\nBye\n"
    assert fill(("a", 1), compiled, {"x": ["a"], "n": "N"}).text == "Items:\n\n- a\n\nN\n\nBye\n"


def test_statements_around_hidden_parts_stay_whole() -> None:
    assert text_of("<div style='display:none'>{% if a %}x{% endif %}</div>y").endswith("y\n")
    compile_version("s", "{% if a %}<script>{% endif %}</script>b", None)


def test_entities_do_not_become_the_language() -> None:
    compiled = compile_version("s", "<p>&#123;&#123; x }} &#123;% y</p>", None)
    assert Filler().fill(("a", 1), compiled, {}).text == "{{ x }} {% y\n"


FRAGMENTS = st.sampled_from(
    [
        "<p>", "</p>", "<table>", "</table>", "<tr>", "<td class='a'>", "<style>.a{color:{{ c }}}</style>", "<style>", "</style>",
        "{{ a }}", "{{ b.c|upper }}", "{% if a %}", "{% else %}", "{% endif %}", "{% for i in a %}", "{% endfor %}", "{{ '}}' }}",
        "<!--", "-->", "<![", "<!x", "<?", "<a href='", "'>", '"', "<", ">", "&#123;", "&lt;", "{#", "#}", "{%", "%}", "{{", "}}",
        "{% raw %}", "{% endraw %}", "{% set q = a %}", "{{ a * b }}", "<script>", "</script", "<title>", "zqv0x", "<li>", "<br/>",
        " style='{{ s }}'", "<div ", "\n", "é", "*", "|", "(", "'", "<body>", "<b style='color:{{ z }};{{ y }}'>x</b>",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=8)), max_size=25).map("".join))
@settings(max_examples=600, deadline=None)
def test_any_source_compiles_or_is_refused(source: str) -> None:
    try:
        compiled = compile_version("s", source, None)
    except Invalid as error:
        assert error.faults
        return
    was = [segment.source for segment in language.scan(source) if segment.kind is Kind.STATEMENT]
    now = re.sub(r'\{\{-? "" \}\}', "", compiled.html or "")
    assert [segment.source for segment in language.scan(now) if segment.kind is Kind.STATEMENT] == was


@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=8)), max_size=25).map("".join))
@settings(max_examples=400, deadline=None)
def test_pieces_join_to_their_source(source: str) -> None:
    assert "".join(piece.source for piece in pieces(source)) == source
    try:
        segments = language.scan(source)
    except language.RefusedError:
        return
    assert "".join(segment.source for segment in segments) == source
    masked = Masked(segments)
    assert masked.restore(masked.text) == source


@pytest.mark.parametrize(
    "unit",
    ["<", "<a ", "<a '", '<a b="', "<!--", "<style>", "{{ a }}<p>", "</", "&", "<p><b>", "{% if a %}", "<a href=x>"],
)
def test_time_is_bounded_for_any_input(unit: str) -> None:
    source = unit * (200_000 // len(unit))
    started = time.process_time()
    try:
        compile_version("s", STYLE + source, None)
    except Invalid as error:
        assert error.faults
    assert time.process_time() - started < 15
