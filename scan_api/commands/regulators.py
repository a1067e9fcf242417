"""Regulators' accounts and their looks, where brands and products stand, and partners of brands."""

import uuid
from datetime import datetime
from typing import Annotated, Any

import typer

from codes import catalogue
from codes.catalogue import gtin14
from kit.clock import iso, system_clock
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from scan_api.regulators import accesses, accounts, keys, partners, recall_orders, tally_sources, territory
from scan_api.regulators.accounts import RegulatorAccount
from scan_api.regulators.keys import LIFETIME_DAYS_DEFAULT
from scan_api.regulators.partners import PartnerAccount

regulator = typer.Typer(
    help="Regulators: their accounts, what they looked at, their recall orders.", no_args_is_help=True
)
partner = typer.Typer(help="Partners of brands: carriers, distributors, retailers.", no_args_is_help=True)
territory_app = typer.Typer(help="Where brands are seated, and of what categories products are.", no_args_is_help=True)

Account = Annotated[uuid.UUID, typer.Option("--account", help="The account's id.")]
PartnerId = Annotated[uuid.UUID, typer.Option("--partner", help="The partner's id.")]
Regions = Annotated[list[str] | None, typer.Option("--region", help="GB/T 2260 or ISO 3166; may be given again.")]
Categories = Annotated[list[str] | None, typer.Option("--category", help="gpc:… or own:…; may be given again.")]
Jurisdiction = Annotated[list[str], typer.Option("--region", help="As of GB/T 2260 or ISO 3166, or any; may repeat.")]
Answerable = Annotated[list[str], typer.Option("--category", help="gpc:… or own:…, or any; may be given again.")]
ANY = ["any"]
"""What reaches everything is said, and never left out."""
Label = Annotated[str, typer.Option(help="Who holds the key, and where.")]
Days = Annotated[int, typer.Option(min=1, max=keys.LIFETIME_DAYS_MAX, help="How long the key holds.")]
Slug = Annotated[str, typer.Option("--brand", help="The brand's short name.")]
LOOKS_MAX = 1_000


