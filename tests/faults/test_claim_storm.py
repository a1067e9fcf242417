"""Parallel clients, contested codes, and `kill -9` of everything: no prize is given twice, none is lost, books balance.

On PostgreSQL, with fsync. Whatever is left undone when the storm is over, the workers bring to its end; then every
answer that a client has, and every claim in the database, is followed through all tables.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import func, update
from sqlmodel import col, select

from kit.idempotency import IdempotentRequest
from kit.outbox import OutboxMessage
from loyalty import campaigns, news
from loyalty.benefits import coupon_codes
from loyalty.benefits.held import BenefitStep, MemberBenefit
from loyalty.campaigns import Terms
from loyalty.claims import Claim, ClaimCount
from loyalty.draws import fair
from loyalty.fulfilment import Order, OrderState
from loyalty.ledger import Account, Entry, PointsLot, Purpose, TransferRecord
from loyalty.members import Card
from loyalty.prizes import PrizeKind
from loyalty.tasks import TaskCompletion
from tests.faults.mortal_postgres import MortalPostgres, mortal_postgres
from tests.faults.storm import TASK_POINTS, Attempt, Blow, Size, Storm, make_prizes, plan
from tests.stand import Server, Stand, Stands, wait_until

SHORT = Size(codes=60, claims=240, clients=16, members=10, more_apis=0, blows=(Blow.API, Blow.DATABASE), seed=3)
WHOLE = Size(codes=5_000, claims=20_000, clients=64, members=80, more_apis=2, blows=tuple(Blow) * 3, seed=17)
QUIET_DEADLINE_S = 300.0
LOSSES = ("--drop", "0.1", "--duplicate", "0.1", "--seed", "5", "--queries-until-settled", "0")
"""The carrier loses answers and hears orders twice."""
REFUSALS = {"AlreadyClaimed", "MemberLimitReached", "BudgetUsedUp"}


@pytest.fixture
def storm_of(tmp_path: Path, stands: Stands) -> Iterator[Callable[[Size], Storm]]:
    """Makes a storm before it breaks loose: a database server, an installation, processes."""
    servers: list[Server] = []
    made: list[Stand] = []
    own = Stands(tmp_path)  # whose databases go with their server
    own.environment = stands.environment

    def prepare(database: MortalPostgres, size: Size) -> Storm:
        made.append(stand := own.copy("postgresql", database, LOSSES))
        settings = {"DATABASE_URL": stand.database_url, "CARRIER_URL": stand.carrier.url}
        servers.extend(Server(own.environment, stand.home, settings) for _ in range(size.more_apis))
        for server in (stand.server, *servers):
            server.start()
        prizes = stand.run(partial(make_prizes, size, stand))
        return Storm(
            *(stand, size, prizes, database, servers or [stand.server], stand.server),
            *(stand.take_items(size.codes), stand.members(size.members), plan(size)),
        )

    with mortal_postgres() as database:
        yield partial(prepare, database)
        for server in servers:
            server.stop()
        for stand in made:
            stand.end()


def _calm(stand: Stand) -> None:
    """Wait till all work is done. What a killed worker held on a lease of minutes is made due now."""
    unfinished = col(OutboxMessage.done_at).is_(None)

    def all_done() -> bool:
        stand.execute(update(OutboxMessage).where(unfinished).values(due_at=datetime.now(UTC), set_aside_at=None))
        httpx2.post(f"{stand.carrier.url}/advance", trust_env=False, verify=False, timeout=60)
        return stand.rows(select(func.count()).where(unfinished)) == [0]

    wait_until(all_done, "all work to be done", QUIET_DEADLINE_S, pause_s=0.5)


@dataclass(frozen=True)
class Granted:
    """A claim that stands in the database, and the attempts that were told of it."""

    claim: Claim
    attempts: list[Attempt]
    answers: list[dict[str, Any]]


def _granted(storm: Storm) -> list[Granted]:
    """No client was told of a claim that is not there, and none is there that no client was told of."""
    told: dict[UUID, list[tuple[Attempt, dict[str, Any]]]] = defaultdict(list)
    for number, answer in storm.answers.items():
        if answer.status_code == 201:
            told[UUID(answer.json()["claim_id"])].append((storm.attempts[number], answer.json()))
        else:
            assert (answer.status_code, answer.json()["code"] in REFUSALS) == (409, True), answer.text
    claims = {claim.claim_id: claim for claim in storm.stand.rows(select(Claim))}
    assert set(claims) == set(told)
    return [
        Granted(claim, [attempt for attempt, _ in told[claim_id]], [answer for _, answer in told[claim_id]])
        for claim_id, claim in claims.items()
    ]


def _assert_each_code_paid_one_member_once(storm: Storm, granted: list[Granted]) -> None:
    codes = Counter(one.attempts[0].code for one in granted)
    assert max(codes.values()) == 1
    assert len({one.claim.item_key for one in granted}) == len(granted)
    for one in granted:
        # One request, however often it was sent, and always the same answer.
        assert len({(attempt.code, attempt.member, attempt.key) for attempt in one.attempts}) == 1
        assert all(answer == one.answers[0] for answer in one.answers)
        assert one.claim.member_id == storm.members[one.attempts[0].member].member_id
        assert one.claim.campaign_id == storm.prizes.of(one.attempts[0].code)
    keys = {(storm.members[one.attempts[0].member].member_id, one.attempts[0].key) for one in granted}
    stored = storm.stand.rows(select(IdempotentRequest.caller_id, IdempotentRequest.key))
    assert sorted(map(tuple, stored)) == sorted(keys)
    _assert_refusals_were_just(storm, codes)


def _assert_refusals_were_just(storm: Storm, paid: Counter[int]) -> None:
    """A code that nobody was paid for was refused for want of budget, or to members at their limit, and never else."""
    for number, answer in storm.answers.items():
        if answer.status_code != 201:
            code = storm.attempts[number].code
            assert (answer.json()["code"] == "AlreadyClaimed") <= bool(paid[code])
            assert paid[code] or storm.prizes.of(code) == storm.prizes.scarce
    counts = storm.stand.rows(select(ClaimCount.claims).where(ClaimCount.campaign_id == storm.prizes.scarce))
    assert max(counts) <= storm.prizes.scarce_limit
    assert sum(counts) == sum(bool(paid[code]) for code in paid if storm.prizes.of(code) == storm.prizes.scarce)


def _assert_claims_are_whole(storm: Storm, granted: list[Granted]) -> None:
    """Each claim has its transfer, entries, lot, order with message, coupon and news; and nothing else has any."""
    stand = storm.stand
    terms = {
        campaign_id: stand.run(partial(_terms, stand, campaign_id))
        for campaign_id in (storm.prizes.draw, storm.prizes.scarce)
    }
    books = _Books(stand, {one.claim.claim_id for one in granted})
    for one in granted:
        item, campaign = storm.items[one.attempts[0].code], terms[one.claim.campaign_id]
        drawn = campaign.drawn(fair.item_ticket(item.gtin, item.serial))
        assert one.claim.drawn_number == drawn.number
        assert one.claim.prize_number in (drawn.number, campaign.prizes[-1].number)
        books.check(one, campaign)
    assert books.coupons.keys() == books.steps.keys()
    assert books.used == {"coupons": len(books.coupons), "orders": len(books.orders), "lots": len(books.lots)}
    told_of = stand.rows(select(OutboxMessage.payload).where(OutboxMessage.topic == news.CLAIMED))
    assert sorted(told["claim_id"] for told in told_of) == sorted(str(one.claim.claim_id) for one in granted)
    claimants = {one.claim.member_id for one in granted}
    assert sorted(stand.rows(select(Card.member_id))) == sorted(claimants)
    assert sorted(stand.rows(select(TaskCompletion.member_id))) == sorted(claimants)


async def _terms(stand: Stand, campaign_id: UUID, session: Any) -> Terms:
    return await campaigns.terms_of(session, stand.vault, campaign_id)


class _Books:
    """Everything that claims left behind, by the claim's id."""

    def __init__(self, stand: Stand, claim_ids: set[UUID]) -> None:
        self.vault = stand.vault
        self.entries: dict[UUID, list[Entry]] = defaultdict(list)
        for entry in stand.rows(select(Entry)):
            self.entries[entry.transfer_id].append(entry)
        transfers = stand.rows(select(TransferRecord.transfer_id))
        self.transfers = {one for one in transfers if one in claim_ids}
        lots = stand.rows(select(PointsLot))
        self.lots = {lot.lot_id: lot for lot in lots if lot.lot_id in claim_ids}
        self.orders = {order.order_id: order for order in stand.rows(select(Order))}
        self.messages = {one.message_id: one for one in stand.rows(select(OutboxMessage))}
        self.coupons = {held.held_id: held for held in stand.rows(select(MemberBenefit))}
        self.steps = Counter(stand.rows(select(BenefitStep.held_id)))
        self.carrier = stand.carrier.statistics()["by_order"]
        self.used = {"coupons": 0, "orders": 0, "lots": 0}

    def check(self, one: Granted, campaign: Terms) -> None:
        claim, prize = one.claim, campaign.prizes[one.claim.prize_number]
        assert one.answers[0]["prize"] == {"kind": prize.kind, "amount": prize.amount}
        kind, claim_id = PrizeKind(prize.kind), claim.claim_id
        if kind is PrizeKind.NOTHING:
            assert claim_id not in self.transfers
            return
        assert claim_id in self.transfers
        purpose = Purpose.PENDING if prize.prize.is_ordered else Purpose.AVAILABLE
        gave, got = sorted(self.entries[claim_id], key=lambda entry: entry.amount)
        assert (gave.amount, gave.purpose, gave.asset) == (-prize.amount, Purpose.BUDGET, prize.prize.asset)
        assert gave.holder_id in {
            account.holder_id for account in campaigns.budget_of(campaign.campaign, prize).accounts
        }
        assert (got.amount, got.purpose, got.asset) == (prize.amount, purpose, prize.prize.asset)
        assert got.holder_id == claim.member_id
        {PrizeKind.POINTS: self._lot, PrizeKind.MEGABYTES: self._order, PrizeKind.BENEFIT: self._coupon}[kind](one)

    def _lot(self, one: Granted) -> None:
        lot = self.lots[one.claim.claim_id]
        assert (lot.member_id, lot.amount, lot.left) == (one.claim.member_id, *[one.claim.prize_amount] * 2)
        self.used["lots"] += 1

    def _order(self, one: Granted) -> None:
        order, message = self.orders[one.claim.claim_id], self.messages[one.claim.claim_id]
        assert (order.member_id, order.amount, order.state) == (
            *(one.claim.member_id, one.claim.prize_amount),
            OrderState.COMPLETED,
        )
        assert message.item_key == one.claim.item_key
        assert self.carrier[str(order.order_id)]["deliveries"] == 1
        self.used["orders"] += 1

    def _coupon(self, one: Granted) -> None:
        held, answer = self.coupons[one.claim.claim_id], one.answers[0]
        assert (held.member_id, answer["coupon_id"]) == (one.claim.member_id, str(held.held_id))
        assert held.code_sealed is not None
        shown = coupon_codes.show_code(coupon_codes.unseal(self.vault, held.code_sealed, held.held_id))
        assert (answer["coupon_code"], self.steps[held.held_id]) == (shown, 1)
        self.used["coupons"] += 1


