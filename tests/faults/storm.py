"""A storm of claims: many clients at once who contest and repeat, while API, worker and database are killed, by a seed.

A client that hears nothing, or 503, repeats his request under its own key, as docs/loyalty/api.md tells him to, and
asks another server if there is one.
"""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import httpx2
from sqlmodel import select

from codes.catalogue import Brand
from kit.db import Session
from loyalty import campaigns, programs
from loyalty.benefits import BenefitKind, NewBenefit, catalogue, stock
from loyalty.campaigns import Face, Limits, NewCampaign, NewPrize
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram
from loyalty.tasks import Period, TaskEvent, TaskRules
from tests.faults.mortal_postgres import MortalPostgres
from tests.stand import BRAND, Item, Server, SignedIn, Stand

POINTS, MEGABYTES, TASK_POINTS = 100, 5, 7
CONTESTED_WITHIN_CODES = 6
"""Rivals come so close together that they are under way at the same time."""
REQUEST_TIMEOUT_S = 60.0
PAUSE_S = 0.25
HEAD_START_S = 0.02
"""So long clients are at work before something is killed."""


class Blow(StrEnum):
    """What is killed, and started again at once."""

    API = "kill -9 of an API process"
    WORKER = "kill -9 of the worker"
    DATABASE = "kill -9 of the database"
    CRASH = "immediate stop of the database"
    BOTH = "kill -9 of the database and, while it is away, of an API process"


@dataclass(frozen=True)
class Size:
    """How big a storm is. `blows` come in an order, at moments and against processes that the seed decides.

    Clients turn to `more_apis`; the first server then only works. Without any it does both.
    """

    codes: int
    claims: int
    clients: int
    members: int
    more_apis: int
    blows: Sequence[Blow]
    seed: int


@dataclass(frozen=True)
class Prizes:
    """The campaigns that are claimed in, and a task that the worker pays for a member's first claim."""

    draw: uuid.UUID
    scarce: uuid.UUID
    task: uuid.UUID
    scarce_budget: int
    scarce_limit: int

    def of(self, code: int) -> uuid.UUID:
        """The campaign that a code is claimed in: every third in the one that has too little for all."""
        return self.scarce if code % 3 == 2 else self.draw


@dataclass(frozen=True)
class Attempt:
    """A request of one member for one code. Those with the same key are the same request."""

    code: int
    member: int
    key: str


