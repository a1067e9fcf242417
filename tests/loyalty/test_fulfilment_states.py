"""Every state and every word: where each leads, and that the value follows and is never settled twice."""

import uuid
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import select, text, update

from kit.db import Database, Session
from kit.vault import Vault
from loyalty import fulfilment
from loyalty.fulfilment import (
    Attention,
    Effect,
    Order,
    OrderKind,
    OrderNotRepeatable,
    OrderState,
    Report,
    Teller,
    Word,
    steps,
)
from loyalty.fulfilment.states import NEXT, OPEN, Place, place_of
from loyalty.ledger import InsufficientBalance, Purpose
from tests.loyalty.fulfilment_world import FUNDS, NOW, MakeMember, MovingClock, World

# State by state: what each word leads to; a dot where nothing changes.
TABLE = """
             sent       no_answer  never_received no_number accepted  pending  await_user  completed  reversed  failed
created      submitted  .          .              failed    accepted  pending  await_user  completed  reversed  failed
submitted    .          unknown    unknown        failed    accepted  pending  await_user  completed  reversed  failed
unknown      submitted  .          .              failed    accepted  pending  await_user  completed  reversed  failed
accepted     .          .          unknown        .         .         pending  await_user  completed  reversed  failed
pending      .          .          unknown        .         .         .        await_user  completed  reversed  failed
await_user   .          .          unknown        .         .         pending  .           completed  reversed  failed
completed    .          .          .              .         .         .        .           .          reversed  reversed
reversed     .          .          .              .         .         .        .           completed  .         .
failed       .          .          .              .         .         .        .           completed  .         .
"""
_HEAD, *_ROWS = [line.split() for line in TABLE.strip().splitlines()]
EXPECTED = {
    (OrderState(row[0]), Word(word)): OrderState(row[0] if cell == "." else cell)
    for row in _ROWS
    for word, cell in zip(_HEAD, row[1:], strict=True)
}
PATHS = {
    OrderState.CREATED: (),
    OrderState.SUBMITTED: (Word.SENT,),
    OrderState.UNKNOWN: (Word.SENT, Word.NO_ANSWER),
    OrderState.ACCEPTED: (Word.ACCEPTED,),
    OrderState.PENDING: (Word.PENDING,),
    OrderState.AWAIT_USER: (Word.AWAIT_USER,),
    OrderState.COMPLETED: (Word.COMPLETED,),
    OrderState.REVERSED: (Word.REVERSED,),
    OrderState.FAILED: (Word.FAILED,),
}
OURS = (Word.SENT, Word.NO_ANSWER, Word.NEVER_RECEIVED, Word.NO_NUMBER)
PURPOSE_OF = {
    Place.ON_ITS_WAY: Purpose.PENDING,
    Place.ARRIVED: Purpose.DELIVERED,
    Place.RETURNED: Purpose.BUDGET,
}


@pytest.fixture
async def world(database: Database, vault: Vault) -> World:
    made = World(database, vault, MovingClock(NOW))
    await made.fund()
    return made


async def tell(world: World, order_id: uuid.UUID, word: Word, revision: int) -> fulfilment.Outcome:
    async with world.database.writing() as session:
        return await tell_in(session, world, order_id, word, revision)


async def tell_in(session: Session, world: World, order_id: uuid.UUID, word: Word, revision: int) -> fulfilment.Outcome:
    order = await fulfilment.find(session, order_id)
    report = Report(word, Teller.WORKER, None if word in OURS else revision)
    return await fulfilment.take(session, order.member_id, order_id, report, world.clock())


