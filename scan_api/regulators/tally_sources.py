"""What tallies are made from: orders, acts, scans, what counters saw, and recall orders."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Index, literal_column, union_all
from sqlmodel import col, func, select

from codes.acts import OrderAct
from codes.orders import CodeOrder
from codes.serials import ITEM_NUMBERS
from kit.clock import Clock
from kit.db import Database, Session, table_of
from offline_sdk.errors import BadSignature, KeyOutOfScope, UnknownKey
from offline_sdk.verifier import GENUINE
from scan_api.device_scans import DeviceScan, Refusal
from scan_api.provenance.events import OrderEvent, RangeEvent, Step
from scan_api.regulators import tallies, territory
from scan_api.regulators.recall_orders import RecallOrder, Subject, SubjectKind
from scan_api.regulators.tallies import NOWHERE, Count, Counts, Key, Kind, Window, day_of
from scan_api.scans import SCANNED_OFTEN_FROM, Item, Scan

_ASKED_AT_ONCE_MAX: Final = 500
_ACTS: Final = {"activated": Kind.ACTIVATED, "voided": Kind.VOIDED, "recalled": Kind.RECALLED}
NOBODYS: Final = (BadSignature.code, UnknownKey.code, KeyOutOfScope.code, Refusal.NEVER_ISSUED)
"""Why a code is refused that nobody issued."""

Index("ix_order_act_at", table_of(OrderAct).c.at)


async def count_orders(session: Session, window: Window) -> tuple[Counts, int]:
    """Items of orders that were placed."""
    rows = (
        await session.exec(
            select(CodeOrder.gtin, CodeOrder.quantity).where(
                col(CodeOrder.created_at) >= window.start, col(CodeOrder.created_at) < window.end
            )
        )
    ).all()
    counts: Counts = Counter()
    for gtin, quantity in rows:
        counts[Key(window.day, gtin, Kind.ISSUED)] += quantity
    return counts, len(rows)


async def count_acts(session: Session, window: Window) -> tuple[Counts, int]:
    """Items that were put on sale, voided or recalled; what was put on sale at a known place, in its region."""
    acts = (
        await session.exec(
            select(OrderAct).where(
                col(OrderAct.at) >= window.start, col(OrderAct.at) < window.end, col(OrderAct.kind).in_(_ACTS)
            )
        )
    ).all()
    orders = await _orders(session, {act.order_id for act in acts})
    regions = await _regions(session, orders, window)
    counts: Counts = Counter()
    for act in acts:
        placed = orders[act.order_id]
        items = _items(json.loads(act.detail), placed)
        region = regions.get((act.order_id, act.at), NOWHERE) if act.kind == Step.ACTIVATED else NOWHERE
        counts[Key(window.day, placed.gtin, _ACTS[act.kind], region)] += items
    return counts, len(acts)


def _items(detail: Mapping[str, Any], placed: CodeOrder) -> int:
    """How many items an act tells of: its own count, else those of its ranges (`codes.ranges.written`), else all."""
    if "items" in detail:
        return int(detail["items"])
    if "ranges" not in detail:
        return placed.quantity
    ends = [part.partition("-") for part in str(detail["ranges"]).split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _hyphen, last in ends)


async def _orders(session: Session, order_ids: Collection[int]) -> dict[int, CodeOrder]:
    wanted, found = sorted(order_ids), {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE_MAX):
        some = wanted[start : start + _ASKED_AT_ONCE_MAX]
        for placed in await session.exec(select(CodeOrder).where(col(CodeOrder.order_id).in_(some))):
            assert placed.order_id is not None  # rows read from the database have their key
            found[placed.order_id] = placed
    return found


async def _regions(
    session: Session, orders: Mapping[int, CodeOrder], window: Window
) -> dict[tuple[int, datetime], str]:
    """In which regions orders, or parts of them, were put on sale, by order and moment of the act."""
    told: dict[int, dict[tuple[int, datetime], str]] = {}
    owners = await tallies.owners_of(session, {placed.gtin for placed in orders.values()})
    wanted = sorted(orders)
    for start in range(0, len(wanted), _ASKED_AT_ONCE_MAX):
        some = wanted[start : start + _ASKED_AT_ONCE_MAX]
        kept: Any = union_all(
            *(
                select(model.order_id, model.recorded_at, model.place).where(
                    col(model.order_id).in_(some),
                    col(model.step) == Step.ACTIVATED,
                    col(model.recorded_at) >= window.start,
                    col(model.recorded_at) < window.end,
                    col(model.place).is_not(None),
                )
                for model in (OrderEvent, RangeEvent)
            )
        )
        for order_id, at, place in await (await session.connection()).execute(kept):
            told.setdefault(owners[orders[order_id].gtin], {})[order_id, at] = place
    found = {}
    for brand_id, places in told.items():
        known = await territory.regions_of(session, brand_id, set(places.values()))
        found.update({key: known[place] for key, place in places.items() if place in known})
    return found


async def count_scans(session: Session, window: Window) -> tuple[Counts, int]:
    """Scans by page and API, and the items that were scanned too often from then on."""
    within = (col(Scan.at) >= window.start, col(Scan.at) < window.end)
    # The database's own division of whole numbers, which both have.
    order_id: sa.ColumnElement[int] = literal_column(f"item_key / {ITEM_NUMBERS}")
    rows = (
        await session.exec(
            select(order_id, func.count())
            .select_from(Scan)
            .where(*within, col(Scan.channel) != "device")
            .group_by(order_id)
        )
    ).all()
    often = await _often(session, window)
    orders = await _orders(session, {one for one, _count in rows} | set(often))
    counts: Counts = Counter()
    for kind, some in ((Kind.SCANS, dict(rows)), (Kind.SUSPECTED_COPIES, often)):
        for one, number in some.items():
            if one in orders:
                counts[Key(window.day, orders[one].gtin, kind)] += number
    return counts, sum(number for _one, number in rows)


async def _often(session: Session, window: Window) -> Counter[int]:
    """How many items of each order had the scan in this window that makes them suspected copies."""
    seen = (
        select(Scan.item_key).where(col(Scan.at) >= window.start, col(Scan.at) < window.end).distinct().subquery("seen")
    )
    scans = table_of(Scan)
    turning = (
        select(scans.c.at)
        .where(scans.c.item_key == seen.c.item_key)
        .order_by(scans.c.scan_id)
        .offset(SCANNED_OFTEN_FROM - 1)
        .limit(1)
        .scalar_subquery()
    )
    asked = (
        select(seen.c.item_key)
        .join(Item, col(Item.item_key) == seen.c.item_key)
        .where(col(Item.scan_count) >= SCANNED_OFTEN_FROM, turning >= window.start, turning < window.end)
    )
    return Counter(item_key // ITEM_NUMBERS for item_key in await session.exec(asked))


async def count_device_scans(session: Session, window: Window) -> tuple[Counts, int]:
    """What scanners at counters saw, by the day on which they saw it."""
    seen = table_of(DeviceScan).c
    asked = sa.select(seen.scanned_at, seen.gtin, seen.verdict, seen.error, seen.refusal).where(
        seen.received_at >= window.start, seen.received_at < window.end, seen.gtin.is_not(None)
    )
    rows = (await (await session.connection()).execute(asked)).all()
    counts: Counts = Counter()
    for at, gtin, verdict, error, refusal in rows:
        kind = _device_kind(verdict, error, refusal)
        if kind is not None:
            counts[Key(day_of(at), gtin, kind)] += 1
    return counts, len(rows)


def _device_kind(verdict: str, error: str | None, refusal: str | None) -> Kind | None:
    if verdict == GENUINE and refusal is None:
        return Kind.SCANS
    if refusal in NOBODYS or (verdict == "refused" and error in NOBODYS):
        return Kind.SUSPECTED_FAKES
    return None if verdict == "ask" else Kind.REFUSED


async def count_recall_orders(session: Session, window: Window) -> tuple[Counts, int]:
    """Recall orders; those of containers name no product and are left out."""
    rows = (
        await session.exec(
            select(RecallOrder.kind, RecallOrder.subject).where(
                col(RecallOrder.ordered_at) >= window.start, col(RecallOrder.ordered_at) < window.end
            )
        )
    ).all()
    counts: Counts = Counter()
    for kind, name in rows:
        gtin = Subject.of(SubjectKind(kind), name).gtin
        if gtin is not None:
            counts[Key(window.day, gtin, Kind.RECALL_ORDERS)] += 1
    return counts, len(rows)


SOURCES: Final[Mapping[str, Count]] = {
    "orders": count_orders,
    "acts": count_acts,
    "scans": count_scans,
    "device_scans": count_device_scans,
    "recall_orders": count_recall_orders,
}


async def keep_up(database: Database, clock: Clock, windows_max: int | None = None) -> int:
    """Follow every source till two minutes ago. Returns how many windows were counted."""
    return sum(
        [
            await tallies.follow(database, source, count, clock(), windows_max=windows_max)
            for source, count in SOURCES.items()
        ]
    )
