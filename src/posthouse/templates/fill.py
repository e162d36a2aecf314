"""Fills a compiled template for one recipient. Runs in the render processes, on the hot path:
about 5 µs for an 8 KB HTML with its text part.

Variables are plain JSON. HTML is escaped, subject and text are not. A variable that is not
given is an error that names it. Nothing outside the template and its variables can be
reached: no files, no other templates, no methods of values. Steps, what is put out, and the
variables' size and depth are bounded (see `language`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic
from typing import Any

import minijinja
import msgspec

from posthouse.errors import Fault, Invalid
from posthouse.templates import filters
from posthouse.templates.model import Compiled, Filled, Key, RenderFailed

MAX_OUTPUT = 4 << 20
"""Characters of a part."""
MAX_SECONDS = 2
"""For a message; one expression may be begun before and end after."""
MAX_FILLED_SUBJECT = 2_000
MAX_VARIABLES = 256 * 1024
"""Octets of JSON."""
MAX_DEPTH = 32
HELD = 512
"""Templates in an engine."""
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UNDEFINED = re.compile(r"`([^`]*)`", re.DOTALL)
_DOTTED = re.compile(r"\w+(?:\.\w+)*")
_STEP_OCTETS = 8 << 30


class Filler:
    """One for a process or a thread; not for several threads at once."""

    def __init__(self) -> None:
        self._light = engine()
        self._metered = engine(self._count)
        self._held: OrderedDict[Key | tuple[str, int], _Names] = OrderedDict()
        self._next = 0
        self._room = 0
        self._until = 0.0

    def knows(self, key: Key | tuple[str, int]) -> bool:
        """Whether `fill` can do without the compiled version."""
        return key in self._held

    def fill(self, key: Key | tuple[str, int], compiled: Compiled | None, variables: Mapping[str, Any]) -> Filled:
        """
        :param compiled: what `key` means; None when `knows(key)`.
        :param variables: checked with `check_variables` when they were taken in.
        :raises RenderFailed: naming the variable that is missing, or the limit that is passed;
            with the part and line.
        """
        held = self._held.get(key)
        if held is None:
            assert compiled is not None
            held = self._hold(key, compiled)
        if len(self._held) > 1:
            self._held.move_to_end(key)
        if held.metered:
            return self._fill_metered(held, variables)
        render = self._light.render_template
        part = "subject"
        try:
            subject = render(held.subject, **variables)
            part = "html"
            html = render(held.html, **variables) if held.html else None
            part = "text"
            text = render(held.text, **variables) if held.text else None
        except Exception as error:
            raise failure(part, error) from None
        return _checked(subject, html, text)

    def _fill_metered(self, held: _Names, variables: Mapping[str, Any]) -> Filled:
        weight = check_variables(variables)
        engine = self._metered
        engine.fuel = max(1_000, min(held.fuel, _STEP_OCTETS // max(weight, 1)))
        filled: list[str | None] = []
        self._until = monotonic() + MAX_SECONDS
        for part, name in (("subject", held.subject), ("html", held.html), ("text", held.text)):
            self._room = MAX_OUTPUT
            try:
                filled.append(engine.render_template(name, **variables) if name else None)
            except Exception as error:
                raise failure(part, error) from None
        return _checked(filled[0] or "", filled[1], filled[2])

    def _count(self, value: Any) -> Any:
        """Sees every value that is put out, also into a `set` block, and something empty before
        every statement (`compile.written`)."""
        if monotonic() > self._until:
            raise ValueError(f"takes longer than {MAX_SECONDS} s")
        self._room -= len(value) if isinstance(value, str) else 32 if value is None else len(str(value))
        if self._room < 0:
            raise ValueError(f"more than {MAX_OUTPUT} characters are put out")
        return value

    def _hold(self, key: Key | tuple[str, int], compiled: Compiled) -> _Names:
        metered = compiled.metered
        engine = self._metered if metered else self._light
        self._next += 1
        held = _Names(
            f"{self._next}.subject",
            f"{self._next}.html" if compiled.html is not None else None,
            f"{self._next}.text" if compiled.text is not None else None,
            metered,
            compiled.fuel,
        )
        engine.add_template(held.subject, compiled.subject)
        if held.html is not None:
            engine.add_template(held.html, compiled.html or "")
        if held.text is not None:
            engine.add_template(held.text, compiled.text or "")
        self._held[key] = held
        if len(self._held) > HELD:
            self._drop(self._held.popitem(last=False)[1])
        return held

    def _drop(self, held: _Names) -> None:
        engine = self._metered if held.metered else self._light
        for name in (held.subject, held.html, held.text):
            if name is not None:
                engine.remove_template(name)


class _Names(msgspec.Struct, frozen=True):
    """Of a version's parts in the engine."""

    subject: str
    html: str | None
    text: str | None
    metered: bool
    fuel: int


