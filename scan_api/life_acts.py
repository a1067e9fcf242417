"""Life acts: a brand activates, holds, lets go, recalls or voids items, ranges, lots, orders or whole containers.

What concerns an order and its ranges for good is kept with the order (`codes.ranges`, `codes.orders`); everything else
is a mark (`provenance.life`). Each act is written down in the same transaction (`codes.acts`).
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlmodel import col, func, select

from codes import ranges
from codes.acts import record_act, record_brand_act
from codes.catalogue import Product, ProductUnknown, product_with
from codes.orders import CodeOrder
from codes.ranges import RANGES_PER_CALL_MAX, IndexRange, Layer, OrderRange
from codes.serials import ITEM_NUMBERS, SerialScheme
from kit import locks
from kit.db import Session
from kit.errors import Conflict, Invalid
from kit.ids import new_id
from offline_sdk.code_text import ORDER_DIGITS
from scan_api import serial_life
from scan_api.provenance import life, lots, packed
from scan_api.provenance.events import CLOCK_AHEAD_MAX, EARLIEST, Happening, Step
from scan_api.provenance.life import (
    MESSAGE_CHARACTERS_MAX,
    LifeMark,
    MarkKind,
    Reason,
    lot_subject,
    order_subject,
)
from scan_api.provenance.lots import ItemLot

MARKS_PER_BRAND_MAX = 100_000
"""That last at the same time."""
ACTIVATED_THINGS_MAX = 100_000
"""Of one container, or bound to a lot item by item."""

_ITEM = re.compile(r"https://id\.gs1\.org/01/([0-9]{14})/21/([0-9]{14})")


class LifeInvalid(Invalid):
    """The act makes no sense for what it names."""

    code = "LifeInvalid"


class MarksUsedUp(Conflict):
    code = "MarksUsedUp"


class LifeAct(StrEnum):
    """What a brand does."""

    ACTIVATE = "activate"
    HOLD = "hold"
    LIFT = "lift"
    RECALL = "recall"
    VOID = "void"


_KIND = {LifeAct.HOLD: MarkKind.HELD, LifeAct.RECALL: MarkKind.RECALLED, LifeAct.VOID: MarkKind.VOIDED}
_WRITTEN = {
    LifeAct.ACTIVATE: "activated",
    LifeAct.HOLD: "held",
    LifeAct.LIFT: "lifted",
    LifeAct.RECALL: "recalled",
    LifeAct.VOID: "voided",
}
"""The kinds of the acts that are written down."""
_BOUND = "lot_bound"
KINDS = (*_WRITTEN.values(), _BOUND)
"""Of all acts of a life."""


@dataclass(frozen=True, slots=True)
class OfOrder:
    """An order of the brand's, or ranges of it."""

    order: CodeOrder
    parts: Sequence[IndexRange] | None = None

    @property
    def spans(self) -> Sequence[IndexRange]:
        return self.parts if self.parts is not None else [IndexRange(0, self.order.quantity - 1)]


@dataclass(frozen=True, slots=True)
class OfLot:
    """A lot of one of the brand's products."""

    gtin: str
    lot: str


@dataclass(frozen=True, slots=True)
class OfThing:
    """An item or a container, by its one name (`things.name_of`)."""

    name: str


