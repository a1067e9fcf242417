"""Revocation: the keys, order ranges and items that a trust bundle withdraws, and whether a code is among them."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from . import strict
from .code_text import KID_MAX, ORDER_MAX, CodeText
from .errors import TrustMalformed
from .item_set import ItemSet

REVOKED_KEYS_MAX: Final = 10_000
REVOKED_ORDER_RANGES_MAX: Final = 100_000
REVOKED_ITEMS_MAX: Final = 4_000_000
"""Items in one bundle, over all orders together."""


@dataclass(frozen=True, slots=True, order=True)
class OrderRange:
    """All items of one GTIN's orders from `order_min` to `order_max`, both included, 0..99999."""

    gtin: str
    order_min: int
    order_max: int

    def __post_init__(self) -> None:
        strict.check_gtin(self.gtin, "a revoked order range's GTIN")
        strict.check_int(self.order_min, "a revoked order range's order_min", 0, ORDER_MAX)
        strict.check_int(self.order_max, "a revoked order range's order_max", self.order_min, ORDER_MAX)


@dataclass(frozen=True, slots=True)
class RevokedItems:
    """Single items of one order."""

    gtin: str
    order: int
    items: ItemSet

    def __post_init__(self) -> None:
        strict.check_gtin(self.gtin, "a revoked item's GTIN")
        strict.check_int(self.order, "a revoked item's order", 0, ORDER_MAX)
        if type(self.items) is not ItemSet:
            raise TrustMalformed("revoked item numbers are not an ItemSet")


@dataclass(frozen=True, slots=True)
class Revocations:
    """What a trust bundle withdraws, in the one order that its encoding allows; anything else raises TrustMalformed.

    `keys` are key numbers, ascending; `orders` ascend by GTIN and order and do not overlap; `items` ascend by GTIN and
    order. `collect` makes one from unsorted material.
    """

    keys: tuple[int, ...] = ()
    orders: tuple[OrderRange, ...] = ()
    items: tuple[RevokedItems, ...] = ()

    def __post_init__(self) -> None:
        strict.check_tuple_of(self.keys, int, "revoked keys", 0, REVOKED_KEYS_MAX)
        strict.check_ascending(self.keys, "revoked keys")
        for kid in self.keys:
            strict.check_int(kid, "a revoked key number", 0, KID_MAX)
        strict.check_tuple_of(self.orders, OrderRange, "revoked order ranges", 0, REVOKED_ORDER_RANGES_MAX)
        if any(b.gtin < a.gtin or (b.gtin == a.gtin and b.order_min <= a.order_max) for a, b in pairwise(self.orders)):
            raise TrustMalformed("revoked order ranges are not in ascending order or overlap; use Revocations.collect")
        strict.check_tuple_of(self.items, RevokedItems, "revoked items", 0, REVOKED_ITEMS_MAX)
        strict.check_ascending([(group.gtin, group.order) for group in self.items], "revoked items")
        if sum(len(group.items) for group in self.items) > REVOKED_ITEMS_MAX:
            raise TrustMalformed(f"more than {REVOKED_ITEMS_MAX} revoked items; revoke their orders instead")

    @classmethod
    def collect(
        cls,
        keys: Iterable[int] = (),
        orders: Iterable[tuple[str, int, int]] = (),
        items: Iterable[tuple[str, int, int]] = (),
    ) -> Self:
        """Sort, merge and deduplicate: `orders` as (gtin, order_min, order_max), `items` as (gtin, order, item)."""
        merged: list[OrderRange] = []
        for wanted in sorted(OrderRange(*order) for order in orders):
            last = merged[-1] if merged else None
            if last is not None and last.gtin == wanted.gtin and wanted.order_min <= last.order_max + 1:
                merged[-1] = OrderRange(last.gtin, last.order_min, max(last.order_max, wanted.order_max))
            else:
                merged.append(wanted)
        groups: dict[tuple[str, int], set[int]] = {}
        for gtin, order, item in items:
            groups.setdefault((gtin, order), set()).add(item)
        return cls(
            keys=tuple(sorted(set(keys))),
            orders=tuple(merged),
            items=tuple(RevokedItems(*group, ItemSet.of(sorted(groups[group]))) for group in sorted(groups)),
        )


class RevocationIndex:
    """Revocations arranged for asking: exact answers, in logarithmic time, from the bundle's own content."""

    def __init__(self, revocations: Revocations) -> None:
        self._keys = frozenset(revocations.keys)
        self._orders: dict[str, tuple[list[int], list[int]]] = {}
        for span in revocations.orders:
            starts, ends = self._orders.setdefault(span.gtin, ([], []))
            starts.append(span.order_min)
            ends.append(span.order_max)
        self._items = {(group.gtin, group.order): group.items for group in revocations.items}

    def what_is_revoked(self, code: CodeText) -> str | None:
        """Return what of this code was revoked, "key", "order" or "item" (the widest that applies), or None."""
        if code.kid in self._keys:
            return "key"
        # Most bundles revoke nothing: then no digit of the serial need be read.
        if self._orders and self._order_is_revoked(code.gtin, code.order):
            return "order"
        if self._items and self._item_is_revoked(code.gtin, code.order, code.item_number):
            return "item"
        return None

    def _order_is_revoked(self, gtin: str, order: int) -> bool:
        starts, ends = self._orders.get(gtin, ([], []))
        at = bisect_right(starts, order) - 1
        return at >= 0 and order <= ends[at]

    def _item_is_revoked(self, gtin: str, order: int, item: int) -> bool:
        items = self._items.get((gtin, order))
        return items is not None and item in items
