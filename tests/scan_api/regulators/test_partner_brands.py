"""A partner of many brands: all of them are asked at once, by as many statements as a few."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from codes import catalogue
from kit.db import Database
from kit.vault import Vault, new_key
from scan_api.provenance import event_walk
from scan_api.provenance.repository import EpcisEvent
from scan_api.regulators import partner_events, partners
from scan_api.regulators.brand_events import BRANDS_ASKED_MAX, BrandsPage
from scan_api.regulators.sights import ScopeTooWide
from signer.keys import Issuer
from tests.scan_api.regulators.conftest import NOW, World, seen

GLN = "9506000134376"
WORLDS = 2
"""Brands that the world has by itself."""
VAULT = Vault(new_key())
ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Trade:
    """A partner, to which brands beside the world's two send goods."""

    world: World
    key: str
    partner_id: uuid.UUID

    async def brands(self, first: int, last: int, *, sharing: bool = False) -> None:
        """New brands by number, with an event of their own each, and one that names the partner."""
        async with self.world.database.writing() as session:
            issuer = (await session.exec(select(Issuer))).one()
            made = [
                await catalogue.create_brand(session, issuer, "World Group", f"b{number}", "牌", "Brand", NOW)
                for number in range(first, last + 1)
            ]
            since = NOW - timedelta(days=9)
            for brand in made if sharing else ():
                brand_id = brand.brand_id or 0
                await partners.share(session, brand_id, self.partner_id, [], [], since, None, "erp", NOW)
        for number, brand in enumerate(made, first):
            party = {"type": "owning_party", "destination": f"https://id.gs1.org/417/{GLN}"}
            sent = _event(1_000 + number, destinationList=[party])
            await self.world.capture(brand.brand_id or 0, _event(number), sent)

    async def ask(self, *given: tuple[str, str]) -> BrandsPage:
        async with self.world.database.reading() as session:
            partner = await partners.authenticate(session, f"Bearer {self.key}", NOW)
            return await partner_events.page(session, VAULT, partner, given)

    async def walked(self, *given: tuple[str, str]) -> list[int]:
        """The numbers of the events of all pages together."""
        found: list[int] = []
        token: str | None = ""
        while token is not None:
            page = await self.ask(*given, *([("nextPageToken", token)] if token else []))
            found += [_number(one) for one in page.events]
            token = page.next_token
        return found


def _event(number: int, **fields: Any) -> dict[str, Any]:
    """An event of a container; the higher its number, the later."""
    container = f"urn:epc:id:sscc:9506000.{number:010d}"
    return seen("", 0, NOW + timedelta(minutes=number), **fields) | {"epcList": [container]}


def _number(one: EpcisEvent) -> int:
    return int(one.content.partition("sscc:9506000.")[2][:10])


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that the database is sent meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        sent.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


@pytest.fixture
async def trade(world: World) -> Trade:
    async with world.database.writing() as session:
        account = await partners.create(session, "Fast Freight", [GLN], NOW)
        _made, key = await partners.create_key(session, account.partner_id, "depot", NOW)
    return Trade(world, key, account.partner_id)


QUESTIONS: Sequence[Sequence[tuple[str, str]]] = (
    [],
    [("orderBy", "recordTime")],
    [("EQ_action", "OBSERVE"), ("orderDirection", "ASC")],
    [("MATCH_epc", f"urn:epc:id:sscc:9506000.{1_001:010d}")],
    [("MATCH_epc", f"urn:epc:idpat:sscc:9506000.{1_001:010d}")],
)


async def test_a_hundred_brands_are_asked_by_as_many_statements_as_four(trade: Trade) -> None:
    counts: list[list[int]] = []
    for first, last in ((1, 2), (3, 18), (19, BRANDS_ASKED_MAX - WORLDS)):
        half = (first + last) // 2
        await trade.brands(first, half, sharing=True)
        await trade.brands(half + 1, last)
        counts.append([await _statements(trade, question) for question in QUESTIONS])
    assert counts[0] == counts[1] == counts[2]


async def _statements(trade: Trade, question: Sequence[tuple[str, str]]) -> int:
    """How many statements a page takes, once the contexts of its events are remembered."""
    given = [("perPage", "2"), *question]
    first = await trade.ask(*given)
    assert first.events
    with counted(trade.world.database) as sent:
        assert (await trade.ask(*given)).events == first.events
    return len(sent)


