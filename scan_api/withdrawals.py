"""Withdrawals: what the orders themselves say that scanners must refuse, beside the issuer's revocations."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sqlalchemy import and_, or_
from sqlmodel import col, select

from codes.catalogue import Brand, Product
from codes.orders import CodeOrder, OrderState
from codes.ranges import IndexRange, ItemState, Layer, OrderRange, merged
from codes.serials import SerialScheme, scheme_of
from kit.db import Session
from kit.vault import Vault
from scan_api.life_acts import OfLot, OfOrder, of_lot, placed
from scan_api.provenance import packed
from scan_api.provenance.life import LifeMark, MarkKind
from signer.publication import Withdrawn

VOIDED_ITEMS_MAX: Final = 1_000_000
"""Voided items in one bundle. An issuer's revocations must never find it full of spoiled labels."""


@dataclass(slots=True)
class _Found:
    """An order of which something is withdrawn."""

    order: CodeOrder
    issuer_id: int
    voided: list[IndexRange] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(one.items for one in self.voided)

    @property
    def is_whole(self) -> bool:
        return self.order.state == OrderState.RECALLED or self.count == self.order.quantity


# One statement for all orders, however many: a row for each voided range, and one for a recalled order without any.
_WITHDRAWN = (
    select(CodeOrder, Brand.issuer_id, OrderRange.first_index, OrderRange.last_index)
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


_MARKS = (
    select(LifeMark, Brand.issuer_id)
    .join(Brand, col(Brand.brand_id) == col(LifeMark.brand_id))
    .where(col(LifeMark.lifted_at).is_(None), col(LifeMark.kind).in_([MarkKind.RECALLED.value, MarkKind.VOIDED.value]))
    .order_by(col(LifeMark.mark_id))
)


async def withdrawn(session: Session, vault: Vault) -> Withdrawn:
    """Recalled and wholly voided orders, and of the others each item that is voided, or that a mark recalls or voids.

    A voided range is a run of issue indexes, and serials hide those: so scanners are told item numbers. Orders whose
    voided items do not fit any more, the largest first, are named in `left_out`. Raises SerialKeyMissing.
    """
    found: dict[int | None, _Found] = {}
    for order, issuer_id, first, last in await session.exec(_WITHDRAWN):
        one = found.setdefault(order.order_id, _Found(order, issuer_id))
        if first is not None:
            one.voided.append(IndexRange(first, last))
    schemes: dict[int, SerialScheme] = {}
    for target, issuer_id in await _marked(session, vault, schemes):
        reached = found.setdefault(target.order.order_id, _Found(target.order, issuer_id))
        reached.voided = merged([*reached.voided, *target.spans])
    whole = [one.order for one in found.values() if one.is_whole]
    parts = sorted((one for one in found.values() if not one.is_whole), key=lambda one: one.count)
    items: list[tuple[str, int, int]] = []
    left_out: list[tuple[str, int]] = []
    for part in parts:
        gtin, number = part.order.gtin, part.order.order_number
        if len(items) + part.count > VOIDED_ITEMS_MAX:
            left_out.append((gtin, number))
            continue
        scheme = await _scheme(session, vault, part.issuer_id, schemes)
        indexes = np.concatenate([np.arange(span.first, span.last + 1, dtype=np.int64) for span in part.voided])
        items += [(gtin, number, item) for item in scheme.item_numbers_of(gtin, number, indexes).tolist()]
    orders = tuple((order.gtin, order.order_number, order.order_number) for order in whole)
    return Withdrawn(orders, tuple(items), tuple(left_out))


async def _scheme(session: Session, vault: Vault, issuer_id: int, known: dict[int, SerialScheme]) -> SerialScheme:
    if issuer_id not in known:
        known[issuer_id] = await scheme_of(session, vault, issuer_id)
    return known[issuer_id]


async def _marked(session: Session, vault: Vault, schemes: dict[int, SerialScheme]) -> list[tuple[OfOrder, int]]:
    """What marks recall or void, by order, with each order's issuer. What is held is not told: it may be let go."""
    reached: list[tuple[OfOrder, int]] = []
    for mark, issuer_id in (await session.exec(_MARKS)).all():
        kind, _, rest = mark.subject.partition(":")
        if kind == "order":
            order = await session.get_one(CodeOrder, int(rest))
            reached.append((OfOrder(order, [IndexRange(mark.first_index, mark.last_index)]), issuer_id))
            continue
        scheme = await _scheme(session, vault, issuer_id, schemes)
        if kind == "lot":
            gtin, _, lot = rest.partition("/")
            told = await of_lot(session, mark.brand_id, scheme, OfLot(gtin, lot), VOIDED_ITEMS_MAX + 1)
        else:
            inside = await packed.ever_inside(session, mark.brand_id, [mark.subject], mark.at, VOIDED_ITEMS_MAX + 1)
            told = await placed(session, mark.brand_id, scheme, [mark.subject, *inside])
        reached += [(one, issuer_id) for one in told]
    return reached