async def test_every_word_in_every_state_leads_where_the_table_says_and_the_value_follows(
    world: World, make_member: MakeMember
) -> None:
    member_id = await make_member()
    assert set(EXPECTED) == {(state, word) for state in OrderState for word in Word}
    async with world.database.writing() as session:
        for (state, word), expected in EXPECTED.items():
            order_id = await world.place_in(session, member_id)
            for number, before in enumerate(PATHS[state], 1):
                await tell_in(session, world, order_id, before, number)
            outcome = await tell_in(session, world, order_id, word, 5)
            assert (outcome.before, outcome.state) == (state, expected), (state, word)
            assert outcome.effect is (Effect.UNCHANGED if state is expected else Effect.MOVED)
            order = await fulfilment.find(session, order_id)
            assert (order.state, order.seq) == (expected, len(PATHS[state]) + (state is not expected))
            assert (order.closed_at is None) == (expected in OPEN)
    for order_id, expected in zip(world.order_ids, EXPECTED.values(), strict=True):
        assert await world.delivered(order_id) == (5 if expected is OrderState.COMPLETED else 0)
    totals = await world.totals()
    held = [PURPOSE_OF[place_of(state)] for state in EXPECTED.values()]
    assert totals[Purpose.PENDING] == 5 * held.count(Purpose.PENDING)
    assert totals[Purpose.DELIVERED] == 5 * held.count(Purpose.DELIVERED)
    assert totals[Purpose.BUDGET] == FUNDS - totals[Purpose.PENDING] - totals[Purpose.DELIVERED]


def test_the_table_of_the_program_has_no_line_too_many() -> None:
    assert {(state, word): to for state, words in NEXT.items() for word, to in words.items()} == {
        (state, word): to for (state, word), to in EXPECTED.items() if state is not to
    }


async def test_the_same_word_again_and_older_words_change_nothing(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    for revision, word in ((3, Word.COMPLETED), (3, Word.COMPLETED), (3, Word.REVERSED), (2, Word.FAILED)):
        outcome = await tell(world, order_id, word, revision)
        assert outcome.state is OrderState.COMPLETED
    assert await world.path(order_id) == ["completed by worker"]
    assert (await world.totals())[Purpose.DELIVERED] == 5


async def test_a_word_that_leads_nowhere_still_makes_older_words_old(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.FAILED, 2)
    assert (await tell(world, order_id, Word.REVERSED, 4)).effect is Effect.UNCHANGED
    assert (await tell(world, order_id, Word.COMPLETED, 3)).effect is Effect.STALE
    assert (await world.order(order_id)).state == OrderState.FAILED


async def test_a_provider_that_lost_its_book_counts_anew(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.PENDING, 7)
    await tell(world, order_id, Word.NEVER_RECEIVED, 0)
    assert (await tell(world, order_id, Word.COMPLETED, 1)).state is OrderState.COMPLETED


@pytest.mark.parametrize("end", [Word.FAILED, Word.REVERSED])
async def test_what_is_delivered_after_all_is_paid_by_the_budget_and_shown_to_the_operator(
    world: World, make_member: MakeMember, end: Word
) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, end, 1)
    assert (await world.totals())[Purpose.BUDGET] == FUNDS
    await tell(world, order_id, Word.COMPLETED, 2)
    totals = await world.totals()
    assert (totals[Purpose.BUDGET], totals[Purpose.DELIVERED], totals[Purpose.ISSUANCE]) == (FUNDS - 5, 5, -FUNDS)
    assert (await world.order(order_id)).attention == Attention.LATE_COMPLETION


