"""Tiers and what purchases earn, as far as an operator sets them, looks at them, and makes sure of them."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from codes import catalogue
from codes.catalogue import brand_named, gtin14
from kit.clock import iso, system_clock
from kit.db import Database
from kit.errors import Conflict, Invalid
from loyalty import earn_rules, members, purchases, tier_audit, tier_rules, tiers
from loyalty.earn_rules import NewEarnRule
from loyalty.purchases import Buyer, Line, NewPurchase
from loyalty.tier_audit import Recalculation
from loyalty.tier_rules import Tier
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out
from scan_api.routers.brand_tiers import RulesBody, asked_rules, group_flows, rules_answer

tier = typer.Typer(help="Tiers: rules, what purchases earn, and where members stand.", no_args_is_help=True)

Brand = Annotated[str, typer.Option("--brand", help="The brand's short name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")]
Moment = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")]

_FLOWS_DAYS = 30


class TierFileInvalid(Invalid):
    code = "TierFileInvalid"


class TiersDiffer(Conflict):
    code = "TiersDiffer"


@tier.command("show")
def show_rules(slug: Brand, as_json: Json = False) -> None:
    """The newest version of a brand's tier rules, in the form that `set` takes."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            book = await tier_rules.book_of(session, brand.brand_id or 0)
            return rules_answer(book.version(len(book.versions))).model_dump(mode="json")

    terminal.run(work, as_json=as_json, show=_show_rules)


@tier.command("set")
def set_rules(
    slug: Brand,
    file: Annotated[Path, typer.Argument(help="JSON, as PUT /v1/brand/{brand}/tiers takes it.", dir_okay=False)],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make the next version of a brand's tier rules from a file."""

    async def work() -> dict[str, Any]:
        try:
            body = RulesBody.model_validate_json(file.read_bytes())
        except ValidationError as error:
            places = (".".join(str(part) for part in fault["loc"]) + ": " + fault["msg"] for fault in error.errors())
            raise TierFileInvalid("; ".join(places)) from None
        rules = asked_rules(body)
        tier_rules.check(rules)
        async with terminal.workshop() as shop:
            opened = shop.database.reading if dry_run else shop.database.writing
            async with opened() as session:
                brand = await brand_named(session, slug)
                if not dry_run:
                    rules = await tier_rules.set_rules(
                        session,
                        brand.brand_id or 0,
                        rules,
                        replaces=body.replaces,
                        by="operator",
                        valid_from=body.valid_from,
                        now=system_clock(),
                    )
        return rules_answer(rules).model_dump(mode="json") | ({"dry_run": True} if dry_run else {})

    terminal.run(work, as_json=as_json, show=_show_rules)


def _show_rules(rules: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in rules.items() if name != "tiers"})
    rows = [
        {"rank": one["rank"], "tier": one["slug"], "name": f"{one['name_zh']} {one['name_en']}"}
        | one["needs"]
        | {"any_of": one["any_of"]}
        for one in rules["tiers"]
    ]
    terminal.table(rows, "")
    if rules.get("dry_run"):
        out.print("Nothing was changed.")


@tier.command("earn-add")
def add_earn_rule(
    slug: Brand,
    rate: Annotated[int, typer.Option("--points-per-yuan-milli", help="Thousandths of a point a yuan.")],
    starts: Moment = None,
    ends: Moment = None,
    paid_fen_min: Annotated[int, typer.Option(help="Only for purchases of so much.")] = 0,
    purchase_max: Annotated[int | None, typer.Option("--points-per-purchase-max", help="In points.")] = None,
    day_max: Annotated[int | None, typer.Option("--points-per-day-max", help="In points.")] = None,
    tier_permille: Annotated[str, typer.Option(help="By rank, in thousandths: 1000,1200,1500.")] = "",
    gtin_prefix: Annotated[str, typer.Option(help="Digits that the 14-digit GTIN begins with.")] = "",
    as_json: Json = False,
) -> None:
    """Make a rule of what purchases earn. Of several, each fen earns by the best alone."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        try:
            permille = tuple(int(one) for one in tier_permille.split(",")) if tier_permille else ()
        except ValueError:
            raise typer.BadParameter("numbers with commas between", param_hint="--tier-permille") from None
        new = NewEarnRule(
            rate,
            starts.replace(tzinfo=UTC) if starts else now,
            ends.replace(tzinfo=UTC) if ends else None,
            paid_fen_min,
            purchase_max,
            day_max,
            permille,
            gtin_prefix,
        )
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            return _about(await earn_rules.add(session, brand.brand_id or 0, new, now))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@tier.command("earn-list")
def list_earn_rules(slug: Brand, as_json: Json = False) -> None:
    """The rules of what purchases earn that have not ended."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            return [_about(rule) for rule in await earn_rules.rules_of(session, brand.brand_id or 0, system_clock())]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No rule: purchases earn no points."))


