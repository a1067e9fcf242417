"""A brand's house: the real loyalty programme in a database, and beside it what it should be, in plain Python.

A rule of the machine does one thing to both. `House.both` sees to it that both do it, or refuse it for one reason;
`look` and `audit` compare what they hold.
"""

import contextlib
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import text
from sqlmodel import select

from kit import procedures
from kit.db import Database, Session
from kit.errors import FanxingError
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import earn_rules, ledger, members, programs
from loyalty.benefits import Benefit, BenefitKind, NewBenefit, catalogue, code_pools, stock
from loyalty.benefits.held import BenefitState
from loyalty.budgets import Budget
from loyalty.campaigns import Terms
from loyalty.check_ins import CheckInRules
from loyalty.draws.catalogue import Draw
from loyalty.earn_rules import NewEarnRule
from loyalty.ledger import POINTS, STRIPES, Account, AccountId, Leg, PointsLot, Policy, Purpose, Transfer
from loyalty.merge_moves import Moved
from loyalty.points_owed import PointsOwed
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram, Program
from loyalty.purchases import NewPurchase
from loyalty.refunds import NewRefund
from loyalty.tasks import Period, TaskEvent, TaskRules
from tests.loyalty.ledger.model import Model
from tests.simulation.claiming import CLAIM

START = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
FOREVER = datetime(2090, 1, 1, tzinfo=UTC)
GROUP, BRAND = 1, 10
MEMBERS = 8
ITEMS = 60
POLICY = Policy(lifetime_months=1, debt_max_points=40)
BRAND_POT, GROUP_POT = uuid.UUID(int=1), uuid.UUID(int=2)
ISSUED_POINTS = AccountId(BRAND_POT, POINTS, Purpose.ISSUANCE)
SPENT_POINTS = AccountId(BRAND_POT, POINTS, Purpose.SPENT)
CHECK_IN = CheckInRules(points=2, bonuses={3: 5}, cycle_days=7)
TASK_POINTS, TASK_BUDGET = 3, 400

T = TypeVar("T")


@dataclass
class Held:
    """A benefit in a member's hands."""

    held_id: uuid.UUID
    benefit: Benefit
    member_id: uuid.UUID
    points_paid: int
    state: BenefitState
    expires_at: datetime | None
    code: str | None = None
    shown: bool = False
    redeemed_at: datetime | None = None
    redemption_id: uuid.UUID | None = None

    @property
    def asset(self) -> str:
        return stock.asset_of(self.benefit.benefit_id)

    def account(self, purpose: Purpose) -> AccountId:
        return AccountId(self.member_id, self.asset, purpose)


@dataclass
class Bought:
    """A purchase and what became of it."""

    new: NewPurchase
    member_id: uuid.UUID
    points: int
    refunded_fen: int = 0
    points_back: int = 0
    refunds: list[NewRefund] = field(default_factory=list)


@dataclass
class Ordered:
    """An order for a provider, by where its value lies: on its way, arrived, or returned."""

    order_id: uuid.UUID
    member_id: uuid.UUID
    asset: str
    amount: int
    refund_to: AccountId
    at: Purpose | None = Purpose.PENDING
    """None: where it came from."""
    revision: int = 0


@dataclass
class Union:
    """Two members who were merged."""

    merge_id: uuid.UUID
    survivor: uuid.UUID
    merged: uuid.UUID
    moves: list[tuple[datetime, uuid.UUID, Moved]] = field(default_factory=list)
    benefits: list[uuid.UUID] = field(default_factory=list)
    owed: int = 0
    undone: bool = False


@dataclass
class Deck:
    """A draw's deck, and what is left in it."""

    draw: Draw
    prizes: tuple[tuple[str, int], ...]
    left: list[int]
    price: int