async def test_what_is_delivered_after_the_budget_is_spent_is_the_brands_loss(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    world, member_id = World(database, vault, MovingClock(NOW)), await make_member()
    await world.fund(5)
    first = await world.place(member_id)
    await tell(world, first, Word.FAILED, 1)
    await world.place(member_id)
    await tell(world, first, Word.COMPLETED, 2)
    totals = await world.totals()
    assert totals[Purpose.BUDGET] == 0
    assert (totals[Purpose.PENDING], totals[Purpose.DELIVERED], totals[Purpose.ISSUANCE]) == (5, 5, -10)
    # And taken back once more, it goes where it first came from.
    await tell(world, first, Word.REVERSED, 3)
    assert (await world.totals())[Purpose.BUDGET] == 5


async def test_an_order_that_failed_is_placed_anew_once(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.FAILED, 1)
    made = []
    for _ in range(2):
        async with world.database.writing() as session:
            made.append(await fulfilment.repeat(session, await fulfilment.find(session, order_id), world.clock()))
    assert {order.order_id for order in made} != {order_id}
    assert len({order.order_id for order in made}) == 1
    old, new = await world.order(order_id), await world.order(made[0].order_id)
    assert (old.replaced_by, new.replaces, new.state) == (new.order_id, order_id, OrderState.CREATED)
    totals = await world.totals()
    assert (totals[Purpose.BUDGET], totals[Purpose.PENDING]) == (FUNDS - 5, 5)
    # The provider delivers the first after all: both may arrive, and somebody has to look.
    await tell(world, order_id, Word.COMPLETED, 2)
    assert (await world.order(order_id)).attention == Attention.DELIVERED_TWICE
    # Whatever a statement says of it later, that is seen till somebody has looked.
    for flagged, seen in (
        (Attention.NOT_ON_STATEMENT, Attention.DELIVERED_TWICE),
        (None, None),
        (Attention.NOT_ON_STATEMENT, Attention.NOT_ON_STATEMENT),
        (Attention.STATE_DIFFERS, Attention.STATE_DIFFERS),
    ):
        async with world.database.writing() as session:
            await steps.flag(session, old, flagged)
        assert (await world.order(order_id)).attention == seen


async def test_an_order_that_did_not_fail_is_not_placed_anew(world: World, make_member: MakeMember) -> None:
    member_id = await make_member()
    for state in OrderState:
        if place_of(state) is Place.RETURNED:
            continue
        order_id = await world.place(member_id)
        for number, word in enumerate(PATHS[state], 1):
            await tell(world, order_id, word, number)
        with pytest.raises(OrderNotRepeatable):
            async with world.database.writing() as session:
                await fulfilment.repeat(session, await fulfilment.find(session, order_id), world.clock())


async def test_an_order_is_not_placed_anew_without_a_budget(
    database: Database, vault: Vault, make_member: MakeMember
) -> None:
    world, member_id = World(database, vault, MovingClock(NOW)), await make_member()
    await world.fund(5)
    order_id = await world.place(member_id)
    await tell(world, order_id, Word.FAILED, 1)
    await world.place(member_id)
    with pytest.raises(InsufficientBalance):
        async with world.database.writing() as session:
            await fulfilment.repeat(session, await fulfilment.find(session, order_id), world.clock())
    assert (await world.order(order_id)).replaced_by is None


async def test_cash_moves_in_fen_and_leaves_the_megabytes_alone(world: World, make_member: MakeMember) -> None:
    await world.fund(500, OrderKind.CASH)
    order_id = await world.place(await make_member(), 188, OrderKind.CASH)
    await tell(world, order_id, Word.AWAIT_USER, 1)
    order = await world.order(order_id)
    assert order.expires_at == NOW + timedelta(days=3)
    await tell(world, order_id, Word.COMPLETED, 2)
    assert (await world.totals("fen"))[Purpose.DELIVERED] == 188
    assert (await world.totals("mb"))[Purpose.DELIVERED] == 0


async def test_steps_are_never_changed_or_removed(world: World, make_member: MakeMember) -> None:
    order_id = await world.place(await make_member())
    await tell(world, order_id, Word.COMPLETED, 1)
    for statement in ("UPDATE fulfilment_step SET reason = 'x'", "DELETE FROM fulfilment_step"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with world.database.writing() as session:
                await (await session.connection()).execute(text(statement))


async def test_the_database_refuses_a_final_order_without_its_end(world: World, make_member: MakeMember) -> None:
    await world.place(await make_member())
    with pytest.raises(IntegrityError):
        async with world.database.writing() as session:
            await session.exec(update(Order).values(state="completed"))
    async with world.database.reading() as session:
        assert (await session.exec(select(Order.state))).all() == ["created"]
