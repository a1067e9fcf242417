"""Whatever is posted, held, settled, released and left to expire: the ledger does what a model in plain Python does."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from kit.db import Database, Session
from kit.errors import FanxingError
from loyalty import ledger
from loyalty.ledger import Account, AccountId, Expired, Leg, PointsLot, Policy, Purpose, Release, Transfer
from loyalty.members import Member
from tests.loyalty.ledger.model import NOW, Model, report

MEMBERS = [uuid.UUID(int=n) for n in range(101, 104)]
GROUP, DEBT_MAX = 7, 15
POLICY = Policy(lifetime_months=12, debt_max_points=DEBT_MAX)
OTHERS = [
    AccountId(uuid.UUID(int=1), "points", Purpose.ISSUANCE),
    AccountId(uuid.UUID(int=5), "points", Purpose.BUDGET),
    AccountId(uuid.UUID(int=6), "points", Purpose.SPENT),
]
ACCOUNTS = [*(AccountId(member, "points", Purpose.AVAILABLE) for member in MEMBERS), *OTHERS]


@dataclass(frozen=True)
class Step:
    """One call of the ledger, so many hours after the one before."""

    kind: str
    hours: int
    made: Transfer
    number: int
    expires_h: int

    def apply(self, model: Model, now: datetime) -> object:
        """Do it to the model; what it says."""
        until = now + timedelta(hours=self.expires_h)
        match self.kind:
            case "post" | "many":
                model.post(self.made, now)
            case "hold":
                model.hold(self.made, now, until)
            case "settle":
                model.settle(self.chosen(model), now)
            case "void":
                model.release(self.chosen(model), now, Release.VOIDED)
            case "sweep":
                return model.expire_due(now)
        return None

    async def run(self, session: Session, model: Model, now: datetime) -> object:
        """Do it to the ledger."""
        until = now + timedelta(hours=self.expires_h)
        match self.kind:
            case "post":
                await ledger.post(session, self.made, now)
            case "many":
                await ledger.post_many(session, [self.made], now)
            case "hold":
                await ledger.hold(session, self.made, now, until)
            case "settle":
                await ledger.settle(session, self.chosen(model), now)
            case "void":
                await ledger.release(session, self.chosen(model), now, Release.VOIDED)
            case "sweep":
                found: Expired = await ledger.expire_due(session, now)
                return found.holds, found.lots
        return None

    def chosen(self, model: Model) -> uuid.UUID:
        holds = sorted(model.holds)
        return holds[self.number % len(holds)] if holds else uuid.UUID(int=0)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Few ids, accounts and small amounts, so that repetitions, overdrafts, debts and expiries are common."""
    kind = draw(st.sampled_from(["post", "post", "post", "post", "hold", "hold", "settle", "void", "sweep", "many"]))
    taken_from = {"many": OTHERS[:2], "hold": ACCOUNTS[:-1]}.get(kind, ACCOUNTS)
    giver = draw(st.sampled_from(taken_from))
    takers = draw(st.lists(st.sampled_from([a for a in ACCOUNTS if a != giver]), min_size=1, max_size=3, unique=True))
    amounts = [draw(st.integers(1, 20)) for _ in takers]
    legs = (Leg(giver, -sum(amounts)), *(Leg(taker, amount) for taker, amount in zip(takers, amounts, strict=True)))
    expiry = draw(st.sampled_from([None, 5, 20, 60]))
    plain = kind in ("hold", "many")
    undone = None if plain else draw(st.sampled_from([None, None, *range(1, 13)]))
    made = Transfer(
        uuid.UUID(int=draw(st.integers(1, 12))),
        "property",
        legs,
        lots_expire_at=NOW + timedelta(hours=expiry) if expiry else None,
        undoes=uuid.UUID(int=undone) if undone else None,
        may_owe=not plain and draw(st.sampled_from([False, False, True])),
    )
    return Step(kind, draw(st.integers(0, 8)), made, draw(st.integers(0, 5)), draw(st.integers(1, 30)))


@contextmanager
def outcome(said: list[object]) -> Iterator[Callable[[object], None]]:
    """Collects what was answered, or the name of the refusal."""
    try:
        yield said.append
    except FanxingError as refusal:
        said.append(refusal.code)


async def run(database: Database, made: list[Step]) -> None:
    model = Model(groups=dict.fromkeys(MEMBERS, GROUP), policies={GROUP: POLICY})
    async with database.writing() as session:
        await ledger.set_policy(session, GROUP, POLICY)
        for member_id in MEMBERS:
            session.add(member(member_id))
    now = NOW
    for step in made:
        now += timedelta(hours=step.hours)
        real: list[object] = []
        expected: list[object] = []
        with outcome(real) as say:
            async with database.writing() as session:
                say(await step.run(session, model, now))
        with outcome(expected) as say:
            say(step.apply(model, now))
        assert real == expected
    async with database.reading() as session:
        model.check(
            list(await session.exec(select(Account).where(Account.seq > 0))),
            list(await session.exec(select(PointsLot))),
        )
        for member_id in MEMBERS:
            assert await ledger.spendable(session, member_id, now) == model.spendable(member_id, now)
    found = await report(database)
    assert found.faults == ()
    assert found.entries == model.entries


def member(member_id: uuid.UUID) -> Any:
    return Member(member_id=member_id, group_id=GROUP, phone_sealed=None, created_at=NOW)


SEQUENCES = st.lists(steps(), min_size=5, max_size=40)


@given(made=SEQUENCES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_ledger_does_what_the_model_does(made: list[Step], tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / f"{uuid.uuid4()}.db"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    try:
        await run(database, made)
    finally:
        await database.close()
        path.unlink()


@given(made=SEQUENCES)
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_so_does_the_one_on_postgresql(made: list[Step], postgres_server: Any, postgres_tables: str) -> None:
    database = Database(postgres_server.url(postgres_tables))
    try:
        await run(database, made)
    finally:
        await database.close()
        postgres_server.wipe(postgres_tables)
