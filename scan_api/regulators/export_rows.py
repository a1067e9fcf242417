"""Rows of exports: read from where the last part ended, in an order that never changes, and written in either form."""

import io
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet
import sqlalchemy as sa
from sqlmodel import col, select

from codes.acts import OrderAct
from codes.catalogue import Brand
from codes.orders import CodeOrder
from kit.clock import iso
from kit.db import Moment, Session, table_of
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import brand_events, regions, sights
from scan_api.regulators.exports import ExportFormat, ExportKind, ExportSpec
from scan_api.regulators.sights import Reach
from scan_api.regulators.tallies import NOWHERE, Tally, day_of

PART_ROWS: Final = 5_000
PART_BYTES: Final = 16 * 1024 * 1024
SETTLED: Final = timedelta(minutes=2)
"""Events younger than this may still be followed by earlier ones."""
_TEXTS: Final[Mapping[ExportKind, tuple[str, ...]]] = {
    ExportKind.EVENTS: (
        "event_id", "brand", "type", "event_time", "record_time", "action", "biz_step", "disposition", "read_point",
        "biz_location", "event",
    ),
    ExportKind.STATISTICS: ("day", "brand", "gtin", "region", "kind"),
    ExportKind.ACTS: ("at", "brand", "gtin", "kind", "by", "detail"),
}  # fmt: skip
_NUMBERS: Final[Mapping[ExportKind, tuple[str, ...]]] = {
    ExportKind.EVENTS: (),
    ExportKind.STATISTICS: ("count",),
    ExportKind.ACTS: ("order_number",),
}
_ACT_COLUMNS: Final = ("order_id", "act_id", "at", "kind", "by", "detail")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one part, and where the next begins; `position` None: these were the last."""

    rows: Sequence[Row]
    position: Any
    by_brand: Mapping[int, int] = field(default_factory=dict)
    """How many rows are of each brand."""


async def reach_of(session: Session, spec: ExportSpec) -> Reach:
    """What an export reaches: the scope with which it was asked for, narrowed by what was asked for."""
    assert spec.scope is not None  # whoever makes it has looked
    reach = await sights.reach_of(session, spec.scope)
    if spec.gtins:
        gtins = {gtin: owner for gtin, owner in reach.gtins.items() if gtin in spec.gtins}
        # Of every brand, an event must name one of these products from now on.
        reach = replace(reach, gtins=gtins, mixed=frozenset(reach.brands))
        reach = brand_events.narrowed(reach, set(gtins.values()))
    if spec.brands:
        wanted = await session.exec(select(Brand.brand_id).where(col(Brand.slug).in_(spec.brands)))
        reach = brand_events.narrowed(reach, [brand_id for brand_id in wanted if brand_id is not None])
    return reach


async def read(session: Session, reach: Reach, spec: ExportSpec, position: Any, asked_at: datetime) -> Batch:
    """The rows behind a position, which an earlier batch gave (None: from the beginning)."""
    reader = {ExportKind.EVENTS: _events, ExportKind.STATISTICS: _tallies, ExportKind.ACTS: _acts}[spec.kind]
    slugs = await sights.slugs_of(session, reach.brands)
    batch = await reader(session, reach, spec, position, asked_at, slugs)
    ids = {slug: brand_id for brand_id, slug in slugs.items()}
    return replace(batch, by_brand=Counter(ids[row["brand"]] for row in batch.rows))


async def _events(
    session: Session, reach: Reach, spec: ExportSpec, position: Any, asked_at: datetime, slugs: Mapping[int, str]
) -> Batch:
    """Brand by brand, in the order in which events were recorded, till shortly before the export was asked for."""
    brand_id, after = (position[0], position[1:]) if position else (0, [])
    waiting = [one for one in reach.brands if one >= brand_id]
    if not waiting:
        return Batch((), None)
    if waiting[0] != brand_id:
        brand_id, after = waiting[0], []
    place = sa.tuple_(col(EpcisEvent.record_time), col(EpcisEvent.event_key))
    asked = select(EpcisEvent).where(
        sights.event_condition(reach, brand_id),
        col(EpcisEvent.event_time) >= spec.since,
        col(EpcisEvent.event_time) < spec.until,
        col(EpcisEvent.record_time) < asked_at - SETTLED,
    )
    if after:
        then = sa.literal(datetime.fromisoformat(after[0]), Moment())
        asked = asked.where(place > sa.tuple_(then, sa.literal(uuid.UUID(after[1]), sa.Uuid())))
    order = (col(EpcisEvent.record_time), col(EpcisEvent.event_key))
    found = list(await session.exec(asked.order_by(*order).limit(PART_ROWS)))
    rows, size = [], 0
    for event in found:
        rows.append(_event_row(event, slugs[brand_id]))
        size += len(event.content)
        if size > PART_BYTES:
            break
    if len(found) == PART_ROWS or len(rows) < len(found):
        last = found[len(rows) - 1]
        return Batch(rows, [brand_id, last.record_time.isoformat(), str(last.event_key)])
    return Batch(rows, [waiting[1]] if len(waiting) > 1 else None)


def _event_row(event: EpcisEvent, slug: str) -> Row:
    return {
        "event_id": event.event_id,
        "brand": slug,
        "type": event.type,
        "event_time": iso(event.event_time),
        "record_time": iso(event.record_time),
        "action": event.action,
        "biz_step": event.biz_step,
        "disposition": event.disposition,
        "read_point": event.read_point,
        "biz_location": event.biz_location,
        "event": event.content,
    }


async def _tallies(
    session: Session, reach: Reach, spec: ExportSpec, position: Any, _asked_at: datetime, slugs: Mapping[int, str]
) -> Batch:
    columns = (Tally.brand_id, Tally.day, Tally.gtin, Tally.region, Tally.kind)
    place = sa.tuple_(*map(col, columns))
    seen: sa.ColumnElement[bool] = col(Tally.brand_id).in_(reach.seated)
    if reach.scope.regions:
        here = sa.and_(col(Tally.region) != NOWHERE, regions.within(col(Tally.region), reach.scope.regions))
        seen = sa.or_(seen, sa.and_(col(Tally.brand_id).in_(reach.elsewhere), here))
    asked = select(Tally).where(
        seen, col(Tally.day) >= day_of(spec.since), col(Tally.day) <= day_of(spec.until - timedelta(microseconds=1))
    )
    if position:
        asked = asked.where(place > sa.tuple_(*(sa.literal(one) for one in position)))
    found = list(await session.exec(asked.order_by(*map(col, columns)).limit(PART_ROWS)))
    rows = [
        {"day": one.day, "brand": slugs[one.brand_id], "gtin": one.gtin, "region": one.region or None}
        | {"kind": one.kind, "count": one.count}
        for one in found
        if one.gtin in reach.gtins
    ]
    last = found[-1] if len(found) == PART_ROWS else None
    return Batch(rows, last and [last.brand_id, last.day, last.gtin, last.region, last.kind])


async def _acts(
    session: Session, reach: Reach, spec: ExportSpec, position: Any, _asked_at: datetime, slugs: Mapping[int, str]
) -> Batch:
    """Acts of orders of brands that are seen whole: an act happens at no place."""
    acts, orders = table_of(OrderAct).c, table_of(CodeOrder).c
    asked = (
        sa.select(
            acts.order_id, acts.act_id, acts.at, acts.kind, acts.by, acts.detail, orders.gtin, orders.order_number
        )
        .join_from(table_of(OrderAct), table_of(CodeOrder), orders.order_id == acts.order_id)
        .where(acts.at >= spec.since, acts.at < spec.until)
        .order_by(acts.order_id, acts.act_id)
        .limit(PART_ROWS)
    )
    if position:
        then = sa.tuple_(sa.literal(position[0]), sa.literal(uuid.UUID(position[1]), sa.Uuid()))
        asked = asked.where(sa.tuple_(acts.order_id, acts.act_id) > then)
    found = (await (await session.connection()).execute(asked)).all()
    rows = [
        {"at": iso(row.at), "brand": slugs[reach.gtins[row.gtin]], "gtin": row.gtin, "order_number": row.order_number}
        | {"kind": row.kind, "by": row.by, "detail": row.detail}
        for row in found
        if reach.gtins.get(row.gtin) in reach.seated
    ]
    last = found[-1] if len(found) == PART_ROWS else None
    return Batch(rows, last and [last.order_id, str(last.act_id)])


def written(kind: ExportKind, form: ExportFormat, rows: Sequence[Row]) -> bytes:
    """A part's file. The same rows give the same bytes."""
    if form is ExportFormat.NDJSON:
        lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
    fields = [pa.field(name, pa.string()) for name in _TEXTS[kind]]
    fields += [pa.field(name, pa.int64(), nullable=False) for name in _NUMBERS[kind]]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(fields))
    pyarrow.parquet.write_table(table, sink, compression="zstd", compression_level=3)
    return sink.getvalue()
