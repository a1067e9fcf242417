"""Orders of codes: placed, shown, recalled. Their exports are in `runs`, their ranges in `ranges`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from codes import manifest, orders, qr, runs
from codes.catalogue import brand_named, gtin14
from codes.orders import CodeOrder, OrderPlan
from codes.production import bytes_needed
from codes.runs import RunSpec
from codes.serials import scheme_of
from kit.clock import iso, system_clock
from kit.files import free_bytes, make_folder
from offline_sdk.code_text import Profile
from scan_api import serial_life
from scan_api.commands import production, terminal
from scan_api.commands.layouts import AskedLayout, layout_options
from scan_api.commands.production import (
    Agent,
    EngineKind,
    EngineOption,
    Exports,
    Folder,
    Force,
    RayAddress,
    Tools,
    Unpack,
    Workers,
)
from scan_api.commands.terminal import Json, out
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from signer.keys import SigningKey

order = typer.Typer(help="Orders of codes.", no_args_is_help=True)

Gtin = Annotated[str, typer.Option(help="The product's GTIN.")]
Number = Annotated[int, typer.Option("--order", help="The order's number.")]


def face_named(text: str) -> Profile:
    """A face by its name, for an option's parser."""
    try:
        return Profile[text.upper()]
    except KeyError:
        raise typer.BadParameter("a face is outer or inner") from None


@order.command("create")
@layout_options
def create(
    asked: AskedLayout,
    gtin: Gtin,
    quantity: Annotated[int, typer.Option(help="Items, 1 to 1,000,000,000.")],
    face: Annotated[
        list[Profile], typer.Option(parser=face_named, metavar="outer|inner", help="A face; may be given again.")
    ],
    base_url: Annotated[str | None, typer.Option(help="Default: FANXING_BASE_URL.")] = None,
    upper_case: Annotated[
        bool, typer.Option("--upper-case", help="Scheme and host in upper case: a smaller symbol, for fewer phones.")
    ] = False,
    export: Exports = None,
    folder: Folder = None,
    unpacked: Unpack = False,
    workers: Workers = None,
    engine: EngineOption = EngineKind.LOCAL,
    ray_address: RayAddress = None,
    agent: Agent = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Order codes for a product, and write them in the forms that a printer takes."""

    kinds = list(dict.fromkeys(export or []))
    force = Force(workers, engine, ray_address, agent)

    async def work() -> dict[str, Any]:
        force.check()
        layout = asked.layout()
        async with terminal.workshop(signs=not dry_run) as shop:
            url = base_url or shop.settings.base_url
            url = url.upper() if upper_case else url
            now, secret = system_clock(), production.new_secret()
            async with shop.database.reading() if dry_run else shop.database.writing() as session:
                plan = await orders.plan(session, gtin, quantity, face, url)
                draft = plan.order(now)
                spec = production.spec_of(draft, kinds, layout)
                # The folder has the order's number in its name: planned and placed in one transaction, or two orders
                # that are placed at once would share a folder.
                place = folder or production.folder_of(shop, draft)
                if dry_run:
                    return _forecast(plan, draft, spec, place)
                key = await session.get_one(SigningKey, plan.kid)
                shop.signer.open_key(key)
                tools = Tools(key, await scheme_of(session, shop.vault, plan.brand.issuer_id))
                if kinds:
                    manifest.require_own_folder(place, draft, spec)
                    production.require_room(place, draft, spec)
                    make_folder(place.absolute())  # a folder that cannot be must not cost an order number
                placed = await orders.place(session, plan, now)
                happening = Happening(Step.COMMISSIONED, now, None, None)
                await events.record_for_order(session, placed, happening, now)
                if kinds:
                    run = await runs.begin(session, placed, spec, str(place.absolute()), secret, now)
            if not kinds:
                return {**about(placed), "files": []}
            return {
                **about(placed),
                **await production.make(shop, placed, run, secret, tools, force, unpacked=unpacked, as_json=as_json),
            }

    terminal.run(work, as_json=as_json, show=show)


@order.command("list")
def list_orders(
    slug: Annotated[str | None, typer.Option("--brand", help="Only this brand's.")] = None, as_json: Json = False
) -> None:
    """All orders."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand_id = (await brand_named(session, slug)).brand_id if slug else None
            return [about(placed) for placed in await orders.orders_of(session, brand_id)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No order yet."))


@order.command("recall")
def recall(
    gtin: Gtin,
    number: Number,
    reason: Annotated[str, typer.Option(help="What shoppers are told.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: every item of the order is refused, for good.")] = False,
    as_json: Json = False,
) -> None:
    """Recall every item of an order. Without --yes, say what would happen."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            if not yes:
                return {**about(placed), "dry_run": True}
            await serial_life.recall(session, placed, reason, None, system_clock())
            return about(placed)

    terminal.run(work, as_json=as_json, show=show)


def about(placed: CodeOrder) -> dict[str, Any]:
    """An order as every command tells it."""
    return {
        "gtin": placed.gtin,
        "order": placed.order_number,
        "quantity": placed.quantity,
        "faces": [face.name.lower() for face in placed.faces],
        "state": placed.state,
        "has_ranges": placed.has_ranges,
        "kid": placed.kid,
        "base_url": placed.base_url,
        "created_at": iso(placed.created_at),
    }


def _forecast(plan: OrderPlan, draft: CodeOrder, spec: RunSpec, folder: Path) -> dict[str, Any]:
    layout = spec.layout
    size = qr.measure(plan.base_url, layout.level, layout.printed_module_mm, layout.quiet_zone_modules)
    return {
        "dry_run": True,
        "brand": plan.brand.slug,
        "gtin": plan.product.gtin,
        "order": plan.order_number,
        "quantity": plan.quantity,
        "faces": [face.name.lower() for face in plan.faces],
        "kid": plan.kid,
        "base_url": plan.base_url,
        "qr_level": layout.level,
        "qr_version": size.version,
        "qr_width_mm": round(size.width_mm, 1),
        "module_mm": round(layout.printed_module_mm, 3),
        "warnings": [asdict(warning) for warning in size.warnings],
        "exports": [kind.value for kind in spec.kinds],
        "folder": str(folder),
        "bytes_max": bytes_needed(draft, spec),
        "bytes_free": free_bytes(folder),
    }


def show(result: dict[str, Any]) -> None:
    """An order for people, and what to do with it next."""
    terminal.fields({name: value for name, value in result.items() if name != "warnings"})
    for warning in result.get("warnings", ()):
        out.print(f"warning: {warning['message']}", soft_wrap=True)
    if result.get("dry_run"):
        out.print("Nothing was changed.")
    elif result["state"] == "dormant":
        out.print("The codes are dormant: `fanxing order activate` puts them on sale.")
