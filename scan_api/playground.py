"""Playgrounds: a sandbox's group, brand, product and keys, made in one go, and made fresh again."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import update
from sqlmodel import col, select

from codes import catalogue
from codes.catalogue import Brand, BrandExists, BrandUnknown, Product
from codes.serials import create_serial_key
from kit.db import Session
from kit.vault import Vault
from loyalty import sandbox
from loyalty.sandbox import SandboxGroup
from loyalty.webhooks import WebhookEndpoint
from offline_sdk.gtin import check_digit
from scan_api.auth import api_keys
from scan_api.auth.api_keys import ApiKey, Role
from signer import keys
from signer.keys import Issuer, IssuerUnknown

ISSUER: Final = "Sandbox"
PREFIX: Final = "9520"
"""Under 952, GS1's prefix for demonstrations and examples: no real product has it."""
ROLES: Final = (Role.BRAND, Role.SHOP, Role.CRM)
_RETIRED_SLUG_HEX: Final = 12


@dataclass(frozen=True, slots=True)
class Playground:
    """A sandbox: `keys` are the texts of its API keys by role, shown once; none after a reset, which keeps them."""

    name: str
    brand: str
    gtin: str
    keys: dict[str, str]


async def create(session: Session, vault: Vault, name: str, now: datetime) -> Playground:
    """A group, a brand, a product and API keys for shop, CRM and brand. `name` becomes the brand's short name.

    Raises BrandInvalid and BrandExists.
    """
    issuer = await _issuer(session, vault, now)
    brand = await _brand(session, issuer, name, now)
    body = f"0{PREFIX}{brand.brand_id:08d}"
    gtin = f"{body}{check_digit(body)}"
    await catalogue.create_product(session, brand, gtin, "沙盒商品", "Sandbox product", now)
    texts = {}
    for role in ROLES:
        _key, texts[role.value] = await api_keys.create(session, role, f"sandbox {name}", now, brand_id=brand.brand_id)
    return Playground(name, brand.slug, gtin, texts)


async def reset(session: Session, name: str, now: datetime) -> Playground:
    """Put a new group and brand in the place of the old. Keys, product and webhooks stay; members and books begin anew.

    The ledger is append-only, in a sandbox too: what was booked stays with the group that is retired, out of reach.
    Raises BrandUnknown when there is no such sandbox.
    """
    old = await sandbox.current(session, name)
    if old is None:
        raise BrandUnknown(f"there is no sandbox {name}", hint="`fanxing sandbox create` makes one.")
    brand = (await session.exec(select(Brand).where(Brand.group_id == old.group_id))).one()
    retired = uuid.uuid4().hex[:_RETIRED_SLUG_HEX]
    await sandbox.retire(session, old, now)
    brand.slug = f"retired-{retired}"
    group = await session.get_one(catalogue.BrandGroup, old.group_id)
    group.name = f"{group.name} {retired}"
    session.add_all([brand, group])
    await session.flush()
    fresh = await _brand(session, await session.get_one(Issuer, brand.issuer_id), name, now)
    for model in (ApiKey, Product, WebhookEndpoint):
        owner = col(model.brand_id)
        await session.exec(update(model).where(owner == brand.brand_id).values(brand_id=fresh.brand_id))
    gtin = (await session.exec(select(Product.gtin).where(Product.brand_id == fresh.brand_id))).one()
    return Playground(name, fresh.slug, gtin, {})


async def everyone(session: Session) -> list[tuple[SandboxGroup, str]]:
    """The sandboxes in use with their brands' short names, oldest first."""
    found = await session.exec(
        select(SandboxGroup, Brand.slug)
        .join(Brand, col(Brand.group_id) == col(SandboxGroup.group_id))
        .where(col(SandboxGroup.retired_at).is_(None))
        .order_by(col(SandboxGroup.created_at), col(SandboxGroup.group_id))
    )
    return [(group, slug) for group, slug in found]


async def _issuer(session: Session, vault: Vault, now: datetime) -> Issuer:
    try:
        return await keys.issuer_named(session, ISSUER)
    except IssuerUnknown:
        issuer = await keys.create_issuer(session, ISSUER, [PREFIX], now)
    assert issuer.issuer_id is not None  # flushed rows have their key
    create_serial_key(session, vault, issuer.issuer_id)
    await session.flush()
    return issuer


async def _brand(session: Session, issuer: Issuer, name: str, now: datetime) -> Brand:
    group_name = f"Sandbox {name}"
    # A group that was there before may have real members.
    taken = await session.exec(select(catalogue.BrandGroup).where(catalogue.BrandGroup.name == group_name))
    if taken.first() is not None:
        raise BrandExists(f"there is a group {group_name} already", hint="Choose another name.")
    brand = await catalogue.create_brand(session, issuer, group_name, name, f"沙盒 {name}", f"Sandbox {name}", now)
    await sandbox.make(session, brand.group_id, name, now)
    return brand
