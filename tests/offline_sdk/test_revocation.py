from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk import CodeText, ItemSet, OrderRange, Profile, Revocations, RevokedItems, TrustMalformed, revocation
from offline_sdk.revocation import RevocationIndex

GTIN = "06901234567892"
OTHER_GTIN = "09506000134352"


def items(*numbers: int) -> ItemSet:
    return ItemSet.of(numbers)


def code(kid: int = 1, gtin: str = GTIN, order: int = 1, item: int = 1) -> CodeText:
    return CodeText(Profile.OUTER, kid, gtin, f"{order:05d}{item:09d}", bytes(64))


def test_collecting_sorts_merges_and_deduplicates() -> None:
    collected = Revocations.collect(
        keys=[9, 3, 9],
        orders=[(OTHER_GTIN, 1, 1), (GTIN, 7, 9), (GTIN, 1, 3), (GTIN, 2, 5), (GTIN, 6, 6), (GTIN, 20, 20)],
        items=[(GTIN, 2, 5), (GTIN, 1, 9), (GTIN, 1, 3), (GTIN, 1, 9), (OTHER_GTIN, 1, 0)],
    )
    assert collected == Revocations(
        keys=(3, 9),
        orders=(OrderRange(GTIN, 1, 9), OrderRange(GTIN, 20, 20), OrderRange(OTHER_GTIN, 1, 1)),
        items=(
            RevokedItems(GTIN, 1, items(3, 9)),
            RevokedItems(GTIN, 2, items(5)),
            RevokedItems(OTHER_GTIN, 1, items(0)),
        ),
    )


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: Revocations(keys=tuple(range(n))), revocation.REVOKED_KEYS_MAX),
        (lambda n: Revocations(keys=(n,)), 99_999),
        (lambda n: RevokedItems(GTIN, n, items(1)), 99_999),
        (lambda n: OrderRange(GTIN, 0, n), 99_999),
        (lambda n: OrderRange(GTIN, n, 99_999), 99_999),
    ],
)
def test_limit_is_met_exactly(make: Callable[[int], object], limit: int) -> None:
    make(limit - 1)
    make(limit)
    with pytest.raises(TrustMalformed):
        make(limit + 1)


def test_revoked_order_ranges_are_at_most_100_000() -> None:
    # One GTIN has only 100,000 order numbers, so a second one is needed to pass the limit.
    spans = [OrderRange(GTIN, order, order) for order in range(revocation.REVOKED_ORDER_RANGES_MAX)]
    Revocations(orders=tuple(spans[1:]))
    Revocations(orders=tuple(spans))
    with pytest.raises(TrustMalformed):
        Revocations(orders=(*spans, OrderRange(OTHER_GTIN, 0, 0)))


def test_revoked_items_are_at_most_four_million_over_all_orders() -> None:
    many = ItemSet.of(range(revocation.REVOKED_ITEMS_MAX // 40))
    groups = tuple(RevokedItems(GTIN, order, many) for order in range(40))
    one_less = RevokedItems(GTIN, 39, ItemSet.of(range(1, len(many))))
    Revocations(items=(*groups[:-1], one_less))
    Revocations(items=groups)
    with pytest.raises(TrustMalformed, match="more than 4000000"):
        Revocations(items=(*groups, RevokedItems(GTIN, 40, items(7))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RevokedItems(GTIN, 1, (1, 2)),  # type: ignore[arg-type]
        lambda: RevokedItems(GTIN, -1, items(1)),
        lambda: RevokedItems("06901234567893", 1, items(1)),
        lambda: OrderRange(GTIN, 5, 4),
        lambda: OrderRange("06901234567893", 1, 1),
        lambda: Revocations(keys=(2, 1)),
        lambda: Revocations(keys=(1, 1)),
        lambda: Revocations(keys=(True,)),
        lambda: Revocations(keys=[1]),  # type: ignore[arg-type]
        lambda: Revocations(orders=(OrderRange(GTIN, 1, 3), OrderRange(GTIN, 3, 4))),
        lambda: Revocations(orders=(OrderRange(GTIN, 3, 3), OrderRange(GTIN, 1, 1))),
        lambda: Revocations(items=(RevokedItems(GTIN, 1, items(1)), RevokedItems(GTIN, 1, items(2)))),
        lambda: Revocations(items=(RevokedItems(GTIN, 2, items(1)), RevokedItems(GTIN, 1, items(2)))),
    ],
)
def test_field_out_of_range_or_order_is_malformed(make: Callable[[], Any]) -> None:
    with pytest.raises(TrustMalformed):
        make()


def test_neighbouring_ranges_may_stay_apart() -> None:
    assert len(Revocations(orders=(OrderRange(GTIN, 1, 3), OrderRange(GTIN, 4, 4))).orders) == 2


def test_widest_revocation_that_applies_is_told() -> None:
    index = RevocationIndex(
        Revocations.collect(keys=[9], orders=[(GTIN, 3, 5)], items=[(GTIN, 5, 1), (GTIN, 6, 1), (GTIN, 6, 999_999_999)])
    )
    assert index.what_is_revoked(code(kid=9, order=3)) == "key"
    assert [index.what_is_revoked(code(order=order)) for order in (2, 3, 5, 6, 7)] == [
        None, "order", "order", "item", None,
    ]  # fmt: skip
    assert [index.what_is_revoked(code(order=6, item=item)) for item in (0, 2, 999_999_998, 999_999_999)] == [
        None, None, None, "item",
    ]  # fmt: skip
    assert index.what_is_revoked(code(gtin=OTHER_GTIN, order=3)) is None
    assert index.what_is_revoked(code(gtin=OTHER_GTIN, order=6)) is None


few = st.integers(0, 12)
gtins = st.sampled_from([GTIN, OTHER_GTIN])
spans = st.tuples(gtins, few, few).map(lambda span: (span[0], min(span[1:]), max(span[1:])))


@given(st.lists(few), st.lists(spans), st.lists(st.tuples(gtins, few, few)), few, gtins, few, few)
def test_answers_are_those_of_the_plain_lists(
    keys: list[int], orders: list[tuple[str, int, int]], singles: list[tuple[str, int, int]],
    kid: int, gtin: str, order: int, item: int,
) -> None:  # fmt: skip
    wanted = None
    if kid in keys:
        wanted = "key"
    elif any(span[0] == gtin and span[1] <= order <= span[2] for span in orders):
        wanted = "order"
    elif (gtin, order, item) in singles:
        wanted = "item"
    index = RevocationIndex(Revocations.collect(keys, orders, singles))
    assert index.what_is_revoked(code(kid, gtin, order, item)) == wanted
