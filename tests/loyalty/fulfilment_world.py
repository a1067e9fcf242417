"""Orders that wait for a provider, the simulated provider as a process, and a look at what became of both."""

import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from sqlmodel import col, func, select

from kit.db import Database, Session
from kit.ids import derived_id
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import fulfilment, ledger
from loyalty.fulfilment import HttpProvider, NewOrder, Order, OrderKind, OrderState, Provider, Worker, reconciliation
from loyalty.fulfilment.reconciliation import Result
from loyalty.fulfilment.states import OPEN
from loyalty.fulfilment.worker import BACKOFF_MAX
from loyalty.ledger import Account, AccountId, Entry, Leg, Purpose, Transfer

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
MakeMember = Callable[..., Awaitable[uuid.UUID]]
BRAND = 10
FUNDS = 1_000_000
DAY = date(2026, 5, 1)
"""The day on which a provider that is told so believes to live."""
SECRET = "a secret that is long enough for us"


class MovingClock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> None:
        self.now += by


@dataclass
class CarrierProcess:
    """The simulator, running."""

    process: subprocess.Popen[str]
    url: str

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{self.url}/statistics", trust_env=False).json()
        return found

    def advance(self) -> dict[str, Any]:
        """Every order one state further, and every callback that is due sent."""
        done: dict[str, Any] = httpx2.post(f"{self.url}/advance", trust_env=False, timeout=60).json()
        return done

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


StartCarrier = Callable[..., CarrierProcess]


def start_carrier_in(folder: Path, *options: str) -> CarrierProcess:
    """Start the simulator, or start it again, on a book in this folder."""
    command = [sys.executable, "-m", "loadtest.carrier", "--port", "0", "--state", str(folder / "carrier.sqlite")]
    process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return CarrierProcess(process, process.stdout.readline().removeprefix("carrier on ").strip())


@dataclass
class World:
    """Orders, a worker to run, and what became of it all."""

    database: Database
    vault: Vault
    clock: MovingClock
    order_ids: list[uuid.UUID] = field(default_factory=list)

    @property
    def budget(self) -> AccountId:
        return self.budget_of(OrderKind.DATA)

    def budget_of(self, kind: OrderKind) -> AccountId:
        return AccountId(uuid.UUID(int=7), kind.asset, Purpose.BUDGET)

    async def fund(self, amount: int = FUNDS, kind: OrderKind = OrderKind.DATA) -> None:
        source = ledger.issuance(BRAND, kind.asset, 0)
        legs = (Leg(source, -amount), Leg(self.budget_of(kind), amount))
        async with self.database.writing() as session:
            await ledger.post(session, Transfer(uuid.uuid4(), "budget", legs), self.clock())

    async def place(
        self, member_id: uuid.UUID, amount: int = 5, kind: OrderKind = OrderKind.DATA, *, sandbox: bool = False
    ) -> uuid.UUID:
        """An order, paid from the budget."""
        async with self.database.writing() as session:
            return await self.place_in(session, member_id, amount, kind, sandbox=sandbox)

    async def place_in(
        self,
        session: Session,
        member_id: uuid.UUID,
        amount: int = 5,
        kind: OrderKind = OrderKind.DATA,
        *,
        sandbox: bool = False,
    ) -> uuid.UUID:
        """The same in a transaction of the caller's."""
        # The same in every run, since the simulator's misdeeds depend on it.
        order_id, budget = derived_id("order of a test", len(self.order_ids)), self.budget_of(kind)
        legs = (Leg(budget, -amount), Leg(AccountId(member_id, kind.asset, Purpose.PENDING), amount))
        await ledger.post(session, Transfer(order_id, "prize", legs), self.clock())
        new = NewOrder(order_id, member_id, kind, amount, budget, BRAND, sandbox=sandbox)
        await fulfilment.place(session, new, self.clock())
        self.order_ids.append(order_id)
        return order_id

    def worker(self, provider: Provider) -> Worker:
        return Worker(self.database, self.vault, provider, self.clock)

    async def work(self, provider: Provider) -> int:
        return await self.worker(provider).work_once()

    async def work_until_done(self, provider: Provider, rounds_max: int = 40) -> None:
        for _ in range(rounds_max):
            while await self.work(provider):
                pass
            # Past every postponement and lease.
            self.clock.move(BACKOFF_MAX)
            if not await self.waiting():
                return
        raise AssertionError(f"orders still open after {rounds_max} rounds")

    async def order(self, order_id: uuid.UUID) -> Order:
        async with self.database.reading() as session:
            return await fulfilment.find(session, order_id)

    async def orders(self) -> list[Order]:
        async with self.database.reading() as session:
            return list(await session.exec(select(Order).order_by(col(Order.order_id))))

    async def states(self) -> set[str]:
        return {order.state for order in await self.orders()}

    async def path(self, order_id: uuid.UUID) -> list[str]:
        """The states that an order went through, and who moved it: "completed by callback"."""
        async with self.database.reading() as session:
            steps = await fulfilment.steps_of(session, await fulfilment.find(session, order_id))
        return [f"{step.to_state} by {step.by}" for step in steps]

    async def waiting(self) -> int:
        async with self.database.reading() as session:
            undone = select(func.count()).where(col(OutboxMessage.done_at).is_(None))
            return (await session.exec(undone)).one()

    async def totals(self, asset: str = "mb") -> dict[Purpose, int]:
        """An asset's units by what they are for; also checks the ledger."""
        async with self.database.reading() as session:
            assert (await ledger.verify(session)).faults == ()
            totals = dict.fromkeys(Purpose, 0)
            for account in await session.exec(select(Account).where(Account.asset == asset)):
                totals[Purpose(account.purpose)] += account.balance
        return totals

    async def delivered(self, order_id: uuid.UUID) -> int:
        """What one order's steps moved into the member's DELIVERED account, all told."""
        async with self.database.reading() as session:
            steps = await fulfilment.steps_of(session, await fulfilment.find(session, order_id))
            moved = select(func.coalesce(func.sum(Entry.amount), 0)).where(
                col(Entry.transfer_id).in_([step.transfer_id for step in steps if step.transfer_id]),
                Entry.purpose == Purpose.DELIVERED,
            )
            return int((await session.exec(moved)).one())

    async def assert_same_story(self, statistics: dict[str, Any]) -> None:
        """Provider and ledger agree on every order, and on the sum; nothing is left on its way."""
        orders = await self.orders()
        assert {order.order_id for order in orders} >= set(self.order_ids)
        by_order = statistics["by_order"]
        assert set(by_order) <= {str(order.order_id) for order in orders}
        assert {order.state for order in orders} & OPEN == set()
        delivered = 0
        for order in orders:
            told = by_order.get(str(order.order_id), {"deliveries": 0})
            assert told["deliveries"] == int(order.state == OrderState.COMPLETED), (order.order_id, order.state, told)
            assert await self.delivered(order.order_id) == order.amount * told["deliveries"]
            delivered += order.amount * told["deliveries"]
        assert statistics["delivered"] == delivered
        totals = await self.totals()
        assert totals[Purpose.DELIVERED] == delivered
        assert totals[Purpose.PENDING] == 0
        assert totals[Purpose.BUDGET] + totals[Purpose.ISSUANCE] == -delivered

    async def reconcile(self, provider: HttpProvider, day: date = DAY, *, dry_run: bool = False) -> Result:
        async with provider.statement(day) as lines:
            return await reconciliation.reconcile(
                self.database, provider.name, provider, day, lines, self.clock, dry_run=dry_run
            )
