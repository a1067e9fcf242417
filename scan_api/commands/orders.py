"""Orders of codes: placed, exported, put on sale, recalled."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from codes import exports, orders, pipeline, qr
from codes.catalogue import Brand, brand_named, gtin14, product_with
from codes.exports import ExportKind
from codes.exports.pdf import DPI, MODULE_PX
from codes.orders import CodeOrder, OrderPlan
from codes.serials import SerialScheme, scheme_of
from kit.clock import iso, system_clock
from offline_sdk.code_text import SIGNATURE_BYTES, Profile, encode_text
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop, out
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from signer.keys import SigningKey


class _Rate(ProgressColumn):
    """Codes a second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "…/s")


order = typer.Typer(help="Orders of codes.", no_args_is_help=True)

Gtin = Annotated[str, typer.Option(help="The product's GTIN.")]
Number = Annotated[int, typer.Option("--order", help="The order's number.")]
Exports = Annotated[list[ExportKind] | None, typer.Option("--export", help="A form to write; may be given again.")]
Folder = Annotated[Path | None, typer.Option("--out", help="Folder for the exports; default: in the data folder.")]


def _face(text: str) -> Profile:
    try:
        return Profile[text.upper()]
    except KeyError:
        raise typer.BadParameter("a face is outer or inner") from None


@order.command("create")
def create(
    gtin: Gtin,
    quantity: Annotated[int, typer.Option(help="Items, 1 to 1,000,000,000.")],
    face: Annotated[
        list[Profile], typer.Option(parser=_face, metavar="outer|inner", help="A face; may be given again.")
    ],
    base_url: Annotated[str | None, typer.Option(help="Default: FANXING_BASE_URL.")] = None,
    export: Exports = None,
    folder: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Order codes for a product, and write them in the forms that a printer takes."""

    kinds = list(dict.fromkeys(export or []))

    async def work() -> dict[str, Any]:
        async with terminal.workshop(signs=not dry_run) as shop:
            url = base_url or shop.settings.base_url
            if dry_run:
                async with shop.database.reading() as session:
                    plan = await orders.plan(session, gtin, quantity, face, url)
                return _forecast(plan, kinds)
            now = system_clock()
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)  # a folder that cannot be must not cost an order number
            async with shop.database.writing() as session:
                plan = await orders.plan(session, gtin, quantity, face, url)
                key = await session.get_one(SigningKey, plan.kid)
                shop.signer.open_key(key)
                scheme = await scheme_of(session, shop.vault, plan.brand.issuer_id)
                placed = await orders.place(session, plan, now)
                happening = Happening(Step.COMMISSIONED, now, None, None)
                await events.record_for_order(session, placed, happening, now)
            return _export(shop, placed, key, scheme, kinds, folder, quiet=as_json)

    terminal.run(work, as_json=as_json, show=_show)


@order.command("export")
def export_again(
    gtin: Gtin, number: Number, export: Exports = None, folder: Folder = None, as_json: Json = False
) -> None:
    """Write an order's codes again: the same order gives the same codes."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop(signs=True) as shop:
            async with shop.database.reading() as session:
                placed = await orders.order_numbered(session, gtin14(gtin), number)
                product = await product_with(session, placed.gtin)
                brand = await session.get_one(Brand, product.brand_id)
                key = await session.get_one(SigningKey, placed.kid)
                scheme = await scheme_of(session, shop.vault, brand.issuer_id)
            kinds = list(dict.fromkeys(export or [ExportKind.CSV]))
            return _export(shop, placed, key, scheme, kinds, folder, quiet=as_json)

    terminal.run(work, as_json=as_json, show=_show)


@order.command("list")
def list_orders(
    slug: Annotated[str | None, typer.Option("--brand", help="Only this brand's.")] = None, as_json: Json = False
) -> None:
    """All orders."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand_id = (await brand_named(session, slug)).brand_id if slug else None
            return [_about(placed) for placed in await orders.orders_of(session, brand_id)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No order yet."))


@order.command("activate")
def activate(gtin: Gtin, number: Number, as_json: Json = False) -> None:
    """Put an order on sale: its items pay rewards from now on."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            if await orders.activate(session, placed):
                await events.record_for_order(session, placed, Happening(Step.ACTIVATED, now, None, None), now)
            return _about(placed)

    terminal.run(work, as_json=as_json, show=_show)


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
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            if not yes:
                return {**_about(placed), "dry_run": True}
            if await orders.recall(session, placed, reason):
                await events.record_for_order(session, placed, Happening(Step.RECALLED, now, None, None), now)
            return _about(placed)

    terminal.run(work, as_json=as_json, show=_show)


def _export(
    shop: Workshop,
    placed: CodeOrder,
    key: SigningKey,
    scheme: SerialScheme,
    kinds: Sequence[ExportKind],
    folder: Path | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    folder = folder or shop.settings.home / "orders" / f"{placed.gtin}-{placed.order_number:05d}"
    columns = (
        TextColumn("Signing and writing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("codes,"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=terminal.err, disable=quiet))
        task = progress.add_task("codes", total=placed.quantity * len(placed.faces) if kinds else 0)
        written = [stack.enter_context(exports.open_export(kind, placed, folder)) for kind in kinds]
        chunks = pipeline.generate(placed, scheme, partial(shop.signer.sign_many, key)) if kinds else ()
        for chunk in chunks:
            for one in written:
                one.add(chunk)
            progress.advance(task, len(chunk.texts))
    return {**_about(placed), "files": [str(path) for one in written for path in one.paths]}


def _about(placed: CodeOrder) -> dict[str, Any]:
    return {
        "gtin": placed.gtin,
        "order": placed.order_number,
        "quantity": placed.quantity,
        "faces": [face.name.lower() for face in placed.faces],
        "state": placed.state,
        "kid": placed.kid,
        "base_url": placed.base_url,
        "created_at": iso(placed.created_at),
    }


def _forecast(plan: OrderPlan, kinds: Sequence[ExportKind]) -> dict[str, Any]:
    # Any signature will do for the size. Not all zero: `qrcode` fails on a block of zero bytes.
    serial = f"{plan.order_number:05d}{0:09d}"
    text = encode_text(plan.base_url, plan.faces[0], plan.kid, b"\x55" * SIGNATURE_BYTES, plan.product.gtin, serial)
    modules = qr.symbol(text)
    width = (len(modules) + 2 * qr.QUIET_ZONE_MODULES) * MODULE_PX * 25.4 / DPI
    csv_bytes = plan.quantity * len(plan.faces) * (len(serial) + 1 + len(text) + 1)
    return {
        "dry_run": True,
        "brand": plan.brand.slug,
        "gtin": plan.product.gtin,
        "order": plan.order_number,
        "quantity": plan.quantity,
        "faces": [face.name.lower() for face in plan.faces],
        "kid": plan.kid,
        "base_url": plan.base_url,
        "qr_version": qr.version(modules),
        "qr_width_mm": round(width, 1),
        "exports": [kind.value for kind in kinds],
        "csv_bytes": csv_bytes if ExportKind.CSV in kinds else 0,
    }


def _show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        out.print(f"{name.replace('_', ' ')}: {terminal.cell(value)}", soft_wrap=True)
    if result.get("dry_run"):
        out.print("Nothing was changed.")
    elif result["state"] == "dormant":
        out.print("The codes are dormant: `fanxing order activate` puts them on sale.")