@tier.command("earn-end")
def end_earn_rule(
    slug: Brand, rule_id: Annotated[str, typer.Argument(help="The rule's id.")], as_json: Json = False
) -> None:
    """End a rule: purchases made from now on do not earn by it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            await earn_rules.end(session, brand.brand_id or 0, _uuid(rule_id), system_clock())
            return {"rule_id": rule_id, "ended": True}

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise typer.BadParameter("a rule's id is a UUID; `fanxing tier earn-list` shows it") from None


def _about(rule: earn_rules.EarnRule) -> dict[str, Any]:
    return {
        "rule_id": str(rule.rule_id),
        "points_per_yuan_milli": rule.points_per_yuan_milli,
        "paid_fen_min": rule.paid_fen_min,
        "points_per_purchase_max": rule.points_per_purchase_max,
        "points_per_day_max": rule.points_per_day_max,
        "tier_permille": rule.tier_permille,
        "gtin_prefix": rule.gtin_prefix,
        "starts_at": iso(rule.starts_at),
        "ends_at": iso(rule.ends_at) if rule.ends_at else None,
    }


@tier.command("quote")
def quote(
    slug: Brand,
    paid_fen: Annotated[int, typer.Option(help="What was paid in all, in fen.")],
    line: Annotated[list[str] | None, typer.Option(help="GTIN:FEN, once for each line.")] = None,
    at_tier: Annotated[str | None, typer.Option("--tier", help="The buyer's tier; absent: the lowest.")] = None,
    as_json: Json = False,
) -> None:
    """What a purchase would earn now. Nothing is recorded."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            brand_id = brand.brand_id or 0
            ladder = await tiers.ladder(session, brand_id, now)
            rank = tier_rules.rank_named(ladder, at_tier) if at_tier else 0
            lines = tuple(_line(one) for one in line or ())
            buyer = Buyer(card_number="0" * members.CARD_NUMBER_DIGITS)
            new = NewPurchase(brand_id, brand.group_id, uuid.UUID(int=0), "quote", buyer, paid_fen, lines=lines)
            quoted, figures = await purchases.quote(session, new, rank, None, now)
            return {
                "tier": ladder[rank].slug,
                "points": quoted.points,
                "by_line": list(quoted.by_part),
                "experience": figures.experience,
                "by_rule": {str(rule_id): fen for rule_id, (fen, _units) in quoted.by_rule.items()},
            }

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _line(text: str) -> Line:
    gtin, _, fen = text.partition(":")
    if not fen.isdigit():
        raise typer.BadParameter("a line is GTIN:FEN", param_hint="--line")
    return Line(int(fen), gtin14(gtin) if gtin else None)


