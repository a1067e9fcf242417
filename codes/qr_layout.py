"""How a code text lies in its QR symbol: the bits of its segments, and what each three digits add to the drawing."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from qrcode.util import BIT_LIMIT_TABLE, QRData, create_data, length_in_bits

from codes.qr_map import LEVELS, Level, Words, drawn, learn, packed, symbol_size
from kit.errors import Invalid
from offline_sdk.code_text import (
    GTIN_MARK,
    KID_DIGITS,
    PROFILE_DIGITS,
    SERIAL_DIGITS,
    SIGNATURE_BYTES,
    SIGNED_DIGITS,
    encode_text,
    segments,
)
from offline_sdk.gtin import GTIN_DIGITS

VERSION_MAX = 11  # 61 modules a side: a row fits into one machine word
HALF_BITS = 5  # a group's ten bits are looked up by halves: 2 tables of 32 rows stay in a core's cache, 1 of 1,000 not
_GROUP_DIGITS, _GROUP_BITS = 3, 10  # ISO/IEC 18004:2015, 7.4.3
_LINE_WORDS = 8
_Mode = Literal[1, 2, 4]  # mode indicators: ISO/IEC 18004:2015, table 2
_NUMERIC: Final = 1
_ALPHANUMERIC: Final = 2
_BYTE: Final = 4
_PATH_MODES: tuple[_Mode, ...] = (_NUMERIC, _ALPHANUMERIC, _NUMERIC, _ALPHANUMERIC, _NUMERIC)


class SymbolTooLarge(Invalid):
    """The text needs a larger symbol than this project draws."""

    code = "SymbolTooLarge"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What drawing the texts of one base URL at one level takes.

    `form` (2, length): the lowest and highest character of each position; `signature_at`, `gtin_at`: positions;
    `groups` (g, 4): position of three characters and what a digit at each of them counts; `tables` (g, 2, 32, padded):
    what the upper and lower half of a group's number add to the rows; `offset` (padded,): the rows before anything is
    added; `frames` (padded * 8,): what each mask adds, the masks of a row side by side; `dark_points`: the points of
    rule 4 by number of dark modules. `padded` is the size rounded up to a multiple of 8, with rows of zeros.
    """

    version: int
    form: NDArray[np.uint8]
    signature_at: int
    gtin_at: int
    groups: NDArray[np.int64]
    tables: Words
    offset: Words
    frames: Words
    dark_points: Words


def fitting_version(base_url: str, level: Level) -> int:
    """The smallest version that holds the code texts under a base URL, 1..11; raises SymbolTooLarge."""
    for version in range(1, VERSION_MAX + 1):
        if _segment_ends(base_url, version)[-1] <= BIT_LIMIT_TABLE[LEVELS[level]][version]:
            return version
    raise SymbolTooLarge(
        f"a code under this base URL of {len(base_url)} characters needs a symbol above version {VERSION_MAX} "
        f"at level {level}",
        hint="take a shorter host or a lower level",
    )


