"""Ranges of an order: which of its codes were voided, are on sale, or went to whom, kept as intervals of issue indexes.

Codes are printed in issue order, so a spoiled roll, a pallet or a print house's lot is a range of issue indexes. Only
intervals are stored, disjoint and as few as can be; no work here grows with the number of codes.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar

from sqlalchemy import CheckConstraint, Text, bindparam, delete, insert
from sqlmodel import Field, SQLModel, col, func, select

from codes.orders import CodeOrder, OrderState, OrderStateForbids, lock_of
from codes.serials import ITEM_DIGITS, ITEM_NUMBERS, SerialScheme
from kit import locks, procedures
from kit.db import Session, table_of
from kit.errors import Conflict, Invalid
from kit.procedures import Kind, Procedure, Step
from offline_sdk.code_text import ORDER_DIGITS

RANGES_PER_CALL_MAX = 1_000
RANGES_PER_ORDER_MAX = 100_000
"""Of each layer."""
HOLDER_CHARACTERS_MAX = 60
_SERIAL_DIGITS = ORDER_DIGITS + ITEM_DIGITS


class RangeInvalid(Invalid):
    code = "RangeInvalid"


class HolderInvalid(Invalid):
    code = "HolderInvalid"


class RangeVoided(Conflict):
    code = "RangeVoided"


class RangesUsedUp(Conflict):
    code = "RangesUsedUp"


class ItemState(StrEnum):
    """What became of an item, as far as its order tells."""

    DORMANT = "dormant"
    ACTIVE = "active"
    RECALLED = "recalled"
    VOIDED = "voided"  # withdrawn before sale, for good: spoiled in printing, printed too often, lost


class Layer(StrEnum):
    """What an interval tells of its items."""

    STATE = "state"
    ALLOTMENT = "allotment"
    LOT = "lot"


@dataclass(frozen=True, slots=True, order=True)
class IndexRange:
    """Issue indexes first..last, both included, 0..999,999,999. Raises RangeInvalid."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < ITEM_NUMBERS:
            raise RangeInvalid(f"a range runs upwards within the issue indexes 0..{ITEM_NUMBERS - 1}")

    @property
    def items(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class OrderRange(SQLModel, table=True):
    """Items with consecutive issue indexes that have the same state, or the same holder."""

    __tablename__: ClassVar[str] = "order_range"
    __table_args__ = (
        CheckConstraint(
            f"0 <= first_index AND first_index <= last_index AND last_index < {ITEM_NUMBERS}", name="range"
        ),
        CheckConstraint(
            "(layer = 'state' AND value IN ('active', 'voided')) OR "
            f"(layer IN ('allotment', 'lot') AND length(value) BETWEEN 1 AND {HOLDER_CHARACTERS_MAX})",
            name="value",
        ),
    )

    order_id: int = Field(primary_key=True, foreign_key="code_order.order_id")
    layer: str = Field(primary_key=True, sa_type=Text)
    first_index: int = Field(primary_key=True)
    last_index: int
    value: str = Field(sa_type=Text)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an order whose items have the same state and the same holder."""

    first: int
    last: int
    state: ItemState
    holder: str | None


_Marks = list[tuple[IndexRange, str]]
"""Disjoint ranges with their values, ascending."""


async def activate(session: Session, order: CodeOrder, ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """Put parts of an order on sale. Returns those that were not.

    Raises RangeVoided for a part that is voided, RangeInvalid, RangesUsedUp, and OrderStateForbids for a recalled
    order; nothing changed then.
    """
    ranges = await _lock(session, order, ranges)
    found = await _marks(session, order, Layer.STATE, ranges)
    _refuse_voided(order, ranges, found)
    if order.state == OrderState.ACTIVE:
        return []
    return await _paint(session, order, Layer.STATE, ranges, ItemState.ACTIVE, found)


async def void(session: Session, order: CodeOrder, ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """Withdraw parts of an order for good, on sale or not. Returns those that were not voided before.

    Raises RangeInvalid, RangesUsedUp, and OrderStateForbids for a recalled order.
    """
    ranges = await _lock(session, order, ranges)
    found = await _marks(session, order, Layer.STATE, ranges)
    return await _paint(session, order, Layer.STATE, ranges, ItemState.VOIDED, found)


async def allot(session: Session, order: CodeOrder, ranges: Sequence[IndexRange], holder: str) -> list[IndexRange]:
    """Give parts of an order to a holder, a print house, plant or lot, whoever had them. Returns those he had not.

    Raises HolderInvalid, RangeInvalid, RangesUsedUp, and OrderStateForbids for a recalled order.
    """
    if not 1 <= len(holder) <= HOLDER_CHARACTERS_MAX or not holder.isprintable() or holder != holder.strip():
        raise HolderInvalid(f"a holder's name is 1 to {HOLDER_CHARACTERS_MAX} printable characters, no space around")
    ranges = await _lock(session, order, ranges)
    found = await _marks(session, order, Layer.ALLOTMENT, ranges)
    return await _paint(session, order, Layer.ALLOTMENT, ranges, holder, found)


async def release(session: Session, order: CodeOrder, ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """Take parts of an order from whoever holds them. Returns those that were held.

    Raises RangeInvalid, RangesUsedUp, and OrderStateForbids for a recalled order.
    """
    ranges = await _lock(session, order, ranges)
    found = await _marks(session, order, Layer.ALLOTMENT, ranges)
    return await _paint(session, order, Layer.ALLOTMENT, ranges, None, found)


async def bind_lot(session: Session, order: CodeOrder, ranges: Sequence[IndexRange], lot: str) -> list[IndexRange]:
    """Bind parts of an order to a lot, whatever they were bound to. Returns those that were not of it.

    Raises RangeInvalid, RangesUsedUp, and OrderStateForbids for a recalled order.
    """
    ranges = await _lock(session, order, ranges)
    found = await _marks(session, order, Layer.LOT, ranges)
    return await _paint(session, order, Layer.LOT, ranges, lot, found)


async def check_printable(session: Session, order: CodeOrder, ranges: Sequence[IndexRange]) -> None:
    """Refuse what must not be printed again, although the codes would be the same.

    Raises RangeVoided for a part that is voided, OrderStateForbids for a recalled order, RangeInvalid.
    """
    ranges = _checked(order, ranges)
    _refuse_recalled(order)
    _refuse_voided(order, ranges, await _marks(session, order, Layer.STATE, ranges))


async def standing(session: Session, order: CodeOrder) -> list[Stretch]:
    """The whole order cut into stretches, ascending, each as long as it can be."""
    marks: dict[Layer, _Marks] = {layer: [] for layer in Layer}
    rows = (
        select(OrderRange.layer, OrderRange.first_index, OrderRange.last_index, OrderRange.value)
        .where(OrderRange.order_id == order.order_id)
        .order_by(col(OrderRange.first_index))
    )
    for layer, first, last, value in await session.exec(rows):
        marks[Layer(layer)].append((IndexRange(first, last), value))
    cuts = {0, order.quantity}
    for layer in Layer:
        cuts.update(cut for mark, _ in marks[layer] for cut in (mark.first, mark.last + 1))
    state, holder = (_reader(marks[layer]) for layer in (Layer.STATE, Layer.ALLOTMENT))
    stretches: list[Stretch] = []
    for first, end in pairwise(sorted(cuts)):
        one = Stretch(first, end - 1, _state(order.state, state(first)), holder(first))
        if stretches and (stretches[-1].state, stretches[-1].holder) == (one.state, one.holder):
            one = Stretch(stretches.pop().first, one.last, one.state, one.holder)
        stretches.append(one)
    return stretches


# Ranges are disjoint: the last one that starts in time is the only one that can hold the index.
_FOUND_SQL = """
    SELECT state, recall_reason, has_ranges, CASE WHEN has_ranges THEN (
        SELECT CASE WHEN last_index >= :issue_index THEN value END FROM order_range
        WHERE order_id = :order AND layer = 'state' AND first_index <= :issue_index
        ORDER BY first_index DESC LIMIT 1
    ) END AS value
    FROM code_order WHERE order_id = :order
"""

STANDING_PARAMETERS: Mapping[str, Kind] = {"order": Kind.INTEGER, "issue_index": Kind.INTEGER}
STANDING: Sequence[Step] = (
    Step(
        _FOUND_SQL,
        gives={
            "order_state": Kind.TEXT,
            "recall_reason": Kind.TEXT,
            "has_ranges": Kind.BOOLEAN,
            "range_value": Kind.TEXT,
        },
    ),
)
"""Steps that tell how an item stands: its order's state, and its range's, None where no range holds it."""
_STANDING = Procedure("item_standing", STANDING_PARAMETERS, STANDING, tuple(STANDING[0].gives), writes=False)


@dataclass(frozen=True, slots=True)
class ItemStanding:
    """What `STANDING` gives."""

    order_state: str
    recall_reason: str | None
    has_ranges: bool
    range_value: str | None

    @property
    def is_recalled(self) -> bool:
        return self.order_state == OrderState.RECALLED

    @property
    def state(self) -> ItemState:
        return _state(self.order_state, self.range_value)


async def standing_at(session: Session, order_id: int, index: int) -> ItemStanding:
    """How the item with this issue index stands."""
    return ItemStanding(**await procedures.call(session, _STANDING, {"order": order_id, "issue_index": index}))


async def state_at(session: Session, order: CodeOrder, index: int) -> ItemState:
    """The state of the item with this issue index. Costs no query unless the order has states by range."""
    assert order.order_id is not None
    if not order.has_ranges:
        return _state(order.state, None)
    await session.flush()  # the statement is none of the session's own
    return (await standing_at(session, order.order_id, index)).state


HOLDING_PARAMETERS: Mapping[str, Kind] = {"order": Kind.INTEGER, "order_lock": Kind.BIGINT, "issue_index": Kind.INTEGER}
HOLDING: Sequence[Step] = (
    Step(f"[[{locks.SHARE_SQL.format(key=':order_lock')}]]"),
    Step(
        f"""
        SELECT 1 FROM ({_FOUND_SQL}) AS found
        WHERE (state = 'active' AND coalesce(value, '') <> 'voided') OR (state = 'dormant' AND value = 'active')
        """,  # noqa: S608 - words of ours
        refusal="ItemNotActive",
    ),
)
"""Steps that go on only with an item that is on sale, and keep it so until the transaction ends.

A recall or a change of ranges waits for it, or is seen.
"""


def _state(order_state: str, value: str | None) -> ItemState:
    """An item's state from its order's and its range's."""
    if value == ItemState.VOIDED or order_state == OrderState.DORMANT:
        return ItemState(value or ItemState.DORMANT)
    return ItemState(order_state)


def parse_ranges(text: str, order: CodeOrder, scheme: SerialScheme) -> list[IndexRange]:
    """Ranges as people write them: "0-4999,7000", of issue indexes, or of 14-digit serials as they are printed.

    A number alone is a range of one. A range of serials runs in the order of printing, in which they look random.
    Raises RangeInvalid, also for a serial that this order never issued.
    """
    if text.count(",") >= RANGES_PER_CALL_MAX:
        raise RangeInvalid(f"at most {RANGES_PER_CALL_MAX:,} ranges may be named at once")
    found = []
    # What was written is told by its place and never repeated: it might be a code's text.
    for place, part in enumerate(text.split(","), 1):
        ends = [_index(end.strip(), place, order, scheme) for end in part.split("-")]
        if len(ends) > 2:
            raise RangeInvalid(f"range {place} is neither a number nor two numbers with a hyphen between them")
        if ends[0] > ends[-1]:
            raise RangeInvalid(
                f"range {place} runs backwards: its issue indexes are {ends[0]} and {ends[-1]}",
                hint="Name the item that was printed first, then the one that was printed last.",
            )
        found.append(IndexRange(ends[0], ends[-1]))
    return found


def _index(text: str, place: int, order: CodeOrder, scheme: SerialScheme) -> int:
    if not (text.isascii() and text.isdigit() and (len(text) <= ITEM_DIGITS or len(text) == _SERIAL_DIGITS)):
        raise RangeInvalid(
            f"range {place} is made of something that is neither an issue index, of 1 to {ITEM_DIGITS} digits, nor a "
            f"serial, of {_SERIAL_DIGITS} digits"
        )
    if len(text) == _SERIAL_DIGITS:
        in_order = int(text[:ORDER_DIGITS]) == order.order_number
        index = scheme.issue_index(order.gtin, order.order_number, int(text[ORDER_DIGITS:]))
        if not in_order or index >= order.quantity:
            raise RangeInvalid(f"range {place}: order {order.order_number:05d} never issued the serial {text}")
        return index
    if int(text) >= order.quantity:
        raise RangeInvalid(f"range {place}: {_extent(order)}")
    return int(text)


def _extent(order: CodeOrder) -> str:
    return f"order {order.order_number:05d} has the issue indexes 0..{order.quantity - 1}"


def written(ranges: Sequence[IndexRange]) -> str:
    """Ranges in the form that `parse_ranges` reads, ascending, touching ones as one."""
    return ",".join(map(str, merged(ranges)))


async def _lock(session: Session, order: CodeOrder, ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """Let no claim, recall or other change of ranges pass until the transaction ends. Returns the ranges merged."""
    ranges = _checked(order, ranges)
    assert order.order_id is not None
    await locks.change(session, lock_of(order.order_id))
    session.add(order)  # it may have been read in a session that is closed by now
    await session.refresh(order, with_for_update=True)
    _refuse_recalled(order)
    return ranges


def _refuse_recalled(order: CodeOrder) -> None:
    if order.state == OrderState.RECALLED:
        raise OrderStateForbids(f"order {order.order_number:05d} of {order.gtin} is recalled and stays so")


def _checked(order: CodeOrder, ranges: Sequence[IndexRange]) -> list[IndexRange]:
    if not 1 <= len(ranges) <= RANGES_PER_CALL_MAX:
        raise RangeInvalid(f"a call names 1 to {RANGES_PER_CALL_MAX:,} ranges, not {len(ranges):,}")
    checked = merged(ranges)
    if checked[-1].last >= order.quantity:
        raise RangeInvalid(_extent(order))
    return checked


def _refuse_voided(order: CodeOrder, ranges: Sequence[IndexRange], found: _Marks) -> None:
    voided = [mark for mark, value in found if value == ItemState.VOIDED]
    for stretch in common(ranges, voided):
        raise RangeVoided(
            f"the issue indexes {stretch} of order {order.order_number:05d} are voided and stay so",
            hint="Name ranges without them; `fanxing order ranges` shows what is left.",
        )


# The neighbours that merely touch the range are found too, so that equal ones can be merged.
_TOUCHING = (
    select(OrderRange.first_index, OrderRange.last_index, OrderRange.value)
    .where(
        col(OrderRange.order_id) == bindparam("order"),
        col(OrderRange.layer) == bindparam("layer"),
        col(OrderRange.first_index)
        >= func.coalesce(
            select(func.max(OrderRange.first_index))
            .where(
                col(OrderRange.order_id) == bindparam("order"),
                col(OrderRange.layer) == bindparam("layer"),
                col(OrderRange.first_index) < bindparam("first"),
            )
            .scalar_subquery(),
            bindparam("first"),
        ),
        col(OrderRange.first_index) <= bindparam("end"),
    )
    .order_by(col(OrderRange.first_index))
)


async def _marks(session: Session, order: CodeOrder, layer: Layer, ranges: Sequence[IndexRange]) -> _Marks:
    """The stored ranges of a layer that overlap the given ones or touch them, and at most one more for each."""
    found: dict[IndexRange, str] = {}
    for wanted in ranges:
        where = {"order": order.order_id, "layer": layer.value, "first": wanted.first, "end": wanted.last + 1}
        for first, last, value in await session.exec(_TOUCHING, params=where):
            found[IndexRange(first, last)] = value
    return sorted(found.items())


_FORGET = delete(table_of(OrderRange)).where(
    col(OrderRange.order_id) == bindparam("order"),
    col(OrderRange.layer) == bindparam("of_layer"),
    col(OrderRange.first_index) == bindparam("first"),
)


async def _paint(
    session: Session, order: CodeOrder, layer: Layer, ranges: Sequence[IndexRange], value: str | None, found: _Marks
) -> list[IndexRange]:
    """Give ranges a value, or none, over what was `found` there. Returns the parts that had another."""
    if value is None:
        changed = merged(common(ranges, [mark for mark, _ in found]))  # neighbours may have had two holders
    else:
        changed = without(ranges, [mark for mark, old in found if old == value])
    painted = _painted(found, ranges, value)
    gone, new = set(found).difference(painted), set(painted).difference(found)
    grown = len(new) - len(gone)
    if grown > 0 and await _count(session, order, layer) + grown > RANGES_PER_ORDER_MAX:
        raise RangesUsedUp(
            f"order {order.order_number:05d} would have more than {RANGES_PER_ORDER_MAX:,} ranges",
            hint="Name longer ranges; ranges that touch count as one.",
        )
    connection = await session.connection()
    if gone:
        which = {"order": order.order_id, "of_layer": layer.value}
        await connection.execute(_FORGET, [{**which, "first": mark.first} for mark, _ in gone])
    if new:
        row = {"order_id": order.order_id, "layer": layer.value}
        await connection.execute(
            insert(table_of(OrderRange)),
            [{**row, "first_index": mark.first, "last_index": mark.last, "value": text} for mark, text in new],
        )
    if changed and layer is Layer.STATE and not order.has_ranges:
        order.has_ranges = True
        await session.flush()
    return changed


async def _count(session: Session, order: CodeOrder, layer: Layer) -> int:
    rows = select(func.count()).where(OrderRange.order_id == order.order_id, OrderRange.layer == layer.value)
    return (await session.exec(rows)).one()


def _painted(found: _Marks, ranges: Sequence[IndexRange], value: str | None) -> _Marks:
    """What stands after painting: disjoint, and touching ranges of one value merged."""
    marks = [] if value is None else [(one, value) for one in ranges]
    for (_, old), (mark, inside) in zip(found, _meetings([mark for mark, _ in found], ranges), strict=True):
        marks += [(gap, old) for gap in _gaps(mark, inside)]
    painted: _Marks = []
    for mark, text in sorted(marks):
        if painted and painted[-1][1] == text and painted[-1][0].last + 1 == mark.first:
            painted.append((IndexRange(painted.pop()[0].first, mark.last), text))
        else:
            painted.append((mark, text))
    return painted


def merged(ranges: Sequence[IndexRange]) -> list[IndexRange]:
    """The same indexes in as few ranges as can be, ascending."""
    found: list[IndexRange] = []
    for one in sorted(ranges):
        if found and one.first <= found[-1].last + 1:
            before = found.pop()
            found.append(IndexRange(before.first, max(before.last, one.last)))
        else:
            found.append(one)
    return found


def without(ranges: Sequence[IndexRange], holes: Sequence[IndexRange]) -> list[IndexRange]:
    """The indexes of `ranges` that lie in none of `holes`; both disjoint and ascending."""
    return [gap for one, inside in _meetings(ranges, holes) for gap in _gaps(one, inside)]


def _gaps(one: IndexRange, holes: Sequence[IndexRange]) -> Iterator[IndexRange]:
    """What the holes, each of which overlaps the range, leave of it."""
    first = one.first
    for hole in holes:
        if first < hole.first:
            yield IndexRange(first, hole.first - 1)
        first = hole.last + 1
    if first <= one.last:
        yield IndexRange(first, one.last)


def common(ranges: Sequence[IndexRange], others: Sequence[IndexRange]) -> list[IndexRange]:
    """The indexes that lie in both; both disjoint and ascending."""
    return [
        IndexRange(max(one.first, other.first), min(one.last, other.last))
        for one, inside in _meetings(ranges, others)
        for other in inside
    ]


def _meetings(
    ranges: Sequence[IndexRange], others: Sequence[IndexRange]
) -> Iterator[tuple[IndexRange, Sequence[IndexRange]]]:
    """Each range with those of `others` that overlap it; both disjoint and ascending."""
    firsts = [other.first for other in others]
    for one in ranges:
        start = bisect_right(firsts, one.first) - 1
        if start < 0 or others[start].last < one.first:
            start += 1
        yield one, others[start : bisect_right(firsts, one.last)]


def _reader(marks: _Marks) -> Callable[[int], str | None]:
    """The value at an index."""
    firsts = [mark.first for mark, _ in marks]

    def value_at(index: int) -> str | None:
        at = bisect_right(firsts, index) - 1
        return marks[at][1] if at >= 0 and index <= marks[at][0].last else None

    return value_at
