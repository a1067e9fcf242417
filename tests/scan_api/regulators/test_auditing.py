"""What a group's auditor is told of regulators' looks: what concerns his group, and nothing of others' goods."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from codes import catalogue
from codes.catalogue import BrandUnknown
from kit.db import Session
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.regulators import accesses, auditing
from scan_api.regulators.accesses import KEPT, Asked, RegulatorAccess, RegulatorAccessBrand, Told
from scan_api.regulators.auditing import GroupLook
from scan_api.regulators.scope import Scope
from signer.keys import Issuer
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, World, link, regulator

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JUICE = "09506000999999"
BOX = "https://id.gs1.org/00/095060000000000017"
MOMENT = "2026-06-01T00:00:00Z"


@dataclass(frozen=True)
class Groups:
    """The world's group with dairy and tea house, and another one with a juicery."""

    world: World
    juicery: int
    other_group: int

    async def look(self, operation: str, told: Told, subject: str = "", **filters: Any) -> None:
        asked = Asked(operation, subject, filters, "Case 17")
        async with self.world.database.writing() as session:
            await accesses.record(session, regulator(Scope()), asked, told, "answered", NOW)

    async def read(self, group_id: int | None = None) -> list[GroupLook]:
        async with self.world.database.reading() as session:
            return await auditing.of_group(session, group_id or self.world.group_id, None, 100)


@pytest.fixture
async def groups(world: World) -> Groups:
    async with world.database.writing() as session:
        issuer = (await session.exec(select(Issuer))).one()
        juicery = await catalogue.create_brand(session, issuer, "Other Group", "juicery", "果汁", "Juicery", NOW)
        await catalogue.create_product(session, juicery, JUICE, "货", "juice", NOW)
    assert juicery.brand_id is not None
    return Groups(world, juicery.brand_id, juicery.group_id)


async def test_of_a_look_at_many_an_auditor_sees_what_concerns_his_group(groups: Groups) -> None:
    world = groups.world
    told = Told()
    told.of(world.dairy, 2)
    told.of(world.tea_house, 3)
    told.of(groups.juicery, 40)
    await groups.look(
        "events",
        told,
        MATCH_epc=f"{link(MILK, 1)}|{link(JUICE, 2)}|{BOX}",
        MATCH_parentID=BOX,
        EQ_readPoint="https://juicery.example/dock",
        EQ_bizStep="https://juicery.example/pressing",
        brand="juicery|dairy|nobody",
        GE_eventTime=MOMENT,
        nextPageToken="of a place among all events",
    )
    [look], [other] = await groups.read(), await groups.read(groups.other_group)
    assert (look.name, look.key_id, look.at, look.operation) == ("Bureau", regulator(Scope()).key.key_id, NOW, "events")
    assert (look.told, other.told, look.purpose, look.outcome) == (5, 40, "Case 17", "answered")
    assert look.asked == {"MATCH_epc": link(MILK, 1), "brand": "dairy", "GE_eventTime": MOMENT}
    assert other.asked == {"MATCH_epc": link(JUICE, 2), "brand": "juicery", "GE_eventTime": MOMENT}
    async with world.database.reading() as session:
        [row] = await accesses.of_holder(session, None, None, 10)
    assert (row.told, row.asked["brand"], len(row.asked)) == (45, "juicery|dairy|nobody", 7)


@ONE_DATABASE
@pytest.mark.parametrize(
    ("operation", "subject", "count", "is_shown"),
    [
        ("item", f"{MILK}/00014000000001", 1, True),
        ("trace", link(MILK, 1), 0, True),
        ("trace", link(TEA, 1), 3, True),
        ("trace", link(JUICE, 1), 3, False),
        ("evidence", link(JUICE, 1), 0, False),
        ("trace", BOX, 3, True),
        ("trace", BOX, 0, False),
        ("recall_order", f"lot {MILK}/L1", 1, True),
    ],
)
async def test_a_subject_that_names_anothers_thing_is_left_out(
    groups: Groups, operation: str, subject: str, count: int, is_shown: bool
) -> None:
    await groups.look(operation, Told(count, {groups.world.dairy: count}), subject, brand="dairy", steps=5)
    [look] = await groups.read()
    assert (look.subject, look.told) == (subject if is_shown else "", count)
    assert look.asked == {"brand": "dairy", "steps": 5}
    assert await groups.read(groups.other_group) == []


@ONE_DATABASE
async def test_what_one_line_tells_of_several_brands_counts_for_each(groups: Groups) -> None:
    told = Told()
    for brands in ({groups.world.dairy, groups.juicery}, {groups.juicery}, {groups.world.dairy}, {groups.juicery}):
        told.of_all(brands)
    await groups.look("statistics", told, first="2026-05", last="2026-06", by="month", kind="")
    [look], [other] = await groups.read(), await groups.read(groups.other_group)
    assert (told.count, look.told, other.told) == (4, 2, 3)
    assert look.asked == {"first": "2026-05", "last": "2026-06", "by": "month", "kind": ""}


@ONE_DATABASE
@pytest.mark.parametrize(("others", "told"), [(False, 9), (True, None)])
async def test_how_many_were_a_groups_was_not_counted_before(groups: Groups, others: bool, told: int | None) -> None:
    brands = [groups.world.dairy, groups.juicery if others else groups.world.tea_house]
    kept = {"access_id": uuid.uuid4(), "at": NOW, "kept_until": NOW + KEPT}
    before = RegulatorAccess(
        **kept, holder_id=uuid.uuid4(), key_id="k", name="Bureau", operation="events", subject="", filters={"steps": 5},
        outcome="answered", told=9,
    )  # fmt: skip
    async with groups.world.database.writing() as session:
        session.add_all([before, *(RegulatorAccessBrand(**kept, brand_id=brand_id) for brand_id in brands)])
    [look] = await groups.read()
    assert (look.told, look.asked) == (told, {"steps": 5})


@ONE_DATABASE
async def test_many_looks_at_many_things_are_read(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "GTINS_ASKED_AT_ONCE_MAX", 2)
    gtins = (MILK, TEA, JUICE, "09506000000019", "09506000000026")
    told = Told(1, {groups.world.dairy: 1})
    await groups.look("events", told, MATCH_epc="|".join(link(gtin, 1) for gtin in gtins))
    [look] = await groups.read()
    assert look.asked == {"MATCH_epc": f"{link(MILK, 1)}|{link(TEA, 1)}"}


@ONE_DATABASE
async def test_anothers_brand_is_refused_as_one_that_there_is_not(groups: Groups) -> None:
    async with groups.world.database.writing() as session:
        key, _text = await api_keys.create(session, Role.AUDITOR, "audit", NOW, brand_id=groups.world.dairy)
        assert await auditing.group_of(session, key, "dairy") == groups.world.group_id
        told = [await _refusal(session, key, slug) for slug in ("juicery", "nobody")]
    assert told[0] == told[1]


async def _refusal(session: Session, key: ApiKey, slug: str) -> tuple[str, str]:
    with pytest.raises(BrandUnknown) as refused:
        await auditing.group_of(session, key, slug)
    return refused.value.message, refused.value.hint


@ONE_DATABASE
async def test_looks_are_paged_by_their_time(groups: Groups) -> None:
    for hours in range(3):
        async with groups.world.database.writing() as session:
            told, at = Told(1, {groups.world.dairy: 1}), NOW + timedelta(hours=hours)
            await accesses.record(session, regulator(Scope()), Asked("item"), told, "answered", at)
    assert [look.at.hour for look in await groups.read()] == [10, 9, 8]
