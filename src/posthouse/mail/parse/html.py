"""HTML as plain words, for the preview and the index. Linear and bounded: whatever is unclosed
goes up to the end, as in a browser."""

from __future__ import annotations

import re
from html import unescape

_DROPPED = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|head|title|template|noscript|xml)\b.*?(?:</\1\b[^>]*>?|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_REST = r"""(?:[^>"']++|"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))*+(?:>|\Z)"""
_WITHIN_WORDS = re.compile(
    rf"</?(?:a|abbr|b|bdi|bdo|big|cite|code|del|dfn|em|font|i|ins|kbd|label|mark|o:p|q|s|small|span|strike|strong|sub"
    rf"|sup|tt|u|var|wbr)(?![\w:-]){_REST}",
    re.IGNORECASE,
)
_TAG = re.compile(rf"<[a-zA-Z/!?]{_REST}")
_LOWER = bytes(range(256)).lower()
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")


def words(html: str) -> str:
    """What a reader sees of it, without markup; blanks as they fall."""
    body = html.find("<body")
    if body > 0 and html.find("<!--", 0, body) < 0:
        html = html[body:]
    if "<!" in html or "<s" in html or "<S" in html or body <= 0:
        html = _DROPPED.sub(" ", html)
    text = _TAG.sub(" ", _WITHIN_WORDS.sub("", html))
    if "&" in text:
        # Python refuses to read numbers of thousands of digits.
        text = unescape(_LONG_NUMBER.sub("\ufffd", text) if "&#" in text else text)
    return text


def hides(html: bytes) -> bool:
    """Whether some style hides what it is set on."""
    if b"style" not in html and b"STYLE" not in html:
        return False
    plain = html.translate(_LOWER, b" \t\r\n")
    return b"display:none" in plain or b"visibility:hidden" in plain or b"font-size:0" in plain or b"mso-hide" in plain
