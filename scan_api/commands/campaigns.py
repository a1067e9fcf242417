"""Campaigns: what a brand gives to those who hold its items."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from codes.catalogue import brand_named, gtin14
from codes.orders import CodeOrder, orders_of
from codes.serials import ITEM_NUMBERS
from kit.clock import iso, system_clock
from kit.db import Session
from kit.files import replacing
from loyalty import campaigns, claims
from loyalty.campaigns import (
    Campaign,
    CampaignInvalid,
    CampaignPrize,
    CampaignStatus,
    Face,
    Limits,
    NewCampaign,
    NewPrize,
)
from loyalty.draws import fair, item_record
from loyalty.draws.item_record import ClaimLine
from loyalty.prizes import Prize, PrizeKind
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

CLAIMS_A_READ = 5_000

campaign = typer.Typer(help="Campaigns: rewards for scanned codes, within a budget.", no_args_is_help=True)

Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")]


class _Prize(BaseModel):
    """One line of a file of prizes."""

    model_config = ConfigDict(extra="forbid")

    kind: PrizeKind
    amount: int = 0
    budget: int = 0
    weight: int = 1
    benefit_id: uuid.UUID | None = None


@campaign.command("create")
def create(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")],
    title_zh: Annotated[str, typer.Option(help="Title in Chinese.")],
    title_en: Annotated[str, typer.Option(help="Title in English.")],
    face: Annotated[str, typer.Option(help="The code that pays: outer or inner.")],
    starts: Day,
    ends: Day,
    prize: Annotated[PrizeKind, typer.Option(help="What a claim gives.")] = PrizeKind.POINTS,
    amount: Annotated[int, typer.Option(help="Points, megabytes, fen or benefits a claim.")] = 1,
    budget: Annotated[int, typer.Option(help="Points, megabytes, fen or benefits in all.")] = 0,
    benefit: Annotated[str | None, typer.Option(help="Which benefit, for the prize `benefit`.")] = None,
    prizes: Annotated[
        Path | None,
        typer.Option(
            help="A draw: a JSON list of kind, amount, budget, weight and benefit_id. The last one is the consolation.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    gtin: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    member_limit: Annotated[int | None, typer.Option(help="Claims a member, at most.")] = None,
    member_day_limit: Annotated[int | None, typer.Option(help="Claims a member and day, at most.")] = None,
    device_day_limit: Annotated[int | None, typer.Option(help="Claims a device and day, at most.")] = None,
    place_day_limit: Annotated[int | None, typer.Option(help="Claims a network address and day, at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a campaign and fund it. With several prizes it is a draw, committed to by a hash from now on."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        if face.upper() not in Face.__members__:
            raise typer.BadParameter("a face is outer or inner", param_hint="--face")
        asked = _read(prizes) if prizes else [_single(prize, amount, budget, benefit)]
        async with terminal.workshop() as shop:
            opened = shop.database.reading if dry_run else shop.database.writing
            async with opened() as session:
                brand = await brand_named(session, slug)
                assert brand.brand_id is not None
                new = NewCampaign(
                    brand_id=brand.brand_id,
                    group_id=brand.group_id,
                    title_zh=title_zh,
                    title_en=title_en,
                    face=Face[face.upper()],
                    prizes=tuple(asked),
                    starts_at=starts.replace(tzinfo=UTC),
                    ends_at=ends.replace(tzinfo=UTC),
                    gtin=gtin14(gtin) if gtin else None,
                    limits=Limits(member_limit, member_day_limit, device_day_limit, place_day_limit),
                )
                if dry_run:
                    campaigns.check(new, now)
                    return {"dry_run": True, "brand": slug, "prizes": [_planned(offered) for offered in new.prizes]}
                made = await campaigns.create(session, shop.vault, new, now)
                found = await campaigns.prizes_of(session, [made.campaign_id])
                return _about(made, found[made.campaign_id])

    terminal.run(work, as_json=as_json, show=_show)


def _single(kind: PrizeKind, amount: int, budget: int, benefit: str | None) -> NewPrize:
    return NewPrize(Prize(kind, amount, _uuid(benefit) if benefit else None), budget)


def _read(path: Path) -> list[NewPrize]:
    try:
        lines = TypeAdapter(list[_Prize]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError):
        raise CampaignInvalid(
            f"prizes: {path.name} is not a JSON list of kind, amount, budget, weight and benefit_id"
        ) from None
    return [NewPrize(Prize(line.kind, line.amount, line.benefit_id), line.budget, line.weight) for line in lines]


def _planned(offered: NewPrize) -> dict[str, Any]:
    amount = offered.prize.amount
    return {
        "kind": offered.prize.kind.value,
        "amount": amount,
        "weight": offered.weight,
        "budget": offered.budget,
        "grants_at_most": offered.budget // amount if amount else None,
    }


@campaign.command("list")
def list_campaigns(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")], as_json: Json = False
) -> None:
    """A brand's campaigns, with what is left of their budgets."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            assert brand.brand_id is not None
            made = await campaigns.of_brand(session, brand.brand_id)
            prizes = await campaigns.prizes_of(session, [one.campaign_id for one in made])
            return [
                {
                    **_about(one, prizes[one.campaign_id]),
                    "budget_left": [
                        await campaigns.budget_left(session, one, offered) for offered in prizes[one.campaign_id]
                    ],
                }
                for one in made
            ]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No campaign yet."))


