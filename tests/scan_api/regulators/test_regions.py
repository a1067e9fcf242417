"""Regions lie within each other as their codes say, in Python and in SQL alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, literal, select

from scan_api.regulators import regions
from scan_api.regulators.regions import REGIONS_MAX, RegionInvalid

CODES = ["61", "6101", "610102", "610102001", "610102001001", "62", "6102", "CN", "DE", "DE-BY", "US", "81"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("61", "61"), ("610000", "61"), ("6100", "61"), ("610100", "6101"), ("610102", "610102"),
        ("610102000", "610102"), ("610102001", "610102001"), ("610102001000", "610102001"),
        ("610102000000", "610102"), ("610000000000", "61"), ("611000", "6110"), ("DE", "DE"), ("DE-BY", "DE-BY"),
        ("US-2", "US-2"), ("HK", "81"), ("TW", "71"), ("CN", "CN"),
    ],
)  # fmt: skip
def test_a_region_has_one_code(text: str, code: str) -> None:
    assert regions.parse(text) == code
    assert regions.parse(code) == code


@pytest.mark.parametrize(
    "text", ["", "6", "610", "61010", "99", "00", "de", "DEU", "DE-", "DE-BYBY", "CN-61", "６１", "61 ", "61\n", "*"]
)
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(RegionInvalid):
        regions.parse(text)


@given(st.text(max_size=14))
def test_any_text_is_a_region_or_refused(text: str) -> None:
    try:
        code = regions.parse(text)
    except RegionInvalid:
        return
    assert regions.parse(code) == code
    assert regions.covers(code, code)


@pytest.mark.parametrize(
    ("wide", "code", "inside"),
    [
        ("61", "6101", True), ("6101", "61", False), ("61", "62", False), ("CN", "610102", True), ("CN", "DE", False),
        ("61", "CN", False), ("DE", "DE-BY", True), ("DE-BY", "DE", False), ("DE-B", "DE-BY", False),
        ("CN", "CN", True),
    ],
)  # fmt: skip
def test_regions_lie_within_each_other(wide: str, code: str, inside: bool) -> None:
    assert regions.covers(wide, code) is inside


def test_sql_decides_as_python_does() -> None:
    with create_engine("sqlite://").connect() as connection:
        for wide in CODES:
            for code in CODES:
                asked = select(regions.within(literal(code), [wide]))
                assert bool(connection.execute(asked).scalar()) is regions.covers(wide, code), (wide, code)


def test_regions_within_others_are_left_out() -> None:
    assert regions.parse_all(["610102", "61", "DE-BY", "US", "62", "6201"]) == ("61", "62", "DE-BY", "US")


def test_regions_are_so_many_at_most() -> None:
    some = [f"{province}{at:02d}" for province in (61, 62) for at in range(1, REGIONS_MAX // 2 + 1)]
    assert len(regions.parse_all(some[:-1])) == REGIONS_MAX - 1
    assert len(regions.parse_all(some)) == REGIONS_MAX
    with pytest.raises(RegionInvalid, match="100"):
        regions.parse_all([*some, "6399"])


@pytest.mark.parametrize(("code", "digits", "wide"), [("610102", 2, "61"), ("61", 4, "61"), ("DE-BY", 4, "DE")])
def test_coarser_level(code: str, digits: int, wide: str) -> None:
    assert regions.level_of(code, digits) == wide
