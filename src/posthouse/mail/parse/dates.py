"""Dates as mail has them: RFC 5322 §3.3 with its obsolete forms (§4.3), and those that programs
write instead (asctime, ISO 8601)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

from posthouse.mail.parse.comments import without_comments

_MAX = 120  # characters that are looked at
_MONTHS = {
    name: number
    for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}  # fmt: skip
_ZONES = {
    "ut": 0, "utc": 0, "gmt": 0, "z": 0,
    "edt": -240, "est": -300, "cdt": -300, "cst": -360, "mdt": -360, "mst": -420, "pdt": -420, "pst": -480,
    "cet": 60, "cest": 120, "bst": 60, "met": 60, "mest": 120, "eet": 120, "eest": 180, "msk": 180, "jst": 540,
}  # fmt: skip
_COLON = re.compile(" ?: ?")  # RFC 5322 §4.3 allows blanks around it
_EPOCH = date(1970, 1, 1).toordinal()

_STRICT = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), {1,2})?([0-9]{1,2}) ([A-Z][a-z]{2}) ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2})(?::([0-9]{2}))? ([+-][0-9]{4})(?: \([^()\\]*\))?"
)
_CLOCK = r"([0-9]{1,2})[:.]([0-9]{1,2})(?:[:.]([0-9]{1,2}))?(?:[.,][0-9]{1,9})? ?([AaPp][Mm]\b)?"
_ZONE = r"(?: ?((?:[A-Za-z]{1,5})?[+-][0-9]{1,2}:?[0-9]{2}|[A-Za-z]{1,5}))?"
_DAY = r"(?:[^\W\d]{2,12}(?:\.? ?,? |,))?"
_LOOSE = re.compile(
    rf"{_DAY}([0-9]{{1,2}})[ .,/-]{{1,3}}([A-Za-z]{{3,9}})[ .,/-]{{1,3}}([0-9]{{2,4}}),? {_CLOCK}{_ZONE}"
)
_ASCTIME = re.compile(rf"{_DAY}([A-Za-z]{{3,9}})\.? ([0-9]{{1,2}}),? {_CLOCK}{_ZONE} ([0-9]{{4}}){_ZONE}")
_AMERICAN = re.compile(rf"{_DAY}([A-Za-z]{{3,9}})\.? ([0-9]{{1,2}}),? ([0-9]{{4}}),? {_CLOCK}{_ZONE}")
_ISO = re.compile(rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})[T ]{_CLOCK}{_ZONE}")


def parse_date(value: str) -> tuple[int | None, int, bool]:
    """µs since 1970 (None when there is no date in it), the zone in minutes, and whether it was
    as RFC 5322 §3.3 wants it."""
    found = _STRICT.fullmatch(value, 0, _MAX)
    if found is not None:
        day, month, year, hour, minute, second, zone = found.groups("0")
        offset = _offset(zone)
        at = _instant(int(year), _MONTHS.get(month.lower(), 0), int(day), (int(hour), int(minute), int(second)), offset)
        return at, offset if at is not None else 0, at is not None
    text = " ".join(without_comments(value[: _MAX * 2]).split())
    return _loose(_COLON.sub(":", text)[:_MAX])


def _loose(text: str) -> tuple[int | None, int, bool]:
    for read in (_from_loose, _from_asctime, _from_american, _from_iso):
        found = read(text)
        if found is not None:
            return found
    return None, 0, False


def _from_loose(text: str) -> tuple[int, int, bool] | None:
    found = _LOOSE.match(text)
    return _made(found[3], found[2], found[1], found.group(4, 5, 6, 7), found[8]) if found else None


def _from_asctime(text: str) -> tuple[int, int, bool] | None:
    found = _ASCTIME.match(text)
    if found is None:
        return None
    return _made(found[8], found[1], found[2], found.group(3, 4, 5, 6), found[7] or found[9])


def _from_american(text: str) -> tuple[int, int, bool] | None:
    found = _AMERICAN.match(text)
    return _made(found[3], found[1], found[2], found.group(4, 5, 6, 7), found[8]) if found else None


def _from_iso(text: str) -> tuple[int, int, bool] | None:
    found = _ISO.match(text)
    return _made(found[1], found[2], found[3], found.group(4, 5, 6, 7), found[8]) if found else None


def _made(
    year: str, month: str, day: str, clock: tuple[str | None, ...], zone: str | None
) -> tuple[int, int, bool] | None:
    hour, minute, second = (int(each or 0) for each in clock[:3])
    half = (clock[3] or "").lower()
    if half and hour <= 12:
        hour = hour % 12 + (12 if half == "pm" else 0)
    offset = _offset(zone or "")
    number = int(month) if month.isdigit() else _MONTHS.get(month[:3].lower(), 0)
    at = _instant(_full_year(year), number, int(day), (hour, minute, second), offset)
    return None if at is None else (at, offset, False)


def _full_year(year: str) -> int:
    """RFC 5322 §4.3: two digits below 50 are of this century, other two or three of the last."""
    number = int(year)
    if len(year) == 2:
        return number + (2000 if number < 50 else 1900)
    return number + 1900 if len(year) == 3 else number


@lru_cache(maxsize=256)
def _offset(zone: str) -> int:
    """Minutes east; 0 for a zone that says nothing, as the military letters do (RFC 5322 §4.3)."""
    zone = zone.lower()
    sign = max(zone.find("+"), zone.find("-"))
    if sign < 0:
        return _ZONES.get(zone, 0)
    digits = zone[sign + 1 :].replace(":", "").zfill(4)
    hours, minutes = int(digits[:-2]), int(digits[-2:])
    if hours > 23 or minutes > 59:
        return 0
    return (hours * 60 + minutes) * (-1 if zone[sign] == "-" else 1)


def _instant(year: int, month: int, day: int, clock: tuple[int, int, int], offset: int) -> int | None:
    """A leap second is taken for the next one."""
    hour, minute, second = clock
    if year < 1900 or hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None
    return ((days * 24 + hour) * 60 + minute - offset) * 60_000_000 + second * 1_000_000
