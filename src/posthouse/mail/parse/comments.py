"""Comments of structured headers (RFC 5322 §3.2.2)."""

from __future__ import annotations

import re

_MARK = re.compile(r'[()\\"]')


def without_comments(text: str) -> str:
    """`text` with each `(comment)` outside quotes made one blank; one that never ends goes up to
    the end. Linear."""
    if "(" not in text:
        return text
    kept: list[str] = []
    depth = last = at = 0
    quoted = False
    while (mark := _MARK.search(text, at)) is not None:
        at = mark.end()
        c = mark[0]
        if c == "\\":
            at += 1
        elif c == '"':
            quoted = not quoted and depth == 0
        elif quoted:
            continue
        elif c == "(":
            if depth == 0:
                kept.append(text[last : mark.start()])
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                last = at
    if depth == 0:
        kept.append(text[last:])
    return " ".join(kept).strip()


def comment(text: str, at: int) -> tuple[str, int] | None:
    """The comment whose parenthesis opens at `at`, without it, and where it ends; None when it
    never does."""
    depth = 0
    start = at + 1
    while (mark := _MARK.search(text, at)) is not None:
        at = mark.end()
        if mark[0] == "\\":
            at += 1
        elif mark[0] == "(":
            depth += 1
        elif mark[0] == ")":
            depth -= 1
            if depth == 0:
                return text[start : at - 1], at
    return None