def engine(finalizer: Any = None) -> minijinja.Environment:
    """Strict, without loader, methods and the functions that let values grow."""
    made = minijinja.Environment(
        undefined_behavior="strict",
        fuel=100_000,
        debug=True,  # costs nothing until a fill fails, and then names what was not given
        pycompat=False,
        keep_trailing_newline=True,
        auto_escape_callback=_escaping,
        filters=filters.OURS,
        globals={"range": filters.range_},
        **({"finalizer": finalizer} if finalizer is not None else {}),
    )
    for name in filters.REFUSED_FUNCTIONS:
        made.remove_global(name)
    for name in filters.REFUSED_FILTERS:
        made.remove_filter(name)
    return made


def _escaping(name: str) -> str | bool:
    return "html" if name.endswith(".html") else False


def check_variables(variables: Mapping[str, Any]) -> int:
    """Octets of JSON they take. To be called when variables are taken in.

    :raises Invalid: over 256 KB, nested more than 32 deep, or not JSON; pointer `/variables`.
    """
    try:
        encoded = msgspec.json.encode(variables)
    except (TypeError, ValueError, RecursionError):
        raise _bad_variables("must be JSON") from None
    if len(encoded) > MAX_VARIABLES:
        raise _bad_variables(f"take more than {MAX_VARIABLES} octets")
    if encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _deeper(variables, MAX_DEPTH):
        raise _bad_variables(f"are nested more than {MAX_DEPTH} deep")
    return len(encoded)


def _deeper(value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(_deeper(one, depth - 1) for one in value)


def _bad_variables(message: str) -> Invalid:
    return Invalid("The variables are not valid", faults=(Fault("/variables", message),))


def _checked(subject: str, html: str | None, text: str | None) -> Filled:
    if not subject.isprintable():
        subject = _BREAKS.sub(" ", subject)
    subject = subject.strip()
    if len(subject) > MAX_FILLED_SUBJECT:
        raise RenderFailed(f"subject: longer than {MAX_FILLED_SUBJECT} characters")
    if html is not None:
        html = _bounded("html", html)
    if text is not None:
        text = _bounded("text", text)
    return Filled(subject, html, text)


def _bounded(part: str, value: str) -> str:
    if len(value) > MAX_OUTPUT:
        raise RenderFailed(f"{part}: longer than {MAX_OUTPUT} characters")
    return value.replace("\0", "") if "\0" in value else value


def failure(part: str, error: Exception) -> RenderFailed:
    """In words. The engine's own text is not used: it quotes the variables' values."""
    if not isinstance(error, minijinja.TemplateError):
        return RenderFailed(f"{part}: {str(error)[:300]}", detail=type(error).__name__)
    where = f"{part}, line {error.line}" if error.line else part
    if error.kind == "OutOfFuel":
        return RenderFailed(f"{where}: the template takes too many steps", detail=error.kind)
    if error.kind == "UndefinedError":
        found = _UNDEFINED.match(error.detail or "") or _UNDEFINED.match(_spanned(error))
        name = found[1] if found else "a variable"
        pointer = f"/variables/{name.replace('.', '/')}" if _DOTTED.fullmatch(name) else "/variables"
        message = f"`{name}` is not given"
        return RenderFailed(
            f"{where}: {message}", code="variable_missing", faults=(Fault(pointer, message),), detail=error.kind
        )
    return RenderFailed(f"{where}: {(error.detail or error.kind)[:300]}", detail=error.kind)


def _spanned(error: minijinja.TemplateError) -> str:
    """The expression that gave nothing, as the engine would quote it."""
    source, span = error.template_source, error.range
    if not source or not span:
        return ""
    return f"`{source.encode()[span[0] : span[1]].decode(errors='replace')[:100]}`"