Target = OfOrder | OfLot | OfThing


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be done, why, since when, and by whom. `message` is what shoppers are told, 1 to 500 characters."""

    act: LifeAct
    reason: Reason
    message: str | None
    at: datetime
    by: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """`items`: how many changed, where that is known without looking through containers; `marks` that were set or
    lifted.
    """

    items: int | None
    marks: int


def check(wish: Wish, now: datetime) -> None:
    """Raises LifeInvalid."""
    message = wish.message
    if message is not None and not 1 <= len(message.strip()) <= MESSAGE_CHARACTERS_MAX:
        raise LifeInvalid(f"a message has 1 to {MESSAGE_CHARACTERS_MAX} characters")
    if wish.act is LifeAct.RECALL and message is None:
        raise LifeInvalid("a recall tells shoppers why", hint="Give a message.")
    if wish.at.tzinfo is None or not EARLIEST <= wish.at <= now + CLOCK_AHEAD_MAX:
        raise LifeInvalid(f"an act's time has a zone, is not in the future and not before {EARLIEST.year}")


async def act(session: Session, brand_id: int, scheme: SerialScheme, target: Target, wish: Wish, now: datetime) -> Done:
    """Do it, and write it down.

    Raises LifeInvalid, MarksUsedUp, and what `codes.ranges`, `codes.orders` and `serial_life` raise.
    """
    check(wish, now)
    await locks.change(session, locks.key_of("life", brand_id))
    if wish.act in (LifeAct.ACTIVATE, LifeAct.VOID) and isinstance(target, OfThing):
        target = await own_item(session, brand_id, scheme, target) or target
    if wish.act is LifeAct.ACTIVATE:
        chosen = [target] if isinstance(target, OfOrder) else await _inside(session, brand_id, scheme, target, wish.at)
        return Done(sum([await _change(session, one, Step.ACTIVATED, wish, now) for one in chosen]), 0)
    if isinstance(target, OfOrder) and wish.act is LifeAct.VOID:
        return Done(await _change(session, replace(target, parts=target.spans), Step.VOIDED, wish, now), 0)
    if isinstance(target, OfOrder) and wish.act is LifeAct.RECALL and target.parts is None:
        return Done(await serial_life.recall(session, target.order, wish.message or "", wish.by, now), 0)
    if wish.act is LifeAct.LIFT:
        marks = await _lift(session, brand_id, target, wish)
    else:
        marks = await _mark(session, brand_id, target, wish)
    if marks:
        await _write_down(session, brand_id, target, wish, now)
    items = sum(span.items for span in target.spans) if isinstance(target, OfOrder) and marks else None
    return Done(items, marks)


async def bind_lot(
    session: Session,
    brand_id: int,
    target: OfOrder,
    lot: str,
    produced_on: date | None,
    expires_on: date | None,
    by: str | None,
    now: datetime,
) -> int:
    """Bind an order or ranges of it to a lot (`lots.bind`), and write it down; how many items were not of it."""
    changed = await lots.bind(session, brand_id, target.order, target.spans, lot, produced_on, expires_on)
    items = sum(span.items for span in changed)
    detail = {"lot": lot, "ranges": ranges.written(target.spans), "items": items}
    dates = {"produced_on": produced_on, "expires_on": expires_on}
    detail |= {name: day.isoformat() for name, day in dates.items() if day is not None}
    await record_act(session, target.order.order_id or 0, _BOUND, by, detail, now)
    return items


async def require_product(session: Session, brand_id: int, gtin: str) -> None:
    """Raises ProductUnknown unless the brand has a product of this GTIN."""
    product = await product_with(session, gtin)
    if product.brand_id != brand_id:
        raise ProductUnknown(f"there is no product with GTIN {gtin}")


async def _change(session: Session, target: OfOrder, step: Step, wish: Wish, now: datetime) -> int:
    happening = Happening(step, wish.at, None, wish.by)
    detail = {"reason": wish.reason.value, **({"message": wish.message} if wish.message else {})}
    parts = target.parts
    if parts is None:
        return (await serial_life.change(session, target.order, None, happening, now, detail)).items
    items = 0
    for start in range(0, len(parts), RANGES_PER_CALL_MAX):
        some = parts[start : start + RANGES_PER_CALL_MAX]
        items += (await serial_life.change(session, target.order, some, happening, now, detail)).items
    return items


def _subject(target: Target) -> str:
    if isinstance(target, OfOrder):
        return order_subject(target.order.order_id or 0)
    return target.name if isinstance(target, OfThing) else lot_subject(target.gtin, target.lot)


def _spans(target: Target) -> Sequence[IndexRange]:
    return ranges.merged(target.spans) if isinstance(target, OfOrder) else [IndexRange(0, ITEM_NUMBERS - 1)]


async def _mark(session: Session, brand_id: int, target: Target, wish: Wish) -> int:
    """Set a mark for each span that has none like it; how many. Claims on their way are waited for."""
    kind = _KIND[wish.act]
    held = [IndexRange(mark.first_index, mark.last_index) for mark in await _lasting(session, brand_id, target, kind)]
    spans = ranges.without(_spans(target), ranges.merged(held))
    count = select(func.count()).where(LifeMark.brand_id == brand_id, col(LifeMark.lifted_at).is_(None))
    if (await session.exec(count)).one() + len(spans) > MARKS_PER_BRAND_MAX:
        raise MarksUsedUp(
            f"a brand has at most {MARKS_PER_BRAND_MAX:,} marks that last", hint="Mark a lot, an order or a container."
        )
    if spans:
        await locks.change(session, life.lock_of(brand_id))
    for span in spans:
        session.add(_new(brand_id, _subject(target), span, kind, wish))
    await session.flush()
    return len(spans)


def _new(brand_id: int, subject: str, span: IndexRange, kind: MarkKind, wish: Wish) -> LifeMark:
    return LifeMark(
        brand_id=brand_id,
        mark_id=new_id(),
        subject=subject,
        first_index=span.first,
        last_index=span.last,
        kind=kind,
        reason=wish.reason,
        message=wish.message,
        at=wish.at,
        by=wish.by,
    )


async def _lasting(session: Session, brand_id: int, target: Target, kind: MarkKind) -> Sequence[LifeMark]:
    rows = select(LifeMark).where(
        LifeMark.brand_id == brand_id,
        LifeMark.subject == _subject(target),
        LifeMark.kind == kind.value,
        col(LifeMark.lifted_at).is_(None),
    )
    return (await session.exec(rows)).all()


async def _lift(session: Session, brand_id: int, target: Target, wish: Wish) -> int:
    """Let go what a mark on this very target holds; of an order's mark that reaches further, the rest stays."""
    spans, lifted = _spans(target), 0
    for mark in await _lasting(session, brand_id, target, MarkKind.HELD):
        whole = IndexRange(mark.first_index, mark.last_index)
        rest = ranges.without([whole], spans)
        if rest == [whole]:
            continue
        mark.lifted_at, mark.lifted_by = max(wish.at, mark.at), wish.by
        lifted += 1
        again = replace(wish, reason=Reason(mark.reason), message=mark.message, at=mark.at, by=mark.by)
        for span in rest:
            session.add(_new(brand_id, mark.subject, span, MarkKind.HELD, again))
    await session.flush()
    return lifted


