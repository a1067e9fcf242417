"""Claims: one prize an item and campaign, never more than the budget, whoever comes at the same time."""

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import func, select

from kit import procedures
from kit.db import Database
from kit.outbox import OutboxMessage
from kit.procedures import Kind, Procedure
from kit.vault import Vault
from loyalty import campaigns, claims, fulfilment, ledger, members, offers
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import Campaign, CampaignInvalid, CampaignStatus, CampaignUnknown, Face, Limits, NewPrize
from loyalty.claims import (
    AlreadyClaimed,
    CampaignNotOpen,
    Claim,
    ClaimNeedsInnerCode,
    ClaimNeedsOuterCode,
    ClaimWrongItem,
    DeviceLimitReached,
    MemberLimitReached,
    PlaceLimitReached,
)
from loyalty.draws import fair
from loyalty.fulfilment import Order, Report, Teller, Word
from loyalty.ledger import Purpose
from loyalty.offers import Looked, Offer, Offers, OfferState
from loyalty.prizes import Prize, PrizeInvalid, PrizeKind
from tests.loyalty.conftest import (
    BRAND,
    DATA_PRIZE,
    GROUP,
    GTIN,
    NOW,
    POINTS_CAMPAIGN,
    MakeCampaign,
    MakeClaim,
    MakeMember,
    points,
)

NOTHING = NewPrize(Prize(PrizeKind.NOTHING, 0), 0)


def prize(kind: PrizeKind, amount: int) -> tuple[NewPrize, ...]:
    return (NewPrize(Prize(kind, amount), amount),)


async def balance(database: Database, holder_id: uuid.UUID, asset: str, purpose: Purpose) -> int:
    async with database.reading() as session:
        return (await ledger.balances(session, holder_id)).get((asset, purpose), 0)


async def assert_sound(database: Database) -> None:
    async with database.reading() as session:
        assert (await ledger.verify(session)).faults == ()


async def left(database: Database, campaign: Campaign) -> int:
    async with database.reading() as session:
        [prize, *_] = (await campaigns.prizes_of(session, [campaign.campaign_id]))[campaign.campaign_id]
        return await campaigns.budget_left(session, campaign, prize)


def tally(results: list[dict[str, Any] | BaseException]) -> Counter[str]:
    return Counter("granted" if isinstance(result, dict) else type(result).__name__ for result in results)


