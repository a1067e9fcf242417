"""The group's part of the demonstration: a second brand, tiers, goods for points, a check-in, a draw, an old CRM."""

import csv
import os
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from codes import catalogue
from codes.catalogue import Brand, brand_named
from kit.clock import Clock
from kit.db import Session
from kit.vault import Vault
from loyalty import check_ins, consents, crm_file, crm_import, earn_rules, ledger, programs, tier_rules
from loyalty.benefits import BenefitKind, NewBenefit, stock
from loyalty.benefits import catalogue as benefits
from loyalty.consents import PRIVACY, NewDocument
from loyalty.crm_import import Outcome
from loyalty.crm_records import Mode, Order
from loyalty.draws import catalogue as draws
from loyalty.draws import terms
from loyalty.earn_rules import NewEarnRule
from loyalty.experience import Figures
from loyalty.ledger import Policy
from loyalty.programs import NewProgram
from loyalty.tier_rules import CardFace, Pattern, Rules, Tier
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.commands.terminal import Workshop
from scan_api.demo.brand import BRAND, GROUP
from signer.keys import Issuer

TEA = "xiaxue-tea"
PRICE = 100
CHECK_IN_POINTS = 5
SILVER_FEN, GOLD_FEN = 10_000, 100_000
PLAYS = 3
DEBT_MAX = 500
OLD_MEMBER, OLD_POINTS = "13700137000", 300

_LADDER = (
    Tier(0, "member", "会员", "Member", CardFace(("#0f5c73", "#0a3d5c"), "#ffffff", Pattern.WAVES)),
    Tier(
        1, "silver", "银卡", "Silver", CardFace(("#e8edf2", "#c3ccd6"), "#1b2430", Pattern.DOTS), Figures(0, SILVER_FEN)
    ),
    Tier(2, "gold", "金卡", "Gold", CardFace(("#f7e2a4", "#e2b95a"), "#3a2600", Pattern.STARS), Figures(0, GOLD_FEN)),
)
_TEA_LADDER = (
    Tier(0, "guest", "茶友", "Guest", CardFace(("#2f4a2c",), "#f2f5e9", Pattern.LATTICE)),
    Tier(1, "friend", "知己", "Friend", CardFace(("#1d2f1b", "#54371a"), "#f7e9c8", Pattern.PLAIN), Figures(3)),
)


@dataclass(frozen=True)
class Group:
    """What the group has made ready."""

    coupon: uuid.UUID
    box: uuid.UUID
    check_in: uuid.UUID
    draw: uuid.UUID
    tea_shop_key: str


async def prepare(shop: Workshop, clock: Clock) -> Group:
    """A second brand and all that members of the group can earn and spend, in one transaction."""
    now = clock()
    async with shop.database.writing() as session:
        ice = await brand_named(session, BRAND)
        issuer = await session.get_one(Issuer, ice.issuer_id)
        tea = await catalogue.create_brand(session, issuer, GROUP, TEA, "夏雪茶", "Xiaxue Tea", now)
        ice_id, tea_id = ice.brand_id or 0, tea.brand_id or 0
        for brand_id, ladder in ((ice_id, _LADDER), (tea_id, _TEA_LADDER)):
            await tier_rules.set_rules(
                session, brand_id, Rules(ladder), replaces=0, by="demonstration", valid_from=None, now=now
            )
            await earn_rules.add(session, brand_id, NewEarnRule(1_000, now), now)
        await ledger.set_policy(session, ice.group_id, Policy(lifetime_months=12, debt_max_points=DEBT_MAX))
        await consents.publish(
            session,
            ice.group_id,
            NewDocument(
                PRIVACY, "2026-05", "夏雪集团隐私政策", "Xiaxue privacy policy", "https://brand.example/privacy"
            ),
            now,
        )
        coupon = await _benefit(session, ice, BenefitKind.COUPON, ("10 元券", "¥10 coupon"), 1_000, {0: PRICE}, now)
        box = await _benefit(
            session, ice, BenefitKind.GOODS, ("200 元冰品礼盒", "¥200 ice box"), 20_000, {2: PRICE}, now
        )
        rules = check_ins.CheckInRules(CHECK_IN_POINTS, {3: 20, 7: 100}, cycle_days=7)
        check_in = await programs.create(
            session, NewProgram(ice_id, ice.group_id, "每日签到", "Daily check-in", rules, now), now
        )
        draw_id = await _draw(session, shop.vault, ice, now)
        _key, text = await api_keys.create(session, Role.SHOP, "Tea house 3, Suzhou", now, brand_id=tea_id)
        return Group(coupon, box, check_in.program_id, draw_id, text)


async def _benefit(
    session: Session,
    brand: Brand,
    kind: BenefitKind,
    names: tuple[str, str],
    value_fen: int,
    prices: dict[int, int],
    now: datetime,
) -> uuid.UUID:
    new = NewBenefit(
        brand_id=brand.brand_id or 0,
        group_id=brand.group_id,
        kind=kind,
        name_zh=names[0],
        name_en=names[1],
        starts_at=now,
        ends_at=now + timedelta(days=60),
        value_fen=value_fen,
        cost_fen=value_fen // 2,
        valid_days=30,
        prices=prices,
    )
    made = await benefits.create(session, new, now)
    await stock.procure(session, made, 50, procurement_id=made.benefit_id, now=now)
    return made.benefit_id


async def _draw(session: Session, vault: Vault, brand: Brand, now: datetime) -> uuid.UUID:
    """A deck of twenty tickets, opened at once; its terms and its seed are fixed from here on."""
    plan = {
        "form": "deck",
        "title": {"zh": "夏日盲盒", "en": "Summer box"},
        "opens_at": now.isoformat(),
        "closes_at": (now + timedelta(days=7)).isoformat(),
        "limits": {"member": PLAYS},
        "prizes": [
            {"name": {"zh": "50 积分", "en": "50 points"}, "kind": "points", "amount": 50, "quantity": 5},
            {"name": {"zh": "谢谢参与", "en": "No prize"}, "kind": "nothing", "amount": 0, "quantity": 15},
        ],
    }
    made = await draws.publish(
        session,
        vault,
        brand_id=brand.brand_id or 0,
        group_id=brand.group_id,
        make_terms=lambda draw_id, hashed: terms.from_plan(plan, draw_id, hashed),
        now=now,
    )
    await draws.open_plays(session, made.draw_id, now)
    return made.draw_id


async def end_draw(shop: Workshop, draw_id: uuid.UUID, clock: Clock) -> None:
    """Close the draw and reveal its seed."""
    async with shop.database.writing() as session:
        await draws.close(session, draw_id, clock())
        await draws.reveal(session, shop.vault, draw_id, clock())


async def bring_customers(shop: Workshop, file: Path, clock: Clock) -> Outcome:
    """Import the brand's old CRM: three rows, one of them with a number that is none."""
    with file.open("w", encoding="utf-8", newline="") as written:
        rows = csv.writer(written)
        rows.writerow(("手机号", "姓名", "积分", "等级"))
        rows.writerow((OLD_MEMBER, "李雷", OLD_POINTS, "gold"))
        rows.writerow(("13600136000", "韩梅梅", 20, "member"))
        rows.writerow(("0571-1234", "没有手机", 5, "member"))
    found = crm_file.look_through(file)
    async with shop.database.reading() as session:
        ice = await brand_named(session, BRAND)
    order = Order(found, ice.group_id, ice.brand_id or 0, Mode.OPEN, clock() + timedelta(days=365))
    with open(os.devnull, "wb") as report:
        return await crm_import.run(shop.database, shop.vault, order, report, clock, lambda _rows: None)
