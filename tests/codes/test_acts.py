"""Acts: written down in order, with what is needed to tell what was done."""

from datetime import timedelta

import pytest

from codes import acts, orders
from codes.acts import DETAIL_CHARACTERS_MAX, KIND_CHARACTERS_MAX, ActInvalid
from kit.db import Database
from offline_sdk import Profile
from tests.codes.conftest import BASE_URL, GTIN, NOW, Market


@pytest.fixture
async def order_id(database: Database, market: Market) -> int:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, 5, [Profile.OUTER], BASE_URL)
        return (await orders.place(session, plan, NOW)).order_id or 0


async def test_acts_are_kept_in_their_order(database: Database, order_id: int) -> None:
    later = NOW + timedelta(hours=1)
    async with database.writing() as session:
        first = await acts.record_act(session, order_id, "voided", "印刷厂", {"ranges": "0-4"}, NOW)
    async with database.writing() as session:
        second = await acts.record_act(session, order_id, "reprinted", None, {}, later)
    async with database.reading() as session:
        found = await acts.acts_of(session, order_id)
        assert await acts.acts_of(session, order_id + 1) == []
    assert found == [
        acts.Act(first, NOW, "voided", "印刷厂", {"ranges": "0-4"}),
        acts.Act(second, later, "reprinted", None, {}),
    ]


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("v", True),
        ("v" * KIND_CHARACTERS_MAX, True),
        ("", False),
        ("v" * (KIND_CHARACTERS_MAX + 1), False),
        ("V", False),
    ],
)
async def test_a_kind_is_a_short_word(database: Database, order_id: int, kind: str, good: bool) -> None:
    async with database.writing() as session:
        if good:
            await acts.record_act(session, order_id, kind, None, {}, NOW)
        else:
            with pytest.raises(ActInvalid):
                await acts.record_act(session, order_id, kind, None, {}, NOW)


@pytest.mark.parametrize(("more", "good"), [(-1, True), (0, True), (1, False)])
async def test_a_detail_has_an_end(database: Database, order_id: int, more: int, good: bool) -> None:
    detail = {"x": "繁" * (DETAIL_CHARACTERS_MAX - len('{"x":""}') + more)}
    async with database.writing() as session:
        if good:
            await acts.record_act(session, order_id, "voided", None, detail, NOW)
        else:
            with pytest.raises(ActInvalid, match="262,144"):
                await acts.record_act(session, order_id, "voided", None, detail, NOW)
