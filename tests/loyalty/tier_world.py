"""A ladder to climb in tests, and the ways up and down it."""

import uuid
from dataclasses import replace
from datetime import datetime
from typing import Any

from kit.db import Database, Session
from kit.vault import Vault
from loyalty import earn_rules, ledger, members, purchases, refunds, tier_rules
from loyalty.earn_rules import EarnRule, NewEarnRule
from loyalty.experience import Figures
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.purchases import Buyer, NewPurchase, Recorded
from loyalty.refunds import NewRefund, Refunded
from loyalty.tier_rules import CardFace, Rules, Tier
from tests.loyalty.conftest import BRAND, GROUP, NOW

PHONE = "13800138000"
SHOP = uuid.UUID(int=77)
FACE = CardFace(("#1f2937",), "#ffffff")
LADDER = (
    Tier(0, "member", "会员", "Member", FACE),
    Tier(1, "silver", "银卡", "Silver", FACE, Figures(purchases=2, fen=20_000)),
    Tier(2, "gold", "金卡", "Gold", FACE, Figures(purchases=6, fen=100_000)),
)
RULES = Rules(LADDER, window_months=12, grace_days=30, experience_per_purchase=10, experience_per_yuan=1)


def rule(points_per_yuan_milli: int = 1_000, **changes: Any) -> EarnRule:
    """A rule that holds, and is in no database."""
    plain = {
        "rule_id": uuid.uuid4(),
        "brand_id": BRAND,
        "points_per_yuan_milli": points_per_yuan_milli,
        "paid_fen_min": 0,
        "tier_permille": [],
        "starts_at": NOW,
        "created_at": NOW,
    }
    return EarnRule(**(plain | changes))


class World:
    """One brand's members, decided on in transactions of their own, as requests do."""

    def __init__(self, database: Database, vault: Vault, brand_id: int = BRAND) -> None:
        self.database, self.vault, self.brand_id = database, vault, brand_id
        self._receipts = 0

    async def rules(self, rules: Rules = RULES, now: datetime = NOW, **changes: Any) -> Rules:
        async with self.database.writing() as session:
            seen = len((await tier_rules.book_of(session, self.brand_id)).versions)
            return await tier_rules.set_rules(
                session, self.brand_id, replace(rules, **changes), replaces=seen, by="test", valid_from=None, now=now
            )

    async def earning(self, points_per_yuan_milli: int = 1_000, **changes: Any) -> EarnRule:
        new = NewEarnRule(points_per_yuan_milli, changes.pop("starts_at", NOW), **changes)
        async with self.database.writing() as session:
            return await earn_rules.add(session, self.brand_id, new, NOW)

    def purchase(self, paid_fen: int, **changes: Any) -> NewPurchase:
        self._receipts += 1
        asked = {
            "brand_id": self.brand_id,
            "group_id": GROUP,
            "caller_id": SHOP,
            "receipt": f"R-{self._receipts}",
            "buyer": Buyer(phone=PHONE),
            "paid_fen": paid_fen,
        }
        return NewPurchase(**(asked | changes))

    async def record(self, new: NewPurchase, now: datetime = NOW) -> Recorded:
        async with self.database.writing() as session:
            return await purchases.record(session, self.vault, new, now)

    async def buy(self, paid_fen: int, now: datetime = NOW, **changes: Any) -> Recorded:
        return await self.record(self.purchase(paid_fen, **changes), now)

    async def refund(self, purchase_id: uuid.UUID, name: str, now: datetime = NOW, **what: Any) -> Refunded:
        async with self.database.writing() as session:
            return await refunds.refund(session, NewRefund(purchase_id, self.brand_id, name, **what), now)

    async def member(self, phone: str = PHONE) -> uuid.UUID:
        async with self.database.writing() as session:
            member, _ = await members.find_or_enrol(session, self.vault, GROUP, phone, NOW)
            await members.join_brand(session, member.member_id, self.brand_id, NOW)
        return member.member_id

    async def spend(self, member_id: uuid.UUID, points: int, now: datetime = NOW) -> None:
        account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
        legs = (Leg(account, -points), Leg(ledger.spent(self.brand_id, member_id), points))
        async with self.database.writing() as session:
            await ledger.post(session, Transfer(uuid.uuid4(), "spent", legs), now)

    async def balance(self, member_id: uuid.UUID) -> int:
        async with self.database.reading() as session:
            return await purchases.balance_of(session, member_id)

    async def debt_max(self, points: int) -> None:
        async with self.database.writing() as session:
            await ledger.set_policy(session, GROUP, ledger.Policy(debt_max_points=points))


async def rank_of(session: Session, member_id: uuid.UUID, brand_id: int = BRAND) -> int:
    card = await session.get_one(members.Card, (member_id, brand_id))
    return card.tier_rank