@dataclass
class Storm:
    """The attempts, and what became of each of them."""

    stand: Stand
    size: Size
    prizes: Prizes
    database: MortalPostgres
    apis: Sequence[Server]
    worker: Server
    items: list[Item]
    members: list[SignedIn]
    attempts: list[Attempt]
    answers: dict[int, httpx2.Response] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    done: Counter[Blow] = field(default_factory=Counter)
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    _open: int = 0
    """Attempts below this number may be sent, so that every blow meets clients at work."""

    async def rage(self) -> None:
        """Send every attempt till it is answered, and strike every blow meanwhile."""
        numbers = iter(range(len(self.attempts)))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._strike_all())
            for client in range(self.size.clients):
                group.create_task(self._send_all(client, numbers))

    async def _send_all(self, client: int, numbers: Iterator[int]) -> None:
        turn = client
        async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=REQUEST_TIMEOUT_S) as http:
            for number in numbers:
                await self._opened(number)
                while number not in self.answers:
                    server = self.apis[turn % len(self.apis)]
                    why = await self._send(http, server, number)
                    if why is not None:
                        self.repeats[why] += 1
                        turn += 1
                        await asyncio.sleep(PAUSE_S)

    async def _send(self, http: httpx2.AsyncClient, server: Server, number: int) -> str | None:
        """Why the attempt must be repeated; None when it was answered."""
        attempt = self.attempts[number]
        body = {
            "code_text": self.stand.text(self.items[attempt.code].inner),
            "campaign_id": str(self.prizes.of(attempt.code)),
        }
        headers = {**self.members[attempt.member].headers, "Idempotency-Key": attempt.key}
        try:
            answer = await http.post(f"{server.url}/v1/claims", json=body, headers=headers)
        except httpx2.TransportError:
            return "no answer"
        if answer.status_code == 503:
            return "503"
        async with self._moved:
            self.answers[number] = answer
            self._moved.notify_all()
        return None

    async def _strike_all(self) -> None:
        chance = random.Random(f"blows {self.size.seed}")
        blows = chance.sample(self.size.blows, len(self.size.blows))
        stretch = len(self.attempts) // (len(blows) + 1)
        moments = [number * stretch + chance.randrange(stretch // 4, stretch) for number in range(len(blows))]
        await self._let_through(moments[0])
        for blow, moment, following in zip(blows, moments, [*moments[1:], len(self.attempts)], strict=True):
            await self._answered(moment)
            await self._let_through(following)
            await asyncio.sleep(HEAD_START_S)
            await asyncio.to_thread(self._strike, blow, chance)
            self.done[blow] += 1

    async def _opened(self, number: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: number < self._open)

    async def _answered(self, count: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: len(self.answers) >= count)

    async def _let_through(self, count: int) -> None:
        async with self._moved:
            self._open = count
            self._moved.notify_all()

    def _strike(self, blow: Blow, chance: random.Random) -> None:
        server = self.worker if blow is Blow.WORKER else chance.choice(self.apis)
        if blow in (Blow.DATABASE, Blow.BOTH):
            self.database.kill()
        if blow is Blow.CRASH:
            self.database.crash()
        if blow in (Blow.API, Blow.WORKER, Blow.BOTH):
            server.kill()
        if blow in (Blow.DATABASE, Blow.CRASH, Blow.BOTH):
            self.database.start()
        if blow in (Blow.API, Blow.WORKER, Blow.BOTH):
            server.start()

    def figures(self) -> str:
        """What was done, in words."""
        ends = Counter(
            "granted" if answer.status_code == 201 else answer.json()["code"] for answer in self.answers.values()
        )
        said = [f"{len(self.answers)} claims of {self.size.clients} clients for {self.size.codes} codes"]
        said += [", ".join(f"{end} {count}" for end, count in ends.most_common())]
        said += ["repeated: " + ", ".join(f"{why} {count}" for why, count in self.repeats.most_common())]
        said += [f"{count} × {blow}" for blow, count in self.done.items()]
        return "; ".join(said)


def plan(size: Size) -> list[Attempt]:
    """The attempts in the order in which they are sent.

    A code's first attempt is met by rivals at the same moment: other members, the same one under another key, and the
    same request once more. Some come much later.
    """
    chance = random.Random(f"plan {size.seed}")
    placed: list[tuple[float, Attempt]] = []
    keys = (f"storm-{number:06d}" for number in itertools.count())
    for code, extra in zip(range(size.codes), _spread(size), strict=True):
        first = Attempt(code, chance.randrange(size.members), next(keys))
        placed.append((code, first))
        for _ in range(extra):
            rival = chance.choices(
                [
                    Attempt(code, chance.randrange(size.members), next(keys)),
                    Attempt(code, first.member, next(keys)),
                    first,
                ],
                [2, 1, 1],
            )[0]
            late = chance.random() < 0.2
            placed.append((chance.uniform(code, size.codes if late else code + CONTESTED_WITHIN_CODES), rival))
    return [attempt for _moment, attempt in sorted(placed, key=lambda one: one[0])]


def _spread(size: Size) -> list[int]:
    each, more = divmod(size.claims - size.codes, size.codes)
    return [each + (code < more) for code in range(size.codes)]


async def make_prizes(size: Size, stand: Stand, session: Session) -> Prizes:
    """Make campaigns whose budgets bind, whatever the seed, and the task."""
    now = datetime.now(UTC)
    brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
    assert brand.brand_id is not None
    drawing, scarce = size.codes * 2 // 3, size.codes // 3
    period = {"starts_at": now - timedelta(days=1), "ends_at": now + timedelta(days=30)}
    of_brand: dict[str, Any] = {"brand_id": brand.brand_id, "group_id": brand.group_id, **period}
    coupon = await catalogue.create(
        session,
        NewBenefit(kind=BenefitKind.COUPON, name_zh="券", name_en="Coupon", value_fen=500, valid_days=30, **of_brand),
        now,
    )
    await stock.procure(session, coupon, drawing, procurement_id=coupon.benefit_id, now=now)
    titled: dict[str, Any] = {"title_zh": "风暴", "title_en": "Storm", **of_brand}
    draw = await campaigns.create(
        session,
        stand.vault,
        NewCampaign(
            face=Face.INNER,
            prizes=(
                NewPrize(Prize(PrizeKind.POINTS, POINTS), drawing // 5 * POINTS, weight=4),
                NewPrize(Prize(PrizeKind.MEGABYTES, MEGABYTES), drawing * MEGABYTES, weight=2),
                NewPrize(Prize(PrizeKind.BENEFIT, 1, coupon.benefit_id), drawing // 5, weight=3),
                NewPrize(Prize(PrizeKind.NOTHING, 0), 0, weight=1),
            ),
            **titled,
        ),
        now,
    )
    budget, limit = scarce * 9 // 10, max(2, scarce * 5 // 4 // size.members)
    prizes = (NewPrize(Prize(PrizeKind.POINTS, POINTS), budget * POINTS),)
    few = NewCampaign(face=Face.INNER, prizes=prizes, limits=Limits(member=limit), **titled)
    short = await campaigns.create(session, stand.vault, few, now)
    rules = TaskRules(TaskEvent.FIRST_SCAN, Period.ONCE, Prize(PrizeKind.POINTS, TASK_POINTS))
    task = await programs.create(session, NewProgram(rules=rules, **titled), now)
    return Prizes(draw.campaign_id, short.campaign_id, task.program_id, budget * POINTS, limit)
