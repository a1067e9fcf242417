"""Campaigns: what a brand gives to those who hold its items."""

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named, gtin14
from kit.clock import iso, system_clock
from kit.errors import Invalid
from loyalty import campaigns, ledger
from loyalty.campaigns import Campaign, CampaignStatus, Face, NewCampaign, PrizeKind
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

campaign = typer.Typer(help="Campaigns: rewards for scanned codes, within a budget.", no_args_is_help=True)
ledger_app = typer.Typer(help="The books.", no_args_is_help=True)

Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")]


class LedgerBroken(Invalid):
    code = "LedgerBroken"


@campaign.command("create")
def create(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")],
    title_zh: Annotated[str, typer.Option(help="Title in Chinese.")],
    title_en: Annotated[str, typer.Option(help="Title in English.")],
    face: Annotated[str, typer.Option(help="The code that pays: outer or inner.")],
    prize: Annotated[PrizeKind, typer.Option(help="What a claim gives.")],
    amount: Annotated[int, typer.Option(help="Points, megabytes or coupons a claim.")],
    budget: Annotated[int, typer.Option(help="Points, megabytes or coupons in all.")],
    starts: Day,
    ends: Day,
    gtin: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    member_limit: Annotated[int | None, typer.Option(help="Claims a member, at most.")] = None,
    coupon_text_zh: Annotated[str, typer.Option(help="What the coupon says, in Chinese.")] = "",
    coupon_text_en: Annotated[str, typer.Option(help="What the coupon says, in English.")] = "",
    coupon_value_fen: Annotated[int, typer.Option(help="The coupon's value in fen.")] = 0,
    coupon_valid_days: Annotated[int, typer.Option(help="Days from claim to expiry of a coupon.")] = 90,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a campaign and fund it."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        if face.upper() not in Face.__members__:
            raise typer.BadParameter("a face is outer or inner", param_hint="--face")
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
                    prize_kind=prize,
                    prize_amount=amount,
                    budget=budget,
                    starts_at=starts.replace(tzinfo=UTC),
                    ends_at=ends.replace(tzinfo=UTC),
                    gtin=gtin14(gtin) if gtin else None,
                    per_member_limit=member_limit,
                    coupon_text_zh=coupon_text_zh,
                    coupon_text_en=coupon_text_en,
                    coupon_value_fen=coupon_value_fen,
                    coupon_valid_days=coupon_valid_days if prize is PrizeKind.COUPON else 0,
                )
                if dry_run:
                    campaigns.check(new, now)
                    return {"dry_run": True, "brand": slug, "grants_at_most": budget // amount, "budget": budget}
                made = await campaigns.create(session, new, now)
                return _about(made)

    terminal.run(work, as_json=as_json, show=_show)


@campaign.command("list")
def list_campaigns(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")], as_json: Json = False
) -> None:
    """A brand's campaigns, with what is left of their budgets."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            assert brand.brand_id is not None
            return [
                {**_about(made), "budget_left": await campaigns.budget_left(session, made)}
                for made in await campaigns.of_brand(session, brand.brand_id)
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


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise typer.BadParameter("a campaign's id is a UUID; `fanxing campaign list` shows it") from None


@ledger_app.command("verify")
def verify_ledger(as_json: Json = False) -> None:
    """Rebuild every balance from the entries and check that every transfer sums to zero. Exits with 1 when not."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            report = await ledger.verify(session)
        if report.faults:
            raise LedgerBroken(
                "; ".join(report.faults), hint="Stop paying (`fanxing campaign pause`) and find out why."
            )
        return {"accounts": report.accounts, "transfers": report.transfers, "entries": report.entries}

    terminal.run(work, as_json=as_json, show=_show_books)


def _show_books(result: dict[str, Any]) -> None:
    out.print("The books balance: {accounts} accounts, {transfers} transfers, {entries} entries.".format(**result))


def _about(made: Campaign) -> dict[str, Any]:
    return {
        "campaign_id": str(made.campaign_id),
        "title_en": made.title_en,
        "face": Face(made.face).name.lower(),
        "prize": made.prize_kind,
        "amount": made.prize_amount,
        "budget": made.budget,
        "starts_at": iso(made.starts_at),
        "ends_at": iso(made.ends_at),
        "status": made.status,
    }


def _show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        out.print(f"{name.replace('_', ' ')}: {value}")
    if result.get("dry_run"):
        out.print("Nothing was changed.")
