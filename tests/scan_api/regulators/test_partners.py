"""What partners of brands see: their own, what passed through them, and what is shared; and nothing else."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from scan_api.auth.api_keys import ApiKeyRefused, OutOfScope
from scan_api.regulators import accounts, partners, visibility
from scan_api.regulators.partners import (
    GTINS_PER_SHARE_MAX,
    IDENTIFIERS_MAX,
    SHARES_MAX,
    PartnerAccount,
    PartnerEnded,
    PartnerInvalid,
    PartnerUnknown,
    ShareInvalid,
    ShareUnknown,
    TooManyShares,
)
from scan_api.regulators.visibility import Share, Viewer, Visibility
from tests.scan_api.regulators.conftest import MILK, NOW, TEA, TOY, World, seen

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
GLN, OTHER_GLN = "9506000134376", "9506000134383"
CALLER, OTHER_CALLER = uuid.UUID(int=1), uuid.UUID(int=2)
BRAND, OTHER_BRAND = 1, 2
VIEWER = Viewer(frozenset({GLN, "https://carrier.example/depot"}), frozenset({CALLER}))
SSCC = ["urn:epc:id:sscc:9506000.0000000001"]


def _party(kind: str, name: str) -> dict[str, Any]:
    return {f"{kind}List": [{"type": "owning_party", kind: name}]}


@pytest.mark.parametrize(
    ("fields", "captured_by", "why"),
    [
        ({}, CALLER, Visibility.CAPTURED),
        ({}, OTHER_CALLER, Visibility.HIDDEN),
        ({}, None, Visibility.HIDDEN),
        ({"readPoint": {"id": f"https://id.gs1.org/414/{GLN}"}}, None, Visibility.PLACE),
        ({"bizLocation": {"id": "urn:epc:id:sgln:9506000.13437.dock-2"}}, None, Visibility.PLACE),
        ({"readPoint": {"id": f"https://id.gs1.org/414/{OTHER_GLN}"}}, None, Visibility.HIDDEN),
        ({"readPoint": {"id": "https://carrier.example/depot"}}, None, Visibility.PLACE),
        ({"readPoint": {"id": "https://carrier.example/depot/2"}}, None, Visibility.HIDDEN),
        (_party("source", "urn:epc:id:pgln:9506000.13437"), None, Visibility.PARTY),
        (_party("destination", f"https://id.gs1.org/417/{GLN}"), None, Visibility.PARTY),
        (_party("destination", f"https://id.gs1.org/414/{GLN}/254/12"), None, Visibility.PARTY),
        (_party("destination", f"https://id.gs1.org/417/{OTHER_GLN}"), None, Visibility.HIDDEN),
        ({"bizTransactionList": [{"bizTransaction": f"https://id.gs1.org/417/{GLN}"}]}, None, Visibility.HIDDEN),
    ],
)
def test_what_passed_through_a_partner_is_seen(
    fields: Mapping[str, Any], captured_by: uuid.UUID | None, why: Visibility
) -> None:
    facts = visibility.facts_of(seen(MILK, 1, **fields), BRAND, NOW, captured_by)
    assert visibility.decide(facts, VIEWER) is why
    assert why.is_visible is (why is not Visibility.HIDDEN)


@pytest.mark.parametrize(
    ("share", "event", "is_seen"),
    [
        (Share(BRAND, frozenset(), frozenset(), NOW), seen(MILK, 1), True),
        (Share(BRAND, frozenset(), frozenset(), NOW), {**seen(MILK, 1), "epcList": SSCC}, True),
        (Share(OTHER_BRAND, frozenset(), frozenset(), NOW), seen(MILK, 1), False),
        (Share(BRAND, frozenset({MILK}), frozenset(), NOW), seen(MILK, 1), True),
        (Share(BRAND, frozenset({MILK}), frozenset(), NOW), seen(TOY, 1), False),
        (Share(BRAND, frozenset({MILK}), frozenset(), NOW), {**seen(MILK, 1), "epcList": SSCC}, False),
        (
            Share(BRAND, frozenset({MILK}), frozenset(), NOW),
            {**seen(MILK, 1), "epcList": seen(MILK, 1)["epcList"] + seen(TOY, 1)["epcList"]},
            False,  # who is shown one product learns nothing of another
        ),
        (Share(BRAND, frozenset(), frozenset({"ObjectEvent"}), NOW), seen(MILK, 1), True),
        (Share(BRAND, frozenset(), frozenset({"AggregationEvent"}), NOW), seen(MILK, 1), False),
        (Share(BRAND, frozenset(), frozenset(), NOW + timedelta(microseconds=1)), seen(MILK, 1), False),
        (Share(BRAND, frozenset(), frozenset(), NOW - timedelta(days=1), NOW), seen(MILK, 1), False),
        (
            Share(BRAND, frozenset(), frozenset(), NOW - timedelta(days=1), NOW + timedelta(microseconds=1)),
            seen(MILK, 1),
            True,
        ),
    ],
)
def test_what_is_shared_is_seen(share: Share, event: Mapping[str, Any], is_seen: bool) -> None:
    facts = visibility.facts_of(event, BRAND, NOW, None)
    expected = Visibility.SHARED if is_seen else Visibility.HIDDEN
    assert visibility.decide(facts, Viewer(frozenset(), frozenset(), (share,))) is expected


async def _partner(world: World) -> PartnerAccount:
    async with world.database.writing() as session:
        return await partners.create(session, "Fast Freight", [GLN, "urn:epc:id:sgln:9506000.13437.0"], NOW)


async def test_a_key_speaks_for_its_partner_with_the_shares_that_hold(world: World) -> None:
    partner = await _partner(world)
    assert partner.identifiers == [GLN]
    async with world.database.writing() as session:
        made, text = await partners.create_key(session, partner.partner_id, "depot", NOW, days=30)
        share = await partners.share(
            session, world.dairy, partner.partner_id, [MILK], ["ObjectEvent"], NOW, None, "erp", NOW
        )
        found = await partners.authenticate(session, f"Bearer {text}", NOW)
        assert found.viewer.shares == (Share(world.dairy, frozenset({MILK}), frozenset({"ObjectEvent"}), NOW),)
        assert (found.viewer.names, found.viewer.callers) == ({GLN}, {found.key.caller_id})
        assert (made.key_id, found.account.name) == (found.key.key_id, "Fast Freight")
        again = [await partners.revoke(session, world.dairy, share.share_id, by, NOW) for by in ("erp", "other")]
        assert [one.revoked_by for one in again] == ["erp", "erp"]
        assert (await partners.authenticate(session, f"Bearer {text}", NOW)).viewer.shares == ()
        with pytest.raises(OutOfScope):
            await accounts.authenticate(session, f"Bearer {text}", NOW)
        with pytest.raises(ApiKeyRefused, match="expired"):
            await partners.authenticate(session, f"Bearer {text}", NOW + timedelta(days=30))
        with pytest.raises(ShareUnknown):
            await partners.revoke(session, world.tea_house, share.share_id, "erp", NOW)
        await partners.end(session, partner.partner_id, NOW)
        with pytest.raises(ApiKeyRefused):
            await partners.authenticate(session, f"Bearer {text}", NOW)
        with pytest.raises(PartnerEnded):
            await partners.create_key(session, partner.partner_id, "depot", NOW)
        with pytest.raises(PartnerEnded):
            await partners.share(session, world.dairy, partner.partner_id, [], [], NOW, None, "erp", NOW)
        assert [one.name for one in await partners.everyone(session)] == ["Fast Freight"]


@ONE_DATABASE
async def test_limits_of_partners_and_shares(world: World) -> None:
    partner = await _partner(world)
    async with world.database.writing() as session:
        for name, identifiers in (
            ("", [GLN]), ("x" * 101, [GLN]), ("x", []), ("x", [GLN] * (IDENTIFIERS_MAX + 1)), ("x", ["a\0"]),
            ("x", [""]), ("x", ["x" * 501]),
        ):  # fmt: skip
            with pytest.raises(PartnerInvalid):
                await partners.create(session, name, identifiers, NOW)
        for count in (IDENTIFIERS_MAX - 1, IDENTIFIERS_MAX):
            await partners.create(session, "x" * 100, [GLN] * count, NOW)

        async def share(gtins: list[str], types: tuple[str, ...] = (), hours: int | None = None) -> None:
            until = None if hours is None else NOW + timedelta(hours=hours)
            await partners.share(session, world.dairy, partner.partner_id, gtins, types, NOW, until, "erp", NOW)

        for gtins, types, hours in (
            ([TEA], (), None), (["0" * 14], (), None), ([MILK], ("Event",), None), ([], (), 0), ([], (), -1),
            ([f"{at:014d}" for at in range(GTINS_PER_SHARE_MAX + 1)], (), None),
        ):  # fmt: skip
            with pytest.raises(ShareInvalid):
                await share(gtins, types, hours)
        for _ in range(SHARES_MAX):
            await share([MILK, TOY, MILK], ("ObjectEvent",), 1)
        with pytest.raises(TooManyShares):
            await share([])
        with pytest.raises(PartnerUnknown):
            await partners.share(session, world.dairy, uuid.UUID(int=9), [], [], NOW, None, "erp", NOW)