def _assert_books_balance(storm: Storm, granted: list[Granted]) -> None:
    stand = storm.stand
    assert stand.books().faults == ()
    assert set(stand.asset_totals().values()) == {0}
    for campaign_id in (storm.prizes.draw, storm.prizes.scarce):
        terms = stand.run(partial(_terms, stand, campaign_id))
        for prize in terms.prizes:
            issued = sum(
                one.claim.prize_amount
                for one in granted
                if (one.claim.campaign_id, one.claim.prize_number) == (campaign_id, prize.number)
            )
            left = stand.run(partial(campaigns.budget_left, campaign=terms.campaign, prize=prize))
            assert 0 <= left == prize.budget - issued
    points = Counter({one.claim.member_id: TASK_POINTS for one in granted})
    for one in granted:
        points[one.claim.member_id] += one.claim.prize_amount * (one.answers[0]["prize"]["kind"] == PrizeKind.POINTS)
    balances = select(Account.holder_id, Account.balance).where(
        Account.asset == "points", Account.purpose == Purpose.AVAILABLE, col(Account.balance) != 0
    )
    assert dict(stand.rows(balances)) == dict(points)


def _rage(storm: Storm) -> str:
    begun = time.monotonic()
    asyncio.run(storm.rage())
    lasted = time.monotonic() - begun
    _calm(storm.stand)
    assert storm.done == Counter(storm.size.blows)
    assert storm.repeats["no answer"] > 0  # otherwise nobody was killed in the middle of anything
    granted = _granted(storm)
    _assert_each_code_paid_one_member_once(storm, granted)
    _assert_claims_are_whole(storm, granted)
    _assert_books_balance(storm, granted)
    return f"{storm.figures()}; {lasted:.0f} s"


def test_a_squall_of_claims_and_kills_loses_and_doubles_nothing(storm_of: Callable[[Size], Storm]) -> None:
    _rage(storm_of(SHORT))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_twenty_thousand_contested_claims_survive_kills_of_everything(
    storm_of: Callable[[Size], Storm], capsys: pytest.CaptureFixture[str]
) -> None:
    storm = storm_of(WHOLE)
    told = _rage(storm)
    assert storm.repeats["503"] > 0  # the database went away under statements
    with capsys.disabled():
        print(f"\n{told}")