@regulator.command("create")
def create(
    name: Annotated[str, typer.Option(help="The authority.")],
    regions: Jurisdiction,
    categories: Answerable,
    as_json: Json = False,
) -> None:
    """Make an account for a jurisdiction and categories of products."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about(await accounts.create(session, name, _bounds(regions), _bounds(categories), system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@regulator.command("list")
def list_accounts(as_json: Json = False) -> None:
    """All accounts, oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [_about(account) for account in await accounts.everyone(session)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No regulator yet."))


@regulator.command("scope")
def rescope(account_id: Account, regions: Jurisdiction, categories: Answerable, as_json: Json = False) -> None:
    """Give an account another jurisdiction and other categories, from now on."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about(await accounts.rescope(session, account_id, _bounds(regions), _bounds(categories)))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@regulator.command("end")
def end(account_id: Account, as_json: Json = False) -> None:
    """End an account and all its keys at once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about(await accounts.end(session, account_id, system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@regulator.command("key")
def create_key(
    account_id: Account,
    label: Label,
    days: Days = LIFETIME_DAYS_DEFAULT,
    slug: Annotated[str | None, typer.Option("--brand", help="Only this brand.")] = None,
    gtin_prefix: Annotated[
        list[str] | None, typer.Option(help="Only GTINs under this prefix; may be given again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key of an account. Its text is shown once. `fanxing api-key revoke` ends it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand_id = (await catalogue.brand_named(session, slug)).brand_id if slug else None
            made, text = await accounts.create_key(
                session,
                account_id,
                label,
                system_clock(),
                days=days,
                brand_id=brand_id,
                gtin_prefixes=tuple(gtin_prefix or ()),
            )
            return {"key_id": made.key_id, "expires_at": iso(made.expires_at), "api_key": text}

    terminal.run(work, as_json=as_json, show=_show_key)


@regulator.command("keys")
def list_keys(account_id: Account, as_json: Json = False) -> None:
    """An account's keys, oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [
                {
                    "key_id": key.key_id,
                    "label": key.label,
                    "expires_at": iso(made.expires_at),
                    "revoked_at": _iso(key.revoked_at),
                }
                for key, made in await keys.keys_of(session, account_id)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No key yet."))


@regulator.command("accesses")
def list_accesses(
    account_id: Annotated[uuid.UUID | None, typer.Option("--account", help="Only this account's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LOOKS_MAX)] = 100,
    as_json: Json = False,
) -> None:
    """What regulators looked at, newest first."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [
                {
                    "at": iso(row.at),
                    "regulator": row.name,
                    "key_id": row.key_id,
                    "operation": row.operation,
                    "subject": row.subject,
                    "filters": row.asked,
                    "purpose": row.purpose,
                    "outcome": row.outcome,
                    "told": row.told,
                }
                for row in await accesses.of_holder(session, account_id, None, limit)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "Nobody has looked yet."))


@regulator.command("overdue")
def overdue(as_json: Json = False) -> None:
    """Recall orders that should have been carried out by now, newest first."""

    async def work() -> list[dict[str, Any]]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.reading() as session:
            found = await recall_orders.page(session, None, LOOKS_MAX, overdue_at=now)
            return [
                {
                    "recall_id": str(row.recall_id),
                    "brand": (await catalogue.brand_with(session, row.brand_id)).slug,
                    "authority": row.authority,
                    "kind": row.kind,
                    "subject": row.subject,
                    "state": row.state,
                    "deadline": iso(row.deadline),
                }
                for row in found
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No recall order is overdue."))


@regulator.command("tally")
def tally(as_json: Json = False) -> None:
    """Count for the statistics what happened till two minutes ago, as the server does by itself."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            return {"windows": await tally_sources.keep_up(shop.database, system_clock)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@territory_app.command("brand")
def seat(slug: Slug, regions: Regions = None, as_json: Json = False) -> None:
    """Say anew in which regions a brand is seated."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await catalogue.brand_named(session, slug)
            assert brand.brand_id is not None  # rows read from the database have their key
            told = await territory.set_seats(session, brand.brand_id, regions or (), system_clock())
            return {"brand": slug, "regions": list(told)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@territory_app.command("product")
def categorise(
    gtin: Annotated[str, typer.Option(help="The product's GTIN.")], categories: Categories = None, as_json: Json = False
) -> None:
    """Say anew of what categories a product is."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            product = await catalogue.product_with(session, gtin14(gtin))
            told = await territory.set_categories(session, product.gtin, categories or (), system_clock())
            return {"gtin": product.gtin, "categories": list(told)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@territory_app.command("place")
def place(
    slug: Slug,
    name: Annotated[str, typer.Option("--place", help="A GLN's URI, or what the brand's events call it.")],
    region: Annotated[str, typer.Option(help="GB/T 2260 or ISO 3166.")],
    as_json: Json = False,
) -> None:
    """Say in which region a place lies that a brand's events name."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await catalogue.brand_named(session, slug)
            assert brand.brand_id is not None  # rows read from the database have their key
            held = await territory.set_places(session, brand.brand_id, {name: region}, system_clock())
            return {"brand": slug, "places": held}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@partner.command("create")
def create_partner(
    name: Annotated[str, typer.Option(help="The company.")],
    identifiers: Annotated[list[str], typer.Option("--identifier", help="A GLN or URI; may be given again.")],
    as_json: Json = False,
) -> None:
    """Register a partner, and under which identifiers events name it and its places."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about_partner(await partners.create(session, name, identifiers, system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@partner.command("list")
def list_partners(as_json: Json = False) -> None:
    """All partners, oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            return [_about_partner(one) for one in await partners.everyone(session)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No partner yet."))


@partner.command("key")
def create_partner_key(
    partner_id: PartnerId, label: Label, days: Days = LIFETIME_DAYS_DEFAULT, as_json: Json = False
) -> None:
    """Make a key of a partner. Its text is shown once. `fanxing api-key revoke` ends it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            made, text = await partners.create_key(session, partner_id, label, system_clock(), days=days)
            return {"key_id": made.key_id, "expires_at": iso(made.expires_at), "api_key": text}

    terminal.run(work, as_json=as_json, show=_show_key)


@partner.command("end")
def end_partner(partner_id: PartnerId, as_json: Json = False) -> None:
    """End a partner and all its keys at once."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about_partner(await partners.end(session, partner_id, system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _bounds(told: list[str]) -> list[str]:
    return [] if told == ANY else told


def _about(account: RegulatorAccount) -> dict[str, Any]:
    return {
        "account": str(account.account_id),
        "name": account.name,
        "regions": account.regions,
        "categories": account.categories,
        "created_at": iso(account.created_at),
        "ended_at": _iso(account.ended_at),
    }


def _about_partner(found: PartnerAccount) -> dict[str, Any]:
    return {
        "partner": str(found.partner_id),
        "name": found.name,
        "identifiers": found.identifiers,
        "created_at": iso(found.created_at),
        "ended_at": _iso(found.ended_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _show_key(result: dict[str, Any]) -> None:
    out.print(result["api_key"], soft_wrap=True)
    terminal.err.print(f"This is the only time that the key is shown. It holds till {result['expires_at']}.")
