"""What a till may look up: hundreds of strangers an hour, and no more."""

import uuid
from datetime import datetime, timedelta

import pytest

from kit.db import Database
from kit.vault import Vault
from loyalty import till_limits
from loyalty.code_limits import LIMITS, Scope
from loyalty.till_limits import MISS_UNITS, PERSON_UNITS, TillLookupsLimited
from tests.loyalty.conftest import NOW

UNITS_MAX = LIMITS[Scope.TILL].count_max
TILL, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
A_MOMENT = timedelta(microseconds=1)


class Counter:
    """Counts what tills look up, each in a transaction of its own."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    async def misses(self, count: int, now: datetime = NOW, till: uuid.UUID = TILL) -> None:
        async with self._database.writing() as session:
            await till_limits.count_misses(session, self._vault, till, now, count)

    async def person(self, *, is_found: bool) -> None:
        async with self._database.writing() as session:
            await till_limits.count_person(session, self._vault, TILL, NOW, is_found=is_found)

    async def look(self, now: datetime = NOW, till: uuid.UUID = TILL) -> None:
        async with self._database.reading() as session:
            await till_limits.require_room(session, self._vault, till, now)


@pytest.fixture
def counter(database: Database, vault: Vault) -> Counter:
    return Counter(database, vault)


def test_a_busy_shop_has_room_for_hundreds_of_strangers_and_thousands_of_members_an_hour() -> None:
    assert (UNITS_MAX // MISS_UNITS, UNITS_MAX // PERSON_UNITS) == (600, 6_000)


async def test_a_till_is_answered_below_and_at_its_limit_and_not_above(counter: Counter) -> None:
    await counter.look()
    await counter.misses(UNITS_MAX // MISS_UNITS - 1)
    await counter.look()
    await counter.misses(1)
    for refused in (counter.look(), counter.misses(1), counter.person(is_found=True), counter.person(is_found=False)):
        with pytest.raises(TillLookupsLimited) as refusal:
            await refused
        assert refusal.value.retry_after_s == 3_600
    await counter.look(till=OTHER)
    await counter.misses(1, till=OTHER)


async def test_whether_there_is_room_does_not_tell_what_was_found(counter: Counter) -> None:
    await counter.misses(UNITS_MAX // MISS_UNITS - 1)
    for _ in range(MISS_UNITS - 1):
        await counter.person(is_found=True)
    await counter.person(is_found=False)  # one unit was left, and ten are taken
    with pytest.raises(TillLookupsLimited):
        await counter.person(is_found=True)


async def test_the_window_opens_again_after_an_hour(counter: Counter) -> None:
    await counter.misses(UNITS_MAX)
    for at in (NOW, NOW + timedelta(hours=1) - A_MOMENT):
        with pytest.raises(TillLookupsLimited):
            await counter.look(at)
    await counter.look(NOW + timedelta(hours=1))
    await counter.misses(1, NOW + timedelta(hours=1))
