"""Procedures: one wording, two ways to run it, and the same outcome on either."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from kit import procedures
from kit.db import Database
from kit.errors import ConfigurationError
from kit.procedures import Caller, Kind, Procedure, Refused, Step

COUNTING = Procedure(
    "count_up",
    {"name": Kind.UUID, "names": Kind.UUIDS, "amount": Kind.BIGINT, "limit": Kind.BIGINT, "twice": Kind.BOOLEAN},
    [
        Step(
            "INSERT INTO scores (name, total) VALUES (:name, :amount) ON CONFLICT (name) DO UPDATE "
            "SET total = scores.total + excluded.total WHERE scores.total < :limit RETURNING total",
            gives={"total": Kind.BIGINT},
            refusal="TooMany",
        ),
        Step("UPDATE scores SET total = total + :total WHERE name = :name", when="twice", refusal="Lost"),
        Step("SELECT 1 FROM scores WHERE name = :name [[FOR UPDATE]]", refusal="Gone"),
        Step("SELECT count(*) FROM scores WHERE name = ANY(:names)", gives={"known": Kind.BIGINT}),
    ],
    ("total", "known"),
)
COLLECTING = Procedure(
    "collect",
    {"now": Kind.MOMENT, "least": Kind.BIGINT, "also": Kind.BOOLEAN},
    [
        Step("SELECT :now AS met", gives={"met": Kind.MOMENT}),
        Step(
            "SELECT name, total, total > 2, NULL, :now FROM scores WHERE total >= :least ORDER BY total DESC",
            gives={
                "name": Kind.UUID,
                "total": Kind.BIGINT,
                "more": Kind.BOOLEAN,
                "missing": Kind.TEXT,
                "at": Kind.MOMENT,
            },
            collects="found",
        ),
        Step("SELECT total FROM scores", gives={"total": Kind.BIGINT}, collects="besides", when="also"),
    ],
    ("met", "found", "besides"),
    writes=False,
)
NAME = uuid.UUID(int=7)


def values(**changes: Any) -> dict[str, Any]:
    return {"name": NAME, "names": [NAME, uuid.UUID(int=8)], "amount": 2, "limit": 4, "twice": False, **changes}


@pytest.fixture
async def scores(database: Database) -> Database:
    async with database.writing() as session:
        connection = await session.connection()
        await connection.execute(text("DROP TABLE IF EXISTS scores"))
        kind = "uuid" if database.engine.dialect.name == "postgresql" else "text"
        await connection.execute(text(f"CREATE TABLE scores (name {kind} PRIMARY KEY, total bigint NOT NULL)"))
    await procedures.install(database, [COUNTING, COLLECTING])
    return database


@pytest.fixture(params=["in a session", "at once in a session", "by a caller"])
async def run(request: pytest.FixtureRequest, scores: Database) -> Any:
    """Every way of running a procedure, each in a transaction of its own."""
    caller = Caller(scores)

    async def in_session(procedure: Procedure = COUNTING, **changes: Any) -> dict[str, Any]:
        way = procedures.call if request.param == "in a session" else procedures.call_at_once
        async with scores.writing() as session:
            return await way(session, procedure, values(**changes))

    async def by_caller(procedure: Procedure = COUNTING, **changes: Any) -> dict[str, Any]:
        return await caller.call(procedure, values(**changes))

    yield by_caller if request.param == "by a caller" else in_session
    await caller.close()


async def stored(database: Database) -> list[int]:
    async with database.reading() as session:
        return list((await (await session.connection()).execute(text("SELECT total FROM scores"))).scalars())


async def test_every_way_gives_the_same_answer_and_leaves_the_same_rows(run: Any, scores: Database) -> None:
    assert await run() == {"total": 2, "known": 1}
    assert await run() == {"total": 4, "known": 1}
    assert await stored(scores) == [4]


async def test_a_refusal_undoes_everything_and_says_which_step_it_was(run: Any, scores: Database) -> None:
    await run(amount=4)
    with pytest.raises(Refused) as refusal:
        await run()
    assert refusal.value.name == "TooMany"
    assert await stored(scores) == [4]


async def test_a_step_runs_only_when_its_parameter_says_so_and_uses_what_earlier_ones_gave(
    run: Any, scores: Database
) -> None:
    assert (await run(amount=1, twice=True))["total"] == 1
    assert await stored(scores) == [2]


async def test_all_rows_of_a_step_are_one_value_of_its_kinds(run: Any) -> None:
    other, now = uuid.UUID(int=8), datetime(2026, 3, 2, 8, 0, 0, 120_000, tzinfo=timezone(timedelta(hours=8)))
    await run(amount=2)
    await run(amount=3, name=other)
    assert await run(COLLECTING, now=now, least=2, also=False) == {
        "met": now,
        "found": [(other, 3, True, None, now), (NAME, 2, False, None, now)],
        "besides": None,
    }
    nothing = await run(COLLECTING, now=now, least=4, also=True)
    assert (nothing["found"], nothing["met"].tzinfo) == ([], UTC)
    assert sorted(nothing["besides"]) == [(2,), (3,)]


async def test_callers_at_the_same_time_get_one_row_each_their_turn(scores: Database) -> None:
    caller = Caller(scores, connections=8)
    answers = await asyncio.gather(*(caller.call(COUNTING, values(amount=1, limit=100)) for _ in range(40)))
    await caller.close()
    assert sorted(answer["total"] for answer in answers) == list(range(1, 41))


async def test_an_installation_without_the_function_is_told_what_to_do(database: Database) -> None:
    other = Procedure("never_made", {"now": Kind.MOMENT}, [Step("SELECT 1")], ("now",))
    if database.engine.dialect.name == "sqlite":
        await procedures.check(database, [other])  # it needs none
        return
    with pytest.raises(ConfigurationError, match="never_made"):
        await procedures.check(database, [other])
    await procedures.install(database, [other])
    await procedures.check(database, [other])


async def test_a_connection_that_the_server_closed_is_not_used_again(scores: Database) -> None:
    if scores.engine.dialect.name == "sqlite":
        return  # it has no connections that somebody else could close
    caller = Caller(scores, connections=1)
    await caller.call(COUNTING, values(limit=100))
    url = scores.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as other:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        other.execute(f"SELECT pg_terminate_backend(pid) {others}")
        while other.execute(f"SELECT 1 {others}").fetchone():  # it takes them a moment
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # they are off the list before they have hung up
    assert (await caller.call(COUNTING, values(limit=100)))["total"] == 4
    await caller.close()


def test_the_name_changes_with_the_wording_and_with_nothing_else() -> None:
    same = Procedure("count_up", COUNTING.parameters, COUNTING.steps, COUNTING.answer)
    other = Procedure("count_up", COUNTING.parameters, COUNTING.steps[:-1], ("total",))
    assert same.name == COUNTING.name
    assert other.name != COUNTING.name


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        ([Step("SELECT :stranger")], ()),
        ([Step("SELECT 1", when="stranger")], ()),
        ([Step("SELECT 1")], ("stranger",)),
        ([Step("SELECT 1")], ()),
        ([Step("SELECT 1", gives={"Total": Kind.BIGINT})], ()),
    ],
    ids=["parameter", "condition", "answer", "silence", "name"],
)
def test_a_procedure_that_speaks_of_what_it_does_not_know_is_not_made(
    steps: list[Step], answer: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="bad"):
        Procedure("bad", {"now": Kind.MOMENT}, steps, answer)