@campaign.command("pause")
def pause(campaign_id: Annotated[str, typer.Argument(help="The campaign's id.")], as_json: Json = False) -> None:
    """Stop paying at once; `fanxing campaign resume` goes on."""
    _set(campaign_id, CampaignStatus.PAUSED, as_json=as_json)


@campaign.command("resume")
def resume(campaign_id: Annotated[str, typer.Argument(help="The campaign's id.")], as_json: Json = False) -> None:
    """Pay again."""
    _set(campaign_id, CampaignStatus.ACTIVE, as_json=as_json)


def _set(campaign_id: str, status: CampaignStatus, *, as_json: bool) -> None:
    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            found = await campaigns.get(session, _uuid(campaign_id))
            await campaigns.set_status(session, found.campaign_id, status)
            return {"campaign_id": campaign_id, "status": status.value}

    terminal.run(work, as_json=as_json, show=_show)


@campaign.command("reveal")
def reveal(campaign_id: Annotated[str, typer.Argument(help="The campaign's id.")], as_json: Json = False) -> None:
    """Publish the seed of a draw that has ended, so that anybody can compute what every item drew."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            terms = await campaigns.reveal(session, shop.vault, _uuid(campaign_id), system_clock())
            assert terms.seed is not None
            return {"campaign_id": campaign_id, "seed": terms.seed.hex()}

    terminal.run(work, as_json=as_json, show=_show)


@campaign.command("record")
def write_record(
    campaign_id: Annotated[str, typer.Argument(help="The campaign's id.")],
    output: Annotated[Path, typer.Option(help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write what every claimed item of a revealed draw drew to a file, for `fanxing draw verify`.

    It names the items by GTIN and serial, and nobody who claimed.
    """

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            terms = await campaigns.revealed(session, shop.vault, _uuid(campaign_id))
            made, claimed = terms.campaign, 0
            orders = [order for order in await orders_of(session, made.brand_id) if made.gtin in (None, order.gtin)]
            quantity = sum(order.quantity for order in orders)
            assert terms.seed is not None
            published = campaigns.published_terms(made, terms.prizes, fair.seed_hash(terms.seed, made.campaign_id))
            with replacing(output) as file, terminal.progress("Writing", "items", quantity, as_json=as_json) as advance:
                file.write(item_record.head(published, terms.seed))
                for order in sorted(orders, key=lambda order: (order.gtin, order.order_number)):
                    async for line in _claims_of_order(session, made.campaign_id, order):
                        file.write(item_record.claim(line))
                        claimed += 1
                    advance(order.quantity)
        return {"campaign_id": campaign_id, "claims": claimed, "file": str(output)}

    terminal.run(work, as_json=as_json, show=_show)


async def _claims_of_order(session: Session, campaign_id: uuid.UUID, order: CodeOrder) -> AsyncIterator[ClaimLine]:
    key, end = order.item_key(0), order.item_key(ITEM_NUMBERS)
    while some := await claims.claims_between(session, campaign_id, key, end, CLAIMS_A_READ):
        for one in some:
            serial = order.serial(one.item_key - order.item_key(0))
            ticket = fair.item_ticket(order.gtin, serial).decode()
            yield ClaimLine(ticket, one.drawn_number, one.prize_number, one.at)
        key = some[-1].item_key + 1


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise typer.BadParameter("an id is a UUID; the list commands show it") from None


def _about(made: Campaign, prizes: list[CampaignPrize]) -> dict[str, Any]:
    return {
        "campaign_id": str(made.campaign_id),
        "title_en": made.title_en,
        "face": Face(made.face).name.lower(),
        "prizes": [
            {"kind": one.kind, "amount": one.amount, "weight": one.weight, "budget": one.budget} for one in prizes
        ],
        "starts_at": iso(made.starts_at),
        "ends_at": iso(made.ends_at),
        "status": made.status,
        "commitment": made.commitment.hex() if made.commitment else None,
    }


def _show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        out.print(f"{name.replace('_', ' ')}: {value}")
    if result.get("dry_run"):
        out.print("Nothing was changed.")