async def _write_down(session: Session, brand_id: int, target: Target, wish: Wish, now: datetime) -> uuid.UUID:
    detail: dict[str, Any] = {"reason": wish.reason.value, "since": wish.at.isoformat()}
    if wish.message:
        detail["message"] = wish.message
    kind = _WRITTEN[wish.act]
    if isinstance(target, OfOrder):
        detail["ranges"] = ranges.written(target.spans)
        return await record_act(session, target.order.order_id or 0, kind, wish.by, detail, now)
    return await record_brand_act(session, brand_id, kind, wish.by, {"subject": _subject(target), **detail}, now)


async def own_item(session: Session, brand_id: int, scheme: SerialScheme, target: OfThing) -> OfOrder | None:
    """The item's place in its order; None for what is no item of the brand's."""
    found = await placed(session, brand_id, scheme, [target.name])
    return found[0] if found else None


async def placed(session: Session, brand_id: int, scheme: SerialScheme, names: Sequence[str]) -> list[OfOrder]:
    """The places in their orders of those of these things that are items of the brand's, an order each."""
    numbers: dict[tuple[str, int], list[int]] = {}
    for name in names:
        if (item := _ITEM.fullmatch(name)) is not None:
            key = item[1], int(item[2][:ORDER_DIGITS])
            numbers.setdefault(key, []).append(int(item[2][ORDER_DIGITS:]))
    found = []
    for (gtin, number), items in sorted(numbers.items()):
        rows = (
            select(CodeOrder)
            .join(Product, col(CodeOrder.gtin) == Product.gtin)
            .where(CodeOrder.gtin == gtin, CodeOrder.order_number == number, Product.brand_id == brand_id)
        )
        order = (await session.exec(rows)).first()
        if order is None:
            continue
        indexes = [scheme.issue_index(gtin, number, one) for one in items]
        spans = ranges.merged([IndexRange(index, index) for index in indexes if index < order.quantity])
        if spans:
            found.append(OfOrder(order, spans))
    return found


async def _inside(
    session: Session, brand_id: int, scheme: SerialScheme, target: OfLot | OfThing, at: datetime
) -> list[OfOrder]:
    """What of the brand's orders is in a container now, or bound to a lot."""
    if isinstance(target, OfThing):
        contents = await packed.contents_of(session, brand_id, target.name, at, ACTIVATED_THINGS_MAX)
        if contents.is_cut:
            raise LifeInvalid(f"the container has more than {ACTIVATED_THINGS_MAX:,} things", hint="Name smaller ones.")
        return await placed(session, brand_id, scheme, [one.child for one in contents.things])
    return await of_lot(session, brand_id, scheme, target)


async def of_lot(
    session: Session, brand_id: int, scheme: SerialScheme, lot: OfLot, limit: int = ACTIVATED_THINGS_MAX
) -> list[OfOrder]:
    """What of the brand's orders is bound to a lot, by range, and by item as far as `limit` reaches."""
    rows = (
        select(CodeOrder, OrderRange.first_index, OrderRange.last_index)
        .join(OrderRange, col(OrderRange.order_id) == col(CodeOrder.order_id))
        .join(Product, col(CodeOrder.gtin) == Product.gtin)
        .where(
            CodeOrder.gtin == lot.gtin,
            Product.brand_id == brand_id,
            OrderRange.layer == Layer.LOT.value,
            OrderRange.value == lot.lot,
        )
    )
    spans: dict[int, tuple[CodeOrder, list[IndexRange]]] = {}
    for order, first, last in await session.exec(rows):
        spans.setdefault(order.order_id or 0, (order, []))[1].append(IndexRange(first, last))
    found = [OfOrder(order, ranges.merged(some)) for order, some in spans.values()]
    items = select(ItemLot.thing).where(
        ItemLot.brand_id == brand_id,
        ItemLot.lot == lot.lot,
        col(ItemLot.thing).startswith(f"https://id.gs1.org/01/{lot.gtin}/21/"),
    )
    names = (await session.exec(items.order_by(col(ItemLot.thing)).limit(limit))).all()
    return found + await placed(session, brand_id, scheme, names)
