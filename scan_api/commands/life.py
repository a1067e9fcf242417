"""The life of goods: activated, held, let go, recalled or voided, by item, range, lot, order or container; and lots."""

from datetime import date, datetime
from typing import Annotated, Any

import typer

from codes import orders
from codes.catalogue import Brand, brand_named, gtin14
from codes.ranges import parse_ranges
from codes.serials import scheme_of
from kit.clock import system_clock
from kit.db import Session
from scan_api import life_acts
from scan_api.commands import terminal
from scan_api.commands.terminal import ArgumentInvalid, Json, Workshop, out
from scan_api.life_acts import LifeAct, LifeInvalid, OfLot, OfOrder, OfThing, Target, Wish
from scan_api.provenance import line, lots
from scan_api.provenance.documents import is_moment
from scan_api.provenance.life import Reason

life = typer.Typer(help="Activate, hold, let go, recall or void goods.", no_args_is_help=True)

Slug = Annotated[str, typer.Option("--brand", help="Whose goods they are.")]
Thing = Annotated[str | None, typer.Option(help="An item or container: a code text, EPC URN or Digital Link.")]
Gtin = Annotated[str | None, typer.Option(help="With --order or --lot.")]
Number = Annotated[int | None, typer.Option("--order", help="The order's number.")]
Ranges = Annotated[str | None, typer.Option("--range", help="Ranges of the order, such as 0-4999,7000.")]
LotOption = Annotated[str | None, typer.Option("--lot", help="A lot of the GTIN.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without it, say what would happen.")]


@life.command("act")
def act(
    what: Annotated[LifeAct, typer.Argument(help="What to do.")],
    slug: Slug,
    thing: Thing = None,
    gtin: Gtin = None,
    number: Number = None,
    ranges_text: Ranges = None,
    lot: LotOption = None,
    reason: Annotated[Reason, typer.Option(help="Why.")] = Reason.OTHER,
    message: Annotated[str | None, typer.Option(help="What shoppers are told; a recall needs one.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Since when, such as 2026-05-01T08:00:00Z.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Do something with an item, a container, an order, ranges of it, or a lot. What is packed in it is reached too."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            target = await _target(shop, session, brand, thing, gtin, number, ranges_text, lot)
            scheme = await scheme_of(session, shop.vault, brand.issuer_id)
            wish = Wish(what, reason, message, _moment(at) or now, None)
            done = await life_acts.act(session, brand.brand_id or 0, scheme, target, wish, now)
            if not yes:
                await session.rollback()
            return {"act": what.value, "items": done.items, "marks": done.marks, "dry_run": not yes}

    terminal.run(work, as_json=as_json, show=_show)


@life.command("lot")
def bind(
    lot: Annotated[str, typer.Argument(help="The lot; at most 20 characters.")],
    slug: Slug,
    gtin: Annotated[str, typer.Option(help="The product.")],
    number: Annotated[int, typer.Option("--order", help="The order's number.")],
    ranges_text: Ranges = None,
    produced_on: Annotated[str | None, typer.Option(help="YYYY-MM-DD")] = None,
    expires_on: Annotated[str | None, typer.Option(help="YYYY-MM-DD")] = None,
    as_json: Json = False,
) -> None:
    """Bind the codes of an order, or ranges of them, to the lot of the items that they were put on."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        made, good = _day(produced_on, "--produced-on"), _day(expires_on, "--expires-on")
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            target = await _of_order(shop, session, brand, gtin, number, ranges_text)
            items = await life_acts.bind_lot(session, brand.brand_id or 0, target, lot, made, good, None, now)
            return {"lot": lot, "items": items}

    terminal.run(work, as_json=as_json, show=lambda done: out.print(f"{done['items']:,} items are of lot {lot} now."))


async def _target(
    shop: Workshop,
    session: Session,
    brand: Brand,
    thing: str | None,
    gtin: str | None,
    number: int | None,
    ranges_text: str | None,
    lot: str | None,
) -> Target:
    if (thing is None) == (gtin is None) or sum(one is not None for one in (thing, number, lot)) != 1:
        raise LifeInvalid("name --thing alone, or --gtin with either --order or --lot")
    if ranges_text is not None and number is None:
        raise LifeInvalid("--range goes with --order")
    if thing is not None:
        return OfThing(line.name(thing, "the thing"))
    if number is not None:
        return await _of_order(shop, session, brand, gtin or "", number, ranges_text)
    lots.check(lot or "")
    await life_acts.require_product(session, brand.brand_id or 0, gtin14(gtin or ""))
    return OfLot(gtin14(gtin or ""), lot or "")


async def _of_order(
    shop: Workshop, session: Session, brand: Brand, gtin: str, number: int, ranges_text: str | None
) -> OfOrder:
    await life_acts.require_product(session, brand.brand_id or 0, gtin14(gtin))
    order = await orders.order_numbered(session, gtin14(gtin), number)
    if ranges_text is None:
        return OfOrder(order)
    return OfOrder(order, parse_ranges(ranges_text, order, await scheme_of(session, shop.vault, brand.issuer_id)))


def _moment(text: str | None) -> datetime | None:
    if text is not None and not is_moment(text):
        raise ArgumentInvalid("--at is a moment with its zone, such as 2026-05-01T08:00:00Z")
    return datetime.fromisoformat(text) if text is not None else None


def _day(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise ArgumentInvalid(f"{option} is a day, such as 2026-05-01") from None


def _show(done: dict[str, Any]) -> None:
    verb = "would be" if done["dry_run"] else "were"
    reached = f"{done['items']:,} items" if done["items"] is not None else "all that is in it"
    out.print(f"{done['act']}: {reached}; {done['marks']} marks {verb} set or lifted.")
    if done["dry_run"]:
        out.print("Nothing was changed; --yes does it.")
    elif done["act"] in (LifeAct.RECALL, LifeAct.VOID):
        out.print("Scanners without a network hear of it with the next `fanxing bundle publish`.")
