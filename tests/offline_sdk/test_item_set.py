from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk import ItemSet, TrustMalformed

LARGEST = 999_999_999


class Small(ItemSet):
    """A universe so small that all of it can be tried, and that sets fill it."""

    universe = 40
    __slots__ = ()


def packed_of(text: str) -> bytes:
    """Bits as they are counted, the lowest of the first byte first."""
    return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))


def packed_by_the_book(items: list[int], universe: int) -> bytes:
    """The form of docs/trust-bundle.md, written down naively, bit by bit."""
    low_bits = max(0, (universe // len(items)).bit_length() - 1)
    lower = "".join(f"{item % (1 << low_bits):b}"[::-1].ljust(low_bits, "0") for item in items) if low_bits else ""
    upper = ""
    for bucket in range(((universe - 1) >> low_bits) + 1):
        upper += "1" * sum(item >> low_bits == bucket for item in items) + "0"
    return b"".join(packed_of(part.ljust(-(-len(part) // 8) * 8, "0")) for part in (lower, upper))


# Sparse, dense, clustered and mixed: what is hard is long buckets, empty buckets, and the borders of slices and words.
anywhere = st.integers(0, LARGEST)
runs = st.tuples(anywhere, st.integers(1, 400), st.integers(1, 9)).map(lambda r: range(r[0], r[0] + r[1] * r[2], r[2]))
sets = st.builds(
    lambda single, spans: sorted({item for span in (single, *spans) for item in span if item <= LARGEST}),
    st.lists(anywhere, min_size=1, max_size=60),
    st.lists(runs, max_size=4),
)


def test_golden_form() -> None:
    # May never change: it stands in bundles that are signed. 28 low bits of each item, and the highs 0, 0 and 3.
    assert ItemSet.of([1, 2, LARGEST]).packed().hex() == "01000020000000ffc99a0b23"
    assert packed_by_the_book([1, 2, LARGEST], 10**9).hex() == "01000020000000ffc99a0b23"


@given(sets)
def test_set_is_read_back_and_knows_its_items(items: list[int]) -> None:
    made = ItemSet.of(items)
    read = ItemSet.read(len(items), made.packed())
    assert (list(read), len(read), read.packed()) == (items, len(items), made.packed())
    assert (read, hash(read)) == (made, hash(made))
    known = set(items)
    for near in known | {item - 1 for item in items} | {item + 1 for item in items} | {0, LARGEST}:
        assert (near in read) == (near in known)


@given(st.sets(st.integers(0, 39), min_size=1))
def test_form_is_that_of_the_description(chosen: set[int]) -> None:
    items = sorted(chosen)
    made = Small.of(items)
    assert made.packed() == packed_by_the_book(items, 40)
    assert [item in Small.read(len(items), made.packed()) for item in range(-1, 41)] == [
        item in chosen for item in range(-1, 41)
    ]


@given(st.integers(1, 40), st.data())
def test_small_universe_reads_only_the_one_form(count: int, data: st.DataObject) -> None:
    # Whatever is read is a set of so many items, and packing it again gives the same bytes.
    length = len(Small.of(range(count)).packed())
    packed = data.draw(st.binary(min_size=length, max_size=length))
    try:
        items = Small.read(count, packed)
    except TrustMalformed:
        return
    assert Small.of(list(items)).packed() == packed
    assert len(list(items)) == count


@given(st.sets(st.integers(0, 39), min_size=1), st.data())
def test_flipped_bit_never_gives_a_second_form(chosen: set[int], data: st.DataObject) -> None:
    packed = bytearray(Small.of(sorted(chosen)).packed())
    at = data.draw(st.integers(0, len(packed) * 8 - 1))
    packed[at // 8] ^= 1 << at % 8
    try:
        items = list(Small.read(len(chosen), bytes(packed)))
    except TrustMalformed:
        return
    assert items == sorted(set(items))
    assert Small.of(items).packed() == packed
    assert items != sorted(chosen)


@pytest.mark.parametrize(
    "items",
    [
        [0],
        [LARGEST],
        [0, LARGEST],
        range(100_000),
        range(LARGEST - 99_999, LARGEST + 1),
        range(0, 10**9, 10**4),
        [*range(70), *range(10**8, 10**8 + 70), LARGEST],
        range(5, 16_384 + 5),
        range(0, 3 * 16_385, 3),
    ],
    ids=str,
)
def test_borders_and_clusters(items: Any) -> None:
    read = ItemSet.read(len(items), ItemSet.of(items).packed())
    assert list(read) == list(items)
    assert all(item in read for item in items[:: max(1, len(items) // 1_000)])
    for absent in {items[0] - 1, items[-1] + 1, items[0] + 10**7 + 1, -1, 10**9, 10**12} - set(items):
        assert absent not in read


def test_whole_small_universe_has_no_low_bits() -> None:
    whole = Small.of(range(40))
    assert whole.packed() == packed_of("10" * 40)
    assert list(Small.read(40, whole.packed())) == list(range(40))
    with pytest.raises(TrustMalformed):
        Small.read(41, whole.packed())
    with pytest.raises(TrustMalformed, match="ascending"):
        # Item 0 twice: two ones in one bucket, none in the next.
        Small.read(40, packed_of("1100" + "10" * 38))


@pytest.mark.parametrize("items", [[], [1, 1], [2, 1], [0, 5, 5, 9], [-1, 4], [0, 10**9], [True, 2], [0, 1.0], [None]])
def test_only_ascending_items_are_packed(items: list[Any]) -> None:
    with pytest.raises(TrustMalformed):
        ItemSet.of(items)


@pytest.mark.parametrize("count", [0, -1, 1, 3, 10**9, 10**9 + 1, 2**64, True, 2.0, None, "2"], ids=repr)
def test_another_number_of_items_is_malformed(count: Any) -> None:
    with pytest.raises(TrustMalformed):
        ItemSet.read(count, ItemSet.of([1, 2]).packed())


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p[:-1],
        lambda p: p + b"\0",
        lambda p: b"",
        bytearray,
        lambda p: p.hex(),
        lambda p: None,
    ],
)
def test_packed_form_of_another_length_or_type_is_malformed(change: Callable[[bytes], Any]) -> None:
    with pytest.raises(TrustMalformed):
        ItemSet.read(3, change(ItemSet.of([1, 2, 3]).packed()))


# Of the 40 numbers: three items have 3 low bits each and 5 buckets, so 9 bits and 8; four have 12 bits and 9.
@pytest.mark.parametrize(
    ("count", "lower", "upper"),
    [
        pytest.param(3, "1000100010000001", "10110000", id="lower padding"),
        pytest.param(3, "1000100011000000", "10110000", id="first bit of the lower padding"),
        pytest.param(4, "1000100010110000", "1011000100000001", id="upper padding"),
        pytest.param(4, "1000100010110000", "1011000010000000", id="a one in the place of the last zero"),
        pytest.param(3, "1000100010000000", "10100000", id="an item too few"),
        pytest.param(3, "1000100010000000", "10111000", id="an item too many"),
        pytest.param(3, "1000100010000000", "10100001", id="an item behind the last bucket"),
        pytest.param(3, "1000100100000000", "10110000", id="the same item twice"),
        pytest.param(3, "1000010100000000", "10110000", id="items descending"),
    ],
)
def test_form_that_is_not_the_one_form_is_malformed(count: int, lower: str, upper: str) -> None:
    with pytest.raises(TrustMalformed):
        Small.read(count, packed_of(lower + upper))


def test_form_left_as_it_was_is_read() -> None:
    # The counterpart of the test above: it is the change that is refused there.
    assert list(Small.read(3, packed_of("1000100010000000" + "10110000"))) == [1, 10, 12]
    assert list(Small.read(4, packed_of("1000100010110000" + "1011000100000000"))) == [1, 10, 12, 38]


@pytest.mark.parametrize("item", [LARGEST + 1, 2**30 - 1])
def test_item_above_the_largest_is_malformed(item: int) -> None:
    assert list(ItemSet.read(1, packed_by_the_book([LARGEST], 10**9))) == [LARGEST]
    with pytest.raises(TrustMalformed):
        ItemSet.read(1, packed_by_the_book([item], 10**9))


@pytest.mark.parametrize("at", [0, 1, 6, 7, 8, 14, 15, 16, 16_374, 16_375, 16_382, 16_383, 16_390, 16_391, 19_998])
@pytest.mark.parametrize("descent", [0, 1])
def test_one_pair_out_of_order_among_many_is_found(at: int, descent: int) -> None:
    # 20,000 items have 15 low bits: a run of so many is one bucket. The pairs are at the borders of bytes and slices.
    packed = bytearray(ItemSet.of(range(1, 20_001)).packed())
    lower = int.from_bytes(packed[: 20_000 * 15 // 8], "little")
    lower += (at + 1 - descent - (at + 2)) << (at + 1) * 15
    packed[: 20_000 * 15 // 8] = lower.to_bytes(20_000 * 15 // 8, "little")
    with pytest.raises(TrustMalformed, match="ascending"):
        ItemSet.read(20_000, bytes(packed))


def test_low_bits_may_fall_from_one_bucket_to_the_next() -> None:
    # All but the first of each bucket are above the one before by their high bits alone.
    items = [high << 15 | 32_767 - high for high in range(20_000)]
    assert list(ItemSet.read(20_000, ItemSet.of(items).packed())) == items


def test_sets_differ_when_their_items_do() -> None:
    assert ItemSet.of([1, 2]) != ItemSet.of([1, 3])
    assert ItemSet.of([1]) != (1,)
    assert len({ItemSet.of([1, 2]), ItemSet.of((1, 2)), ItemSet.of([3])}) == 2
