"""Templates that customers write: compiled or refused, and what is filled in stays text."""

from __future__ import annotations

from html import unescape

import msgspec

from posthouse.errors import Invalid
from posthouse.templates.compile import compile_version
from posthouse.templates.fill import MAX_OUTPUT, MAX_SECONDS, Filler, RenderFailed, check_variables
from posthouse.templates.markup import pieces
from posthouse.templates.model import Compiled

_SOURCES = (
    b"",
    b"Hello {{ name }}",
    b"<p class=a style='color:red'>{{ name }}</p><style>.a { margin: 0 } @media print { a { x: y } }</style>",
    b"{% if name %}<b>{{ name | upper }}</b>{% elif x.y %}{{ x.y[0] }}{% else %}none{% endif %}",
    b"{% for one in items %}{{ loop.index }}. {{ one.title | default('x') | truncate(10) }}<br>{% endfor %}",
    b"{% set a = 'x' * 3 %}{{ a ~ name }}{# comment #}{% raw %}{{ no }}{% endraw %}",
    b"{% for a in range(1000) %}{% for b in range(1000) %}{{ a * b }}{% endfor %}{% endfor %}",
    b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{% include 'x' %}{{ ''.__class__ }}",
    b'<a href="https://x.example/{{ name | urlencode }}?a={{ x.y }}">{{ name }}</a><img src=cid:1 alt="{{ name }}">',
    b"<html><head><title>{{ name }}</title></head><body><table><tr><td>{{ name }}</td></tr></table><!-- {{ x }} --></body>",
    b"{{ name | safe }}{{ items | join(', ') }}{{ now }}{{ 1 / 0 }}{{ missing }}{{ '%s' | format(name) }}",
    "{{ 'ä' * 9 }} – <p>ö &amp; &#228; </p>\u2028<script>{{ name }}</script>".encode(),
)
CORPUS: tuple[bytes, ...] = _SOURCES
SLOWEST = 2 * MAX_SECONDS + 2.0  # two fills, each to its own bound
_VARIABLES = {
    "name": "<i>\"&'\r\nBcc: x@y.example</i>",
    "x": {"y": ["z", "<q>"]},
    "items": [{"title": "One"}, {"title": "<two>"}, 3],
}


def check(data: bytes) -> None:
    """Half of it as the HTML, half as the text, the first line as the subject."""
    source = data.decode("utf-8", "replace")
    subject = source.partition("\n")[0][:200]
    assert "".join(piece.source for piece in pieces(source)) == source
    _check(subject, source, None)
    _check("x", None, source)


def _check(subject: str, html: str | None, text: str | None) -> None:
    try:
        compiled = compile_version(subject, html, text)
    except Invalid as error:
        assert error.faults
        assert all(fault.pointer in {"/subject", "/html", "/text"} for fault in error.faults)
        return
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(compiled), type=Compiled) == compiled
    assert compiled.html is not None or compiled.text is not None
    check_variables(_VARIABLES)
    try:
        filled = Filler().fill(("t", 1), compiled, _VARIABLES)
    except RenderFailed as error:
        assert error.public
        return
    assert "\n" not in filled.subject
    assert "\r" not in filled.subject
    assert len(filled.html or "") <= 2 * MAX_OUTPUT
    assert len(filled.text or "") <= 2 * MAX_OUTPUT
    if filled.html is not None and html is not None and "safe" not in html and "<i>" not in unescape(html):
        assert "<i>" not in filled.html
