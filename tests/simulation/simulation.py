"""One run of the simulator: shoppers, servers, workers and a lying carrier in one process, by a clock that is made up.

Everything that happens follows from the seed. After the run time is let pass, the days are reconciled, and what the
carrier did, what the orders say and what the books hold must be one story.
"""

import asyncio
import hashlib
import random
import uuid
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import col, select

from kit.db import Database
from kit.errors import FanxingError
from kit.ids import derived_id
from kit.vault import Vault
from loadtest.carrier_fate import Misbehaviour
from loyalty import campaigns, fulfilment, ledger, members
from loyalty.campaigns import Face, NewCampaign, NewPrize, Terms
from loyalty.claims import AlreadyClaimed, Claim
from loyalty.fulfilment import PROVIDER_OF, Attention, Order, OrderKind, OrderState, Worker, callbacks, reconciliation
from loyalty.fulfilment.callbacks import SignedCallback
from loyalty.fulfilment.reconciliation import Difference, Result
from loyalty.fulfilment.steps import day_of
from loyalty.ledger import Account, Entry, Policy, Purpose
from loyalty.prizes import Prize, PrizeKind
from tests.simulation.carrier import TRIES_MAX, LyingCarrier
from tests.simulation.claiming import Ask, claim, terms_of
from tests.simulation.house import BRAND, GROUP, START
from tests.simulation.inline_sqlite import between_statements, open_inline
from tests.simulation.loop import Killed, Process, SimulatedLoop, running_in
from tests.simulation.machine import VAULT_KEY
from tests.simulation.seeded import seeded

SHOPPERS, ITEMS, CLAIMS_EACH = 5, 9, 4
WORKERS = 2
"""For each of the two carriers."""
PRIZES = {PrizeKind.MEGABYTES: (5, 40), PrizeKind.CASH: (100, 700)}
"""Amount and budget; the budgets may be used up."""
SECRET = "a secret that is long enough for us"
TRACE_SHOWN = 40
SETTLING_ROUNDS_MAX = 500
T = TypeVar("T")


@dataclass(frozen=True)
class Story:
    """What a run came to. The same seed has the same `digest`."""

    digest: str
    turns: int
    kills: int
    orders: int
    lasted: timedelta


class Unsound(AssertionError):
    """The run of a seed came to a contradiction; the message ends with the last that happened."""


def run(seed: int, path: Path, template: Path) -> Story:
    """Run one seed on a new file at `path`. Raises Unsound."""
    with seeded(seed) as chance:
        loop = SimulatedLoop(chance)
        asyncio.set_event_loop(loop)
        database = open_inline(path, template)
        simulation = Simulation(seed, chance, loop, database)
        try:
            return loop.run_until_complete(simulation.run())
        except Exception as error:
            happened = "\n".join(simulation.trace)
            raise Unsound(
                f"seed {seed}: {error!r}\n{happened}\nAgain: python -m tests.simulation --seed {seed}"
            ) from error
        finally:
            between_statements(None)
            loop.run_until_complete(database.close())
            asyncio.set_event_loop(None)
            loop.close()