@dataclass
class House:
    database: Database
    vault: Vault
    now: datetime = START
    books: Model = field(default_factory=Model)
    pots: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    """The holder of a stripe, and what it is a stripe of."""
    members: list[uuid.UUID] = field(default_factory=list)
    groups: dict[uuid.UUID, int] = field(default_factory=dict)
    merged_into: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    unions: list[Union] = field(default_factory=list)
    benefits: list[Benefit] = field(default_factory=list)
    prices: dict[uuid.UUID, int] = field(default_factory=dict)
    had: Counter[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=Counter)
    """Of a limited benefit, by member and benefit."""
    held: dict[uuid.UUID, Held] = field(default_factory=dict)
    campaigns: list[Terms] = field(default_factory=list)
    claimed: dict[tuple[int, uuid.UUID], uuid.UUID] = field(default_factory=dict)
    claims: Counter[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=Counter)
    bought: list[Bought] = field(default_factory=list)
    owed: Counter[uuid.UUID] = field(default_factory=Counter)
    orders: list[Ordered] = field(default_factory=list)
    decks: list[Deck] = field(default_factory=list)
    streaks: dict[uuid.UUID, tuple[date, int]] = field(default_factory=dict)
    tasks_done: set[tuple[uuid.UUID, date]] = field(default_factory=set)
    check_in: Program | None = None
    task: Program | None = None
    numbers: int = 0
    """Of ids, receipts and codes that were chosen."""
    done: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    """What can be asked for again without any effect."""

    async def open(self) -> None:
        """Everything that is there before the first step."""
        for number in range(STRIPES):
            self.pots[derived_id("brand", BRAND, number)] = BRAND_POT
            self.pots[derived_id("group", GROUP, number)] = GROUP_POT
        self.books.policies, self.books.groups = {GROUP: POLICY}, self.groups
        await procedures.install(self.database, [CLAIM])
        async with self.database.writing() as session:
            await ledger.set_policy(session, GROUP, POLICY)
            await earn_rules.add(session, BRAND, NewEarnRule(1_000, START), START)
            for _ in range(MEMBERS):
                await self.enrol(session)
            for kind, price, changes in _CATALOGUE:
                await self._add_benefit(session, kind, price, changes)
            self.check_in = await programs.create(session, _program(CHECK_IN), START)
            task = TaskRules(TaskEvent.OTHER, Period.DAILY, Prize(PrizeKind.POINTS, TASK_POINTS))
            self.task = await programs.create(session, _program(task, TASK_BUDGET), START)
            session.expunge_all()
        budget = programs.budget_of(self.task, POINTS)
        assert budget is not None
        self.fund(budget, TASK_POINTS * TASK_BUDGET)

    async def _add_benefit(self, session: Session, kind: BenefitKind, price: int, changes: dict[str, Any]) -> None:
        new = NewBenefit(
            brand_id=BRAND,
            group_id=GROUP,
            kind=kind,
            name_zh="权益",
            name_en="Benefit",
            starts_at=START,
            ends_at=FOREVER,
            stripes=3,
            prices={0: price} if price else {},
            **changes,
        )
        benefit = await catalogue.create(session, new, START, sure=True)
        self.benefits.append(benefit)
        self.prices[benefit.benefit_id] = price
        for account in stock.stripes(benefit.benefit_id, benefit.stripes):
            self.pots[account.holder_id] = benefit.benefit_id

    # What rules use.

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def new_id(self) -> uuid.UUID:
        return derived_id("simulated", self.number())

    async def enrol(self, session: Session) -> None:
        """Another member; so long as there are enough of them, the one who came first does nothing any more."""
        phone = f"1380013{8000 + len(self.members)}"
        member, _ = await members.find_or_enrol(session, self.vault, GROUP, phone, self.now)
        await members.join_brand(session, member.member_id, BRAND, self.now)
        self.members.append(member.member_id)
        self.groups[member.member_id] = GROUP

    @property
    def active(self) -> list[uuid.UUID]:
        """Members who may do something: the latest."""
        return self.members[-MEMBERS:]

    def acting(self) -> list[uuid.UUID]:
        """Those of them who act for themselves."""
        return [member for member in self.active if member not in self.merged_into]

    def acts_for(self, member_id: uuid.UUID) -> uuid.UUID:
        return self.merged_into.get(member_id, member_id)

    def expiry(self) -> datetime | None:
        """When points run out that are earned now."""
        return ledger.lot_expiry(POLICY, self.now)

    def pot(self, account: AccountId) -> AccountId:
        return AccountId(self.pots.get(account.holder_id, account.holder_id), account.asset, account.purpose)

    def balance(self, account: AccountId) -> int:
        return self.books.balances[account]

    def post(self, transfer_id: uuid.UUID, *moved: tuple[AccountId, int], **more: Any) -> None:
        """A transfer in the books."""
        legs = tuple(Leg(account, amount) for account, amount in moved)
        self.books.post(Transfer(transfer_id, "expected", legs, **more), self.now)

    def fund(self, budget: Budget, amount: int, source: AccountId | None = None) -> None:
        """A budget that was set aside."""
        for account in budget.accounts:
            self.pots[account.holder_id] = budget.budget_id
        source = source or AccountId(BRAND_POT, budget.asset, Purpose.ISSUANCE)
        self.post(derived_id("funded", budget.budget_id), (source, -amount), (pot_of(budget), amount))

    async def both(self, real: Callable[[Session], Awaitable[T]], expected: Callable[[T | None], object]) -> T | None:
        """Do it for real, in a transaction, and in the books; None: both refused it, for the same reason.

        `expected` is told what came of it, None when it was refused.
        """

        async def in_a_transaction() -> T:
            async with self.database.writing() as session:
                return await real(session)

        return await self.both_by_itself(in_a_transaction, expected)

    async def both_by_itself(
        self, real: Callable[[], Awaitable[T]], expected: Callable[[T | None], object]
    ) -> T | None:
        """The same for what opens its own transactions."""
        result, refusal, wanted = None, "", ""
        try:
            result = await real()
        except FanxingError as error:
            refusal, why = error.code, error
        try:
            with self.books.transaction():
                expected(result)
        except FanxingError as error:
            wanted = error.code
        except AssertionError as error:
            error.add_note(f"refused: {why!r}" if refusal else "it was not refused")
            raise
        assert refusal == wanted, f"refused: {refusal or 'no'}, should be: {wanted or 'no'}"
        return None if refusal else result

    def again(self, real: Callable[[Session], Awaitable[object]]) -> None:
        """What was just done may be asked for again: whatever is answered, no value moves."""

        async def once_more() -> None:
            with contextlib.suppress(FanxingError):
                async with self.database.writing() as session:
                    await real(session)

        self.done.append(once_more)

    # What must be true.

    async def glance(self) -> None:
        """After every step: assets sum to zero, and no account is below its floor."""
        async with self.database.reading() as session:
            connection = await session.connection()
            astray = (await connection.execute(_ASTRAY)).all()
            assert not astray, f"accounts do not sum to zero, or are below their floor: {astray}"

    async def look(self) -> None:
        """Every balance, points lot and debt is what the books say."""
        async with self.database.reading() as session:
            connection = await session.connection()
            rows = await connection.execute(_BALANCES)
            real = self._by_pot((AccountId(row[0], row[1], Purpose(row[2])), row[3]) for row in rows)
            lots = Counter(tuple(row) for row in await connection.execute(_LIVE_LOTS))
            owed = {row.member_id: row.points for row in await session.exec(_OWED)}
        expected = self._by_pot(self.books.balances.items())
        different = {key: (real[key], expected[key]) for key in real | expected if real[key] != expected[key]}
        assert not different, f"balances that are (first) and should be (second): {different}"
        live = Counter(
            (member, lot.expires_at, lot.left)
            for member, own in self.books.lots.items()
            for lot in own.values()
            if lot.left
        )
        assert lots == live, f"points lots that are: {lots - live}, that should be: {live - lots}"
        assert owed == {member: points for member, points in self.owed.items() if points}

    def _by_pot(self, balances: Iterable[tuple[AccountId, int]]) -> Counter[AccountId]:
        totals: Counter[AccountId] = Counter()
        for account, balance in balances:
            totals[self.pot(account)] += balance
        return totals

    async def audit(self) -> None:
        """The ledger's own audit, that of the pools of codes, and that nothing was given twice."""
        await self.look()
        async with self.database.reading() as session:
            report = await ledger.verify(session)
            assert report.faults == ()
            for benefit in self.benefits:
                if benefit.kind == BenefitKind.POOL:
                    assert (await code_pools.verify(session, benefit)).faults == ()
            connection = await session.connection()
            for twice in _TWICE:
                assert (await connection.execute(text(twice))).all() == []
            count = await connection.execute(text("SELECT count(*) FROM claim"))
            assert count.scalar_one() == len(self.claimed)


