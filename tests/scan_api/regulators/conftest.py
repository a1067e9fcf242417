"""A small world for regulators: a dairy seated in Xi'an, and a tea house in Shanghai that has a shop in Xi'an."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from codes import catalogue
from codes.orders import CodeOrder
from kit.db import Database, Session
from scan_api.auth.api_keys import ApiKey, Role
from scan_api.provenance import captures, documents
from scan_api.provenance.captures import ErrorBehaviour
from scan_api.regulators import territory
from scan_api.regulators.accounts import Regulator
from scan_api.regulators.scope import Scope
from signer.keys import SigningKey, create_issuer

NOW = datetime(2026, 6, 10, 8, 0, tzinfo=UTC)
MILK, TOY, TEA = "09506000134352", "09506000134369", "09506000200002"
XIAN_SHOP, SHANGHAI_SHOP = "https://id.gs1.org/414/9506000134376", "https://id.gs1.org/414/9506000134383"
CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"


def link(gtin: str, number: int) -> str:
    return f"https://id.gs1.org/01/{gtin}/21/{number:014d}"


def seen(gtin: str, number: int, at: datetime = NOW, **fields: Any) -> dict[str, Any]:
    """An event of an item that was looked at."""
    return {
        "type": "ObjectEvent",
        "action": "OBSERVE",
        "eventTime": at.isoformat(),
        "eventTimeZoneOffset": "+08:00",
        "epcList": [link(gtin, number)],
        **fields,
    }


def regulator(scope: Scope, key_id: str = "00112233445566aa") -> Regulator:
    """Somebody with this scope, whose key needs no database."""
    key = ApiKey(
        key_id=key_id, role=Role.REGULATOR, label="Bureau", gtin_prefixes=[], secret_sha256=b"", created_at=NOW
    )
    return Regulator(key, None, scope)


@dataclass(frozen=True)
class World:
    """What stands in the database."""

    database: Database
    dairy: int
    tea_house: int
    group_id: int
    kid: int

    async def capture(
        self, brand_id: int, *events: Mapping[str, Any], now: datetime = NOW, by: str | uuid.UUID = ""
    ) -> None:
        """Keep events as a brand's capture does."""
        whole = {
            "@context": CONTEXT,
            "type": "EPCISDocument",
            "schemaVersion": "2.0",
            "creationDate": NOW.isoformat(),
            "epcisBody": {"eventList": list(events)},
        }
        judged = captures.judge(brand_id, documents.read(whole))
        async with self.database.writing() as session:
            caller = by if isinstance(by, uuid.UUID) else uuid.uuid5(uuid.NAMESPACE_OID, by)
            done = await captures.capture(session, brand_id, caller, CONTEXT, judged, ErrorBehaviour.PROCEED, now)
        assert {str(result.outcome) for result in done.results} == {"accepted"}

    async def order(self, gtin: str, number: int, quantity: int = 100, at: datetime = NOW) -> CodeOrder:
        """An order that nobody signed anything for."""
        placed = CodeOrder(
            gtin=gtin, order_number=number, quantity=quantity, outer_face=True, inner_face=False,
            base_url="https://id.example.cn", kid=self.kid, created_at=at,
        )  # fmt: skip
        async with self.database.writing() as session:
            session.add(placed)
            await session.flush()
        return placed


@pytest.fixture
async def world(database: Database) -> World:
    async with database.writing() as session:
        dairy, tea_house, group_id, kid = await _populate(session)
    return World(database, dairy, tea_house, group_id, kid)


async def _populate(session: Session) -> Sequence[int]:
    then = NOW - timedelta(days=100)
    issuer = await create_issuer(session, "World Foods", ["9506000"], then)
    assert issuer.issuer_id is not None
    session.add(SigningKey(kid=7, issuer_id=issuer.issuer_id, public=bytes(32), custody_name="none", created_at=then))
    dairy = await catalogue.create_brand(session, issuer, "World Group", "dairy", "乳业", "Dairy", then)
    tea = await catalogue.create_brand(session, issuer, "World Group", "tea", "茶", "Tea", then)
    for owner, gtin in ((dairy, MILK), (dairy, TOY), (tea, TEA)):
        await catalogue.create_product(session, owner, gtin, "货", gtin, then)
    assert dairy.brand_id is not None
    assert tea.brand_id is not None
    await territory.set_seats(session, dairy.brand_id, ["610100"], then)
    await territory.set_seats(session, tea.brand_id, ["310000"], then)
    await territory.set_categories(session, MILK, ["own:food/dairy", "gpc:50131700"], then)
    await territory.set_categories(session, TOY, ["own:toys"], then)
    await territory.set_categories(session, TEA, ["own:food/tea"], then)
    places = {XIAN_SHOP: "610113", SHANGHAI_SHOP: "310101", "Depot Xi'an": "6101"}
    await territory.set_places(session, tea.brand_id, places, then)
    return dairy.brand_id, tea.brand_id, dairy.group_id, 7