async def test_a_claim_of_points_moves_them_from_the_budget_to_the_member(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    member_id, campaign = await make_member(), await make_campaign()
    grant = await make_claim(campaign, member_id)
    assert grant["payee_balance"] == 100
    assert await balance(database, member_id, "points", Purpose.AVAILABLE) == 100
    assert await left(database, campaign) == 99_900
    async with database.reading() as session:
        assert await ledger.total(session, Purpose.ISSUANCE, "points", BRAND) == -100_000
    await assert_sound(database)


async def test_a_claim_makes_the_member_a_card_of_the_brand_once(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    member_id, campaign = await make_member(), await make_campaign()
    first = await make_claim(campaign, member_id, 1)
    second = await make_claim(campaign, member_id, 2, now=NOW + timedelta(hours=1))
    async with database.reading() as session:
        cards = await members.cards_of(session, member_id)
    assert [(card.brand_id, card.joined_at, card.card_number) for card in cards] == [(BRAND, NOW, first["card_number"])]
    assert second["card_number"] == first["card_number"]
    assert second["payee_balance"] == 200


async def test_a_claim_of_mobile_data_leaves_an_order_and_its_message(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    member_id, campaign = await make_member(), await make_campaign(prizes=(DATA_PRIZE,))
    grant = await make_claim(campaign, member_id)
    async with database.reading() as session:
        order = await session.get_one(Order, (member_id, grant["claim_id"]))
        message = (await session.exec(select(OutboxMessage))).one()
    assert (order.amount, order.kind, order.state, order.brand_id) == (5, "mb", "created", BRAND)
    assert (message.message_id, message.item_key) == (order.order_id, order.outbox_key)
    assert message.payload == {"member_id": str(member_id), "order_id": str(order.order_id)}
    assert await balance(database, member_id, "mb", Purpose.PENDING) == 5


async def test_fifty_members_claim_one_item_and_one_gets_it(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign = await make_campaign()
    claimers = [await make_member(number) for number in range(50)]
    results = await asyncio.gather(*(make_claim(campaign, who) for who in claimers), return_exceptions=True)
    assert tally(results) == {"granted": 1, "AlreadyClaimed": 49}
    assert await left(database, campaign) == 99_900
    await assert_sound(database)


@pytest.mark.parametrize("stripes", [1, pytest.param(3, marks=pytest.mark.slow), 16])
async def test_fifty_claims_of_a_budget_for_twenty_give_exactly_twenty(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim, stripes: int
) -> None:
    campaign = await make_campaign(prizes=points(100, 2_000), stripes=stripes)
    claimers = [await make_member(number) for number in range(50)]
    results = await asyncio.gather(
        *(make_claim(campaign, who, key) for key, who in enumerate(claimers)), return_exceptions=True
    )
    assert tally(results) == {"granted": 20, "BudgetUsedUp": 30}
    assert await left(database, campaign) == 0
    async with database.reading() as session:
        assert (await session.exec(select(func.count()).select_from(Claim))).one() == 20
    await assert_sound(database)


async def test_claims_for_one_stripe_find_the_budget_in_the_others(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign = await make_campaign(prizes=points(100, 1_600))
    assert campaign.stripes == 16
    who = await make_member()
    results = await asyncio.gather(
        *(make_claim(campaign, who, 16 * number) for number in range(20)), return_exceptions=True
    )
    assert tally(results) == {"granted": 16, "BudgetUsedUp": 4}
    await assert_sound(database)


async def test_a_member_who_hurries_does_not_pass_his_limit(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign, who = await make_campaign(limits=Limits(member=3)), await make_member()
    results = await asyncio.gather(*(make_claim(campaign, who, key) for key in range(20)), return_exceptions=True)
    assert tally(results) == {"granted": 3, "MemberLimitReached": 17}
    assert await balance(database, who, "points", Purpose.AVAILABLE) == 300
    await assert_sound(database)


async def test_a_refused_claim_leaves_the_item_to_others(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign = await make_campaign(limits=Limits(member=1))
    greedy, other = await make_member(1), await make_member(2)
    await make_claim(campaign, greedy, 1)
    with pytest.raises(MemberLimitReached):
        await make_claim(campaign, greedy, 2)
    assert (await make_claim(campaign, other, 2))["payee_balance"] == 100


async def test_a_second_claim_says_whether_it_was_you(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign, first, other = await make_campaign(), await make_member(1), await make_member(2)
    await make_claim(campaign, first)
    with pytest.raises(AlreadyClaimed) as yours:
        await make_claim(campaign, first)
    with pytest.raises(AlreadyClaimed) as theirs:
        await make_claim(campaign, other)
    assert (yours.value.by_you, theirs.value.by_you) == (True, False)


async def test_one_item_pays_in_every_campaign_that_it_is_in(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    who = await make_member()
    await make_claim(await make_campaign(), who)
    assert (await make_claim(await make_campaign(), who))["payee_balance"] == 200


@pytest.mark.parametrize(
    ("after_start", "after_end", "open_"),
    [(-1, None, False), (0, None, True), (None, -1, True), (None, 0, False)],
)
async def test_a_campaign_is_open_from_its_start_until_just_before_its_end(
    make_member: MakeMember,
    make_campaign: MakeCampaign,
    make_claim: MakeClaim,
    after_start: int | None,
    after_end: int | None,
    open_: bool,
) -> None:
    who, campaign = await make_member(), await make_campaign()
    if after_start is not None:
        now = campaign.starts_at + timedelta(microseconds=after_start)
    else:
        now = campaign.ends_at + timedelta(microseconds=after_end or 0)
    if open_:
        assert (await make_claim(campaign, who, now=now))["payee_balance"] == 100
    else:
        with pytest.raises(CampaignNotOpen):
            await make_claim(campaign, who, now=now)


async def test_a_paused_campaign_gives_nothing_until_it_is_resumed(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    who, campaign = await make_member(), await make_campaign()
    async with database.writing() as session:
        await campaigns.set_status(session, campaign.campaign_id, CampaignStatus.PAUSED)
    with pytest.raises(CampaignNotOpen) as refusal:
        await make_claim(campaign, who)
    assert refusal.value.state == "paused"
    async with database.writing() as session:
        await campaigns.set_status(session, campaign.campaign_id, CampaignStatus.ACTIVE)
    assert (await make_claim(campaign, who))["payee_balance"] == 100


async def test_an_inner_campaign_refuses_the_outer_code_and_the_other_way_round(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    who = await make_member()
    with pytest.raises(ClaimNeedsInnerCode):
        await make_claim(await make_campaign(face=Face.INNER), who, face=1)
    with pytest.raises(ClaimNeedsOuterCode):
        await make_claim(await make_campaign(face=Face.OUTER), who, face=2)


async def test_a_claim_with_another_product_brand_group_or_campaign_is_refused(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    who, campaign = await make_member(), await make_campaign(gtin=GTIN)
    with pytest.raises(ClaimWrongItem):
        await make_claim(campaign, who, gtin="06901234567893")
    with pytest.raises(ClaimWrongItem):
        await make_claim(campaign, who, brand_id=BRAND + 1)
    with pytest.raises(CampaignUnknown):
        await make_claim(campaign, await make_member(1, group_id=GROUP + 1))
    with pytest.raises(CampaignUnknown):
        await make_claim(campaign, uuid.uuid4())


async def offers_of(database: Database, member_id: uuid.UUID | None, **changes: object) -> dict[uuid.UUID, Offer]:
    """The offers for item 1 on a server that knows none of the campaigns, and then on one that does."""
    looked = Looked(**{"gtin": GTIN, "brand_id": BRAND, "face": 2, "visitor": member_id, "now": NOW, **changes})  # type: ignore[arg-type]
    asking = Procedure("asking", {**offers.PARAMETERS, "visitor": Kind.UUID}, offers.STEPS, offers.ANSWER)
    server = Offers(database)
    answers = []
    for _turn in range(2):
        values = server.values(looked.brand_id, looked.gtin, looked.face, looked.now)
        async with database.reading() as session:
            found = await procedures.call(
                session, asking, {**values, "item": 1, "visitor": member_id, "visits": member_id is not None}
            )
        answers.append(await server.offers_of(looked, found, values["stripes"]))
    assert answers[0] == answers[1]
    return {offer.campaign_id: offer for offer in answers[0]}


async def test_offers_tell_what_to_expect_of_each_campaign(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    you, other = await make_member(1), await make_member(2)
    day = timedelta(days=1)
    made = {
        OfferState.OPEN: await make_campaign(),
        OfferState.CLAIMED_BY_YOU: await make_campaign(),
        OfferState.CLAIMED_BY_SOMEBODY: await make_campaign(),
        OfferState.NOT_STARTED: await make_campaign(starts_at=NOW + day),
        OfferState.ENDED: await make_campaign(starts_at=NOW - 2 * day, ends_at=NOW + timedelta(seconds=1)),
        OfferState.PAUSED: await make_campaign(),
        OfferState.NEEDS_OUTER_CODE: await make_campaign(face=Face.OUTER),
        OfferState.BUDGET_USED_UP: await make_campaign(prizes=points(100, 100)),
        OfferState.LIMIT_REACHED: await make_campaign(limits=Limits(member=1)),
    }
    await make_claim(made[OfferState.CLAIMED_BY_YOU], you, 1)
    await make_claim(made[OfferState.CLAIMED_BY_SOMEBODY], other, 1)
    await make_claim(made[OfferState.BUDGET_USED_UP], other, 2)
    await make_claim(made[OfferState.LIMIT_REACHED], you, 3)
    async with database.writing() as session:
        await campaigns.set_status(session, made[OfferState.PAUSED].campaign_id, CampaignStatus.PAUSED)
    later = NOW + timedelta(seconds=1)
    offered = await offers_of(database, you, now=later)
    assert {state: offered[campaign.campaign_id].state for state, campaign in made.items()} == {s: s for s in made}
    assert offered[made[OfferState.CLAIMED_BY_YOU].campaign_id].claimed_at == NOW
    visitor = await offers_of(database, None, now=later)
    assert visitor[made[OfferState.CLAIMED_BY_YOU].campaign_id].state is OfferState.CLAIMED_BY_SOMEBODY
    assert visitor[made[OfferState.LIMIT_REACHED].campaign_id].state is OfferState.OPEN


async def test_the_outer_code_is_told_to_look_for_the_inner_one(
    database: Database, make_campaign: MakeCampaign
) -> None:
    campaign = await make_campaign()
    offered = await offers_of(database, None, face=1)
    assert offered[campaign.campaign_id].state is OfferState.NEEDS_INNER_CODE


async def test_only_campaigns_of_the_brand_and_product_are_offered(
    database: Database, make_campaign: MakeCampaign
) -> None:
    mine = await make_campaign(gtin=GTIN)
    everything = await make_campaign()
    await make_campaign(gtin="06901234567893")
    await make_campaign(brand_id=BRAND + 1)
    assert set(await offers_of(database, None)) == {mine.campaign_id, everything.campaign_id}


async def test_a_budget_is_spread_over_stripes_in_whole_prizes(database: Database, make_campaign: MakeCampaign) -> None:
    await make_campaign(prizes=points(7, 7 * 37))
    async with database.reading() as session:
        held = await session.exec(select(ledger.Account.balance).where(ledger.Account.purpose == Purpose.BUDGET))
        balances = list(held)
    assert len(balances) == 16
    assert sum(balances) == 7 * 37
    assert {amount % 7 for amount in balances} == {0}
    assert max(balances) - min(balances) <= 7


@pytest.mark.parametrize(("budget", "stripes"), [(300, 3), (100, 1)])
async def test_a_budget_never_has_more_stripes_than_prizes(
    database: Database, make_campaign: MakeCampaign, budget: int, stripes: int
) -> None:
    await make_campaign(prizes=points(100, budget))
    async with database.reading() as session:
        held = await session.exec(select(func.count()).where(ledger.Account.purpose == Purpose.BUDGET))
        assert held.one() == stripes


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"title_zh": "标" * 80}, {"title_zh": "标" * 81}),
        ({"title_en": "T"}, {"title_en": ""}),
        ({"prizes": points(1_000_000, 1_000_000)}, {"prizes": points(1_000_001, 1_000_001)}),
        ({"prizes": points(1, 1)}, {"prizes": points(0, 0)}),
        ({"prizes": points(100, 200)}, {"prizes": points(100, 250)}),
        ({"prizes": points(100, 10**12)}, {"prizes": points(100, 10**12 + 100)}),
        ({"prizes": points(1, 1) * 20}, {"prizes": points(1, 1) * 21}),
        ({"prizes": (*points(1, 1), NOTHING)}, {"prizes": (NOTHING,)}),
        ({"prizes": (*points(1, 1), NOTHING)}, {"prizes": (*points(1, 1), replace(NOTHING, budget=1))}),
        (
            {"prizes": (*points(1, 1), replace(NOTHING, weight=10**9))},
            {"prizes": (*points(1, 1), replace(NOTHING, weight=10**9 + 1))},
        ),
        ({"prizes": (*points(1, 1), NOTHING)}, {"prizes": (*points(1, 1), replace(NOTHING, weight=0))}),
        ({"stripes": 64}, {"stripes": 65}),
        ({"stripes": 1}, {"stripes": 0}),
        ({"limits": Limits(member=1)}, {"limits": Limits(member=0)}),
        ({"limits": Limits(place_day=1_000_000)}, {"limits": Limits(place_day=1_000_001)}),
        ({"gtin": GTIN}, {"gtin": GTIN[1:]}),
        ({"face": 1}, {"face": 3}),
        ({"ends_at": NOW + timedelta(microseconds=1)}, {"ends_at": NOW}),
        (
            {"ends_at": NOW + timedelta(days=5 * 366 - 1)},
            {"ends_at": NOW + timedelta(days=5 * 366 - 1, microseconds=1)},
        ),
        ({"prizes": prize(PrizeKind.MEGABYTES, 10_240)}, {"prizes": prize(PrizeKind.MEGABYTES, 10_241)}),
        ({"prizes": prize(PrizeKind.CASH, 5_000_000)}, {"prizes": prize(PrizeKind.CASH, 5_000_001)}),
    ],
)
async def test_a_campaign_at_its_limits_is_made_and_past_them_refused(
    database: Database, make_campaign: MakeCampaign, good: dict[str, object], bad: dict[str, object]
) -> None:
    await make_campaign(**good)
    with pytest.raises((CampaignInvalid, PrizeInvalid)):
        await make_campaign(**bad)
    await assert_sound(database)


async def test_campaigns_of_a_brand_are_listed_latest_first(database: Database, make_campaign: MakeCampaign) -> None:
    made = [await make_campaign() for _ in range(3)]
    await make_campaign(brand_id=BRAND + 1)
    async with database.reading() as session:
        found = await campaigns.of_brand(session, BRAND)
    assert [campaign.campaign_id for campaign in found] == [campaign.campaign_id for campaign in reversed(made)]


async def test_an_unknown_campaign_is_an_error(database: Database) -> None:
    async with database.writing() as session:
        with pytest.raises(CampaignUnknown):
            await campaigns.get(session, uuid.uuid4())
        with pytest.raises(CampaignUnknown):
            await campaigns.set_status(session, uuid.uuid4(), CampaignStatus.PAUSED)


async def test_campaigns_to_come_do_not_hide_the_one_that_runs(database: Database, make_campaign: MakeCampaign) -> None:
    day = timedelta(days=1)
    runs = await make_campaign(ends_at=NOW + day)
    for number in range(offers.OFFERS_MAX):
        await make_campaign(starts_at=NOW + 2 * day, ends_at=NOW + (3 + number) * day)
    offered = await offers_of(database, None)
    assert len(offered) == offers.OFFERS_MAX
    assert offered[runs.campaign_id].state is OfferState.OPEN


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        (Limits(member_day=2), MemberLimitReached),
        (Limits(device_day=2), DeviceLimitReached),
        (Limits(place_day=2), PlaceLimitReached),
    ],
)
async def test_a_limit_a_day_counts_anew_on_the_next_day_of_china(
    make_member: MakeMember,
    make_campaign: MakeCampaign,
    make_claim: MakeClaim,
    limits: Limits,
    refusal: type[Exception],
) -> None:
    campaign, who = await make_campaign(limits=limits), await make_member()
    where = {"device": uuid.uuid4(), "place": uuid.uuid4()}
    midnight = NOW.replace(hour=16, minute=0)  # in China
    just_before = midnight - timedelta(microseconds=1)
    for item in range(2):
        await make_claim(campaign, who, item, now=just_before, **where)
    with pytest.raises(refusal):
        await make_claim(campaign, who, 2, now=just_before, **where)
    assert (await make_claim(campaign, who, 2, now=midnight, **where))["payee_balance"] == 300


async def test_limits_of_devices_and_places_hold_over_members_and_not_for_who_has_none(
    make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign = await make_campaign(limits=Limits(device_day=1))
    first, second, device = await make_member(1), await make_member(2), uuid.uuid4()
    await make_claim(campaign, first, 1, device=device)
    with pytest.raises(DeviceLimitReached):
        await make_claim(campaign, second, 2, device=device)
    await make_claim(campaign, second, 2, device=uuid.uuid4())
    await make_claim(campaign, second, 3, device=None)


async def test_counts_of_days_that_are_over_are_swept_and_those_of_the_campaign_stay(
    database: Database, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    campaign = await make_campaign(limits=Limits(member=9, member_day=9))
    await make_claim(campaign, await make_member())
    for days, left_over in ((1, 2), (2, 1)):
        async with database.writing() as session:
            await claims.sweep(session, NOW + timedelta(days=days))
            assert (await session.exec(select(func.count()).select_from(claims.ClaimCount))).one() == left_over


DRAW = (
    NewPrize(Prize(PrizeKind.POINTS, 500), 2_000, weight=1),
    NewPrize(Prize(PrizeKind.POINTS, 10), 10_000, weight=3),
    NewPrize(Prize(PrizeKind.NOTHING, 0), 0, weight=6),
)


async def test_a_draw_gives_each_item_what_its_ticket_draws(
    database: Database, vault: Vault, make_member: MakeMember, make_campaign: MakeCampaign, make_claim: MakeClaim
) -> None:
    plenty = (replace(DRAW[0], budget=20 * 500), *DRAW[1:])  # whatever the seed draws
    campaign, who = await make_campaign(prizes=plenty), await make_member()
    async with database.reading() as session:
        terms = await campaigns.terms_of(session, vault, campaign.campaign_id)
    assert terms.seed is not None
    total = 0
    for item in range(20):
        drawn = fair.outcome(terms.seed, campaign.campaign_id, f"item {item}".encode(), [1, 3, 6])
        await make_claim(campaign, who, item)
        total += DRAW[drawn].prize.amount
    assert total > 0
    assert await balance(database, who, "points", Purpose.AVAILABLE) == total
    async with database.reading() as session:
        kept = (await session.exec(select(Claim))).all()
    assert len(kept) == 20
    assert {claim.prize_number == claim.drawn_number for claim in kept} == {True}
    await assert_sound(database)


@pytest.mark.parametrize(
    ("others", "in_budget"), [((), 500), ((NewPrize(Prize(PrizeKind.POINTS, 1), 100, 1),), 0)], ids=["one", "draw"]
)
async def test_what_could_not_be_delivered_is_there_again_for_others_unless_it_was_drawn(
    database: Database,
    make_member: MakeMember,
    make_campaign: MakeCampaign,
    make_claim: MakeClaim,
    others: tuple[NewPrize, ...],
    in_budget: int,
) -> None:
    first = NewPrize(Prize(PrizeKind.CASH, 500), 500, weight=10**9)
    campaign, who = await make_campaign(prizes=(first, *others)), await make_member()
    order_id = (await make_claim(campaign, who))["claim_id"]
    async with database.writing() as session:
        await fulfilment.take(session, who, order_id, Report(Word.FAILED, Teller.OPERATOR), NOW)
    assert await left(database, campaign) == in_budget
    async with database.reading() as session:
        assert -await ledger.total(session, Purpose.ISSUANCE, "fen", BRAND) == in_budget
    if in_budget:
        await make_claim(campaign, who, 2)
    else:  # it was given: a draw's record would show it given more often than there were
        with pytest.raises(BudgetUsedUp):
            await make_claim(campaign, who, 2)
    async with database.writing() as session:
        await fulfilment.take(session, who, order_id, Report(Word.COMPLETED, Teller.OPERATOR), NOW)
    assert await balance(database, who, "fen", Purpose.DELIVERED) == 500
    await assert_sound(database)


async def test_the_seed_of_a_draw_is_told_after_its_end_and_fits_what_was_committed_before(
    database: Database, vault: Vault, make_campaign: MakeCampaign
) -> None:
    campaign = await make_campaign(prizes=DRAW)
    async with database.reading() as session:
        before = await campaigns.public_terms(session, vault, campaign.campaign_id)
    assert before["seed"] is None
    async with database.writing() as session:
        with pytest.raises(campaigns.CampaignNotEnded):
            await campaigns.reveal(session, vault, campaign.campaign_id, campaign.ends_at - timedelta(microseconds=1))
        await campaigns.reveal(session, vault, campaign.campaign_id, campaign.ends_at)
    async with database.reading() as session:
        after = await campaigns.public_terms(session, vault, campaign.campaign_id)
    terms: dict[str, Any] = after["terms"]  # type: ignore[assignment]
    assert terms == before["terms"]
    assert after["commitment"] == before["commitment"] == fair.commitment(terms).hex()
    seed = bytes.fromhex(str(after["seed"]))
    assert fair.seed_hash(seed, campaign.campaign_id).hex() == terms["seed_hash"]
    assert [offered["quantity"] for offered in terms["prizes"]] == [4, 1_000, None]


async def test_a_campaign_of_one_prize_has_nothing_to_reveal(
    database: Database, vault: Vault, make_campaign: MakeCampaign
) -> None:
    campaign = await make_campaign()
    async with database.writing() as session:
        with pytest.raises(CampaignInvalid):
            await campaigns.reveal(session, vault, campaign.campaign_id, campaign.ends_at)


def test_a_campaign_is_checked_without_a_database() -> None:
    campaigns.check(POINTS_CAMPAIGN, NOW)
    with pytest.raises(CampaignInvalid):
        campaigns.check(replace(POINTS_CAMPAIGN, face=7), NOW)
