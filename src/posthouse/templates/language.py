"""What a template may say: a scanner of sources, and the rules that keep a fill bounded.

The language is minijinja's (Jinja2's syntax) less what only makes sense with several files or
lets values grow without bound: `if`, `for`, `set`, `with`, `raw`, `break`, `continue`;
expressions with the filters in `FILTERS`, the tests in `TESTS` and the functions `range` and
`dict`. RefusedError: `include`, `import`, `extends`, `block`, `macro`, `call`, `filter`,
`autoescape`, recursive loops, `namespace`, methods of values.

A value lives on only through `set` and `with`, and those carry nothing from one turn of a
loop to the next. So the size of every value is bounded by how often its expression names
others, which `_Growth` adds up; what is put out is counted while filling (`fill`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

MAX_SEGMENTS = 20_000
MAX_TOKENS = 300
"""In one expression: the engine recurses over them."""
MAX_BRANCHES = 300
"""`elif`s in one part, for the same reason."""
MAX_GROWTH = 1_000
"""How many variables' sizes a value may add up to."""

FILTERS = frozenset(
    "abs attr batch bool capitalize chain count d date default dictsort e escape filesizeformat first float "
    "format groupby indent int items join last length lines list lower map max min num pluralize reject "
    "rejectattr replace reverse round safe select selectattr slice sort split string striptags sum title tojson "
    "trim truncate unique upper urlencode wordwrap zip".split()
)
LIGHT_FILTERS = frozenset(
    "abs capitalize count d date default e escape filesizeformat first float format int last length lower num "
    "pluralize replace round safe string title tojson trim truncate upper urlencode".split()
)
"""Their cost is bounded by the value's size, and small."""
CONDITION_FILTERS = frozenset("abs count d default first float int last length lower trim upper".split())
"""In a loop's condition, which is worked out for each item without the meter."""
TESTS = frozenset(
    "boolean defined divisibleby endingwith eq equalto escaped even false filter float ge greaterthan gt in "
    "integer iterable le lessthan lower lt mapping ne none number odd safe sameas sequence startingwith string "
    "test true undefined upper none int".split()
)
FUNCTIONS = frozenset({"range", "dict"})
STATEMENTS = frozenset("if elif else endif for endfor set endset with endwith break continue".split())

_OPEN = re.compile(r"\{[{%#]")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"""\s+|(?P<text>"(?:\\.|[^"\\])*+"|'(?:\\.|[^'\\])*+')|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)"""
    r"|(?P<op>\*\*|//|[=!<>]=|.)",
    re.DOTALL,
)
_END = {"{{": re.compile(r"[-+]?\}\}"), "{%": re.compile(r"[-+]?%\}")}
_WORDS = frozenset("and or not in is if else true false none True False None recursive".split())


class Kind(Enum):
    TEXT = auto()
    EXPRESSION = auto()
    STATEMENT = auto()
    COMMENT = auto()
    RAW = auto()


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    """text | name | number | op"""
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a source; all pieces joined are the source again."""

    kind: Kind
    source: str
    line: int
    tokens: tuple[Token, ...] = ()
    """Of an expression or a statement; positions within `source`."""


class RefusedError(ValueError):
    """The source says what a template may not: the line and why."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def scan(source: str) -> list[Segment]:
    """
    :param source: syntactically right, as the engine sees it.
    :raises RefusedError: too many pieces, or one that does not end.
    """
    segments: list[Segment] = []
    at, line = 0, 1
    while at < len(source):
        opened = _OPEN.search(source, at)
        start = opened.start() if opened else len(source)
        if start > at:
            segments.append(Segment(Kind.TEXT, source[at:start], line))
            line += source.count("\n", at, start)
        if opened is None:
            break
        segment = _segment(source, start, line)
        segments.append(segment)
        at = start + len(segment.source)
        line += segment.source.count("\n")
        if len(segments) > MAX_SEGMENTS:
            raise RefusedError(line, f"has more than {MAX_SEGMENTS} expressions and statements")
    return segments


def _segment(source: str, start: int, line: int) -> Segment:
    if source.startswith("{#", start):
        end = source.find("#}", start + 2)
        if end < 0:
            raise RefusedError(line, "a comment does not end")
        return Segment(Kind.COMMENT, source[start : end + 2], line)
    if _RAW.match(source, start):
        closed = _END_RAW.search(source, start)
        if closed is None:
            raise RefusedError(line, "a raw block does not end")
        return Segment(Kind.RAW, source[start : closed.end()], line)
    opener = source[start : start + 2]
    tokens, end = _tokens(source, start, _END[opener], line)
    kind = Kind.EXPRESSION if opener == "{{" else Kind.STATEMENT
    return Segment(kind, source[start:end], line, tokens)


def _tokens(source: str, start: int, ending: re.Pattern[str], line: int) -> tuple[tuple[Token, ...], int]:
    tokens: list[Token] = []
    depth = 0
    at = start + (3 if source[start + 2 : start + 3] in {"-", "+"} else 2)
    while at < len(source):
        if depth == 0 and (end := ending.match(source, at)):
            return tuple(tokens), end.end()
        found = _TOKEN.match(source, at)
        assert found is not None
        at = found.end()
        if found.lastgroup is None:
            continue
        value = found.group()
        tokens.append(Token(found.lastgroup, value, found.start() - start, at - start))
        if found.lastgroup == "op":
            depth += (value in "([{") - (value in ")]}")
        if len(tokens) > MAX_TOKENS:
            raise RefusedError(line, f"an expression has more than {MAX_TOKENS} parts")
    raise RefusedError(line, "an expression or a statement does not end")


