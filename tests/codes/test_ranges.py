"""Ranges of an order: what they tell of every item, against a plain list with an entry an item."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from codes import orders, ranges
from codes.orders import CodeOrder, OrderState, OrderStateForbids
from codes.ranges import (
    HOLDER_CHARACTERS_MAX,
    RANGES_PER_CALL_MAX,
    RANGES_PER_ORDER_MAX,
    HolderInvalid,
    IndexRange,
    ItemState,
    Layer,
    OrderRange,
    RangeInvalid,
    RangesUsedUp,
    RangeVoided,
    Stretch,
    parse_ranges,
    written,
)
from codes.serials import SerialScheme
from kit import procedures
from kit.db import Database, Session, table_of
from kit.procedures import Procedure, Refused
from offline_sdk import Profile
from tests.codes.conftest import BASE_URL, GTIN, NOW, MakeOrder, Market

ITEMS = 24

VALUES = {
    "activate": ItemState.ACTIVE,
    "void": ItemState.VOIDED,
    "allot to A": "A",
    "allot to B": "B",
    "release": None,
}

index_ranges = st.tuples(st.integers(0, ITEMS - 1), st.integers(0, ITEMS - 1)).map(
    lambda ends: IndexRange(min(ends), max(ends))
)
changes: st.SearchStrategy[tuple[str, list[IndexRange]]] = st.tuples(
    st.sampled_from(sorted(VALUES)),
    st.lists(index_ranges, min_size=1, max_size=4),
) | st.tuples(st.sampled_from(["activate all", "recall"]), st.just([]))


async def placed(database: Database, quantity: int = ITEMS) -> CodeOrder:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, quantity, [Profile.OUTER], BASE_URL)
        return await orders.place(session, plan, NOW)


async def rows_of(session: Session, order: CodeOrder) -> list[OrderRange]:
    query = select(OrderRange).where(OrderRange.order_id == order.order_id)
    return list(await session.exec(query.order_by(col(OrderRange.layer), col(OrderRange.first_index))))


def runs(indexes: set[int]) -> list[IndexRange]:
    """The indexes as ranges, by counting."""
    found: list[IndexRange] = []
    for index in sorted(indexes):
        if found and found[-1].last + 1 == index:
            found[-1] = IndexRange(found[-1].first, index)
        else:
            found.append(IndexRange(index, index))
    return found


class Model:
    """An entry an item."""

    def __init__(self) -> None:
        self.order = OrderState.DORMANT
        self.marks: list[ItemState | None] = [None] * ITEMS
        self.holders: list[str | None] = [None] * ITEMS

    def state(self, index: int) -> ItemState:
        if self.marks[index] is ItemState.VOIDED:
            return ItemState.VOIDED
        if self.order is not OrderState.DORMANT:
            return ItemState(self.order)
        return self.marks[index] or ItemState.DORMANT

    def change(self, kind: str, wanted: Sequence[IndexRange]) -> list[IndexRange] | type[Exception]:
        """What the change returns, or the error it raises."""
        indexes = {index for one in wanted for index in range(one.first, one.last + 1)}
        if self.order is OrderState.RECALLED:
            return OrderStateForbids
        if kind == "activate" and any(self.marks[index] is ItemState.VOIDED for index in indexes):
            return RangeVoided
        if kind == "activate" and self.order is OrderState.ACTIVE:
            return []
        entries: list[Any] = self.marks if kind in ("activate", "void") else self.holders
        value = VALUES[kind]
        changed = {index for index in indexes if entries[index] != value}
        for index in changed:
            entries[index] = value
        return runs(changed)

    def stretches(self) -> list[Stretch]:
        items = [(self.state(index), self.holders[index]) for index in range(ITEMS)]
        found, first = [], 0
        for (state, holder), group in groupby(items):
            length = len(list(group))
            found.append(Stretch(first, first + length - 1, state, holder))
            first += length
        return found


async def apply(session: Session, order: CodeOrder, kind: str, wanted: Sequence[IndexRange]) -> list[IndexRange]:
    if kind.startswith("allot to "):
        return await ranges.allot(session, order, wanted, kind.removeprefix("allot to "))
    change: Callable[..., Awaitable[list[IndexRange]]] = getattr(ranges, kind)
    return await change(session, order, wanted)


@given(done=st.lists(changes, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_changes_leave_what_a_list_of_all_items_would_hold(
    database: Database, market: Market, done: list[tuple[str, list[IndexRange]]]
) -> None:
    order, model = await placed(database), Model()
    for kind, wanted in done:
        async with database.writing() as session:
            order = await orders.order_numbered(session, GTIN, order.order_number)
            if kind == "recall":
                await orders.recall(session, order, "glass")
                model.order = OrderState.RECALLED
            elif kind == "activate all" and model.order is not OrderState.RECALLED:
                await orders.activate(session, order)
                model.order = OrderState.ACTIVE
            elif wanted:
                expected = model.change(kind, wanted)
                if isinstance(expected, list):
                    assert await apply(session, order, kind, wanted) == expected
                else:
                    with pytest.raises(expected):
                        await apply(session, order, kind, wanted)
    async with database.reading() as session:
        order = await orders.order_numbered(session, GTIN, order.order_number)
        assert await ranges.standing(session, order) == model.stretches()
        for index in range(ITEMS):
            assert await ranges.state_at(session, order, index) is model.state(index)
        rows = await rows_of(session, order)
        for one, following in pairwise(rows):
            if one.layer == following.layer:
                assert one.last_index < following.first_index - (one.value == following.value)
        assert order.has_ranges == any(row.layer == Layer.STATE for row in rows)


@pytest.fixture
async def order(database: Database, market: Market) -> CodeOrder:
    return await placed(database, 10**9)


@pytest.fixture
async def session(database: Database, order: CodeOrder) -> Any:
    """A transaction; rows read in it are attached to it."""
    async with database.writing() as opened:
        opened.add(order)
        yield opened


async def test_nine_hundred_million_voided_items_are_one_row(session: Session, order: CodeOrder) -> None:
    half = IndexRange(0, 899_999_999)
    assert await ranges.void(session, order, [half]) == [half]
    assert [(row.first_index, row.last_index) for row in await rows_of(session, order)] == [(0, 899_999_999)]
    assert await ranges.state_at(session, order, 899_999_999) is ItemState.VOIDED
    assert await ranges.state_at(session, order, 900_000_000) is ItemState.DORMANT


async def test_only_voided_items_stay_away_when_the_rest_goes_on_sale(session: Session, order: CodeOrder) -> None:
    await ranges.activate(session, order, [IndexRange(0, 9)])
    await ranges.void(session, order, [IndexRange(5, 14)])
    assert await orders.activate(session, order)
    assert await ranges.standing(session, order) == [
        Stretch(0, 4, ItemState.ACTIVE, None),
        Stretch(5, 14, ItemState.VOIDED, None),
        Stretch(15, 10**9 - 1, ItemState.ACTIVE, None),
    ]


async def test_a_voided_part_is_named_and_nothing_of_the_call_happens(session: Session, order: CodeOrder) -> None:
    await ranges.void(session, order, [IndexRange(700, 709)])
    wanted = [IndexRange(0, 99), IndexRange(705, 800)]
    with pytest.raises(RangeVoided, match="705-709 of order 00001"):
        await ranges.activate(session, order, wanted)
    with pytest.raises(RangeVoided, match="705-709 of order 00001"):
        await ranges.check_printable(session, order, wanted)
    assert await ranges.state_at(session, order, 50) is ItemState.DORMANT
    await ranges.check_printable(session, order, [IndexRange(0, 699), IndexRange(710, 10**9 - 1)])


async def test_voiding_twice_changes_nothing(session: Session, order: CodeOrder) -> None:
    assert await ranges.void(session, order, [IndexRange(3, 5), IndexRange(4, 9)]) == [IndexRange(3, 9)]
    assert await ranges.void(session, order, [IndexRange(3, 9)]) == []
    assert await ranges.void(session, order, [IndexRange(0, 12)]) == [IndexRange(0, 2), IndexRange(10, 12)]


async def test_a_recalled_order_refuses_every_change(session: Session, order: CodeOrder) -> None:
    await ranges.void(session, order, [IndexRange(1, 1)])
    await ranges.allot(session, order, [IndexRange(0, 9)], "plant")
    await orders.recall(session, order, "glass")
    for kind in ("activate", "void", "allot to plant", "release"):
        with pytest.raises(OrderStateForbids, match="recalled"):
            await apply(session, order, kind, [IndexRange(5, 6)])
    assert [stretch.state for stretch in await ranges.standing(session, order)] == [
        ItemState.RECALLED, ItemState.VOIDED, ItemState.RECALLED, ItemState.RECALLED
    ]  # fmt: skip


async def test_an_allotment_alone_costs_scans_no_query(database: Database, session: Session, order: CodeOrder) -> None:
    asked: list[str] = []
    await ranges.allot(session, order, [IndexRange(0, 9)], "印刷厂 1")

    def note(*call: Any) -> None:
        asked.append(call[2])

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    assert await ranges.state_at(session, order, 5) is ItemState.DORMANT
    assert asked == []
    await ranges.activate(session, order, [IndexRange(0, 9)])
    await session.refresh(order)
    asked.clear()
    assert await ranges.state_at(session, order, 5) is ItemState.ACTIVE
    assert len(asked) == 1
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


@pytest.mark.parametrize("holder", ["x", "x" * HOLDER_CHARACTERS_MAX])
async def test_a_holder_has_a_name(session: Session, order: CodeOrder, holder: str) -> None:
    assert await ranges.allot(session, order, [IndexRange(0, 9)], holder) == [IndexRange(0, 9)]
    assert (await ranges.standing(session, order))[0].holder == holder


@pytest.mark.parametrize("holder", ["", "x" * (HOLDER_CHARACTERS_MAX + 1), "a\nb", " a", "a "])
async def test_what_is_no_name_of_a_holder_is_refused(session: Session, order: CodeOrder, holder: str) -> None:
    with pytest.raises(HolderInvalid):
        await ranges.allot(session, order, [IndexRange(0, 9)], holder)


async def test_a_call_names_1_to_1000_ranges(session: Session, order: CodeOrder) -> None:
    many = [IndexRange(2 * place, 2 * place) for place in range(RANGES_PER_CALL_MAX)]
    assert len(await ranges.void(session, order, many[:-1])) == RANGES_PER_CALL_MAX - 1
    assert len(await ranges.void(session, order, many)) == 1
    for wrong in ([], [*many, IndexRange(5_000, 5_000)]):
        for change in ("activate", "void", "allot to plant", "release", "check_printable"):
            with pytest.raises(RangeInvalid, match="1 to 1,000 ranges"):
                await apply(session, order, change, wrong)


async def test_a_range_lies_within_the_order(database: Database, market: Market) -> None:
    order = await placed(database)
    async with database.writing() as session:
        for change in ("activate", "allot to plant", "release", "check_printable", "void"):
            with pytest.raises(RangeInvalid, match=r"0\.\.23"):
                await apply(session, order, change, [IndexRange(0, ITEMS)])
            await apply(session, order, change, [IndexRange(0, ITEMS - 1)])


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (5, 4), (0, 10**9)])
def test_a_range_runs_upwards_within_all_issue_indexes(first: int, last: int) -> None:
    with pytest.raises(RangeInvalid):
        IndexRange(first, last)
    assert IndexRange(0, 10**9 - 1).items == 10**9


@pytest.mark.slow
async def test_an_order_has_100_000_ranges_and_no_more(session: Session, order: CodeOrder) -> None:
    row = {"order_id": order.order_id, "layer": "state", "value": "voided"}
    firsts = range(0, 3 * (RANGES_PER_ORDER_MAX - 1), 3)
    connection = await session.connection()
    for some in range(0, len(firsts), 1_000):
        await connection.execute(
            insert(table_of(OrderRange)).values(
                [{**row, "first_index": first, "last_index": first} for first in firsts[some : some + 1_000]]
            )
        )
    end = 10**9 - 1
    with pytest.raises(RangesUsedUp, match="more than 100,000"):
        await ranges.void(session, order, [IndexRange(end, end), IndexRange(end - 2, end - 2)])
    assert await ranges.void(session, order, [IndexRange(end, end)]) == [IndexRange(end, end)]
    with pytest.raises(RangesUsedUp):
        await ranges.void(session, order, [IndexRange(end - 2, end - 2)])
    # The other layer has room of its own, a longer range needs none, and merging makes some.
    assert await ranges.allot(session, order, [IndexRange(0, 9)], "plant") == [IndexRange(0, 9)]
    assert await ranges.void(session, order, [IndexRange(end - 1, end - 1)]) == [IndexRange(end - 1, end - 1)]
    assert await ranges.void(session, order, [IndexRange(1, 2)]) == [IndexRange(1, 2)]
    assert await ranges.void(session, order, [IndexRange(end - 3, end - 3)]) == [IndexRange(end - 3, end - 3)]
    assert len(await ranges.standing(session, order)) > RANGES_PER_ORDER_MAX


@pytest.mark.parametrize(
    "row",
    [
        {"layer": "state", "value": "dormant"},
        {"layer": "state", "value": ""},
        {"layer": "allotment", "value": ""},
        {"layer": "allotment", "value": "x" * (HOLDER_CHARACTERS_MAX + 1)},
        {"layer": "mood", "value": "active"},
        {"first_index": -1},
        {"first_index": 6},
        {"last_index": 10**9},
    ],
)
async def test_the_database_refuses_rows_that_mean_nothing(
    database: Database, order: CodeOrder, row: dict[str, Any]
) -> None:
    good = {"order_id": order.order_id, "layer": "state", "first_index": 0, "last_index": 5, "value": "active"}
    with pytest.raises(IntegrityError):
        async with database.writing() as session:
            await (await session.connection()).execute(insert(table_of(OrderRange)).values({**good, **row}))


# Concurrency.


@pytest.mark.parametrize("change", ["void", "recall"])
async def test_a_claim_and_a_withdrawal_wait_for_each_other(database: Database, market: Market, change: str) -> None:
    order = await placed(database)
    async with database.writing() as session:
        await orders.activate(session, await orders.order_numbered(session, GTIN, 1))

    async def claim(session: Session) -> None:
        order_id = order.order_id or 0
        values = {"order": order_id, "order_lock": orders.lock_of(order_id), "issue_index": 7}
        await procedures.call(session, Procedure("hold", ranges.HOLDING_PARAMETERS, ranges.HOLDING, ("order",)), values)

    async def claim_alone() -> None:
        async with database.writing() as session:
            await claim(session)

    async def withdraw() -> None:
        async with database.writing() as session:
            found = await orders.order_numbered(session, GTIN, 1)
            if change == "void":
                await ranges.void(session, found, [IndexRange(5, 9)])
            else:
                await orders.recall(session, found, "glass")

    async with database.writing() as session:
        await claim(session)
        withdrawing = asyncio.create_task(withdraw())
        done, _ = await asyncio.wait([withdrawing], timeout=0.2)
        assert not done
    await withdrawing
    async with database.writing() as session:
        with pytest.raises(Refused, match="ItemNotActive"):
            await claim(session)

    other = await placed(database)
    async with database.writing() as session:
        await ranges.void(session, await orders.order_numbered(session, GTIN, other.order_number), [IndexRange(7, 7)])
        order = other
        claiming = asyncio.create_task(claim_alone())
        seen, _ = await asyncio.wait([claiming], timeout=0.2)
        assert not seen
    with pytest.raises(Refused, match="ItemNotActive"):
        await claiming


async def test_of_many_voidings_at_once_each_item_is_voided_by_one(database: Database, market: Market) -> None:
    await placed(database, 1_000)

    async def void(first: int) -> list[IndexRange]:
        async with database.writing() as session:
            found = await orders.order_numbered(session, GTIN, 1)
            return await ranges.void(session, found, [IndexRange(first, first + 99)])

    newly = await asyncio.gather(*(void(first) for first in range(0, 900, 45)))
    voided = [index for parts in newly for part in parts for index in range(part.first, part.last + 1)]
    assert len(voided) == len(set(voided)) == 955
    async with database.reading() as session:
        found = await orders.order_numbered(session, GTIN, 1)
        assert [(row.first_index, row.last_index) for row in await rows_of(session, found)] == [(0, 954)]


async def test_a_change_goes_by_the_stored_order_and_not_by_the_one_in_hand(database: Database, market: Market) -> None:
    seen = await placed(database)
    async with database.writing() as session:
        await orders.recall(session, await orders.order_numbered(session, GTIN, 1), "glass")
    assert seen.state == OrderState.DORMANT
    with pytest.raises(OrderStateForbids):
        async with database.writing() as session:
            await ranges.void(session, seen, [IndexRange(0, 1)])


# Ranges as people write them.


@pytest.fixture
def thousand(make_order: MakeOrder) -> CodeOrder:
    return make_order(1_000)


def serial_of(scheme: SerialScheme, order: CodeOrder, index: int) -> str:
    return order.serial(int(scheme.item_numbers(order.gtin, order.order_number, index, 1)[0]))


def test_indexes_and_serials_are_read_alike(thousand: CodeOrder, scheme: SerialScheme) -> None:
    first, last = (serial_of(scheme, thousand, index) for index in (20, 999))
    assert parse_ranges("0-499, 700", thousand, scheme) == [IndexRange(0, 499), IndexRange(700, 700)]
    assert parse_ranges(f"{first}-{last}", thousand, scheme) == [IndexRange(20, 999)]
    assert parse_ranges(f" {first} ", thousand, scheme) == [IndexRange(20, 20)]
    assert parse_ranges(f"5 - {first}", thousand, scheme) == [IndexRange(5, 20)]
    assert parse_ranges("000000999", thousand, scheme) == [IndexRange(999, 999)]


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "1,", "1-", "-1", "1-2-3", "1--2", "a", "1.5", "٣", "²", "1" * 10, "1" * 13, "1" * 15, "0x1", "+1"],
)
def test_what_is_no_range_is_refused_and_not_repeated(thousand: CodeOrder, scheme: SerialScheme, text: str) -> None:
    with pytest.raises(RangeInvalid) as refused:
        parse_ranges(f"7,{text}" if text != "," else text, thousand, scheme)
    if len(text) > 5:
        assert text not in refused.value.message


def test_a_range_beyond_or_against_the_order_is_refused(thousand: CodeOrder, scheme: SerialScheme) -> None:
    first, last, beyond = (serial_of(scheme, thousand, index) for index in (20, 999, 1_000))
    assert parse_ranges("999", thousand, scheme) == [IndexRange(999, 999)]
    with pytest.raises(RangeInvalid, match=r"range 2: order 00001 has the issue indexes 0\.\.999"):
        parse_ranges("1,1000", thousand, scheme)
    with pytest.raises(RangeInvalid, match=f"never issued the serial {beyond}"):
        parse_ranges(f"{first}-{beyond}", thousand, scheme)
    with pytest.raises(RangeInvalid, match="never issued"):
        parse_ranges(f"00002{first[5:]}", thousand, scheme)
    with pytest.raises(RangeInvalid, match="runs backwards: its issue indexes are 999 and 20"):
        parse_ranges(f"{last}-{first}", thousand, scheme)


def test_a_text_names_at_most_1000_ranges(thousand: CodeOrder, scheme: SerialScheme) -> None:
    text = ",".join("7" for _ in range(RANGES_PER_CALL_MAX))
    assert len(parse_ranges(text, thousand, scheme)) == RANGES_PER_CALL_MAX
    assert len(parse_ranges(text[:-2], thousand, scheme)) == RANGES_PER_CALL_MAX - 1
    with pytest.raises(RangeInvalid, match="at most 1,000"):
        parse_ranges(f"{text},7", thousand, scheme)


@given(wanted=st.lists(index_ranges, min_size=1, max_size=8))
def test_written_ranges_are_read_back(make_order: MakeOrder, scheme: SerialScheme, wanted: list[IndexRange]) -> None:
    read = parse_ranges(written(wanted), make_order(ITEMS), scheme)
    assert read == runs({index for one in wanted for index in range(one.first, one.last + 1)})