def pot_of(budget: Budget) -> AccountId:
    """The whole of a budget."""
    return AccountId(budget.budget_id, budget.asset, Purpose.BUDGET)


def _program(rules: programs.Rules, budget: int | None = None) -> NewProgram:
    return NewProgram(BRAND, GROUP, "活动", "Program", rules, START - timedelta(days=1), budget=budget)


_CATALOGUE: tuple[tuple[BenefitKind, int, dict[str, Any]], ...] = (
    (BenefitKind.COUPON, 20, {"valid_days": 10, "value_fen": 500}),
    (BenefitKind.COUPON, 5, {"valid_days": 60, "value_fen": 100, "limit_total": 2}),
    (BenefitKind.POOL, 15, {"valid_days": 30, "value_fen": 300}),
    (BenefitKind.DATA, 10, {"amount": 20, "value_fen": 100}),
    (BenefitKind.CASH, 30, {"amount": 200, "value_fen": 200, "valid_days": 20}),
    (BenefitKind.POINTS, 0, {"amount": 7, "value_fen": 10}),
)
_ACCOUNT = Account.__table__.c  # type: ignore[attr-defined]  # SQLModel adds it at run time
_ASTRAY = text(
    "SELECT asset, sum(balance), sum(CASE WHEN balance < floor THEN 1 ELSE 0 END) FROM ledger_account GROUP BY asset "
    "HAVING sum(balance) <> 0 OR sum(CASE WHEN balance < floor THEN 1 ELSE 0 END) > 0"
)
_BALANCES = select(_ACCOUNT.holder_id, _ACCOUNT.asset, _ACCOUNT.purpose, _ACCOUNT.balance)
_LIVE_LOTS = select(PointsLot.member_id, PointsLot.expires_at, PointsLot.left).where(PointsLot.left > 0)
_OWED = select(PointsOwed).where(PointsOwed.points > 0)
_TWICE = (
    "SELECT item_key FROM claim GROUP BY item_key, campaign_id HAVING count(*) > 1",
    "SELECT code_fingerprint FROM member_benefit WHERE kind = 'pool' AND code_fingerprint IS NOT NULL "
    "GROUP BY benefit_id, code_fingerprint HAVING count(*) > 1",
    "SELECT held_id FROM pool_code WHERE held_id IS NOT NULL GROUP BY held_id HAVING count(*) > 1",
    "SELECT order_id FROM fulfilment_order GROUP BY order_id HAVING count(*) > 1",
)
