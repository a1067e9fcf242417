"""Packing: which thing is in which container from when until when, kept from the aggregation events of a brand.

The events are the truth, and this is worked out from them in the transaction that keeps them: a row is a thing's part
in an event. What arrives late or out of order falls into its place, and an event that is declared an error is undone.
"""

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy import CheckConstraint, Column, Index, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NULLTYPE
from sqlmodel import Field, SQLModel, select

from kit import locks
from kit.db import Moment, Session, copy_lines, insert, is_postgresql, table_of
from kit.errors import Invalid
from scan_api.provenance import aggregation, repository
from scan_api.provenance.aggregation import LEVELS_MAX, Kind, Step
from scan_api.provenance.repository import EpcisEvent, NewEvent
from scan_api.provenance.things import things_of

ROUNDS_MAX = 8
"""In which additions without effect are looked for: to leave one out may bring an earlier one back to life."""

# As `event_thing` has it, so that a container's things lie side by side.
BY_BYTES = Text().with_variant(Text(collation="C"), "postgresql")
_OPEN = sa.text("until IS NULL")
# Within the quotes of an array's element (PostgreSQL manual, 8.15.6).
_ESCAPE, _BACKSLASH = re.compile(r'(["\\])'), r"\\\1"
_SPECIAL, _NULL = frozenset("\t\n\r\\"), "\\N"
_Key = tuple[str, uuid.UUID]


class PackingTangled(Invalid):
    """Aggregations that put things into each other in so many circles that no order can be found."""

    code = "PackingTangled"


class Packing(SQLModel, table=True):
    """A thing's part in an aggregation event; see `aggregation.Step`."""

    __tablename__: ClassVar[str] = "packing"
    __table_args__ = (
        CheckConstraint("kind IN ('add', 'remove', 'empty', 'circle', 'too_deep')", name="kind"),
        CheckConstraint("until = since OR kind = 'add' AND (until IS NULL OR until > since)", name="until"),
        Index("uq_packing_open", "child", "brand_id", unique=True, postgresql_where=_OPEN, sqlite_where=_OPEN),
        Index("ix_packing_parent", "parent", "brand_id", "since"),
    )

    child: str = Field(sa_column=Column(BY_BYTES, primary_key=True))
    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    since: datetime = Field(primary_key=True, sa_type=Moment)
    event_key: uuid.UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    parent: str = Field(sa_column=Column(BY_BYTES, nullable=False))
    until: datetime | None = Field(default=None, sa_type=Moment)


class UndoneEvent(SQLModel, table=True):
    """An event that was declared an error, whether it is here or not yet."""

    __tablename__: ClassVar[str] = "undone_event"

    event_key: uuid.UUID = Field(primary_key=True)


_TABLE = table_of(Packing)
_COLUMNS = _TABLE.c


def lock_of(brand_id: int) -> int:
    """The lock of those who change a brand's packing: no two of them can make a circle together."""
    return locks.key_of("packing", brand_id)


def may_change(event: NewEvent) -> bool:
    """Whether `apply` may take the lock for this event."""
    return event.values["type"] == "AggregationEvent" or bool(event.values["is_error"])


