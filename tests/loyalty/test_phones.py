"""Phone numbers: the short way to a Chinese one leads where the library leads."""

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType

from loyalty.phones import PHONE_CHARACTERS_MAX, PhoneInvalid, parse_any_phone, parse_chinese_phones, parse_phone

TAILS = ("0000000", "9999999", "1234567", "5500199")


def by_library(text: str) -> str | None:
    try:
        return parse_any_phone(text)
    except PhoneInvalid:
        return None


def shortly(text: str) -> str | None:
    try:
        return parse_phone(text)
    except PhoneInvalid:
        return None


@pytest.mark.parametrize("first", range(100, 200))
def test_every_chinese_prefix_is_judged_as_the_library_judges_it(first: int) -> None:
    # Seven digits tell whose a number is (an eighth never matters to the library's patterns): all of them from 1000
    # to 1999, and beyond them in samples.
    for tail in TAILS:
        for digit in range(10):
            number = f"{first}{digit}{tail}"
            assert shortly(number) == by_library(number), number
            assert shortly("+86" + number) == by_library("+86" + number), number


def test_every_range_that_the_library_names_is_one_that_the_short_way_takes() -> None:
    for prefix in range(10_000, 20_000):
        number = f"{prefix}{'314159'}"
        national = phonenumbers.PhoneNumber(86, int(number))
        is_mobile = phonenumbers.number_type(national) == PhoneNumberType.MOBILE
        assert (shortly(number) is not None) == is_mobile, number


@settings(max_examples=150, deadline=None)
@given(
    number=st.from_regex(r"1[3-9]\d{9}", fullmatch=True),
    plus=st.sampled_from(["", "+86", "+86 ", "+86-", "0086", "86"]),
    marks=st.lists(st.tuples(st.integers(0, 10), st.sampled_from([" ", "-", "  ", " - "])), max_size=4),
)
def test_blanks_and_hyphens_change_nothing(number: str, plus: str, marks: list[tuple[int, str]]) -> None:
    text = number
    for position, mark in marks:
        text = text[:position] + mark + text[position:]
    assert shortly(plus + text) == by_library(plus + text)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="+ -0123456789().８", max_size=PHONE_CHARACTERS_MAX + 2))
def test_whatever_is_written_both_ways_agree(text: str) -> None:
    assert shortly(text) == by_library(text)


def test_a_number_of_32_characters_is_read_and_one_of_33_is_not() -> None:
    at_limit = "13800138000".rjust(PHONE_CHARACTERS_MAX)
    assert shortly(at_limit) == "+8613800138000"
    assert shortly(" " + at_limit) is None


_PLAIN = st.from_regex(r"(\+86)?1[3-9][0-9]{9}", fullmatch=True)
_ANY = st.one_of(_PLAIN, _PLAIN.map(lambda one: one + "\n"), st.text("0123456789+ -\r\n\u0661", max_size=16))


@settings(max_examples=300, deadline=None)
@given(st.lists(_PLAIN, min_size=1, max_size=6) | st.lists(_ANY, min_size=1, max_size=4))
def test_many_at_once_are_judged_as_one_by_one_or_not_at_all(texts: list[str]) -> None:
    found = parse_chinese_phones(texts)
    assert found is None or found == [by_library(text) for text in texts]


def test_a_line_end_in_a_text_does_not_make_up_for_a_bad_one() -> None:
    assert parse_chinese_phones(["13800138000", "+8613900139000"]) == ["+8613800138000", "+8613900139000"]
    assert parse_chinese_phones(["13800138000\n13900139000", "nobody"]) is None
    assert parse_chinese_phones(["13800138000\n", ""]) is None