def text_layout(base_url: str, level: Level) -> Layout:
    """The layout of code texts under a base URL that `check_base_url` returned; raises SymbolTooLarge."""
    version = fitting_version(base_url, level)
    known = learn(version, level)
    sample = _sample(base_url)
    groups, first_bits = _groups(base_url, version)
    tables = _tables(known.modules, first_bits)
    data = [QRData(part, mode) for part, mode in zip(sample, _modes(base_url), strict=True)]
    drawing = packed(drawn(version, level, create_data(version, LEVELS[level], data), 0)) ^ known.frames[0]
    digits = np.frombuffer("".join(sample).encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    numbers = (digits[groups[:, :1] + np.arange(_GROUP_DIGITS)] * groups[:, 1:]).sum(axis=1)
    every = np.arange(len(groups))
    upper, lower = tables[every, 0, numbers >> HALF_BITS], tables[every, 1, numbers % 2**HALF_BITS]
    signed_at = len(base_url) + 1
    return Layout(
        version=version,
        form=_form(base_url),
        signature_at=signed_at + PROFILE_DIGITS + KID_DIGITS,
        gtin_at=signed_at + SIGNED_DIGITS + len(GTIN_MARK),
        groups=groups,
        tables=tables,
        offset=_padded(drawing) ^ np.bitwise_xor.reduce(upper ^ lower),
        frames=np.ascontiguousarray(_padded(known.frames).T).ravel(),
        dark_points=_dark_points(symbol_size(version)),
    )


def _sample(base_url: str) -> tuple[str, ...]:
    """The segments of a code text under the base URL; its digits are not such as make `qrcode` 8.2 meet zero blocks."""
    return segments(encode_text(base_url, 1, 1, b"\x55" * SIGNATURE_BYTES, "0" * GTIN_DIGITS, "1" * SERIAL_DIGITS))


def _modes(base_url: str) -> tuple[_Mode, ...]:
    return (_ALPHANUMERIC if base_url.isupper() else _BYTE, *_PATH_MODES)


def _segment_ends(base_url: str, version: int) -> list[int]:
    """The bits of a symbol's data up to the end of each segment (ISO/IEC 18004:2015, 7.4)."""
    ends, bits = [], 0
    for part, mode in zip(_sample(base_url), _modes(base_url), strict=True):
        bits += 4 + length_in_bits(mode, version)
        if mode == _NUMERIC:
            bits += len(part) // 3 * 10 + (0, 4, 7)[len(part) % 3]
        elif mode == _ALPHANUMERIC:
            bits += len(part) // 2 * 11 + len(part) % 2 * 6
        else:
            bits += len(part) * 8
        ends.append(bits)
    return ends


def _form(base_url: str) -> NDArray[np.uint8]:
    """The lowest and the highest character of every position, (2, length)."""
    parts = list(zip(_sample(base_url), _modes(base_url), strict=True))
    limits = ["".join(digit * len(part) if mode == _NUMERIC else part for part, mode in parts) for digit in "09"]
    form = np.array([list(limit.encode("ascii")) for limit in limits], np.uint8)
    form[:, len(base_url) + 1] = ord("1"), ord("2")  # the profile
    return form


def _groups(base_url: str, version: int) -> tuple[NDArray[np.int64], list[int]]:
    """The groups of digits in the numeric segments, as in `Layout`, and the first data bit of each one's ten.

    Every numeric segment ends in a group of two digits and seven bits. It takes the character and the three bits before
    it along; the character counts nothing, and the bits are always 0 in a number below 100.
    """
    groups, first_bits = [], []
    at = 0
    for part, mode, end in zip(_sample(base_url), _modes(base_url), _segment_ends(base_url, version), strict=True):
        if mode == _NUMERIC:
            whole = len(part) // _GROUP_DIGITS
            start = end - 7 - whole * _GROUP_BITS
            groups += [(at + _GROUP_DIGITS * group, 100, 10, 1) for group in range(whole)]
            first_bits += [start + _GROUP_BITS * group for group in range(whole)]
            groups.append((at + len(part) - _GROUP_DIGITS, 0, 10, 1))
            first_bits.append(end - _GROUP_BITS)
        at += len(part)
    return np.array(groups, np.int64), first_bits


def _tables(modules: Words, first_bits: list[int]) -> Words:
    """What each value of each half of a group adds to the rows: (groups, 2, 32, padded)."""
    bits = np.array(first_bits)[:, None] + np.arange(_GROUP_BITS)
    basis = _padded(modules[bits]).reshape(len(first_bits), 2, HALF_BITS, -1)
    tables = np.zeros((len(first_bits), 2, 2**HALF_BITS, basis.shape[-1]), np.uint64)
    for bit in range(HALF_BITS):
        value = 1 << bit
        tables[:, :, value : 2 * value] = tables[:, :, :value] ^ basis[:, :, HALF_BITS - 1 - bit, None]
    return tables


def _padded(rows: Words) -> Words:
    """Rows (..., size) with rows of zeros up to a multiple of eight."""
    missing = -rows.shape[-1] % _LINE_WORDS
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])


def _dark_points(size: int) -> Words:
    """The points of rule 4 for every number of dark modules: ten for each full 5 % away from one half."""
    modules = size * size
    return np.array([abs(20 * dark - 10 * modules) // modules * 10 for dark in range(modules + 1)], np.uint64)