def among(session: Session, column: sa.Column[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether a column has one of any number of values, which are one parameter."""
    if is_postgresql(session):
        return column == sa.any_(_array(column, values))
    return column.in_(_each(values))


def _not_among(session: Session, column: sa.Column[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether it has none of them; PostgreSQL looks each row up, where `<> ALL` would compare it with every value."""
    rows = sa.select(sa.func.unnest(_array(column, values))) if is_postgresql(session) else _each(values)
    return column.not_in(rows)


def _array(column: sa.Column[Any], values: Collection[Any]) -> sa.ColumnElement[Any]:
    # The driver would look at each element of a list by itself, which costs more than the query. The text has no type,
    # so that its cast is a constant, which PostgreSQL hashes; else each row would be compared with every name.
    plain = _plain(values)
    if _ESCAPE.search("".join(plain)):
        plain = [_ESCAPE.sub(_BACKSLASH, text) for text in plain]
    listed = '","'.join(plain)
    literal = sa.bindparam(None, f'{{"{listed}"}}' if plain else "{}", type_=NULLTYPE)
    return sa.cast(literal, postgresql.ARRAY(column.type))


def _each(values: Collection[Any]) -> sa.Select[Any]:
    return sa.select(sa.column("value")).select_from(sa.func.json_each(json.dumps(_plain(values))))


def _plain(values: Collection[Any]) -> list[str]:
    return [value.hex if isinstance(value, uuid.UUID) else str(value) for value in values]


async def apply(session: Session, brand_id: int, events: Sequence[NewEvent]) -> None:
    """Take sound events that are being kept into account, in the transaction that keeps them; again changes nothing.

    Costs nothing where none of them is an aggregation or declares an error. Raises PackingTangled.
    """
    steps = {event.event_key: some for event in events if (some := aggregation.steps_of(event))}
    declared = [event for event in events if event.values["is_error"]]
    if not steps and not declared:
        return
    await locks.change(session, lock_of(brand_id))
    gone = await _undo(session, brand_id, declared) if declared else []
    undone = await undone_among(session, steps.keys())
    new = [step for key, some in steps.items() if key not in undone for step in some]
    if new or gone:
        await _Change(session, brand_id, new, gone).make()


async def _undo(session: Session, brand_id: int, declared: Sequence[NewEvent]) -> list[Step]:
    """Note which events were errors; the steps that they took."""
    ids = sorted({event.values["event_id"] for event in declared})
    keys = [repository.key_of(brand_id, one, is_hash=is_hash) for one in ids for is_hash in (False, True)]
    before = await undone_among(session, keys)
    fresh = [key for key in keys if key not in before]
    if not fresh:
        return []
    await (await session.connection()).execute(
        insert(session, UndoneEvent).on_conflict_do_nothing(), [{"event_key": key} for key in fresh]
    )
    wanted = select(EpcisEvent).where(among(session, table_of(EpcisEvent).c.event_key, fresh))
    return [
        step
        for event in await session.exec(wanted.where(EpcisEvent.type == "AggregationEvent"))
        for step in aggregation.steps_of(_as_new(event))
    ]


def _as_new(event: EpcisEvent) -> NewEvent:
    names = ("event_key", "type", "action", "event_time", "is_error")
    return NewEvent({name: getattr(event, name) for name in names}, things_of(json.loads(event.content)))


async def undone_among(session: Session, keys: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these events that were declared errors."""
    if not keys:
        return set()
    rows = await session.exec(
        select(UndoneEvent.event_key).where(among(session, table_of(UndoneEvent).c.event_key, keys))
    )
    return set(rows.all())


class _Change:
    """One change of a brand's packing: new steps come in, others go, and what follows for the things they touch."""

    def __init__(self, session: Session, brand_id: int, new: Sequence[Step], gone: Sequence[Step]) -> None:
        self._session, self._brand_id = session, brand_id
        self._new, self._gone = new, {(step.child, step.event_key): step for step in gone}
        self._before: dict[_Key, Step] = {}
        self._after: dict[str, list[Step]] = {}

    async def make(self) -> None:
        # In the order of the events, so that what lies together is written together.
        names = dict.fromkeys(chain((step.child for step in self._new), await self._touched()))
        known = await self._rows(among(self._session, _COLUMNS.child, names))
        self._before = {(step.child, step.event_key): step for step in known}
        if known:
            self._new = [step for step in self._new if (step.child, step.event_key) not in self._before]
        steps: dict[str, list[Step]] = {name: [] for name in names}
        for step in chain(known, self._new):
            if step.kind is not Kind.EMPTY and not self._is_gone(step):
                steps[step.child].append(step)
        emptied = await self._emptied({step.parent for some in steps.values() for step in some})
        without_effect: dict[_Key, Kind] = {}
        for _round in range(ROUNDS_MAX):
            self._after = {
                name: aggregation.settled(_marked(some, without_effect), emptied) for name, some in steps.items()
            }
            found = await self._faulty()
            if not found:
                await self._write()
                return
            without_effect |= found
        raise PackingTangled(
            "these aggregations put things into each other in too many circles", hint="Capture fewer of them at once."
        )

    def _is_gone(self, step: Step) -> bool:
        return bool(self._gone) and (step.child, step.event_key) in self._gone

    async def _touched(self) -> set[str]:
        """The things that may be elsewhere now."""
        touched: set[str] = set()
        for step in chain(self._new, self._gone.values()):
            if step.kind is not Kind.EMPTY:
                touched.add(step.child)
                continue
            inside = sa.select(_COLUMNS.child).where(
                _COLUMNS.parent == step.parent,
                _COLUMNS.brand_id == self._brand_id,
                _COLUMNS.since < step.since,
                sa.or_(_COLUMNS.until.is_(None), _COLUMNS.until >= step.since),
            )
            touched.update((await (await self._session.connection()).execute(inside)).scalars())
        return touched

    async def _rows(self, *where: sa.ColumnElement[bool]) -> list[Step]:
        columns = (_COLUMNS.child, _COLUMNS.parent, _COLUMNS.since, _COLUMNS.event_key, _COLUMNS.kind, _COLUMNS.until)
        asked = sa.select(*columns).where(_COLUMNS.brand_id == self._brand_id, *where)
        rows = await (await self._session.connection()).execute(asked)
        return [Step(child, parent, since, key, Kind(kind), until) for child, parent, since, key, kind, until in rows]

    async def _emptied(self, parents: Collection[str]) -> dict[str, list[datetime]]:
        rows = await self._rows(among(self._session, _COLUMNS.child, parents), _COLUMNS.kind == Kind.EMPTY.value)
        emptied = defaultdict(list)
        for step in chain(rows, (step for step in self._new if step.kind is Kind.EMPTY)):
            if not self._is_gone(step):
                emptied[step.parent].append(step.since)
        return {parent: sorted(moments) for parent, moments in emptied.items()}

    async def _faulty(self) -> dict[_Key, Kind]:
        """The additions that must have no effect, among those that are new or last longer than before."""
        grown = []
        for step in chain.from_iterable(self._after.values()):
            before = self._before.get((step.child, step.event_key)) if self._before else None
            if step.lasts and (before is None or before.end < step.end):
                grown.append(step)
        if not grown:
            return {}
        first = min(step.since for step in grown)
        above = await self._above({step.parent for step in grown}, first)
        found: dict[_Key, Kind] = {}
        for exactly in (False, True):
            below = await self._below({step.child for step in grown}, first, above, exactly=exactly)
            found = {(step.child, step.event_key): kind for step, kind in aggregation.faulty(grown, above, below)}
            if Kind.TOO_DEEP not in found.values():
                break
        return found

    async def _above(self, names: Iterable[str], first: datetime) -> dict[str, list[Step]]:
        """For these things and what they are in, as far up as may be, the steps that lasted until after `first`."""
        found: dict[str, list[Step]] = {}
        asked = set(names)
        for _level in range(LEVELS_MAX):
            unknown = [name for name in asked if name not in self._after]
            found |= {name: [step for step in self._after.get(name, ()) if step.lasts] for name in asked}
            for step in await self._lasting(_COLUMNS.child, unknown, first) if unknown else ():
                found[step.child].append(step)
            asked = {step.parent for name in asked for step in found[name]}.difference(found)
            if not asked:
                break
        return found

    async def _below(
        self, names: Iterable[str], first: datetime, above: Mapping[str, Sequence[Step]], *, exactly: bool
    ) -> dict[str, list[Step]]:
        """The same downwards, by container; of all that holds nothing itself, what `_leaves` tells."""
        own: dict[str, list[Step]] = defaultdict(list)
        # What holds something from now on is no container in the table yet: `above` has in what it is.
        for step in chain.from_iterable({**self._after, **above}.values()):
            if step.lasts:
                own[step.parent].append(step)
        found: dict[str, list[Step]] = {}
        asked = set(names)
        for _level in range(LEVELS_MAX):
            found |= {name: list(own.get(name, ())) for name in asked}
            leaves = await self._leaves(asked, first, exactly=exactly)
            holding = list({parent for parent, _since, _until in leaves})
            for step in await self._lasting(_COLUMNS.parent, holding, first, _HOLDS) if holding else ():
                if step.child not in self._after:
                    found[step.parent].append(step)
            for parent, since, until in leaves:
                found[parent].append(Step("", parent, since, uuid.UUID(int=0), Kind.ADD, until))
            asked = {step.child for name in asked for step in found[name] if step.child}.difference(found)
            if not asked:
                break
        return found

    async def _lasting(
        self, column: sa.Column[Any], names: Collection[str], first: datetime, *where: sa.ColumnElement[bool]
    ) -> list[Step]:
        lasting = sa.or_(_COLUMNS.until.is_(None), _COLUMNS.until > first)
        rows = await self._rows(among(self._session, column, names), _COLUMNS.kind == Kind.ADD.value, lasting, *where)
        return [step for step in rows if step.lasts]

    async def _leaves(self, names: Collection[str], first: datetime, *, exactly: bool) -> Sequence[Any]:
        """For each container a time in which it holds something, from when until when: None, it may still.

        Exactly: each such time by itself, and nothing of what this change touches, for of that `_after` knows better.
        Else one time from the first to the last moment, at a third of the cost.
        """
        parent, since, until = _COLUMNS.parent, _COLUMNS.since, _COLUMNS.until
        lasting = sa.or_(until.is_(None), sa.and_(until > first, until > since))
        holding = (
            _COLUMNS.brand_id == self._brand_id,
            _COLUMNS.kind == Kind.ADD.value,
            among(self._session, parent, names),
        )
        stays = sa.select(parent, since, until).where(*holding, lasting)
        if exactly:
            touched = {step.child for step in self._before.values() if step.lasts and step.parent in names}
            one = _in_times(stays.where(_not_among(self._session, _COLUMNS.child, touched))).subquery().c
        else:
            one = stays.add_columns(sa.literal(0).label("time")).subquery().c
        still = sa.func.count() > sa.func.count(one.until)
        asked = sa.select(
            one.parent,
            sa.func.min(one.since, type_=Moment()),
            sa.type_coerce(sa.case((still, None), else_=sa.func.max(one.until)), Moment()),
        ).group_by(one.parent, one.time)
        return (await (await self._session.connection()).execute(asked)).all()

    async def _write(self) -> None:
        now = chain(chain.from_iterable(self._after.values()), (one for one in self._new if one.kind is Kind.EMPTY))
        changed, added = [], []
        for step in now:
            before = self._before.get((step.child, step.event_key)) if self._before else None
            if before is None:
                added.append(step)
            elif step != before:
                changed.append(step)
        if self._gone:
            await (await self._session.connection()).execute(_FORGET, [self._place(one) for one in self._gone.values()])
        # A thing leaves one container before it is in another: it is never in two.
        await self._change([step for step in changed if step.until is not None])
        await self._insert(added)
        await self._change([step for step in changed if step.until is None])

    def _place(self, step: Step) -> dict[str, Any]:
        return {
            "of_child": step.child,
            "of_brand": self._brand_id,
            "of_since": step.since,
            "of_event": step.event_key,
        }

    async def _change(self, steps: Sequence[Step]) -> None:
        if steps:
            values = [{**self._place(step), "new_kind": step.kind.value, "new_until": step.until} for step in steps]
            await (await self._session.connection()).execute(_CHANGE, values)

    async def _insert(self, steps: Sequence[Step]) -> None:
        if not steps:
            return
        if is_postgresql(self._session):
            await copy_lines(self._session, _TABLE, self._lines(steps))
            return
        rows = [
            (step.child, self._brand_id, step.since, step.event_key, step.kind.value, step.parent, step.until)
            for step in steps
        ]
        names = [column.name for column in _COLUMNS]
        connection = await self._session.connection()
        await connection.execute(_TABLE.insert(), [dict(zip(names, row, strict=True)) for row in rows])

    def _lines(self, steps: Sequence[Step]) -> list[str]:
        """Rows in COPY's text format; names of sound events have none of its special characters."""
        lines, event_key, middle = [], None, ""
        for step in steps:
            if step.event_key is not event_key:
                event_key = step.event_key
                middle = f"\t{self._brand_id}\t{step.since.isoformat()}\t{event_key.hex}\t"
            until = "" if step.until is None else step.until.isoformat()
            lines.append(f"{step.child}{middle}{step.kind.value}\t{step.parent}\t{until or _NULL}")
        names = "".join([text for step in steps for text in (step.child, step.parent)])
        if not _SPECIAL.isdisjoint(names):
            raise ValueError("an identifier with a control character is no URI")
        return lines


def _in_times(stays: sa.Select[Any]) -> sa.Select[Any]:
    """The stays with the number of the `time` without a gap that each belongs to, by its container."""
    parent, since, until = _COLUMNS.parent, _COLUMNS.since, _COLUMNS.until
    earlier: Any = {"partition_by": parent, "order_by": since, "rows": (None, -1)}
    goes_on = sa.or_(
        sa.func.count().over(**earlier) > sa.func.count(until).over(**earlier),
        sa.func.max(until).over(**earlier) >= since,
    )
    stay = stays.add_columns(sa.case((goes_on, 0), else_=1).label("begins")).subquery().c
    # With those that begin at the same moment, in whatever order.
    time = sa.func.sum(stay.begins).over(partition_by=stay.parent, order_by=stay.since).label("time")
    return sa.select(stay.parent, stay.since, stay.until, time)


def _marked(steps: Iterable[Step], without_effect: Mapping[_Key, Kind]) -> list[Step]:
    """The steps, those that are found to be without effect marked so."""
    if not without_effect:
        return list(steps)
    return [replace(step, kind=without_effect.get((step.child, step.event_key), step.kind)) for step in steps]


_HOLDS = sa.exists().where(
    (_HELD := _TABLE.alias("held")).c.parent == _COLUMNS.child, _HELD.c.brand_id == _COLUMNS.brand_id
)
"""Whether the thing of a row is a container itself."""
_IN_PLACE = (
    _COLUMNS.child == sa.bindparam("of_child"),
    _COLUMNS.brand_id == sa.bindparam("of_brand"),
    _COLUMNS.since == sa.bindparam("of_since"),
    _COLUMNS.event_key == sa.bindparam("of_event"),
)
_FORGET = sa.delete(_TABLE).where(*_IN_PLACE)
_CHANGE = (
    sa.update(_TABLE)
    .where(*_IN_PLACE)
    .values(kind=sa.bindparam("new_kind", type_=Text()), until=sa.bindparam("new_until", type_=Moment()))
)