def check(segments: list[Segment]) -> None:
    """:raises RefusedError:"""
    growth = _Growth()
    branches = 0
    for segment in segments:
        if segment.kind is Kind.STATEMENT:
            word = segment.tokens[0].value if segment.tokens else ""
            if word not in STATEMENTS:
                raise RefusedError(segment.line, f"`{word[:40]}` cannot be used in a template")
            branches += word == "elif"
            if word == "for":
                _check_condition(segment)
        if segment.tokens:
            _check_names(segment)
        growth.add(segment)
    if branches > MAX_BRANCHES:
        raise RefusedError(segments[-1].line, f"has more than {MAX_BRANCHES} `elif`")


def _check_condition(segment: Segment) -> None:
    tokens = segment.tokens
    start = next((n for n, token in enumerate(tokens) if token.value == "if"), len(tokens))
    used = filters_of(tokens[start:]) - CONDITION_FILTERS
    if used:
        raise RefusedError(segment.line, f"the filter `{min(used)[:40]}` cannot be used in a loop's condition")


def _check_names(segment: Segment) -> None:
    before = last = ""
    for token, following in _pairs(segment.tokens):
        if token.kind == "name":
            _check_name(segment.line, token.value, following, before, last)
        before, last = last, token.value


def _check_name(line: int, name: str, following: str, before: str, last: str) -> None:
    """`last` is the token before the name, `before` the one before that."""
    if last == "|":
        if name not in FILTERS:
            raise RefusedError(line, f"there is no filter `{name[:40]}`")
    elif last == "is" or (last == "not" and before == "is"):
        if name not in TESTS and name != "not":
            raise RefusedError(line, f"there is no test `{name[:40]}`")
    elif name == "recursive":
        raise RefusedError(line, "a loop cannot be recursive")
    elif following == "(" and name not in FUNCTIONS and name not in _WORDS and not (last == "." and before == "loop"):
        raise RefusedError(line, f"there is no function `{name[:40]}`; values have no methods, use filters (`x|upper`)")


def _pairs(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, str]]:
    for n, token in enumerate(tokens):
        yield token, tokens[n + 1].value if n + 1 < len(tokens) else ""


def names(tokens: tuple[Token, ...]) -> list[str]:
    """The variables that an expression names, each as often as it does."""
    found: list[str] = []
    last = ""
    for token, following in _pairs(tokens):
        keyword = following == "=" and last in {"(", ","}
        if token.kind == "name" and last not in {".", "|", "is"} and token.value not in _WORDS and not keyword:
            found.append(token.value)
        last = token.value
    return found


def filters_of(tokens: tuple[Token, ...]) -> set[str]:
    return {token.value for n, token in enumerate(tokens) if n and tokens[n - 1].value == "|"}


class _Growth:
    """How much larger than a variable each name set so far can be."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._capture: list[tuple[str, int]] = []

    def add(self, segment: Segment) -> None:
        tokens = segment.tokens
        word = tokens[0].value if tokens and segment.kind is Kind.STATEMENT else ""
        if segment.kind is Kind.EXPRESSION:
            self._bounded(segment.line, self._sum(tokens))
        elif word in {"set", "with", "for"}:
            # Targets count as well, which is only the safer side.
            size = self._bounded(segment.line, self._sum(tokens[1:]))
            for name in names(tokens[1:]):
                self._sizes[name] = max(size, self._sizes.get(name, 1))

    def _sum(self, tokens: tuple[Token, ...]) -> int:
        return sum(self._sizes.get(name, 1) for name in names(tokens))

    def _bounded(self, line: int, size: int) -> int:
        if size > MAX_GROWTH:
            raise RefusedError(line, "builds a value out of too many others")
        return max(size, 1)


def safe_products(segment: Segment) -> str:
    """The source with each operand of `*` made a number: `a * b` → `a|num * b|num`, because
    text times a number would make text of any length."""
    inserts: list[int] = []
    tokens = segment.tokens
    for n, token in enumerate(tokens):
        if token.value == "*" and token.kind == "op" and n > 0:
            inserts.append(tokens[n - 1].end)
            inserts.append(tokens[_operand_end(tokens, n + 1)].end)
    source = segment.source
    for at in sorted(set(inserts), reverse=True):
        source = f"{source[:at]}|num{source[at:]}"
    return source


def _operand_end(tokens: tuple[Token, ...], n: int) -> int:
    """Index of the last token of the operand that begins at `n`: signs, a primary, and the
    attributes, calls and filters behind it."""
    last = len(tokens) - 1
    while n < last and tokens[n].value in {"-", "+", "not"}:
        n += 1
    n = _closing(tokens, min(n, last))
    while n < last:
        following = tokens[n + 1].value
        if following in {".", "|"}:
            n = min(n + 2, last)
        elif following in {"(", "["}:
            n = _closing(tokens, n + 1)
        else:
            break
    return n


def _closing(tokens: tuple[Token, ...], n: int) -> int:
    depth = 0
    for at in range(n, len(tokens)):
        depth += (tokens[at].value in {"(", "[", "{"}) - (tokens[at].value in {")", "]", "}"})
        if depth <= 0:
            return at
    return len(tokens) - 1
