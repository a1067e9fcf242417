"""Ranges of an order: put on sale, voided, given to print houses, plants and lots, and listed."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from codes import orders, ranges
from codes.acts import record_act
from codes.catalogue import gtin14
from codes.orders import CodeOrder
from codes.ranges import IndexRange, parse_ranges
from kit.clock import system_clock
from kit.db import Session
from scan_api import serial_life
from scan_api.commands import terminal
from scan_api.commands.orders import Gtin, Number, about, show
from scan_api.commands.terminal import Json, Workshop, out
from scan_api.provenance.events import Happening, Step

_RANGES_HELP = "Such as 0-4999,7000: issue indexes, or serials in the order of printing."
Ranges = Annotated[str, typer.Option("--range", help=_RANGES_HELP)]
AnyRanges = Annotated[str | None, typer.Option("--range", help=f"{_RANGES_HELP} Default: the whole order.")]


def activate(gtin: Gtin, number: Number, ranges_text: AnyRanges = None, as_json: Json = False) -> None:
    """Put an order, or ranges of it, on sale: the items pay rewards from now on."""

    async def work() -> dict[str, Any]:
        happening = Happening(Step.ACTIVATED, system_clock(), None, None)
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            parts = None if ranges_text is None else await _parse(shop, session, placed, ranges_text)
            done = await serial_life.change(session, placed, parts, happening, happening.at)
            return about(placed) if done.ranges is None else _about_change(placed, done.ranges)

    terminal.run(work, as_json=as_json, show=show if ranges_text is None else _show)


def void(
    gtin: Gtin,
    number: Number,
    ranges_text: Ranges,
    reason: Annotated[str | None, typer.Option(help="Kept with the order, for the brand alone.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: the items are refused, for good.")] = False,
    as_json: Json = False,
) -> None:
    """Withdraw ranges of an order before sale, such as a spoiled roll. Without --yes, say what would happen."""

    async def work() -> dict[str, Any]:
        happening = Happening(Step.VOIDED, system_clock(), None, None)
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            parts = await _parse(shop, session, placed, ranges_text)
            detail = {"reason": reason} if reason else None
            done = await serial_life.change(session, placed, parts, happening, happening.at, detail)
            told = _about_change(placed, done.ranges or [])
            if not yes:
                await session.rollback()
                return {**told, "dry_run": True}
            return told

    terminal.run(work, as_json=as_json, show=_show)


def allot(
    gtin: Gtin,
    number: Number,
    ranges_text: Ranges,
    holder: Annotated[str, typer.Option("--to", help="A print house, plant or lot; 1 to 60 characters.")],
    as_json: Json = False,
) -> None:
    """Give ranges of an order to a holder, whoever held them before."""

    async def allot_to_holder(session: Session, placed: CodeOrder, parts: list[IndexRange]) -> list[IndexRange]:
        return await ranges.allot(session, placed, parts, holder)

    _reassign(gtin, number, ranges_text, allot_to_holder, "allotted", {"to": holder}, as_json=as_json)


def release(gtin: Gtin, number: Number, ranges_text: Ranges, as_json: Json = False) -> None:
    """Take ranges of an order from whoever holds them."""
    _reassign(gtin, number, ranges_text, ranges.release, "released", {}, as_json=as_json)


def list_ranges(gtin: Gtin, number: Number, as_json: Json = False) -> None:
    """An order cut into stretches of one state and one holder."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            return [
                {
                    "first": stretch.first,
                    "last": stretch.last,
                    "items": stretch.last - stretch.first + 1,
                    "state": stretch.state.value,
                    "holder": stretch.holder,
                }
                for stretch in await ranges.standing(session, placed)
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No item."))


def _reassign(
    gtin: str,
    number: int,
    text: str,
    change: Callable[[Session, CodeOrder, list[IndexRange]], Awaitable[list[IndexRange]]],
    kind: str,
    detail: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            placed = await orders.order_numbered(session, gtin14(gtin), number)
            parts = await _parse(shop, session, placed, text)
            told = _about_change(placed, await change(session, placed, parts))
            if told["items"]:
                assert placed.order_id is not None
                did = {"ranges": ranges.written(parts), "items": told["items"], **detail}
                await record_act(session, placed.order_id, kind, None, did, system_clock())
            return told

    terminal.run(work, as_json=as_json, show=_show)


async def _parse(shop: Workshop, session: Session, placed: CodeOrder, text: str) -> list[IndexRange]:
    return parse_ranges(text, placed, await orders.scheme_of_order(session, shop.vault, placed))


def _about_change(placed: CodeOrder, changed: list[IndexRange]) -> dict[str, Any]:
    """The order, and the parts that a command changed: what was so already is not among them."""
    return {**about(placed), "ranges": ranges.written(changed), "items": sum(part.items for part in changed)}


def _show(result: dict[str, Any]) -> None:
    order = f"order {result['order']:05d} of {result['gtin']}"
    verb = "would change" if result.get("dry_run") else "changed"
    out.print(f"{result['items']:,} items of {order} {verb}: {result['ranges'] or 'none'}", soft_wrap=True)
    if result.get("dry_run"):
        out.print("Nothing was changed; --yes does it.")
    else:
        out.print("Scanners without a network hear of voided items with the next `fanxing bundle publish`.")
