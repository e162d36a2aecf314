"""Which parts show the message, and which are attached to it: the algorithm of RFC 8621 §4.1.4."""

from __future__ import annotations

from posthouse.mail.parsed import Part

_MEDIA = ("image/", "audio/", "video/")


class Bodies:
    """`html` and `text` show the message; the rest are `attachments`."""

    __slots__ = ("attachments", "html", "text")

    def __init__(self, structure: Part) -> None:
        self.html: list[Part] = []
        self.text: list[Part] = []
        self.attachments: list[Part] = []
        if structure.type == "text/plain" and structure.disposition != "attachment":
            self.html.append(structure)
            self.text.append(structure)
        else:
            self._sort((structure,), "mixed", self.text, self.html, in_alternative=False)

    def _sort(
        self,
        parts: tuple[Part, ...],
        multipart: str,
        text: list[Part] | None,
        html: list[Part] | None,
        *,
        in_alternative: bool,
    ) -> None:
        text_before = len(text) if text is not None else -1
        html_before = len(html) if html is not None else -1
        for index, part in enumerate(parts):
            kind = part.type
            if kind.startswith("multipart/"):
                within = kind[10:]
                alternative = in_alternative or within == "alternative"
                self._sort(part.children, within, text, html, in_alternative=alternative)
            elif not _is_inline(part, index, multipart):
                self.attachments.append(part)
            elif multipart == "alternative":
                self._take_alternative(part, text, html)
            else:
                if in_alternative and kind == "text/plain":
                    html = None
                if in_alternative and kind == "text/html":
                    text = None
                if text is not None:
                    text.append(part)
                if html is not None:
                    html.append(part)
                if (text is None or html is None) and kind.startswith(_MEDIA):
                    self.attachments.append(part)
        if multipart == "alternative" and text is not None and html is not None:
            _share(text, text_before, html, html_before)

    def _take_alternative(self, part: Part, text: list[Part] | None, html: list[Part] | None) -> None:
        if part.type == "text/plain" and text is not None:
            text.append(part)
        elif part.type == "text/html" and html is not None:
            html.append(part)
        else:
            self.attachments.append(part)


def _share(text: list[Part], text_before: int, html: list[Part], html_before: int) -> None:
    """Where an alternative has one form alone, it stands for the other."""
    if len(text) == text_before and len(html) != html_before:
        text += html[html_before:]
    elif len(html) == html_before and len(text) != text_before:
        html += text[text_before:]


def _is_inline(part: Part, index: int, multipart: str) -> bool:
    """Whether it is shown in the message's body rather than attached to it."""
    media = part.type.startswith(_MEDIA)
    if part.disposition == "attachment" or not (media or part.type in {"text/plain", "text/html"}):
        return False
    return index == 0 or (multipart != "related" and (media or not part.name))