@pytest.mark.parametrize("limits", [{}, {"MET_AT_ONCE_MAX": 3, "_PATHS_AT_ONCE": 7, "WINDOW_EVENTS": 5}])
@pytest.mark.parametrize("captures", [False, True])
async def test_the_events_of_many_brands_come_in_one_order(
    trade: Trade, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], captures: bool
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(event_walk, name, value)
    await trade.brands(1, 6, sharing=True)
    await trade.brands(7, 12)
    expected = [*range(1, 7), *range(1_001, 1_013)]
    if captures:
        async with trade.world.database.reading() as session:
            [caller] = (await partners.authenticate(session, f"Bearer {trade.key}", NOW)).viewer.callers
        await trade.world.capture(trade.world.dairy, _event(500), by=caller)
        await trade.world.capture(trade.world.dairy, _event(501))
        expected.insert(6, 500)
    assert await trade.walked() == await trade.walked(("perPage", "4")) == expected[::-1]
    assert await trade.walked(("orderDirection", "ASC"), ("perPage", "5")) == expected
    assert sorted(await trade.walked(("orderBy", "recordTime"), ("perPage", "5"))) == expected
    assert await trade.walked(("brand", "b2"), ("brand", "b8")) == [1_008, 1_002, 2]
    until = ("LT_eventTime", (NOW + timedelta(minutes=1_005)).isoformat())
    assert await trade.walked(until, ("GE_eventTime", (NOW + timedelta(minutes=5)).isoformat())) == [
        one for one in reversed(expected) if 5 <= one < 1_005
    ]


async def test_brands_are_walked_by_time_above_so_many_branches_and_the_answer_is_the_same(
    trade: Trade, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trade.brands(1, 2, sharing=True)
    await trade.brands(3, 6)
    async with trade.world.database.reading() as session:
        viewer = (await partners.authenticate(session, f"Bearer {trade.key}", NOW)).viewer
    by_name = len(partner_events._paths(viewer)) * (4 + WORLDS)
    by_time = 6 + WORLDS  # a branch of each brand finds where a window ends
    answers: list[list[list[int]]] = []
    for branches_max, branches in ((by_name, by_name), (by_name - 1, by_time)):
        monkeypatch.setattr(partner_events, "BRANCHES_MAX", branches_max)
        with counted(trade.world.database) as sent:
            await trade.ask()
        assert max(one.count("UNION ALL") + 1 for one in sent if "walked_at" in one) == branches
        answers.append([await trade.walked(("perPage", "2"), *question) for question in QUESTIONS])
    assert answers[0] == answers[1]
    assert answers[0][0] == [*range(1_006, 1_000, -1), 2, 1]


@ONE_DATABASE
async def test_no_more_brands_are_asked_at_once_than_allowed(trade: Trade) -> None:
    await trade.brands(1, 1, sharing=True)
    async with trade.world.database.writing() as session:
        issuer = (await session.exec(select(Issuer))).one()
        for number in range(2, BRANDS_ASKED_MAX - WORLDS + 1):
            await catalogue.create_brand(session, issuer, "World Group", f"b{number}", "牌", "Brand", NOW)
    assert len((await trade.ask()).events) == 2
    await trade.brands(900, 900)
    with pytest.raises(ScopeTooWide, match="100 brands"):
        await trade.ask()
    assert await trade.walked(("brand", "b1")) == [1_001, 1]
    assert await trade.walked(("brand", "b900"), ("brand", "nobody")) == [1_900]


@ONE_DATABASE
async def test_many_shares_of_a_brand_are_told_apart_by_the_event(trade: Trade) -> None:
    """Columns are narrowed by what all of a brand's shares have in common, and each event by each of them."""
    world, day = trade.world, timedelta(days=1)
    moments = [NOW - 5 * day, NOW - 3 * day, NOW - day]
    await world.capture(world.dairy, *(_event(at, eventTime=moment.isoformat()) for at, moment in enumerate(moments)))
    async with world.database.writing() as session:
        for since, until, types in (
            (NOW - 6 * day, NOW - 4 * day, ["ObjectEvent"]),
            (NOW - 3 * day, NOW - 2 * day, ["AggregationEvent"]),
            (NOW - 2 * day, NOW, ["ObjectEvent"]),
        ):
            await partners.share(session, world.dairy, trade.partner_id, [], types, since, until, "erp", NOW)
    assert await trade.walked() == [2, 0]
