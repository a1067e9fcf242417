"""Campaigns and draws: set up, claimed and played till their budgets are used up, closed, and checked by a stranger."""

from dataclasses import replace
from datetime import timedelta

from kit.db import Session
from kit.ids import derived_id
from loyalty import campaigns
from loyalty.benefits import BenefitOutOfStock, BenefitState, HeldBenefit, held_of
from loyalty.benefits import catalogue as benefit_catalogue
from loyalty.budgets import BudgetUsedUp
from loyalty.campaigns import Campaign, CampaignPrize, CampaignState, Face, Limits, NewCampaign, NewPrize
from loyalty.claims import AlreadyClaimed, CampaignNotOpen, MemberLimitReached
from loyalty.draws import catalogue, plays, record
from loyalty.draws.catalogue import DrawNotOpen
from loyalty.draws.plays import DrawUsedUp, Played, PlayRequest, PlayUnpaid
from loyalty.draws.terms import DrawPrize, Form, Made, Price, Terms, Tickets, Words
from loyalty.ledger import FEN, MEGABYTES, POINTS, AccountId, InsufficientBalance, Purpose
from loyalty.prizes import Prize, PrizeKind
from tests.simulation.choices import Choices
from tests.simulation.claiming import Ask, claim, terms_of
from tests.simulation.house import (
    BRAND,
    GROUP,
    ITEMS,
    POLICY,
    SPENT_POINTS,
    Deck,
    Held,
    House,
    Ordered,
    pot_of,
)
from tests.simulation.rules import rule
from tests.simulation.rules_giving import add_held, issued_of, stock_of
from tests.simulation.rules_points import points_of

CAMPAIGNS_MAX = 4
"""That are open at once, and not longer ago than the last of so many."""
DECK = (("fen", 300, 2), ("points", 20, 5), ("mb", 10, 2), ("nothing", 0, 9))
PLAY_POINTS = 4
_PURPOSE = {POINTS: Purpose.AVAILABLE, MEGABYTES: Purpose.PENDING, FEN: Purpose.PENDING}


@rule(2)
async def start_campaign(house: House, choose: Choices) -> None:
    running = [terms for terms in house.campaigns if campaigns.state_at(terms.campaign, house.now) == "open"]
    if len(running) >= CAMPAIGNS_MAX:
        return
    coupon = house.benefits[0]
    prizes = choose.one_of(
        (
            (NewPrize(Prize(PrizeKind.POINTS, 10), 200),),
            (NewPrize(Prize(PrizeKind.MEGABYTES, 5), 60),),
            (
                NewPrize(Prize(PrizeKind.POINTS, 30), 90, weight=2),
                NewPrize(Prize(PrizeKind.BENEFIT, 1, coupon.benefit_id), 3, weight=2),
                NewPrize(Prize(PrizeKind.CASH, 100), 300, weight=1),
                NewPrize(Prize(PrizeKind.POINTS, 1), 15, weight=5),
            ),
        )
    )
    new = NewCampaign(
        brand_id=BRAND,
        group_id=GROUP,
        title_zh="扫码有礼",
        title_en="Scan and win",
        face=Face.INNER,
        prizes=prizes,
        starts_at=house.now,
        ends_at=house.now + timedelta(days=choose.number(1, 30)),
        limits=Limits(member=choose.one_of((None, 3))),
        stripes=choose.one_of((1, 4)),
    )

    def expected(campaign: Campaign | None) -> None:
        if len(prizes) > 1 and house.balance(stock_of(coupon)) < prizes[1].budget:
            raise BenefitOutOfStock("")
        assert campaign is not None
        for number, offered in enumerate(prizes):
            of_benefit = offered.prize.kind is PrizeKind.BENEFIT
            row = CampaignPrize(
                campaign_id=campaign.campaign_id,
                number=number,
                kind=offered.prize.kind,
                amount=offered.prize.amount,
                budget=offered.budget,
                weight=1,
                benefit_id=offered.prize.benefit_id,
            )
            house.fund(campaigns.budget_of(campaign, row), offered.budget, stock_of(coupon) if of_benefit else None)

    made = await house.both(lambda session: campaigns.create(session, house.vault, new, house.now), expected)
    if made is not None:
        house.campaigns.append(await terms_of(house.database, house.vault, made.campaign_id))
        del house.campaigns[: -2 * CAMPAIGNS_MAX]


