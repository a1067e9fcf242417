"""Item sets: packed items are read exactly when a plain bit-by-bit reader reads them, and mean the same."""

from itertools import pairwise
from random import Random
from struct import Struct
from typing import Final

from offline_sdk import ItemSet, TrustMalformed
from tests.fuzz import published
from tests.fuzz.mutation import changed_bytes
from tests.fuzz.target import RAW, SIGNED, Target, mode_of, must

_UNIVERSE: Final = 10**9
_COUNT: Final = Struct(">I")
_ITEMS_MAX: Final = 1_000
_BORDERS: Final = (0, 1, 2, 63, 64, 65, 2**29 - 1, 2**29, 499_999_999, 999_999_998, 999_999_999)


def widths(count: int) -> tuple[int, int]:
    """The low bits of each item, and the number of buckets."""
    low = max(0, (_UNIVERSE // count).bit_length() - 1)
    return low, ((_UNIVERSE - 1) >> low) + 1


def plainly_packed(items: list[int]) -> bytes:
    """Elias–Fano's form of ascending items, as two great numbers, bit by bit."""
    low, _buckets = widths(len(items))
    lower = upper = 0
    for at, item in enumerate(items):
        lower |= (item & ((1 << low) - 1)) << at * low
        upper |= 1 << (item >> low) + at
    return b"".join(number.to_bytes((bits + 7) // 8, "little") for number, bits in _sized(lower, upper, len(items)))


def plainly_read(count: int, packed: bytes) -> list[int] | None:
    """The items, or None when this is not the one form of that many."""
    if not 1 <= count <= _UNIVERSE:
        return None
    low, buckets = widths(count)
    cut = (count * low + 7) // 8
    if len(packed) != cut + (count + buckets + 7) // 8:
        return None
    lower, upper = int.from_bytes(packed[:cut], "little"), int.from_bytes(packed[cut:], "little")
    ones = [at for at, bit in enumerate(f"{upper:b}"[::-1]) if bit == "1"]
    if lower >> count * low or len(ones) != count or ones[-1] >= count + buckets - 1:
        return None
    items = [(one - at) << low | lower >> at * low & ((1 << low) - 1) for at, one in enumerate(ones)]
    return items if all(a < b for a, b in pairwise(items)) and items[-1] < _UNIVERSE else None


def _sized(lower: int, upper: int, count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Both numbers, with the bits that they take."""
    low, buckets = widths(count)
    return (lower, count * low), (upper, count + buckets)


def _check(data: bytes) -> str:
    mode, rest = mode_of(data, 2)
    if mode == SIGNED:
        numbers = {int.from_bytes(rest[at : at + 4], "big") % _UNIVERSE for at in range(0, len(rest), 4)}
        items = sorted(numbers)[:_ITEMS_MAX]
        if not items:
            return "empty"
        made = ItemSet.of(items)
        must(made.packed() == plainly_packed(items), "a set has one packed form")
        _ask(made, items)
        return f"made {len(items).bit_length()}"
    count, packed = int.from_bytes(rest[:4], "big"), rest[4:]
    wanted = plainly_read(count, packed)
    try:
        read = ItemSet.read(count, packed)
    except TrustMalformed as error:
        must(wanted is None, "a right packed form is read")
        return error.message
    must(wanted is not None, "a wrong packed form is refused")
    assert wanted is not None
    must(ItemSet.of(wanted) == read and read.packed() == packed, "a set has one packed form")
    _ask(read, wanted)
    return f"read {count.bit_length()}"


def _ask(items: ItemSet, wanted: list[int]) -> None:
    must(list(items) == wanted and len(items) == len(wanted), "the items come out again")
    held = set(wanted)
    near = {item + step for item in (*wanted[:20], *wanted[-20:]) for step in (-1, 0, 1)}
    for item in (*near, *_BORDERS, -1, _UNIVERSE):
        must((item in items) == (item in held), "membership is exact")


def _mutate(data: bytes, dice: Random) -> bytes:
    mode, rest = mode_of(data, 2)
    if mode == SIGNED or dice.random() < 0.3:
        items = _drawn(dice)
        if dice.random() < 0.5:
            return bytes([SIGNED]) + b"".join(map(_COUNT.pack, items))
        rest = _COUNT.pack(len(items)) + plainly_packed(sorted(set(items)))
    if dice.random() < 0.1:
        count = int.from_bytes(rest[:4], "big") + dice.choice((-1, 1, 2**31, 10**9))
        return bytes([RAW]) + _COUNT.pack(count % 2**32) + rest[4:]
    if dice.random() < 0.5:
        return bytes([RAW]) + _swapped(rest[:4], bytearray(rest[4:]), dice)
    return bytes([RAW]) + changed_bytes(rest, SEEDS, dice)


def _swapped(count: bytes, packed: bytearray, dice: Random) -> bytes:
    """With one to three pairs of bits exchanged, so that the number of ones may stay."""
    for _ in range(dice.randrange(1, 4) if packed else 0):
        a, b = dice.randrange(8 * len(packed)), dice.randrange(8 * len(packed))
        bit_a, bit_b = packed[a >> 3] >> (a & 7) & 1, packed[b >> 3] >> (b & 7) & 1
        if bit_a != bit_b:
            packed[a >> 3] ^= 1 << (a & 7)
            packed[b >> 3] ^= 1 << (b & 7)
    return count + bytes(packed)


def _drawn(dice: Random) -> list[int]:
    count = dice.choice((1, 1, 2, 3, 7, 8, 9, 20, 63, 64, 65, 130))
    start, span = dice.randrange(_UNIVERSE), 10 ** dice.randrange(10)
    return [
        dice.choice(_BORDERS) if dice.random() < 0.1 else min(start + dice.randrange(span), _UNIVERSE - 1)
        for _ in range(count)
    ]


SEEDS: Final = tuple(
    bytes([RAW]) + _COUNT.pack(len(items)) + plainly_packed(items)
    for items in (
        [0], [999_999_999], [0, 999_999_999], list(range(64)), list(range(999_999_900, 10**9)),
        [item * item for item in range(100)], [5 * 10**8 + item for item in range(200)],
    )
)  # fmt: skip
_PUBLISHED: Final = tuple(bytes([RAW]) + _COUNT.pack(n) + packed for n, packed in published.packed_items())
TARGET: Final = Target("item_set", (*SEEDS, *_PUBLISHED, bytes([SIGNED]) + bytes(range(32))), _mutate, _check)
