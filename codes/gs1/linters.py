"""Linters: the tests of a component's content that the GS1 Syntax Dictionary names, one function each.

Each takes a component whose length and characters are already those of its format, and tells what is wrong with it,
or None. What each must accept is the business of GS1's reference implementation of the same name
("GS1 Barcode Syntax Tests"), written anew here.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Final

from codes.gs1.code_lists import COUNTRIES, COUNTRIES_ALPHA2, CURRENCIES, MEDIA_TYPES, PACKAGE_TYPES

Linter = Callable[[str], str | None]

COMPANY_PREFIX_DIGITS_MIN: Final = 4
IBAN_CHARACTERS_MIN: Final = 11
LATITUDE_MAX: Final = 1_800_000_000  # 180 degrees from the south pole, in 10^-7 degrees
LONGITUDE_MAX: Final = 3_600_000_000
# In the order of their values: GS1 General Specifications, 7.9.5.
CSET82: Final = "!\"%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
CSET32: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
_CHECK_PAIR_MODULUS: Final = 1021
_WEIGHTS: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83)
_VALUES_82: Final = {character: value for value, character in enumerate(CSET82)}
_DAYS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_IBAN: Final = re.compile("[0-9A-Z]+")
_POSITION: Final = re.compile("([0-9]+)/([0-9]+)")
_ZERO: Final = ord("0")


def check_digit_is_right(digits: str) -> bool:
    """Tell whether the last of two or more ASCII digits is their GS1 check digit (General Specifications, 7.9.1)."""
    # Character values: a digit is its value and 48, so each unit of weight adds 48.
    values = digits.encode("ascii")
    ones, threes = values[-1::-2], values[-2::-2]
    return (sum(ones) + 3 * sum(threes) - _ZERO * (len(ones) + 3 * len(threes))) % 10 == 0


def check_digit(digits: str) -> str:
    """The GS1 check digit that completes these ASCII digits (General Specifications, 7.9.1)."""
    values = digits.encode("ascii")
    threes, ones = values[-1::-2], values[-2::-2]
    return str(-(sum(ones) + 3 * sum(threes) - _ZERO * (len(ones) + 3 * len(threes))) % 10)


def check_pair(text: str) -> str:
    """The two check characters of at most 23 characters of CSET 82 (General Specifications, 7.9.5)."""
    weighted = sum(_VALUES_82[c] * weight for c, weight in zip(reversed(text), _WEIGHTS, strict=False))
    high, low = divmod(weighted % _CHECK_PAIR_MODULUS, len(CSET32))
    return CSET32[high] + CSET32[low]


# GTINs and GLNs come again and again.
@lru_cache(maxsize=8_192)
def _csum(part: str) -> str | None:
    return None if check_digit_is_right(part) else "its check digit is wrong"


def _csumalpha(part: str) -> str | None:
    if len(part) < 2:
        return "it is too short for a pair of check characters"
    return None if check_pair(part[:-2]) == part[-2:] else "its pair of check characters is wrong"


def _gcppos1(part: str) -> str | None:
    prefix = part[:COMPANY_PREFIX_DIGITS_MIN]
    if len(prefix) == COMPANY_PREFIX_DIGITS_MIN and prefix.isdigit():
        return None
    return f"it does not begin with a GS1 Company Prefix ({COMPANY_PREFIX_DIGITS_MIN} digits at least)"


def _gcppos2(part: str) -> str | None:
    return _gcppos1(part[1:])


def _listed(codes: frozenset[str], name: str, part: str) -> str | None:
    return None if part in codes else f"it is not {name}"


def _iso3166999(part: str) -> str | None:
    return None if part == "999" or part in COUNTRIES else "it is neither an ISO 3166 country number nor 999"


def _month_and_day(month: int, day: int, *, leap_year: bool, day_may_be_0: bool) -> str | None:
    if not 1 <= month <= 12:
        return "its month is not one of 01 to 12"
    if day > _DAYS[month] + (leap_year and month == 2) or (day == 0 and not day_may_be_0):
        return "its day is not one of that month"
    return None


def _yymmd0(part: str) -> str | None:
    # The century is chosen within 50 years of today (General Specifications, 7.12), and 2000 was a leap year.
    leap_year = int(part[:2]) % 4 == 0
    return _month_and_day(int(part[2:4]), int(part[4:6]), leap_year=leap_year, day_may_be_0=True)


def _yymmdd(part: str) -> str | None:
    return "its day is 00" if part[4:6] == "00" else _yymmd0(part)


def _yyyymmdd(part: str) -> str | None:
    year = int(part[:4])
    leap_year = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return _month_and_day(int(part[4:6]), int(part[6:8]), leap_year=leap_year, day_may_be_0=False)


def _at_most(limit: int, name: str, part: str) -> str | None:
    return None if int(part) <= limit else f"its {name} is past {limit}"


def _hhmi(part: str) -> str | None:
    return _at_most(23, "hour", part[:2]) or _at_most(59, "minute", part[2:4])


def _nonzero(part: str) -> str | None:
    return None if part.strip("0") else "it is zero"


def _nozeroprefix(part: str) -> str | None:
    return "it begins with a zero" if part.startswith("0") else None


def _one_of(characters: str, part: str) -> str | None:
    return None if part in characters else f"it is not one of {' '.join(characters)}"


def _importeridx(part: str) -> str | None:
    return None if part.isalnum() or part in "-_" else "it is not an importer index"


def _pcenc(part: str) -> str | None:
    return "a % in it is not followed by two hexadecimal digits" if _BAD_ESCAPE.search(part) else None


def _hasnondigit(part: str) -> str | None:
    return "it has digits only" if part.isdigit() else None


def _pieceoftotal(part: str) -> str | None:
    piece, total = part[: len(part) // 2], part[len(part) // 2 :]
    if not piece.strip("0") or not total.strip("0"):
        return "its piece or its total is zero"
    return None if piece <= total else "its piece is past its total"


def _posinseqslash(part: str) -> str | None:
    match = _POSITION.fullmatch(part)
    if match is None:
        return "it is not a position and an end with a slash between"
    position, end = match.groups()
    if position.startswith("0") or end.startswith("0"):
        return "a number in it begins with a zero"
    return None if int(position) <= int(end) else "its position is past its end"


def _iban(part: str) -> str | None:
    if len(part) < IBAN_CHARACTERS_MIN or _IBAN.fullmatch(part) is None:
        return f"it is not {IBAN_CHARACTERS_MIN} or more digits and capital letters"
    if part[:2] not in COUNTRIES_ALPHA2:
        return "it does not begin with a country's two letters"
    # ISO 13616-1: with its first four characters moved to the end, and letters read as 10 to 35, it is 1 modulo 97.
    number = int("".join(str(int(character, 36)) for character in part[4:] + part[:4]))
    return None if number % 97 == 1 else "its check digits are wrong"


class _Coupon:
    """Reads the fields of a coupon code from its left; raises _CouponWrong where one is missing or impossible."""

    def __init__(self, digits: str) -> None:
        if not digits.isdigit():
            raise _CouponWrong("it has a character that is no digit")
        self._digits = digits
        self._at = 0

    def take(self, count: int, name: str) -> str:
        taken = self._digits[self._at : self._at + count]
        if len(taken) < count:
            raise _CouponWrong(f"it ends within its {name}")
        self._at += count
        return taken

    def choice(self, allowed: str, name: str) -> str:
        digit = self.take(1, name)
        if digit not in allowed:
            raise _CouponWrong(f"its {name} is not one of {' '.join(allowed)}")
        return digit

    def sized(self, allowed: str, plus: int, name: str) -> str:
        """A field behind the digit that, with `plus`, says how long it is."""
        return self.take(int(self.choice(allowed, f"length of its {name}")) + plus, name)

    def optional(self, mark: str) -> bool:
        found = self._digits.startswith(mark, self._at)
        self._at += found
        return found

    def end(self) -> None:
        if self._at != len(self._digits):
            raise _CouponWrong("it goes on after its last field")


class _CouponWrong(Exception):
    pass


def _purchase(coupon: _Coupon, name: str, *, company: bool) -> None:
    coupon.sized("12345", 0, f"{name} purchase requirement")
    coupon.choice("012349", f"{name} purchase requirement code")
    coupon.take(3, f"{name} purchase family code")
    if company and not coupon.optional("9"):
        coupon.sized("0123456", 6, f"{name} purchase company prefix")


def _coupon_dates(coupon: _Coupon) -> Iterator[str]:
    for mark, name in (("3", "expiration date"), ("4", "start date")):
        if coupon.optional(mark):
            date = coupon.take(6, name)
            if wrong := _yymmdd(date):
                raise _CouponWrong(f"{name}: {wrong}")
            yield mark + date


def _north_american_coupon(coupon: _Coupon) -> None:
    """North American Coupon Application Guideline, as carried in AI (8110)."""
    coupon.sized("0123456", 6, "company prefix")
    coupon.take(6, "offer code")
    coupon.sized("12345", 0, "save value")
    _purchase(coupon, "first", company=False)
    if coupon.optional("1"):
        coupon.choice("0123", "additional purchase rules code")
        _purchase(coupon, "second", company=True)
    if coupon.optional("2"):
        _purchase(coupon, "third", company=True)
    dates = list(_coupon_dates(coupon))
    if len(dates) == 2 and dates[1][1:] > dates[0][1:]:
        raise _CouponWrong("it expires before it starts")
    if coupon.optional("5"):
        coupon.sized("0123456789", 6, "serial number")
    if coupon.optional("6"):
        coupon.sized("1234567", 6, "retailer")
    if coupon.optional("9"):
        coupon.choice("01256", "save value code")
        coupon.choice("012", "save value applies to item")
        coupon.take(1, "store coupon flag")
        coupon.choice("01", "don't multiply flag")
    coupon.end()


def _positive_offer_coupon(coupon: _Coupon) -> None:
    """GS1 AI (8112) Coupon Data Specification."""
    coupon.choice("01", "format code")
    coupon.sized("0123456", 6, "funder")
    coupon.take(6, "offer code")
    coupon.sized("0123456789", 6, "serial number")
    coupon.end()


def _coupon(fields: Callable[[_Coupon], None], part: str) -> str | None:
    try:
        fields(_Coupon(part))
    except _CouponWrong as wrong:
        return str(wrong)
    return None


LINTERS: Final[dict[str, Linter]] = {
    "couponcode": partial(_coupon, _north_american_coupon),
    "couponposoffer": partial(_coupon, _positive_offer_coupon),
    "csum": _csum,
    "csumalpha": _csumalpha,
    "gcppos1": _gcppos1,
    "gcppos2": _gcppos2,
    "hasnondigit": _hasnondigit,
    "hh": partial(_at_most, 23, "hour"),
    "hhmi": _hhmi,
    "hyphen": partial(_one_of, "-"),
    "iban": _iban,
    "importeridx": _importeridx,
    "iso3166": partial(_listed, COUNTRIES, "an ISO 3166 country number"),
    "iso3166999": _iso3166999,
    "iso3166alpha2": partial(_listed, COUNTRIES_ALPHA2, "an ISO 3166 country's two letters"),
    "iso4217": partial(_listed, CURRENCIES, "an ISO 4217 currency number"),
    "iso5218": partial(_one_of, "0129"),
    "latitude": partial(_at_most, LATITUDE_MAX, "latitude"),
    "longitude": partial(_at_most, LONGITUDE_MAX, "longitude"),
    "mediatype": partial(_listed, MEDIA_TYPES, "an AIDC media type"),
    "mi": partial(_at_most, 59, "minute"),
    "nonzero": _nonzero,
    "nozeroprefix": _nozeroprefix,
    "packagetype": partial(_listed, PACKAGE_TYPES, "a package type code"),
    "pcenc": _pcenc,
    "pieceoftotal": _pieceoftotal,
    "posinseqslash": _posinseqslash,
    "ss": partial(_at_most, 59, "second"),
    "winding": partial(_one_of, "019"),
    "yesno": partial(_one_of, "01"),
    "yymmd0": _yymmd0,
    "yymmdd": _yymmdd,
    "yyyymmdd": _yyyymmdd,
    "zero": partial(_one_of, "0"),
}
"""By the names that the dictionary uses."""

CHECKS: Final = frozenset({"csum", "csumalpha", "iban"})
"""Those that find a mistyped character, rather than a value that cannot be."""
