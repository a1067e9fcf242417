"""Programs by which members earn without scanning: check-ins, tasks, referrals, red packets, birthdays."""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from loyalty import programs
from loyalty.birthdays import BirthdayRules
from loyalty.check_ins import CheckInRules
from loyalty.programs import NewProgram, Program, ProgramInvalid, ProgramKind, ProgramStatus, Rules
from loyalty.red_packets import PacketRules
from loyalty.referrals import ReferralRules
from loyalty.tasks import TaskRules
from scan_api import earning as sweeping
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

earning = typer.Typer(help="What members earn by, beside scans.", no_args_is_help=True)

Moment = Annotated[datetime, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")]
ProgramId = Annotated[uuid.UUID, typer.Argument(help="The program's id; `fanxing earning list` shows it.")]

READERS: Mapping[ProgramKind, Callable[[Mapping[str, Any]], Rules]] = {
    ProgramKind.CHECK_IN: CheckInRules.read,
    ProgramKind.TASK: TaskRules.read,
    ProgramKind.REFERRAL: ReferralRules.read,
    ProgramKind.PACKET: PacketRules.read,
    ProgramKind.BIRTHDAY: BirthdayRules.read,
}


@earning.command("create")
def create(
    slug: Annotated[str, typer.Option("--brand", help="The brand that gives; its short name.")],
    kind: Annotated[ProgramKind, typer.Option(help="What it is given for.")],
    title_zh: Annotated[str, typer.Option(help="Title in Chinese.")],
    title_en: Annotated[str, typer.Option(help="Title in English.")],
    rules: Annotated[str, typer.Option(help='The rules as JSON, {"points": 5, …}; docs/loyalty/earning.md has each.')],
    starts: Moment,
    ends: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC; without it, never.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Grants in all (points, for a check-in).")] = None,
    cards_only: Annotated[bool, typer.Option("--cards-only", help="Only for who holds the brand's card.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a program, and set its budget aside if it has one."""

    async def work() -> dict[str, Any]:
        now = system_clock()
        async with terminal.workshop() as shop:
            opened = shop.database.reading if dry_run else shop.database.writing
            async with opened() as session:
                brand = await brand_named(session, slug)
                assert brand.brand_id is not None
                new = NewProgram(
                    brand_id=brand.brand_id,
                    group_id=brand.group_id,
                    title_zh=title_zh,
                    title_en=title_en,
                    rules=_rules(kind, rules),
                    starts_at=starts.replace(tzinfo=UTC),
                    ends_at=ends.replace(tzinfo=UTC) if ends else None,
                    cards_only=cards_only,
                    budget=budget,
                )
                if dry_run:
                    programs.check(new, now)
                    costs = {asset: unit * budget for asset, unit in new.rules.costs().items()} if budget else None
                    return {"dry_run": True, "kind": kind.value, "sets_aside": costs}
                return _about(await programs.create(session, new, now))

    terminal.run(work, as_json=as_json, show=_show)


def _rules(kind: ProgramKind, text: str) -> Rules:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProgramInvalid("rules: a JSON object", hint="docs/loyalty/earning.md shows one of each kind.")
    return programs.read_rules(READERS[kind], document)


@earning.command("list")
def list_programs(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")], as_json: Json = False
) -> None:
    """A brand's programs, latest first, with what is left of their budgets."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            assert brand.brand_id is not None
            rows = []
            for made in await programs.of_brand(session, brand.brand_id):
                rules = READERS[ProgramKind(made.kind)](made.rules)
                rows.append({**_about(made), "budget_left": await programs.budget_left(session, made, rules)})
            return rows

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No program yet."))


@earning.command("pause")
def pause(program_id: ProgramId, as_json: Json = False) -> None:
    """Stop giving at once; `fanxing earning resume` goes on."""
    _set(program_id, ProgramStatus.PAUSED, as_json=as_json)


@earning.command("resume")
def resume(program_id: ProgramId, as_json: Json = False) -> None:
    """Give again."""
    _set(program_id, ProgramStatus.ACTIVE, as_json=as_json)


def _set(program_id: uuid.UUID, status: ProgramStatus, *, as_json: bool) -> None:
    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            await programs.set_status(session, program_id, status)
            return {"program_id": str(program_id), "status": status.value}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@earning.command("sweep")
def sweep(as_json: Json = False) -> None:
    """Give today's birthday gifts and take back what nobody opened. The server does it by itself, too."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop:
            return asdict(await sweeping.sweep(shop.database, shop.vault, system_clock()))

    terminal.run(work, as_json=as_json, show=terminal.fields)


def _about(made: Program) -> dict[str, Any]:
    return {
        "program_id": str(made.program_id),
        "kind": made.kind,
        "title_en": made.title_en,
        "rules": made.rules,
        "cards_only": made.cards_only,
        "budget": made.budget,
        "starts_at": iso(made.starts_at),
        "ends_at": iso(made.ends_at) if made.ends_at else None,
        "status": made.status,
    }


def _show(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "dry_run"})
    if result.get("dry_run"):
        out.print("Nothing was changed.")
