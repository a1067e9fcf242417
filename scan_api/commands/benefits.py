"""Benefits: the catalogue, its stock and prices, pools of imported codes, and what became of it all."""

import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.db import Session
from kit.errors import Invalid
from kit.ids import new_id
from loyalty import benefits
from loyalty.benefits import Benefit, BenefitKind, BenefitStatus, NewBenefit, catalogue, deliveries, reports, stock
from loyalty.benefits import code_pools as pools
from loyalty.benefits.code_pools import CHUNK_CODES
from loyalty.benefits.deliveries import DeliveryState
from loyalty.benefits.pool_files import Line, digest, read_lines
from loyalty.benefits.reports import DEAL_WITHIN_DAYS_DEFAULT, DEAL_WITHIN_DAYS_MAX
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop

benefit = typer.Typer(help="Benefits: what members obtain with points, or are given.", no_args_is_help=True)
pool = typer.Typer(help="Codes of somebody else's, imported and dealt to members.", no_args_is_help=True)
benefit.add_typer(pool, name="pool")

LINES_TOLD_MAX = 100
"""Most lines of a file that the answer names."""

Slug = Annotated[str, typer.Option("--brand", help="The brand's short name.")]
BenefitId = Annotated[uuid.UUID, typer.Argument(help="The benefit's id, see `fanxing benefit list`.")]
Moment = typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")
Prices = Annotated[
    list[str] | None, typer.Option("--price", help="RANK:POINTS, for tiers from this rank up; repeat it for others.")
]
Sure = Annotated[bool, typer.Option("--sure", help="Take a figure that looks like a slip.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check it, tell the worst cost, and change nothing.")]
CostAtMost = Annotated[int | None, typer.Option(help="Most that this stock may cost, in fen.")]


class PoolBroken(Invalid):
    code = "PoolBroken"