@tier.command("explain")
def explain(
    slug: Brand,
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
    as_json: Json = False,
) -> None:
    """Where a member stands with a brand, why, and how it came to that."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            member_id = await members.member_with(session, shop.vault, brand.group_id, phone)
            standing = await tiers.standing(session, member_id, brand.brand_id or 0, now)
            book = await tier_rules.book_of(session, brand.brand_id or 0)
            changes = await tiers.changes_of(session, member_id, brand.brand_id or 0)
        return {
            "member_id": str(member_id),
            "tier": standing.tier.slug,
            "since": iso(standing.since) if standing.since else None,
            "until": iso(standing.until) if standing.until else None,
            "explanation_zh": standing.explanation("zh"),
            "explanation_en": standing.explanation("en"),
            "projected_tier": standing.projected.slug,
            "projected_at": iso(standing.projected_at) if standing.projected_at else None,
            "changes": [_change(one, list(book.version(one.version).ladder)) for one in changes],
        }

    terminal.run(work, as_json=as_json, show=_show_standing)


def _change(change: tiers.TierChange, ladder: list[Tier]) -> dict[str, Any]:
    def name(rank: int) -> str:
        return ladder[rank].slug if rank < len(ladder) else f"rank {rank}"

    return {
        "at": iso(change.at),
        "from": name(change.from_rank),
        "to": name(change.to_rank),
        "reason": change.reason,
        "purchases": change.purchases,
        "fen": change.fen,
        "experience": change.experience,
    }


def _show_standing(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "changes"})
    terminal.table(result["changes"], "No change yet.")


@tier.command("recalculate")
def recalculate(
    slug: Brand,
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC; absent: now.")
    ] = None,
    dry_run: DryRun = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing, and exit with 1 on a difference.")] = False,
    as_json: Json = False,
) -> None:
    """Decide on every card of a brand anew, from its entries and the rules, and compare with what is stored.

    What is due is decided and stored; what is stored is never altered. A dry run may look ahead of time.
    """

    async def work() -> dict[str, Any]:
        now, found = system_clock(), Recalculation()
        until = as_of.replace(tzinfo=UTC) if as_of else now
        settle = not (dry_run or check)
        if settle and until > now:
            raise typer.BadParameter("only a dry run looks ahead", param_hint="--as-of")
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                brand = await brand_named(session, slug)
                ladder = await tiers.ladder(session, brand.brand_id or 0, until)
                cards = await tier_audit.count(session, brand.brand_id or 0)
            with terminal.progress("Recalculating", "cards", cards, as_json=as_json) as advance:
                before = 0
                while await _step(shop.database, brand.brand_id or 0, until, found, settle=settle):
                    advance(found.cards - before)
                    before = found.cards
        result = _found(found, ladder, until, settle=settle)
        if found.differing and not dry_run:
            raise TiersDiffer(
                f"{found.differing} of {found.cards} cards differ: " + "; ".join(result["differences"]),
                hint="Nothing that is stored was altered. Find out who changed it.",
            )
        return result

    terminal.run(work, as_json=as_json, show=_show_recalculation)


async def _step(database: Database, brand_id: int, until: datetime, found: Recalculation, *, settle: bool) -> bool:
    opened = database.writing if settle else database.reading
    async with opened() as session:
        return await tier_audit.step(session, brand_id, until, found, settle=settle)


def _found(found: Recalculation, ladder: list[Tier], until: datetime, *, settle: bool) -> dict[str, Any]:
    def name(rank: int) -> str:
        return ladder[rank].slug if rank < len(ladder) else f"rank {rank}"

    return {
        "as_of": iso(until),
        "cards": found.cards,
        "changes": found.changes,
        "moved": [
            {"from": name(before), "to": name(after), "cards": count}
            for (before, after), count in sorted(found.moved.items())
        ],
        "differing": found.differing,
        "differences": [f"member {one.member_id}: {one.what}" for one in found.differences],
        "stored": settle,
    }


def _show_recalculation(result: dict[str, Any]) -> None:
    terminal.fields({name: result[name] for name in ("as_of", "cards", "changes", "differing")})
    for difference in result["differences"]:
        out.print(difference)
    terminal.table(result["moved"], "No card moves.")
    if not result["stored"]:
        out.print("Nothing was changed.")


@tier.command("flows")
def flows(
    group: Annotated[str, typer.Option(help="The group's name.")],
    begin: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="UTC; absent: now.")] = None,
    as_json: Json = False,
) -> None:
    """Where a group's points were earned and where they were spent: sums and counts of 10 members and more."""

    async def work() -> dict[str, Any]:
        until = end.replace(tzinfo=UTC) if end else system_clock()
        since = begin.replace(tzinfo=UTC) if begin else until - timedelta(days=_FLOWS_DAYS)
        async with terminal.workshop() as shop, shop.database.reading() as session:
            group_id = await catalogue.group_named(session, group)
            return (await group_flows(session, group_id, since, until)).model_dump(mode="json")

    terminal.run(work, as_json=as_json, show=_show_flows)


def _show_flows(result: dict[str, Any]) -> None:
    rows = [
        {name: "few" if value is None and name in ("points", "members") else value for name, value in row.items()}
        for row in result["flows"]
    ]
    terminal.table(rows, "Nothing was spent.")
    terminal.table(
        [{"brands": " + ".join(row["brands"]), "members": row["members"] or "few"} for row in result["shared"]], ""
    )
