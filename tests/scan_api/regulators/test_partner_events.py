"""The partners' door: pages of what a partner sees, and nothing by which the rest could be guessed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from kit.vault import Vault, new_key
from scan_api.paging import CursorInvalid
from scan_api.provenance import event_search, event_walk
from scan_api.provenance.event_query import QueryParameterInvalid
from scan_api.provenance.event_walk import Work
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import partner_events, partners
from scan_api.regulators.brand_events import BrandsPage
from scan_api.regulators.partner_events import TOKEN_CHARACTERS_MAX
from scan_api.regulators.partners import Partner
from tests.scan_api.regulators.conftest import MILK, NOW, SHANGHAI_SHOP, TEA, TOY, XIAN_SHOP, World, seen

GLN, OTHER_GLN = "9506000134376", "9506000134390"
VAULT = Vault(new_key())
ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _serial(event: EpcisEvent) -> str:
    return event.content.partition("/21/")[2][:14].lstrip("0")


@dataclass(frozen=True)
class Door:
    world: World
    key: str

    async def ask(self, *given: tuple[str, str]) -> BrandsPage:
        async with self.world.database.reading() as session:
            return await partner_events.page(session, VAULT, await self.partner(session), given)

    async def partner(self, session: Any) -> Partner:
        return await partners.authenticate(session, f"Bearer {self.key}", NOW)

    async def walked(self, *given: tuple[str, str]) -> list[str]:
        """What all pages together have: serials."""
        found, token, pages = [], None, 0
        while pages == 0 or token is not None:
            page = await self.ask(*given, *([("nextPageToken", token)] if token else []))
            found += [_serial(event) for event in page.events]
            token, pages = page.next_token, pages + 1
            assert pages < 50
        return found


async def door(world: World, identifier: str = GLN) -> Door:
    async with world.database.writing() as session:
        account = await partners.create(session, "Fast Freight", [identifier], NOW)
        _made, text = await partners.create_key(session, account.partner_id, "depot", NOW)
    return Door(world, text)


def through(number: int, hours: int = 0, gtin: str = MILK, gln: str = GLN) -> dict[str, Any]:
    party = {"type": "possessing_party", "destination": f"https://id.gs1.org/417/{gln}"}
    return seen(gtin, number, NOW + timedelta(hours=hours), destinationList=[party])


async def share(world: World, partner: Door, gtins: Sequence[str], types: Sequence[str] = ()) -> Any:
    async with world.database.writing() as session:
        account = (await partner.partner(session)).account
        return await partners.share(
            session, world.dairy, account.partner_id, gtins, types, NOW - timedelta(days=9), None, "erp", NOW
        )


async def test_a_partner_pages_through_what_passed_through_it_and_what_is_shared_alone(world: World) -> None:
    mine, other = await door(world), await door(world, OTHER_GLN)
    await world.capture(
        world.dairy,
        *(through(at, at) for at in range(1, 6)),
        seen(MILK, 7, readPoint={"id": f"https://id.gs1.org/414/{GLN}/254/dock"}),
        seen(MILK, 8),
        seen(TOY, 9),
        through(10, gln=OTHER_GLN),
    )
    await world.capture(world.tea_house, through(11, gtin=TEA), seen(TEA, 12, readPoint={"id": SHANGHAI_SHOP}))
    assert sorted(await mine.walked()) == sorted(["1", "2", "3", "4", "5", "7", "11"])
    assert await mine.walked(("perPage", "2"), ("eventType", "ObjectEvent")) == await mine.walked()
    assert await other.walked() == ["10"]
    made = await share(world, mine, [MILK])
    assert set(await mine.walked()) == {"1", "2", "3", "4", "5", "7", "8", "10", "11"}
    assert await other.walked() == ["10"]
    async with world.database.writing() as session:
        await partners.revoke(session, world.dairy, made.share_id, "erp", NOW)
    assert "8" not in await mine.walked()
    assert await mine.walked(("brand", "tea")) == ["11"]
    assert await mine.walked(("EQ_bizStep", "shipping")) == []


async def test_what_passed_through_a_partner_is_found_without_a_look_at_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other, dock = await door(world), await door(world, OTHER_GLN), f"https://id.gs1.org/414/{GLN}/254/dock"
    await world.capture(
        world.dairy,
        *(through(at, at, gln=OTHER_GLN) for at in range(20, 60)),
        *(through(at, at) for at in (1, 30, 90)),
        seen(MILK, 2, NOW, bizLocation={"id": dock}),
        seen(MILK, 3, NOW, readPoint={"id": f"urn:epc:id:sgln:{GLN[:7]}.{GLN[7:12]}.0"}),
    )
    assert len(await other.walked()) == 40
    monkeypatch.setattr(event_search, "Work", partial(Work, sifted=6, decoded=6))
    monkeypatch.setattr(partner_events, "WALKS_MAX", 1)
    found = await mine.ask()
    assert ([_serial(event) for event in found.events[:2]], len(found.events)) == (["90", "30"], 5)
    assert found.next_token is None
    for pairs in ([("perPage", "2")], [("orderDirection", "ASC")], [("EQ_bizStep", "shipping")]):
        expected = [] if pairs[0][0] == "EQ_bizStep" else ["1", "2", "3", "30", "90"]
        assert sorted(await mine.walked(*pairs), key=int) == expected
    epc = "MATCH_epc", f"https://id.gs1.org/01/{MILK}/21/{30:014d}"
    assert await mine.walked(epc) == ["30"]
    monkeypatch.setattr(event_walk, "WINDOW_EVENTS", 3)
    await share(world, mine, [TOY])
    assert (await mine.ask(("orderBy", "recordTime"))).next_token is not None  # by another way, which takes longer


@ONE_DATABASE
async def test_what_is_not_there_and_what_is_not_seen_look_alike(world: World) -> None:
    mine = await door(world)
    await world.capture(world.dairy, *(seen(MILK, at) for at in range(30)))
    epc = "MATCH_epc", f"https://id.gs1.org/01/{MILK}/21/{1:014d}"
    nobodys = "MATCH_epc", f"https://id.gs1.org/01/{MILK}/21/{99:014d}"
    for given in ([epc], [nobodys], [("brand", "dairy")], [("brand", "nobody")], [("perPage", "2")], []):
        assert await mine.ask(*given) == BrandsPage([], None)


@ONE_DATABASE
async def test_a_token_is_sealed_and_of_its_partner_alone(world: World) -> None:
    mine, other = await door(world), await door(world)
    await world.capture(world.dairy, *(through(at, at) for at in range(3)))
    token = (await mine.ask(("perPage", "1"))).next_token
    assert token is not None
    assert len((await mine.ask(("perPage", "1"), ("nextPageToken", token))).events) == 1
    assert len(token) < TOKEN_CHARACTERS_MAX
    for wrong in (token[:-2], "", "é", "A" * TOKEN_CHARACTERS_MAX, "A" * (TOKEN_CHARACTERS_MAX + 1)):
        with pytest.raises(CursorInvalid):
            await mine.ask(("nextPageToken", wrong))
    with pytest.raises(CursorInvalid):
        await other.ask(("nextPageToken", token))
    with pytest.raises(QueryParameterInvalid):
        await mine.ask(("maxEventCount", "1"))


@ONE_DATABASE
async def test_what_its_own_keys_captured_is_seen(world: World) -> None:
    mine = await door(world)
    async with world.database.reading() as session:
        [caller] = (await mine.partner(session)).viewer.callers
    await world.capture(world.dairy, seen(MILK, 1), by=caller)
    await world.capture(world.dairy, seen(MILK, 2), by="another")
    assert await mine.walked() == ["1"]


@ONE_DATABASE
@pytest.mark.parametrize("name", ["EQATTR_readPoint_x", "HASATTR_bizLocation", "WD_readPoint"])
async def test_a_partner_cannot_ask_by_a_brands_master_data(world: World, name: str) -> None:
    with pytest.raises(QueryParameterInvalid, match="master data"):
        await (await door(world)).ask((name, XIAN_SHOP))


@ONE_DATABASE
async def test_a_name_that_no_brand_can_have_is_one_of_which_nothing_is_seen(world: World) -> None:
    assert await (await door(world)).ask(("brand", "\0")) == BrandsPage([], None)
