"""Regions: parts of the world that lie within each other, by the codes under which authorities know them.

Inside China GB/T 2260: two digits a province, four a prefecture, six a county; the statistical codes go on with nine
digits a township and twelve a village. Elsewhere ISO 3166: "DE" a country, "DE-BY" a part of it. "CN" is all of China.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, or_

from kit.errors import Invalid

REGIONS_MAX: Final = 100
"""Of one account, brand or question."""
_PROVINCES: Final = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
    ]
)
_LENGTHS: Final = (2, 4, 6, 9, 12)
_DIGITS: Final = re.compile(r"[0-9]{2}|[0-9]{4}|[0-9]{6}|[0-9]{9}|[0-9]{12}")
_ISO: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
_CHINA: Final = "CN"
_ONE_NAME: Final = {"TW": "71", "HK": "81", "MO": "82"}
"""What both lists name goes by GB/T 2260, so that one region has one code."""


class RegionInvalid(Invalid):
    code = "RegionInvalid"


def parse(text: str) -> str:
    """The one code of a region: "610000" is "61", "610102000000" is "610102". Raises RegionInvalid."""
    code = _ONE_NAME.get(text, text)
    if _DIGITS.fullmatch(code) and code[:2] in _PROVINCES:
        return _without_zeros(code)
    if _ISO.fullmatch(code) and not code.startswith(f"{_CHINA}-"):
        return code
    raise RegionInvalid(
        "a region is 2, 4, 6, 9 or 12 digits of GB/T 2260, or a code of ISO 3166 outside China",
        hint="Such as 61, 6101, 610102, DE or DE-BY; CN is all of China.",
    )


def parse_all(texts: Iterable[str]) -> tuple[str, ...]:
    """The codes, each once, sorted, without those that lie within others. Raises RegionInvalid: also above 100."""
    codes = {parse(text) for text in texts}
    if len(codes) > REGIONS_MAX:
        raise RegionInvalid(f"at most {REGIONS_MAX} regions, not {len(codes)}", hint="Name the wider ones.")
    return tuple(sorted(code for code in codes if not any(covers(wide, code) for wide in codes - {code})))


def covers(wide: str, code: str) -> bool:
    """Whether the region `code` lies within the region `wide`, or is the same; both in their one form."""
    if wide == _CHINA:
        return code == _CHINA or code[:1].isdigit()
    if wide[:1].isdigit():
        return code.startswith(wide)
    return code == wide or code.startswith(f"{wide}-")


def within(column: Any, wide: Iterable[str]) -> ColumnElement[bool]:
    """The same as a condition on a column of codes: that it lies within one of these, which are at least one."""
    return or_(*(_within_one(column, code) for code in wide))


def _within_one(column: Any, wide: str) -> ColumnElement[bool]:
    if wide == _CHINA:
        return or_(column == _CHINA, *(column.startswith(str(digit)) for digit in range(10)))
    found: ColumnElement[bool] = (
        column.startswith(wide) if wide.isdigit() else or_(column == wide, column.startswith(f"{wide}-"))
    )
    return found


def level_of(code: str, digits: int) -> str:
    """The region of a coarser level that holds this one: its first `digits` digits; outside China its country."""
    return code[:digits] if code[:1].isdigit() else code[:2]


def _without_zeros(code: str) -> str:
    """Without the zeros that stand for "all of it" at the end."""
    for length in reversed(_LENGTHS[:-1]):
        if len(code) > length and not code[length:].strip("0"):
            code = code[:length]
    return code
