"""The brand's part of the demonstration: an installation, products, codes on paper, campaigns and keys."""

import csv
import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from codes import catalogue, orders, runs
from codes.engines.inline import InlineEngine
from codes.exports import ExportKind, section_items
from codes.exports.layout import Layout
from codes.orders import CodeOrder
from codes.production import Advance, Production
from codes.rendering import Job
from codes.runs import RunSpec
from codes.serials import create_serial_key, scheme_of
from codes.signing import order_signer
from codes.signing_agent import SECRET_BYTES
from kit.clock import Clock, system_clock
from kit.db import Session
from loyalty import campaigns
from loyalty.benefits import BenefitKind, NewBenefit, stock
from loyalty.benefits import catalogue as catalogue_of_benefits
from loyalty.campaigns import Face, Limits, NewCampaign, NewPrize
from loyalty.prizes import Prize, PrizeKind
from offline_sdk.code_text import Profile
from offline_sdk.gtin import check_digit
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.commands.terminal import Workshop
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from signer import keys
from signer.keys import SigningKey

GROUP, BRAND = "Xiaxue Group", "xiaxue"
QUANTITY = 1_000
PREFIX = "9506000"  # GS1 keeps it for examples
GTIN = f"0{PREFIX}20260" + check_digit(f"0{PREFIX}20260")
MEGABYTES = 5
POINTS = 10
COUPONS = 100
SEASON = ((5, 1), (9, 30))

_MIDSUMMER = (7, 15)


@dataclass(frozen=True)
class Brand:
    """What the brand has made ready: its order, campaigns and the keys that it handed out."""

    order: CodeOrder
    data_campaign: str
    points_campaign: str
    coupon_campaign: str
    keys: dict[Role, str]


def summer_clock() -> Clock:
    """The present while the campaign's season lasts; else a clock that runs from the last midsummer day on."""
    now = system_clock()
    if SEASON[0] <= (now.month, now.day) <= SEASON[1]:
        return system_clock
    year = now.year if (now.month, now.day) > SEASON[1] else now.year - 1
    behind = now - datetime(year, *_MIDSUMMER, 2, tzinfo=UTC)
    return lambda: system_clock() - behind


async def prepare(shop: Workshop, clock: Clock, base_url: str) -> Brand:
    """Issuer, brand, product, order, campaigns and API keys, in one transaction."""
    now = clock()
    async with shop.database.writing() as session:
        issuer = await keys.create_issuer(session, "Xiaxue Ice Cream Co. 夏雪冰品", [PREFIX], now)
        assert issuer.issuer_id is not None
        create_serial_key(session, shop.vault, issuer.issuer_id)
        await shop.signer.create_key(session, issuer, now)
        await shop.publish(session, now)
        brand = await catalogue.create_brand(session, issuer, GROUP, BRAND, "夏雪", "Xiaxue", now)
        await catalogue.create_product(session, brand, GTIN, "夏雪绿豆冰棒", "Xiaxue Mung Bean Ice Bar", now)
        plan = await orders.plan(session, GTIN, QUANTITY, (Profile.OUTER, Profile.INNER), base_url)
        order = await orders.place(session, plan, now)
        await events.record_for_order(session, order, Happening(Step.COMMISSIONED, now, None, None), now)
        assert brand.brand_id is not None
        coupon_benefit = await _coupon(session, brand.brand_id, brand.group_id, now)
        wanted = _campaigns(brand.brand_id, brand.group_id, coupon_benefit, now)
        made = [await campaigns.create(session, shop.vault, new, now) for new in wanted]
        data, points, coupon = (str(one.campaign_id) for one in made)
        return Brand(order, data, points, coupon, await _api_keys(session, brand.brand_id, now))


def _season(now: datetime) -> tuple[datetime, datetime]:
    first, last = (datetime(now.year, *day, tzinfo=UTC) for day in SEASON)
    return first, last + timedelta(days=1)


