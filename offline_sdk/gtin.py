"""GTIN: the check digit of a 14-digit Global Trade Item Number."""

import re
from typing import Final

GTIN_DIGITS: Final = 14

_DIGITS_13: Final = re.compile("[0-9]{13}")
_DIGITS_14: Final = re.compile("[0-9]{14}")

# "0" is 48 in ASCII. Summing character values instead of digit values adds 48 for each unit of weight, and the
# weights of a GTIN-14 are seven 3s and seven 1s, so a right GTIN's sum ends in the last digit of 48 * 28.
_RIGHT_REMAINDER: Final = 48 * (7 * 3 + 7 * 1) % 10


def check_digit(first13: str) -> str:
    """Return the digit that completes 13 ASCII digits to a GTIN-14.

    Raises ValueError when `first13` is not exactly 13 ASCII digits.
    Source: GS1 General Specifications, 7.9 "Check digit calculations".
    """
    if not isinstance(first13, str) or _DIGITS_13.fullmatch(first13) is None:
        raise ValueError("a GTIN-14 check digit is made from exactly 13 ASCII digits")
    values = [int(digit) for digit in first13]
    return str(-(3 * sum(values[0::2]) + sum(values[1::2])) % 10)


def is_valid(gtin14: str) -> bool:
    """Tell whether this is 14 ASCII digits with a right check digit; False for anything else of any type.

    Source: GS1 General Specifications, 7.9 "Check digit calculations".
    """
    return isinstance(gtin14, str) and _DIGITS_14.fullmatch(gtin14) is not None and check_digit_is_right(gtin14)


def check_digit_is_right(digits14: str) -> bool:
    """Tell whether the last of 14 ASCII digits is the right check digit; the caller has checked the digits."""
    values = digits14.encode("ascii")
    return (3 * sum(values[0::2]) + sum(values[1::2])) % 10 == _RIGHT_REMAINDER
