"""Withdrawals: what the orders themselves say that scanners must refuse, beside the issuer's revocations."""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import and_, or_
from sqlmodel import col, select

from codes.catalogue import Brand, Product
from codes.orders import CodeOrder, OrderState
from codes.ranges import IndexRange, ItemState, Layer, OrderRange
from codes.serials import SerialScheme, scheme_of
from kit.db import Session
from kit.vault import Vault
from signer.publication import Withdrawn

VOIDED_ITEMS_MAX: Final = 1_000_000
"""Voided items in one bundle. An issuer's revocations must never find it full of spoiled labels."""


@dataclass(slots=True)
class _Order:
    """What is withdrawn of an order."""

    gtin: str
    number: int
    issuer_id: int
    quantity: int
    recalled: bool
    voided: list[IndexRange] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(one.items for one in self.voided)

    @property
    def is_whole(self) -> bool:
        return self.recalled or self.count == self.quantity


# One statement for all orders, however many: a row for each voided range, and one for a recalled order without any.
_WITHDRAWN = (
    select(
        CodeOrder.order_id,
        CodeOrder.gtin,
        CodeOrder.order_number,
        Brand.issuer_id,
        CodeOrder.quantity,
        CodeOrder.state,
        OrderRange.first_index,
        OrderRange.last_index,
    )
    .join(Product, col(Product.gtin) == col(CodeOrder.gtin))
    .join(Brand, col(Brand.brand_id) == col(Product.brand_id))
    .outerjoin(
        OrderRange,
        and_(
            col(OrderRange.order_id) == col(CodeOrder.order_id),
            col(OrderRange.layer) == Layer.STATE.value,
            col(OrderRange.value) == ItemState.VOIDED.value,
        ),
    )
    .where(or_(col(CodeOrder.state) == OrderState.RECALLED.value, col(OrderRange.order_id).is_not(None)))
    .order_by(col(CodeOrder.order_id), col(OrderRange.first_index))
)


async def withdrawn(session: Session, vault: Vault) -> Withdrawn:
    """Recalled and wholly voided orders, and of the others each voided item.

    A voided range is a run of issue indexes, and serials hide those: so scanners are told item numbers. Orders whose
    voided items do not fit any more, the largest first, are named in `left_out`. Raises SerialKeyMissing.
    """
    found = await _orders(session)
    whole = [(order.gtin, order.number, order.number) for order in found if order.is_whole]
    parts = sorted((order for order in found if not order.is_whole), key=lambda order: order.count)
    items: list[tuple[str, int, int]] = []
    left_out: list[tuple[str, int]] = []
    schemes: dict[int, SerialScheme] = {}
    for order in parts:
        if len(items) + order.count > VOIDED_ITEMS_MAX:
            left_out.append((order.gtin, order.number))
            continue
        if order.issuer_id not in schemes:
            schemes[order.issuer_id] = await scheme_of(session, vault, order.issuer_id)
        for one in order.voided:
            numbers = schemes[order.issuer_id].item_numbers(order.gtin, order.number, one.first, one.items)
            items += [(order.gtin, order.number, number) for number in numbers.tolist()]
    return Withdrawn(tuple(whole), tuple(items), tuple(left_out))


async def _orders(session: Session) -> list[_Order]:
    """The orders of which anything is withdrawn, oldest first."""
    found: dict[int | None, _Order] = {}
    for order_id, gtin, number, issuer_id, quantity, state, first, last in (await session.exec(_WITHDRAWN)).all():
        recalled = state == OrderState.RECALLED
        order = found.setdefault(order_id, _Order(gtin, number, issuer_id, quantity, recalled))
        if first is not None and not recalled:
            order.voided.append(IndexRange(first, last))
    return list(found.values())
