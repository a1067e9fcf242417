"""Item set: sorted item numbers in little space, asked for one of them without unpacking the others.

Elias–Fano's form (P. Elias, "Efficient storage and retrieval by content and address of static files", 1974). Each item
is cut in two. The low bits stand one after another. The high bits say which bucket the item is in, and the buckets are
written as their items in ones, each bucket ended by a zero. docs/trust-bundle.md describes it to the bit.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Final, Self

from .code_text import ITEM_MAX
from .errors import TrustMalformed

_WORD_BYTES: Final = 8
_WORD_BITS: Final = 8 * _WORD_BYTES
# What is worked on at once as one big number: enough to outweigh the interpreter, little enough to stay in the cache.
_SLICE_ITEMS: Final = 8 * 2048


class ItemSet:
    """A set of 1 to 10^9 item numbers, 0..999,999,999, that keeps its packed form and iterates in ascending order."""

    universe: ClassVar[int] = ITEM_MAX + 1
    """All items are below this."""

    __slots__ = ("_count", "_low_bits", "_packed", "_upper_at", "_zeros")

    def __init__(self, count: int, packed: bytes) -> None:
        """Take a packed form that is known to be right: from outside, use `of` or `read`."""
        self._count = count
        self._packed = packed
        self._low_bits = self._low_bits_for(count)
        self._upper_at = _bytes_for(count * self._low_bits)
        self._zeros = _zeros_before_words(packed[self._upper_at :])

    @classmethod
    def of(cls, items: Sequence[int]) -> Self:
        """Pack items that ascend without duplicates, at least one; else raises TrustMalformed."""
        if not items or set(map(type, items)) != {int} or not all(before < after for before, after in pairwise(items)):
            raise TrustMalformed("revoked item numbers are not whole numbers in ascending order, at least one")
        if items[0] < 0 or items[-1] >= cls.universe:
            raise TrustMalformed(f"a revoked item number is not a whole number from 0 to {cls.universe - 1}")
        low_bits = cls._low_bits_for(len(items))
        upper = bytearray(_bytes_for(len(items) + cls._buckets(low_bits)))
        for index, item in enumerate(items):
            at = (item >> low_bits) + index
            upper[at >> 3] |= 1 << (at & 7)
        return cls(len(items), _pack_lows(items, low_bits) + upper)

    @classmethod
    def read(cls, count: int, packed: bytes) -> Self:
        """Take a packed form from outside. Raises TrustMalformed unless it is the one form of `count` items."""
        if type(count) is not int or not 1 <= count <= cls.universe or type(packed) is not bytes:
            raise TrustMalformed(f"revoked items are not a number from 1 to {cls.universe} and a byte string")
        low_bits = cls._low_bits_for(count)
        lower_bits, upper_bits = count * low_bits, count + cls._buckets(low_bits)
        upper_at = _bytes_for(lower_bits)
        if len(packed) != upper_at + _bytes_for(upper_bits):
            raise TrustMalformed("packed revoked items are not as long as their number says")
        upper = int.from_bytes(packed[upper_at:], "little")
        if upper.bit_count() != count or upper.bit_length() >= upper_bits or not _ends_in_zeros(packed, lower_bits):
            raise TrustMalformed("packed revoked items are not as many as their number says, or badly padded")
        if _same_bucket(packed[upper_at:]) & ~_low_ascends(packed[:upper_at], count, low_bits):
            raise TrustMalformed("revoked item numbers are not in ascending order without duplicates")
        items = cls(count, packed)
        if ((upper.bit_length() - count) << low_bits | items._low(count - 1)) >= cls.universe:
            raise TrustMalformed(f"a revoked item number is not a whole number from 0 to {cls.universe - 1}")
        return items

    def packed(self) -> bytes:
        """The packed form."""
        return self._packed

    def __contains__(self, item: int) -> bool:
        """Tell whether the item is in the set, looking at its bucket alone."""
        if not 0 <= item < self.universe:
            return False
        bucket, low = item >> self._low_bits, item & ((1 << self._low_bits) - 1)
        # Before the zero that ends bucket k there are k zeros, and all else is items.
        start = self._zero(bucket - 1) + 1 if bucket else 0
        first = start - bucket
        last = end = first + self._ones_from(start, bucket)
        while first < last:
            middle = (first + last) // 2
            if self._low(middle) < low:
                first = middle + 1
            else:
                last = middle
        return first < end and self._low(first) == low

    def __iter__(self) -> Iterator[int]:
        """Yield the items in ascending order."""
        index = 0
        for start in range(self._upper_at, len(self._packed), _WORD_BYTES):
            word = int.from_bytes(self._packed[start : start + _WORD_BYTES], "little")
            word_at = (start - self._upper_at) * 8
            while word:
                at = word_at + (word & -word).bit_length() - 1
                yield (at - index) << self._low_bits | self._low(index)
                index += 1
                word &= word - 1

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        # One set has one form.
        return isinstance(other, ItemSet) and (self._count, self._packed) == (other._count, other._packed)

    def __hash__(self) -> int:
        return hash(self._packed)

    def __repr__(self) -> str:
        return f"ItemSet of {self._count} items"

    @classmethod
    def _low_bits_for(cls, count: int) -> int:
        return max(0, (cls.universe // count).bit_length() - 1)

    @classmethod
    def _buckets(cls, low_bits: int) -> int:
        return ((cls.universe - 1) >> low_bits) + 1

    def _low(self, index: int) -> int:
        """The low bits of the item at this place."""
        bit = index * self._low_bits
        field = int.from_bytes(self._packed[bit >> 3 : (bit + self._low_bits + 7) >> 3], "little")
        return field >> (bit & 7) & ((1 << self._low_bits) - 1)

    def _ones_from(self, start: int, bucket: int) -> int:
        """How many ones follow one another in the upper bits from this place on, where this bucket begins."""
        at = self._upper_at + (start >> 3)
        bits = int.from_bytes(self._packed[at : at + _WORD_BYTES], "little") >> (start & 7)
        ones = (~bits & (bits + 1)).bit_length() - 1
        # Buckets are short unless the items cluster; a long one may go on behind what was read.
        return ones if ones < _WORD_BITS - 8 else self._zero(bucket) - start

    def _zero(self, number: int) -> int:
        """Where in the upper bits the zero of this number is, counted from 0."""
        word = bisect_right(self._zeros, number) - 1
        number -= self._zeros[word]
        start = self._upper_at + word * _WORD_BYTES
        ones = ~int.from_bytes(self._packed[start : start + _WORD_BYTES], "little")
        at = word * _WORD_BITS
        width = _WORD_BITS // 2
        while width:
            half = ones & ((1 << width) - 1)
            count = half.bit_count()
            if number < count:
                ones = half
            else:
                number -= count
                ones >>= width
                at += width
            width >>= 1
        return at


def _bytes_for(bits: int) -> int:
    return (bits + 7) >> 3


def _ends_in_zeros(packed: bytes, bits: int) -> bool:
    """Tell whether the byte in which the bits end holds nothing after them."""
    return bits & 7 == 0 or packed[bits >> 3] >> (bits & 7) == 0


def _zeros_before_words(upper: bytes) -> "array[int]":
    """How many zeros stand before each word of 64 bits, and at the end how many there are."""
    inverted = array("Q", upper.translate(_INVERTED).ljust(-(-len(upper) // _WORD_BYTES) * _WORD_BYTES, b"\0"))
    if sys.byteorder == "big":
        inverted.byteswap()
    return array("I", accumulate(map(int.bit_count, inverted), initial=0))


def _pack_lows(items: Sequence[int], low_bits: int) -> bytes:
    if not low_bits:
        return b""
    mask = (1 << low_bits) - 1
    slices = []
    for start in range(0, len(items), _SLICE_ITEMS):
        lows = [f"{item & mask:0{low_bits}b}" for item in items[start : start + _SLICE_ITEMS]]
        lows.reverse()  # a number is written from its highest bits down
        slices.append(int("".join(lows), 2).to_bytes(_bytes_for(len(lows) * low_bits), "little"))
    return b"".join(slices)


def _same_bucket(upper: bytes) -> int:
    """A number whose bit i is set when item i + 1 is in the bucket of item i: when its one follows directly."""
    with_next_bit = bytearray(2 * len(upper))
    with_next_bit[::2] = upper
    with_next_bit[1::2] = (upper[1:] + b"\0").translate(_LOWEST_BIT)
    nines = array("H", bytes(with_next_bit))
    if sys.byteorder == "big":
        nines.byteswap()
    nines.reverse()  # a number is written from its highest bits down
    return int("".join(map(_SAME_BUCKET.__getitem__, nines)), 2)


def _low_ascends(lower: bytes, count: int, low_bits: int) -> int:
    """A number whose bit i is set when the low bits of item i + 1 are above those of item i."""
    if not low_bits:
        return 0
    # 8 fields are a whole number of bytes. Each slice also sees the first fields of the next one.
    slice_bytes = min(_SLICE_ITEMS, -(-count // 8) * 8) // 8 * low_bits
    lanes = _Lanes(low_bits, slice_bytes)
    return int.from_bytes(
        b"".join(
            lanes.ascends(int.from_bytes(lower[start : start + slice_bytes + low_bits], "little"))
            for start in range(0, len(lower), slice_bytes)
        ),
        "little",
    )


class _Lanes:
    """Compares neighbouring fields of a slice all at once, as one big number each for the even and the odd ones.

    Every second field is masked out, so that each has the room of two: a carry stays in its own lane.
    """

    def __init__(self, bits: int, slice_bytes: int) -> None:
        self._bits = bits
        self._slice_bytes = slice_bytes
        periods = slice_bytes // bits  # of 8 fields
        self._fields = self._repeated(sum(((1 << bits) - 1) << 2 * bits * lane for lane in range(4)), periods)
        self._flags = self._repeated(sum(1 << 2 * bits * lane for lane in range(4)), periods)
        self._fours = self._repeated(0b1111 | 0b1111 << 4 * bits, periods)
        self._eights = self._repeated(0b11111111, periods)

    def ascends(self, fields: int) -> bytes:
        """A byte for each 8 fields: bit i is set when field i + 1 is above field i."""
        bits = self._bits
        # b + (2^bits - 1 - a) reaches 2^bits when b is above a.
        even = fields & self._fields
        odd = fields >> bits & self._fields
        next_even = fields >> 2 * bits & self._fields
        even_ascends = (odd + (even ^ self._fields)) >> bits & self._flags
        odd_ascends = (next_even + (odd ^ self._fields)) >> bits & self._flags
        # Move 2, then 4, then 8 flags together; each 8 end up in the first byte of the 8 fields' room.
        flags = even_ascends | odd_ascends << 1
        flags = (flags | flags >> (2 * bits - 2)) & self._fours
        flags = (flags | flags >> (4 * bits - 4)) & self._eights
        return flags.to_bytes(self._slice_bytes, "little")[::bits]

    def _repeated(self, pattern: int, times: int) -> int:
        return int.from_bytes(pattern.to_bytes(self._bits, "little") * times, "little")


_INVERTED: Final = bytes(byte ^ 0xFF for byte in range(256))
_LOWEST_BIT: Final = bytes(byte & 1 for byte in range(256))


def _same_bucket_digits(nine_bits: int) -> str:
    """For each one among the low 8 bits, from the highest down: 1 when the bit above it is a one too, else 0."""
    return "".join(str(nine_bits >> at + 1 & 1) for at in range(7, -1, -1) if nine_bits >> at & 1)


_SAME_BUCKET: Final = [_same_bucket_digits(nine_bits) for nine_bits in range(512)]
