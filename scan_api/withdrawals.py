"""Withdrawals: what the orders themselves say that scanners must refuse, beside the issuer's revocations."""

from typing import Final

from sqlmodel import col, select

from codes import ranges
from codes.orders import CodeOrder, OrderState, scheme_of_order
from kit.db import Session
from kit.vault import Vault
from signer.publication import Withdrawn

VOIDED_ITEMS_MAX: Final = 1_000_000
"""Voided items in one bundle. An issuer's revocations must never find it full of spoiled labels."""


async def withdrawn(session: Session, vault: Vault) -> Withdrawn:
    """Recalled and wholly voided orders, and of the others each voided item.

    A voided range is a run of issue indexes, and serials hide those: so scanners are told item numbers. Orders whose
    voided items do not fit any more, the largest first, are named in `left_out`. Raises SerialKeyMissing.
    """
    whole: list[tuple[str, int, int]] = []
    parts: list[tuple[int, CodeOrder, list[ranges.IndexRange]]] = []
    for order in (await session.exec(select(CodeOrder).order_by(col(CodeOrder.order_id)))).all():
        voided = await ranges.voided(session, order) if order.has_ranges else []
        count = sum(one.items for one in voided)
        if order.state == OrderState.RECALLED or count == order.quantity:
            whole.append((order.gtin, order.order_number, order.order_number))
        elif voided:
            parts.append((count, order, voided))
    items: list[tuple[str, int, int]] = []
    left_out: list[tuple[str, int]] = []
    for count, order, voided in sorted(parts, key=lambda part: part[0]):
        if len(items) + count > VOIDED_ITEMS_MAX:
            left_out.append((order.gtin, order.order_number))
            continue
        scheme = await scheme_of_order(session, vault, order)
        for one in voided:
            numbers = scheme.item_numbers(order.gtin, order.order_number, one.first, one.items)
            items += [(order.gtin, order.order_number, number) for number in numbers.tolist()]
    return Withdrawn(tuple(whole), tuple(items), tuple(left_out))
