"""Brands, their products, and the API keys under which machines act for them."""

from typing import Annotated, Any

import typer
from sqlmodel import col, select

from codes import catalogue
from codes.catalogue import Brand, BrandGroup, Product
from kit.clock import iso, system_clock
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from signer.keys import issuer_named

brand = typer.Typer(help="Brands as shoppers know them.", no_args_is_help=True)
product = typer.Typer(help="Products: the kinds of items that carry codes.", no_args_is_help=True)
api_key = typer.Typer(help="API keys of brands, logistics, shops and regulators.", no_args_is_help=True)

Slug = Annotated[str, typer.Option("--brand", help="The brand's short name.")]


@brand.command("create")
def create_brand(
    slug: Annotated[str, typer.Option(help="Short name: a-z, 0-9, hyphens.")],
    issuer: Annotated[str, typer.Option(help="The issuer under whose prefixes its products lie.")],
    group: Annotated[str, typer.Option(help="The group whose points its members collect; made when new.")],
    name_zh: Annotated[str, typer.Option(help="Name in Chinese.")],
    name_en: Annotated[str, typer.Option(help="Name in English.")],
    as_json: Json = False,
) -> None:
    """Register a brand."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            owner = await issuer_named(session, issuer)
            made = await catalogue.create_brand(session, owner, group, slug, name_zh, name_en, system_clock())
            return {"brand": made.slug, "group": group, "issuer": owner.name}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"Brand {result['brand']} registered."))


@brand.command("list")
def list_brands(as_json: Json = False) -> None:
    """All brands."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            rows = await session.exec(
                select(Brand, BrandGroup)
                .join(BrandGroup, col(Brand.group_id) == BrandGroup.group_id)
                .order_by(col(Brand.brand_id))
            )
            return [
                {"brand": row.slug, "name_zh": row.name_zh, "name_en": row.name_en, "group": group.name}
                for row, group in rows
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No brand yet."))


@product.command("create")
def create_product(
    slug: Slug,
    gtin: Annotated[str, typer.Option(help="GTIN of 8, 12, 13 or 14 digits.")],
    name_zh: Annotated[str, typer.Option(help="Name in Chinese.")],
    name_en: Annotated[str, typer.Option(help="Name in English.")],
    as_json: Json = False,
) -> None:
    """Register a product of a brand."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            owner = await catalogue.brand_named(session, slug)
            made = await catalogue.create_product(session, owner, gtin, name_zh, name_en, system_clock())
            return {"gtin": made.gtin, "brand": owner.slug}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"Product {result['gtin']} registered."))


@product.command("list")
def list_products(as_json: Json = False) -> None:
    """All products."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            rows = await session.exec(
                select(Product, Brand).join(Brand, col(Product.brand_id) == Brand.brand_id).order_by(col(Product.gtin))
            )
            return [
                {"gtin": row.gtin, "brand": owner.slug, "name_zh": row.name_zh, "name_en": row.name_en}
                for row, owner in rows
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No product yet."))


@api_key.command("create")
def create_api_key(
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    label: Annotated[str, typer.Option(help="Who holds it, and where; shown as the author of events.")],
    slug: Annotated[str | None, typer.Option("--brand", help="The brand that it acts for.")] = None,
    gtin_prefix: Annotated[
        list[str] | None, typer.Option(help="Only GTINs under this prefix; may be given again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API key. Its text is shown once; only its hash is kept."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand_id = (await catalogue.brand_named(session, slug)).brand_id if slug else None
            made, text = await api_keys.create(
                session, role, label, system_clock(), brand_id=brand_id, gtin_prefixes=tuple(gtin_prefix or ())
            )
            return {"key_id": made.key_id, "role": made.role, "label": made.label, "api_key": text}

    terminal.run(work, as_json=as_json, show=_show_api_key)


def _show_api_key(result: dict[str, Any]) -> None:
    out.print(result["api_key"], soft_wrap=True)
    terminal.err.print("This is the only time that the key is shown. Keep it like a password.")


@api_key.command("list")
def list_api_keys(as_json: Json = False) -> None:
    """All API keys, without their secrets."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [
                {
                    "key_id": row.key_id,
                    "role": row.role,
                    "label": row.label,
                    "created_at": iso(row.created_at),
                    "revoked_at": iso(row.revoked_at) if row.revoked_at else None,
                }
                for row in await api_keys.everyone(session)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No API key yet."))


@api_key.command("revoke")
def revoke_api_key(key_id: Annotated[str, typer.Argument(help="The key's id.")], as_json: Json = False) -> None:
    """End an API key at once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            ended = await api_keys.revoke(session, key_id, system_clock())
            assert ended.revoked_at is not None
            return {"key_id": ended.key_id, "revoked_at": iso(ended.revoked_at)}

    terminal.run(work, as_json=as_json, show=lambda result: out.print(f"API key {result['key_id']} is revoked."))
