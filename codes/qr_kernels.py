"""The inner loops of drawing QR symbols, compiled: reading digits, adding up a symbol, choosing its mask.

A row of modules is one 64-bit word: bit 63 is the left column, dark is 1, bits past the right column are 0. The eight
masks of a symbol lie side by side (word 8 r + m is row r under mask m), so that vector instructions serve them all.

Constants are compiled in, and kept machine code is made anew only when this very file changes: a constant of another
module may stand here only if it is one of the format's, which never change.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from codes.qr_map import MASKS, Words
from offline_sdk.code_text import SIGNATURE_BYTES, SIGNATURE_DIGITS
from offline_sdk.gtin import GTIN_DIGITS

_F = TypeVar("_F", bound=Callable[..., Any])
# Rows of nothing after the last one, so that a look at a neighbour needs no check of bounds.
_MARGIN = 9 * MASKS
# A plain integer beside an unsigned one makes numba compute in floating point.
_0, _1, _2, _3, _4, _7 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 7))
_LARGEST = np.frombuffer(str(2 ** (8 * SIGNATURE_BYTES) - 1).encode("ascii"), np.uint8)
_56 = np.uint64(56)
_RULE_2, _RULE_3 = np.uint64(3), np.uint64(40)
_PAIRS = np.uint64(0x5555555555555555)
_FOURS = np.uint64(0x3333333333333333)
_EIGHTS = np.uint64(0x0F0F0F0F0F0F0F0F)
_ONES = np.uint64(0x0101010101010101)


def _compiled(function: _F) -> _F:
    try:
        return cast(_F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder where machine code could be kept; compiled again by every process
        return cast(_F, numba.njit(nogil=True)(function))


@_compiled
def first_malformed(chars: Any, form: Any, signature_at: int, gtin_at: int) -> int:
    """The index of the first text that is no code text under the base URL, or the number of texts.

    `chars` (n, length): the texts in ASCII; `form` (2, length): the lowest and the highest character of each position;
    the positions of the signature and of the GTIN.
    """
    count: int = chars.shape[0]
    length: int = chars.shape[1]
    for i in range(count):
        wrong = np.uint8(0)
        for p in range(length):
            wrong |= np.uint8(chars[i, p] < form[0, p]) | np.uint8(chars[i, p] > form[1, p])
        if wrong:
            return i
        p = 0
        while p < SIGNATURE_DIGITS and chars[i, signature_at + p] == _LARGEST[p]:
            p += 1
        if p < SIGNATURE_DIGITS and chars[i, signature_at + p] > _LARGEST[p]:
            return i
        total = 0  # GS1 General Specifications, 7.9: weights 3 and 1 in turn
        for p in range(0, GTIN_DIGITS, 2):
            total += 3 * (chars[i, gtin_at + p] - 48) + (chars[i, gtin_at + p + 1] - 48)
        if total % 10:
            return i
    return count


@_compiled
def draw(
    chars: Any,
    groups: Any,
    half_bits: int,
    tables: Words,
    offset: Words,
    frames: Words,
    dark_points: Words,
    rows: Words,
) -> None:
    """Draw texts into `rows` (n, size), each under its least-penalty mask.

    `chars` as `first_malformed` found them right; the rest as `codes.qr_layout` has it.
    """
    count, size = rows.shape
    padded = len(offset)
    lower_half = (1 << half_bits) - 1
    plain = np.empty(padded, np.uint64)
    scratch = np.zeros((4, size * MASKS + _MARGIN), np.uint64)
    totals = np.empty(MASKS, np.uint64)
    for i in range(count):
        for r in range(padded):
            plain[r] = offset[r]
        for g in range(len(groups)):
            p = groups[g, 0]
            number = (
                groups[g, 1] * (chars[i, p] - 48)
                + groups[g, 2] * (chars[i, p + 1] - 48)
                + groups[g, 3] * (chars[i, p + 2] - 48)
            )
            upper, lower = tables[g, 0, number >> half_bits], tables[g, 1, number & lower_half]
            for r in range(padded):
                plain[r] ^= upper[r] ^ lower[r]
        penalties(plain, size, frames, dark_points, scratch, totals)
        best = 0
        for mask in range(1, MASKS):
            if totals[mask] < totals[best]:
                best = mask
        for r in range(size):
            rows[i, r] = plain[r] ^ frames[r * MASKS + best]


@_compiled
def penalties(plain: Words, size: int, frames: Words, dark_points: Words, scratch: Words, totals: Words) -> None:
    """Put the penalty of each mask into `totals`, by the four rules of ISO/IEC 18004:2015, 7.8.3."""
    words, score = scratch[0], scratch[1]
    count = size * MASKS
    for r in range(size):
        for mask in range(MASKS):
            words[r * MASKS + mask] = plain[r] ^ frames[r * MASKS + mask]
    full = ~_0 << np.uint64(64 - size)
    _score_rows(count, full, words, score, scratch[2])
    _score_columns(count, full, words, score, scratch[3])
    _score_blocks(count, full, words, score, scratch[2])
    for mask in range(MASKS):
        total = dark = _0
        for j in range(mask, count, MASKS):
            total += score[j]
            dark += _ones(words[j])
        totals[mask] = total + dark_points[dark]


@_compiled
def _score_rows(count: int, full: Any, words: Words, score: Words, alike: Words) -> None:
    """Rules 1 and 3 along the rows; `alike`: bit c says that modules c and c + 1 of a row are of one colour."""
    inner = full << _1
    for j in range(count):
        dark = words[j]
        light = ~dark & full
        pairs = ~(dark ^ (dark << _1)) & inner
        alike[j] = pairs
        fives = pairs & (pairs << _1)
        fives &= fives << _2
        # A run of n modules, 5 or more, holds n - 4 stretches of five, of which one is the last, and costs n - 2.
        runs = _ones(fives) + (_ones(fives & ~(pairs << _4)) << _1)
        spike = dark & (light << _1) & (dark << _2)
        finder = spike & (dark << _3) & (spike << _4)
        fours = light & (light << _1)
        fours &= fours << _2
        score[j] = runs + _RULE_3 * (_ones(finder & (fours << _7)) + _ones(finder & (fours >> _4)))


@_compiled
def _score_columns(count: int, full: Any, words: Words, score: Words, near: Words) -> None:
    """Rules 1 and 3 along the columns: as for the rows, with neighbours eight words away in place of one bit."""
    for j in range(count - MASKS):
        near[j] = ~(words[j] ^ words[j + MASKS]) & full
    for j in range(count - MASKS, count + _MARGIN):
        near[j] = _0
    for j in range(count - 4 * MASKS):
        fives = near[j] & near[j + MASKS] & near[j + 2 * MASKS] & near[j + 3 * MASKS]
        score[j] += _ones(fives) + (_ones(fives & ~near[j + 4 * MASKS]) << _1)
    # Stretches of four light modules, kept four rows down: nothing is light above the first row or below the last.
    for j in range(4 * MASKS):
        near[j] = _0
    for j in range(count - 3 * MASKS):
        near[j + 4 * MASKS] = full & ~(words[j] | words[j + MASKS] | words[j + 2 * MASKS] | words[j + 3 * MASKS])
    for j in range(count + MASKS, count + _MARGIN):
        near[j] = _0
    for j in range(count - 6 * MASKS):
        spike = words[j] & ~words[j + MASKS] & words[j + 2 * MASKS]
        other = words[j + 4 * MASKS] & ~words[j + 5 * MASKS] & words[j + 6 * MASKS]
        finder = spike & words[j + 3 * MASKS] & other
        score[j] += _RULE_3 * (_ones(finder & near[j]) + _ones(finder & near[j + 11 * MASKS]))


@_compiled
def _score_blocks(count: int, full: Any, words: Words, score: Words, alike: Words) -> None:
    """Rule 2: blocks of two by two modules of one colour, overlapping ones counted each."""
    for j in range(count - MASKS):
        blocks = ~(words[j] ^ words[j + MASKS]) & full & alike[j] & alike[j + MASKS]
        score[j] += _RULE_2 * _ones(blocks)


@_compiled
def _ones(word: Any) -> Any:
    # The compiler knows this sum and makes it one instruction.
    word = word - ((word >> _1) & _PAIRS)
    word = (word & _FOURS) + ((word >> _2) & _FOURS)
    word = (word + (word >> _4)) & _EIGHTS
    return (word * _ONES) >> _56