@dataclass
class Simulation:
    """The world of one seed."""

    seed: int
    chance: random.Random
    loop: SimulatedLoop
    database: Database
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=TRACE_SHOWN))
    vault: Vault = field(default_factory=lambda: Vault(VAULT_KEY))
    carriers: dict[str, LyingCarrier] = field(default_factory=dict)
    terms: list[Terms] = field(default_factory=list)
    shoppers: list[uuid.UUID] = field(default_factory=list)
    granted: dict[tuple[int, uuid.UUID], tuple[uuid.UUID, uuid.UUID]] = field(default_factory=dict)
    """Claims that were answered, by item and campaign: the member and the claim."""
    is_over: bool = False
    _hash: Any = field(default_factory=hashlib.sha256)
    _server: Process | None = None
    _processes: int = 0

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.time():12.3f} {what}")
        self._hash.update(self.trace[-1].encode())

    async def turn(self, what: str) -> None:
        await self.loop.turn(what)
        process = running_in.get()
        self._hash.update(f"{self.loop.turns} {process.name if process else ''} {what}".encode())

    async def run(self) -> Story:
        self._set_up_carriers()
        await self._set_up_brand()
        between_statements(self.turn)
        self.loop.kill = self.chance.choice((0.0, 0.002, 0.01, 0.03))
        workers = [
            asyncio.ensure_future(self._work(f"worker {number} of {name}", carrier))
            for name, carrier in self.carriers.items()
            for number in range(WORKERS)
        ]
        posts = [asyncio.ensure_future(self._post(carrier)) for carrier in self.carriers.values()]
        operator = asyncio.ensure_future(self._operate())
        await asyncio.gather(*(self._shop(number) for number in range(SHOPPERS)))
        self.note("settling")
        self.loop.kill = 0.0
        await self._settle()
        self.is_over = True
        await asyncio.gather(*workers, *posts, operator)
        between_statements(None)
        results = [await self._reconcile(carrier, day) for carrier in self.carriers.values() for day in self._days()]
        await self._check(results)
        for order in await self._orders():
            self.note(f"order {order.order_id} {order.state} {order.seq} {order.revision}")
        lasted = timedelta(seconds=self.loop.time())
        orders = len(await self._orders())
        return Story(self._hash.hexdigest(), self.loop.turns, self.loop.kills, orders, lasted)

    def _set_up_carriers(self) -> None:
        def some(most: float) -> float:
            return self.chance.choice((0.0, self.chance.random() * most))

        for kind in OrderKind:
            name = PROVIDER_OF[kind]
            misbehaviour = Misbehaviour(
                lose=some(0.4),
                drop=some(0.4),
                duplicate=some(0.5),
                fail=some(0.3),
                reverse=some(0.3),
                lie=some(0.3),
                await_user=some(0.3),
                lose_callback=some(0.6),
                shuffle=some(0.6),
                wrong_amount=some(0.1),
                omit_line=some(0.1),
                repeat_line=some(0.2),
                queries_until_settled=self.chance.randrange(4),
                seed=self.seed,
            )
            self.carriers[name] = LyingCarrier(name, misbehaviour, some(0.3), self.clock, self.turn)

    async def _set_up_brand(self) -> None:
        made = []
        async with self.database.writing() as session:
            for number in range(SHOPPERS):
                member, _ = await members.find_or_enrol(session, self.vault, GROUP, f"1380013{8000 + number}", START)
                self.shoppers.append(member.member_id)
            for kind, (amount, budget) in PRIZES.items():
                new = NewCampaign(
                    brand_id=BRAND,
                    group_id=GROUP,
                    title_zh="扫码有礼",
                    title_en="Scan and win",
                    face=Face.INNER,
                    prizes=(NewPrize(Prize(kind, amount), budget),),
                    starts_at=START,
                    ends_at=START + timedelta(days=30),
                    stripes=3,
                )
                made.append((await campaigns.create(session, self.vault, new, START)).campaign_id)
        self.terms = [await terms_of(self.database, self.vault, campaign_id) for campaign_id in made]

    # Those who act.

    def _started(self, name: str) -> Process:
        self._processes += 1
        return Process(f"{name} #{self._processes}")

    async def _within(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        """Do it in a process. Raises Killed when that dies meanwhile."""
        context = copy_context()
        context.run(running_in.set, process)
        return await self.loop.create_task(work, context=context)

    async def _request(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the server do it; one that died was started again."""
        if self._server is None or self._server.is_dead:
            self._server = self._started("server")
        return await self._within(self._server, work)

    async def _pause(self, seconds_max: float) -> None:
        await asyncio.sleep(self.chance.random() * seconds_max)

    async def _shop(self, number: int) -> None:
        """Claim, and ask again under the same key as long as there is no answer."""
        member_id = self.shoppers[number]
        for turn in range(CLAIMS_EACH):
            await self._pause(3_600)
            terms, item = self.chance.choice(self.terms), self.chance.randrange(ITEMS)
            key, tries = f"claim {number} {turn}", 0
            while True:
                tries += 1
                # Each try makes an id of its own, as the server does; the key makes them one.
                claim_id = derived_id("claimed", self.seed, number, turn, tries)
                ask = Ask(terms, item, member_id, claim_id, key)
                try:
                    claimed, _ = await self._request(claim(self.database, self.vault, ask, Policy(), self.clock()))
                except Killed:
                    self.note(f"shopper {number} gets no answer for item {item}")
                    await self._pause(30)
                    continue
                except FanxingError as refusal:
                    self.note(f"shopper {number} is refused item {item}: {refusal.code}")
                    self._check_refusal(refusal, ask)
                    break
                self.note(f"shopper {number} gets item {item} by claim {claimed}")
                subject = item, terms.campaign.campaign_id
                assert self.granted.setdefault(subject, (member_id, claimed)) == (member_id, claimed), "granted twice"
                break

    def _check_refusal(self, refusal: FanxingError, ask: Ask) -> None:
        if isinstance(refusal, AlreadyClaimed) and refusal.by_you:
            holder = self.granted.get((ask.item, ask.terms.campaign.campaign_id))
            assert holder is not None, "a request that was not answered counts as another"
            assert holder[0] == ask.member_id

    async def _work(self, name: str, carrier: LyingCarrier) -> None:
        while not self.is_over:
            process = self._started(name)
            worker = Worker(self.database, self.vault, carrier, self.clock)
            try:
                while not self.is_over:
                    if not await self._within(process, worker.work_once()):
                        await self._pause(600)
            except Killed:
                self.note(f"{process.name} is killed")
                await self._pause(60)

    async def _post(self, carrier: LyingCarrier) -> None:
        """The carrier goes on with its orders, and calls back."""
        while not self.is_over:
            await self._pause(1_200)
            carrier.book.advance_all()
            for owed in carrier.book.due_callbacks():
                body = owed["body"].encode()
                taken = [await self._call_back(carrier.name, owed["event_id"], body) for _ in range(owed["copies"])]
                carrier.book.callback_sent(owed["event_id"], taken=all(taken), tries_max=TRIES_MAX)

    async def _call_back(self, name: str, event_id: str, body: bytes) -> bool:
        stamp = str(int(self.clock().timestamp()))
        given = SignedCallback(stamp, event_id, callbacks.sign(SECRET, stamp, event_id, body), body)

        async def hear() -> str:
            callbacks.check(given, [SECRET], self.clock())
            async with self.database.writing() as session:
                outcome = await callbacks.hear(session, name, given, self.clock())
                return outcome.effect if outcome is not None else "repeated"

        try:
            effect = await self._request(hear())
        except (Killed, FanxingError) as error:
            self.note(f"callback {event_id} is not taken: {type(error).__name__}")
            return False
        self.note(f"callback {event_id}: {effect}")
        return True

    async def _operate(self) -> None:
        """An operator places orders anew that came to nothing."""
        while not self.is_over:
            await self._pause(7_200)
            ended = [order for order in await self._orders() if order.state in (OrderState.FAILED, OrderState.REVERSED)]
            if not ended or self.is_over or self.loop.kill == 0.0:
                continue
            order_id = self.chance.choice(ended).order_id

            async def repeat(order_id: uuid.UUID = order_id) -> None:
                async with self.database.writing() as session:
                    await fulfilment.repeat(session, await fulfilment.find(session, order_id), self.clock())

            try:
                await self._request(repeat())
                self.note(f"order {order_id} is placed anew")
            except (Killed, FanxingError) as error:
                self.note(f"order {order_id} is not placed anew: {type(error).__name__}")

    # How it ends.

    async def _orders(self) -> list[Order]:
        async with self.database.reading() as session:
            return list(await session.exec(select(Order).order_by(col(Order.order_id))))

    async def _settle(self) -> None:
        for _ in range(SETTLING_ROUNDS_MAX):
            await asyncio.sleep(3_600)
            is_open = any(order.state in fulfilment.OPEN for order in await self._orders())
            if not is_open and all(carrier.is_quiet for carrier in self.carriers.values()):
                return
        raise AssertionError(f"orders are still open after {SETTLING_ROUNDS_MAX} hours")

    def _days(self) -> list[date]:
        first, last = day_of(START), day_of(self.clock())
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]

    async def _reconcile(self, carrier: LyingCarrier, day: date) -> Result:
        result = await reconciliation.reconcile(
            self.database, carrier.name, carrier, day, carrier.statement(day), self.clock
        )
        self.note(f"{carrier.name} {day}: {result.equation}; repaired {len(result.repaired)}")
        assert result.balanced, result.equation
        return result

    async def _check(self, results: list[Result]) -> None:
        async with self.database.reading() as session:
            assert (await ledger.verify(session)).faults == ()
            claims = list(await session.exec(select(Claim)))
            accounts = list(await session.exec(select(Account)))
        found = {(one.item_key, one.campaign_id): (one.member_id, one.claim_id) for one in claims}
        assert len(found) == len(claims)
        assert found == self.granted, "claims that were made are those that were answered"
        orders = await self._orders()
        placed = {order.order_id for order in orders if order.replaces is None}
        assert placed == {claim_id for _, claim_id in found.values()}, "every claim has its order"
        for carrier in self.carriers.values():
            await self._compare(carrier, [order for order in orders if order.provider == carrier.name])
        for result in results:
            self._excuse(result)
        for kind, (amount, budget) in PRIZES.items():
            totals = dict.fromkeys(Purpose, 0)
            for account in accounts:
                if account.asset == kind:
                    totals[Purpose(account.purpose)] += account.balance
            late = [o for o in orders if o.kind == kind and o.attention in _PAID_LATE]
            assert totals[Purpose.PENDING] == 0
            assert budget <= -totals[Purpose.ISSUANCE] <= budget + amount * len(late), "more was issued than budgeted"

    async def _compare(self, carrier: LyingCarrier, orders: list[Order]) -> None:
        """The carrier's truth, our orders and the ledger tell of the same deliveries."""
        truth = carrier.book.statistics()["by_order"]
        assert set(truth) <= {str(order.order_id) for order in orders}, "the carrier has orders that we never placed"
        for order in orders:
            told = truth.get(str(order.order_id), {"deliveries": 0, "amount": order.amount})
            assert told["amount"] == order.amount
            assert await self._delivered(order) == order.amount * (order.state == OrderState.COMPLETED)
            if not self._is_hidden(carrier, order.order_id):
                assert told["deliveries"] == (order.state == OrderState.COMPLETED), (order.order_id, order.state, told)

    async def _delivered(self, order: Order) -> int:
        async with self.database.reading() as session:
            steps = await fulfilment.steps_of(session, order)
            made = [step.transfer_id for step in steps if step.transfer_id is not None]
            entries = await session.exec(
                select(Entry).where(col(Entry.transfer_id).in_(made), Entry.purpose == Purpose.DELIVERED)
            )
            return sum(entry.amount for entry in entries)

    def _is_hidden(self, carrier: LyingCarrier, order_id: uuid.UUID) -> bool:
        """Whether the statement lies of the order, so that nobody can know what was never told."""
        chance = carrier.fate.of(str(order_id), "statement")
        return chance.hits("omit_line") or chance.hits("wrong_amount")

    def _excuse(self, result: Result) -> None:
        """Every difference that is left has a reason: the statement lies, or it happened before we heard of it."""
        carrier = self.carriers[result.provider]
        for one in result.differences:
            repeated = carrier.fate.of(str(one.order_id), "statement").hits("repeat_line")
            passed = one.difference in (Difference.PASSED_OVER, Difference.OTHER_DAY)
            assert repeated or passed or self._is_hidden(carrier, one.order_id), one


_PAID_LATE = (Attention.LATE_COMPLETION, Attention.DELIVERED_TWICE)