@rule(16)
async def scan(house: House, choose: Choices) -> None:
    """A member claims with an item; others may have done so before."""
    if not house.campaigns:
        return
    terms, item = choose.one_of(house.campaigns), choose.number(1, ITEMS)
    claim_id = house.new_id()
    ask = Ask(terms, item, choose.one_of(house.acting()), claim_id, f"scan-{house.number():08}")

    def expected(_: object) -> None:
        campaign_id, member_id = terms.campaign.campaign_id, ask.member_id
        if campaigns.state_at(terms.campaign, house.now) is not CampaignState.OPEN:
            raise CampaignNotOpen("")
        if (item, campaign_id) in house.claimed:
            raise AlreadyClaimed(by_you=False)
        if terms.limits.member is not None and house.claims[campaign_id, member_id] >= terms.limits.member:
            raise MemberLimitReached("")
        for prize in (terms.drawn(ask.request.ticket), terms.prizes[-1]):
            budget = campaigns.budget_of(terms.campaign, prize)
            if house.balance(pot_of(budget)) >= prize.amount:
                break
        else:
            raise BudgetUsedUp("")
        to = AccountId(member_id, budget.asset, _PURPOSE.get(budget.asset, Purpose.AVAILABLE))
        expires_at = house.expiry() if budget.asset == POINTS else None
        house.post(claim_id, (pot_of(budget), -prize.amount), (to, prize.amount), lots_expire_at=expires_at)
        if to.purpose is Purpose.PENDING:
            # What was drawn is not there to be won again.
            goes_back_to = pot_of(budget) if terms.seed is None else issued_of(to.asset)
            house.orders.append(Ordered(claim_id, member_id, to.asset, prize.amount, goes_back_to))
        house.claimed[item, campaign_id] = member_id
        house.claims[campaign_id, member_id] += 1

    async def work() -> HeldBenefit | None:
        granted, number = await claim(house.database, house.vault, ask, POLICY, house.now)
        assert granted == claim_id
        if terms.prizes[number].kind != PrizeKind.BENEFIT:
            return None
        async with house.database.reading() as session:
            return await held_of(session, house.vault, ask.member_id, claim_id, house.now)

    held = await house.both_by_itself(work, expected)
    if held is not None:
        benefit = house.benefits[0]
        given = Held(
            claim_id,
            benefit,
            ask.member_id,
            0,
            BenefitState.ISSUED,
            benefit_catalogue.expiry(benefit, house.now),
        )
        add_held(house, given, held)
    if house.claimed.get((item, terms.campaign.campaign_id)) == ask.member_id and house.now < terms.campaign.ends_at:
        await _scan_again(house, ask)


async def _scan_again(house: House, ask: Ask) -> None:
    """Asked for again under its key the claim is the same; under another it is the second, and refused."""
    if (ask.claim_id,) == tuple(order.order_id for order in house.orders[-1:]):
        assert (await claim(house.database, house.vault, ask, POLICY, house.now))[0] == ask.claim_id
    other = replace(ask, claim_id=house.new_id(), key=f"scan-{house.number():08}")

    def expected(_: object) -> None:
        raise AlreadyClaimed(by_you=True)

    await house.both_by_itself(lambda: claim(house.database, house.vault, other, POLICY, house.now), expected)