async def _coupon(session: Session, brand_id: int, group_id: int, now: datetime) -> uuid.UUID:
    starts_at, ends_at = _season(now)
    new = NewBenefit(
        brand_id=brand_id,
        group_id=group_id,
        kind=BenefitKind.COUPON,
        name_zh="任意冰品立减 2 元",
        name_en="¥2 off any ice cream",
        starts_at=starts_at,
        ends_at=ends_at,
        value_fen=200,
        cost_fen=200,
        valid_days=90,
    )
    made = await catalogue_of_benefits.create(session, new, now)
    await stock.procure(session, made, COUPONS, procurement_id=made.benefit_id, now=now)
    return made.benefit_id


def _campaigns(brand_id: int, group_id: int, coupon: uuid.UUID, now: datetime) -> list[NewCampaign]:
    starts_at, ends_at = _season(now)
    return [
        NewCampaign(
            brand_id=brand_id,
            group_id=group_id,
            title_zh="夏日流量：每支 5 MB",
            title_en="Summer data: 5 MB an ice bar",
            face=Face.INNER,
            prizes=(NewPrize(Prize(PrizeKind.MEGABYTES, MEGABYTES), MEGABYTES * QUANTITY),),
            starts_at=starts_at,
            ends_at=ends_at,
        ),
        NewCampaign(
            brand_id=brand_id,
            group_id=group_id,
            title_zh="集团积分：每支 10 分",
            title_en="Group points: 10 an ice bar",
            face=Face.INNER,
            prizes=(NewPrize(Prize(PrizeKind.POINTS, POINTS), POINTS * QUANTITY),),
            starts_at=starts_at,
            ends_at=ends_at,
        ),
        NewCampaign(
            brand_id=brand_id,
            group_id=group_id,
            title_zh="入会礼：2 元券",
            title_en="Welcome: ¥2 coupon",
            face=Face.OUTER,
            prizes=(NewPrize(Prize(PrizeKind.BENEFIT, 1, coupon), COUPONS),),
            limits=Limits(member=1),
            starts_at=starts_at,
            ends_at=ends_at,
        ),
    ]


async def _api_keys(session: Session, brand_id: int, now: datetime) -> dict[Role, str]:
    labels = {
        Role.BRAND: "Xiaxue, packing line 2",
        Role.LOGISTICS: "Cold chain depot Hangzhou",
        Role.SHOP: "Corner shop 88, Hangzhou",
        Role.REGULATOR: "Market Regulation Office",
    }
    texts = {}
    for role, label in labels.items():
        regulator = role is Role.REGULATOR
        _key, texts[role] = await api_keys.create(
            session,
            role,
            label,
            now,
            brand_id=None if regulator else brand_id,
            gtin_prefixes=(PREFIX,) if regulator else (),
        )
    return texts


async def print_codes(shop: Workshop, order: CodeOrder, folder: Path, clock: Clock, advance: Advance) -> None:
    """Sign the codes and write tables and sheets with their manifest; `advance` hears how many codes are done."""
    kinds, layout, now = (ExportKind.CSV, ExportKind.PDF), Layout(), clock()
    items = section_items(kinds, order.recipe, layout)
    spec = RunSpec(order.faces, ((0, order.quantity - 1),), kinds, layout, items)
    async with shop.database.writing() as session:
        key = await session.get_one(SigningKey, order.kid)
        scheme = await scheme_of(session, shop.vault, key.issuer_id)
        run = await runs.begin(session, order, spec, str(folder), os.urandom(SECRET_BYTES), now)
    sign_many = partial(shop.signer.sign_many, key)
    work = Production(shop.database, order, run, lambda message: sign_many([message])[0], clock)
    async with InlineEngine(Job(order.recipe, kinds, layout), order_signer(order.recipe, scheme, sign_many)) as engine:
        await work.carry_through(engine, advance)


def read_csv(path: Path) -> list[str]:
    """The code texts of an exported CSV file."""
    with path.open(encoding="ascii", newline="") as file:
        return [row["code_text"] for row in csv.DictReader(file)]