@benefit.command("create")
def create(
    slug: Slug,
    kind: Annotated[BenefitKind, typer.Option(help="What it is made of.")],
    name_zh: Annotated[str, typer.Option(help="Name in Chinese.")],
    name_en: Annotated[str, typer.Option(help="Name in English.")],
    starts: Annotated[datetime, Moment],
    ends: Annotated[datetime, Moment],
    text_zh: Annotated[str, typer.Option(help="Terms in Chinese.")] = "",
    text_en: Annotated[str, typer.Option(help="Terms in English.")] = "",
    amount: Annotated[int, typer.Option(help="Points, megabytes or fen, of those kinds.")] = 1,
    value_fen: Annotated[int, typer.Option(help="What one is worth to a member.")] = 0,
    cost_fen: Annotated[int, typer.Option(help="What one costs the brand.")] = 0,
    valid_days: Annotated[int, typer.Option(help="Days from giving to its end; 0: see --expires.")] = 0,
    expires: Annotated[datetime | None, Moment] = None,
    limit_total: Annotated[int | None, typer.Option(help="Most for one member.")] = None,
    limit_a_day: Annotated[int | None, typer.Option(help="Most for one member on a day.")] = None,
    stackable: Annotated[bool, typer.Option("--stackable", help="May be used beside others that stack.")] = False,
    prices: Prices = None,
    count: Annotated[int, typer.Option("--stock", help="Stock to begin with.")] = 0,
    cost_at_most: CostAtMost = None,
    sure: Sure = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a benefit into the catalogue, with its prices and its first stock."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop:
            opened = shop.database.reading if dry_run else shop.database.writing
            async with opened() as session:
                brand = await brand_named(session, slug)
                assert brand.brand_id is not None
                new = NewBenefit(
                    brand_id=brand.brand_id,
                    group_id=brand.group_id,
                    kind=kind,
                    name_zh=name_zh,
                    name_en=name_en,
                    starts_at=starts.replace(tzinfo=UTC),
                    ends_at=ends.replace(tzinfo=UTC),
                    text_zh=text_zh,
                    text_en=text_en,
                    amount=amount,
                    value_fen=value_fen,
                    cost_fen=cost_fen,
                    valid_days=valid_days,
                    expires_at=expires.replace(tzinfo=UTC) if expires else None,
                    limit_total=limit_total,
                    limit_a_day=limit_a_day,
                    stackable=stackable,
                    prices=_prices(prices),
                )
                if dry_run:
                    catalogue.check(new, now, sure=sure)
                    return {"dry_run": True, **_worst(new.cost_fen, new.value_fen, count, cost_at_most)}
                made = await catalogue.create(session, new, now, sure=sure)
                if count:
                    await stock.procure(
                        session, made, count, procurement_id=new_id(), now=now, cost_fen_max=cost_at_most
                    )
                return _about(made, dict(new.prices), count)

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _worst(cost_fen: int, value_fen: int, count: int, cost_at_most: int | None) -> dict[str, Any]:
    if count:
        stock.check_cost(count, cost_fen, cost_at_most)
    return {"stock": count, "cost_fen_at_most": count * cost_fen, "value_fen_at_most": count * value_fen}


@benefit.command("list")
def list_benefits(slug: Slug, as_json: Json = False) -> None:
    """A brand's benefits, latest first, with prices by tier and what is left of them."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            found = await catalogue.of_brand(session, await _brand_id(session, slug))
            left = await stock.left(session, [one.benefit for one in found])
            return [_about(one.benefit, dict(one.prices), left[one.benefit.benefit_id]) for one in found]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No benefit yet."))


@benefit.command("price")
def price(benefit_id: BenefitId, prices: Prices = None, sure: Sure = False, as_json: Json = False) -> None:
    """Replace a benefit's prices; without --price it is no longer sold."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            await catalogue.set_prices(session, benefit_id, _prices(prices), sure=sure)
            return {"benefit_id": str(benefit_id), "prices": _shown_prices(_prices(prices))}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@benefit.command("stock")
def change_stock(
    benefit_id: BenefitId,
    add: Annotated[int, typer.Option(help="So many more.")] = 0,
    remove: Annotated[int, typer.Option(help="So many fewer, of those not given yet.")] = 0,
    cost_at_most: CostAtMost = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Procure stock, or take back what was not given."""

    async def work() -> dict[str, Any]:
        if (add > 0) == (remove > 0) or min(add, remove) < 0:
            raise typer.BadParameter("say either --add or --remove, and how many")
        async with terminal.workshop() as shop:
            opened = shop.database.reading if dry_run else shop.database.writing
            async with opened() as session:
                found, now = await catalogue.get(session, benefit_id), system_clock()
                if dry_run:
                    left = (await stock.left(session, [found]))[benefit_id]
                    return {"dry_run": True, "left": left, **_worst(found.cost_fen, found.value_fen, add, cost_at_most)}
                if add:
                    await stock.procure(
                        session, found, add, procurement_id=new_id(), now=now, cost_fen_max=cost_at_most
                    )
                else:
                    await stock.withdraw(session, found, remove, withdrawal_id=new_id(), now=now)
                return {"benefit_id": str(benefit_id), "left": (await stock.left(session, [found]))[benefit_id]}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@benefit.command("pause")
def pause(benefit_id: BenefitId, as_json: Json = False) -> None:
    """Stop giving a benefit; what members hold stays good."""
    _set(benefit_id, BenefitStatus.PAUSED, as_json=as_json)


@benefit.command("resume")
def resume(benefit_id: BenefitId, as_json: Json = False) -> None:
    """Give it again."""
    _set(benefit_id, BenefitStatus.ACTIVE, as_json=as_json)


def _set(benefit_id: uuid.UUID, status: BenefitStatus, *, as_json: bool) -> None:
    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            await catalogue.set_status(session, benefit_id, status)
            return {"benefit_id": str(benefit_id), "status": status.value}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@benefit.command("report")
def report(
    benefit_id: BenefitId,
    days: Annotated[
        int, typer.Option(min=1, max=DEAL_WITHIN_DAYS_MAX, help="A deal or a return counts within so many days.")
    ] = DEAL_WITHIN_DAYS_DEFAULT,
    as_json: Json = False,
) -> None:
    """Every step counted, from procurement to return visits. Money in fen."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            counted = await reports.of_benefit(session, await catalogue.get(session, benefit_id), days)
            return {**asdict(counted), "benefit_id": str(benefit_id)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@benefit.command("reverse")
def reverse(
    member_id: Annotated[uuid.UUID, typer.Argument(help="The member's id.")],
    held_id: Annotated[uuid.UUID, typer.Argument(help="The id of the benefit that the member holds.")],
    as_json: Json = False,
) -> None:
    """Take an unused benefit back, and give back the points that it cost."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            done = await benefits.reverse(session, shop.vault, member_id, held_id, system_clock())
            return {"held_id": str(held_id), "state": done.state.value, "points_returned": done.points_paid}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@benefit.command("deliver")
def deliver(
    held_id: Annotated[uuid.UUID, typer.Argument(help="The id of the benefit that the member holds.")],
    slug: Slug,
    state: Annotated[DeliveryState, typer.Option(help="shipped, delivered or returned.")],
    carrier: Annotated[str | None, typer.Option(help="Who brings it, when shipped.")] = None,
    tracking: Annotated[str | None, typer.Option(help="The carrier's number, when shipped.")] = None,
    as_json: Json = False,
) -> None:
    """Tell that a thing was shipped, arrived, or came back."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand_id, now = await _brand_id(session, slug), system_clock()
            moved = await deliveries.change(session, brand_id, held_id, state, now, carrier=carrier, tracking=tracking)
            return {"held_id": str(held_id), "state": moved.state}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@pool.command("import")
def import_codes(
    path: Annotated[Path, typer.Argument(help="One code a line; or *.csv with a column `code`.", metavar="FILE")],
    benefit_id: Annotated[uuid.UUID, typer.Option("--benefit", help="The benefit, of the kind pool.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at every line, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Import codes, sealed. It may be stopped and started again; the same file again adds nothing."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            total = sum(1 for _ in read_lines(path))
            with terminal.progress("Importing", "lines", total, as_json=as_json) as advance:
                importing = _Import(shop, benefit_id, path, advance)
                done = await (importing.look() if dry_run else importing.run())
            return {"dry_run": True, **done} if dry_run else done

    terminal.run(work, as_json=as_json, show=terminal.fields)


class _Import:
    """One file on its way into a pool."""

    def __init__(self, shop: Workshop, benefit_id: uuid.UUID, path: Path, advance: Any) -> None:
        self._shop, self._benefit_id, self._path, self._advance = shop, benefit_id, path, advance
        self._added = 0
        self._duplicates: list[int] = []
        self._refused: list[int] = []

    async def look(self) -> dict[str, Any]:
        """What an import would do."""
        seen: set[bytes] = set()
        for lines in self._chunks(0):
            async with self._shop.database.reading() as session:
                _codes, chunk = await pools.sort_out(session, self._shop.vault, self._benefit_id, lines, seen)
            self._count(chunk, len(lines))
        return self._told(already=0)

    async def run(self) -> dict[str, Any]:
        async with self._shop.database.writing() as session:
            found = await catalogue.get(session, self._benefit_id)
            file = await pools.begin(session, found, self._path.name, digest(self._path), system_clock())
        if file.finished_at is not None:
            self._advance(file.lines)
            return {**self._told(already=file.lines), "imported_at": iso(file.finished_at)}
        done = file.lines
        self._advance(done)
        for lines in self._chunks(done):
            async with self._shop.database.writing() as session:
                chunk = await pools.add(session, self._shop.vault, found, file, lines, done, system_clock())
            done += len(lines)
            self._count(chunk, len(lines))
        async with self._shop.database.writing() as session:
            await pools.finish(session, file, system_clock())
        return self._told(already=file.lines)

    def _chunks(self, skip: int) -> Iterator[list[Line]]:
        rest = islice(read_lines(self._path), skip, None)
        while lines := list(islice(rest, CHUNK_CODES)):
            yield lines

    def _count(self, chunk: pools.Chunk, lines: int) -> None:
        self._added += chunk.added
        self._duplicates += chunk.duplicates
        self._refused += chunk.refused
        self._advance(lines)

    def _told(self, already: int) -> dict[str, Any]:
        return {
            "lines_done_before": already,
            "added": self._added,
            "duplicates": len(self._duplicates),
            "duplicate_lines": self._duplicates[:LINES_TOLD_MAX],
            "refused": len(self._refused),
            "refused_lines": self._refused[:LINES_TOLD_MAX],
        }


@pool.command("verify")
def verify_pool(
    benefit_id: Annotated[uuid.UUID, typer.Argument(help="The benefit's id.")], as_json: Json = False
) -> None:
    """Check that undealt codes are the stock, and every dealt one with its holder. Exits with 1 when not."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            found = await pools.verify(session, await catalogue.get(session, benefit_id))
        if not found.sound:
            raise PoolBroken("; ".join(found.faults), hint="Pause the benefit (`fanxing benefit pause`), find out why.")
        return {"codes": found.codes, "dealt": found.dealt, "stock": found.stock}

    terminal.run(work, as_json=as_json, show=terminal.fields)


async def _brand_id(session: Session, slug: str) -> int:
    brand_id = (await brand_named(session, slug)).brand_id
    assert brand_id is not None  # rows read from the database have their key
    return brand_id


def _prices(given: list[str] | None) -> dict[int, int]:
    prices: dict[int, int] = {}
    for text in given or []:
        rank, colon, points = text.partition(":")
        if not (colon and rank.isdecimal() and points.isdecimal()) or int(rank) in prices:
            raise typer.BadParameter("a price is RANK:POINTS, for example 0:100, each rank once", param_hint="--price")
        prices[int(rank)] = int(points)
    return prices


def _shown_prices(prices: dict[int, int]) -> list[str]:
    return [f"{rank}:{points}" for rank, points in sorted(prices.items())]


def _about(made: Benefit, prices: dict[int, int], left: int) -> dict[str, Any]:
    return {
        "benefit_id": str(made.benefit_id),
        "kind": made.kind,
        "name_en": made.name_en,
        "value_fen": made.value_fen,
        "cost_fen": made.cost_fen,
        "prices": _shown_prices(prices),
        "left": left,
        "ends_at": iso(made.ends_at),
        "status": made.status,
    }