@rule(2)
async def publish_draw(house: House, choose: Choices) -> None:
    """Another deck, when the last one is dealt or over; that one is closed, revealed, and checked from its record."""
    if house.decks and any(house.decks[-1].left) and house.now < house.decks[-1].draw.closes_at:
        return
    if house.decks:
        await close_draw(house, house.decks.pop())
    price = choose.one_of((0, PLAY_POINTS))

    def terms(draw_id: object, seed_hash: bytes) -> Terms:
        return Terms(
            draw_id=draw_id,  # type: ignore[arg-type]
            form=Form.DECK,
            tickets=Tickets.PLAYS,
            title=Words("盲盒", "Box"),
            opens_at=house.now,
            closes_at=house.now + timedelta(days=60),
            prizes=tuple(
                DrawPrize(Words(kind, kind), Made(kind), amount, amount, quantity) for kind, amount, quantity in DECK
            ),
            seed_hash=seed_hash,
            stripes=2,
            price=Price.POINTS if price else Price.FREE,
            price_amount=price,
        )

    async def work(session: Session) -> catalogue.Draw:
        draw = await catalogue.publish(
            session, house.vault, brand_id=BRAND, group_id=GROUP, make_terms=terms, now=house.now
        )
        return await catalogue.open_plays(session, draw.draw_id, house.now)

    def expected(draw: catalogue.Draw | None) -> None:
        assert draw is not None
        for number, entry in enumerate(catalogue.terms_of(draw).prizes):
            budget = catalogue.budget_of(draw.draw_id, number, entry)
            if budget is not None and entry.quantity:
                house.fund(budget, entry.quantity * entry.amount)
        house.decks.append(Deck(draw, DECK_PRIZES, [quantity for _, _, quantity in DECK], price))

    await house.both(work, expected)


DECK_PRIZES = tuple((kind, amount) for kind, amount, _ in DECK)


async def close_draw(house: House, deck: Deck) -> None:
    """End a draw: what was not won goes back, and its record holds."""
    draw_id = deck.draw.draw_id

    async def work(session: Session) -> None:
        await catalogue.close(session, draw_id, house.now)
        await catalogue.reveal(session, house.vault, draw_id, house.now)

    def expected(_: object) -> None:
        for number, entry in enumerate(catalogue.terms_of(deck.draw).prizes):
            budget = catalogue.budget_of(draw_id, number, entry)
            left = house.balance(pot_of(budget)) if budget is not None else 0
            if budget is not None and left:
                issued = AccountId(SPENT_POINTS.holder_id, budget.asset, Purpose.ISSUANCE)
                house.post(house.new_id(), (pot_of(budget), -left), (issued, left))

    await house.both(work, expected)
    async with house.database.reading() as session:
        draw = await catalogue.get(session, draw_id)
        lines = [line async for line in plays.record_of(session, draw)]
    record.check(lines, commitment=draw.commitment, receipts=[])


@rule(7)
async def play(house: House, choose: Choices) -> None:
    if not house.decks:
        return
    deck, member_id = house.decks[-1], choose.one_of(house.acting())
    request = PlayRequest(house.new_id(), member_id, deck.draw.draw_id, b"the player's own")

    async def work(session: Session) -> Played:
        return await plays.play(session, house.vault, request, house.now)

    def expected(played: Played | None) -> None:
        if house.now >= deck.draw.closes_at:
            raise DrawNotOpen("")
        if deck.price and house.balance(points_of(member_id)) < deck.price:
            raise PlayUnpaid("")
        if not any(deck.left):
            raise DrawUsedUp("")
        if played is None:
            # What would have been won stays unknown; it may only have been too little to pay with.
            assert house.books.spendable(member_id, house.now) < deck.price
            raise PlayUnpaid("")
        number = played.line.prize
        assert deck.left[number], "the deck has no such ticket left"
        _win(house, deck, number, request)
        if deck.price:
            paid_id = derived_id("draw-price", member_id, request.play_id)
            try:
                house.post(paid_id, (points_of(member_id), -deck.price), (SPENT_POINTS, deck.price))
            except InsufficientBalance:
                raise PlayUnpaid("") from None
        deck.left[number] -= 1

    if await house.both(work, expected) is not None:
        house.again(work)


def _win(house: House, deck: Deck, number: int, request: PlayRequest) -> None:
    kind, amount = deck.prizes[number]
    if kind == "nothing":
        return
    budget = catalogue.budget_of(request.draw_id, number, catalogue.terms_of(deck.draw).prizes[number])
    assert budget is not None
    grant_id = derived_id("draw-play", request.member_id, request.play_id)
    to = AccountId(request.member_id, kind, _PURPOSE[kind])
    expires_at = house.expiry() if kind == POINTS else None
    house.post(grant_id, (pot_of(budget), -amount), (to, amount), lots_expire_at=expires_at)
    if to.purpose is Purpose.PENDING:
        house.orders.append(Ordered(grant_id, request.member_id, kind, amount, issued_of(kind)))
