"""A brand's offline CRM: bringing its customers in."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import system_clock
from kit.files import replacing
from loyalty import crm_file, crm_import
from loyalty.crm_import import Outcome
from loyalty.crm_records import Mode, Order
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

crm = typer.Typer(help="The brand's offline CRM.", no_args_is_help=True)

TIER_DAYS_DEFAULT, TIER_DAYS_MAX = 365, 3650
REPORT_SUFFIX = ".rejected.csv"


@crm.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file, see docs/loyalty/crm-import.md.", dir_okay=False)],
    slug: Annotated[str, typer.Option("--brand", help="The brand whose CRM this is.")],
    mode: Annotated[
        Mode, typer.Option(help="open: balances come once. raise: what a later file says more comes, too.")
    ] = Mode.OPEN,
    tier_days: Annotated[
        int, typer.Option(min=1, max=TIER_DAYS_MAX, help="How long a tier from the file holds at least.")
    ] = TIER_DAYS_DEFAULT,
    report: Annotated[
        Path | None, typer.Option(help="Where to list bad rows; default: beside the file, .rejected.csv.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the customers of an offline CRM in: a known number binds at once, another waits for its owner.

    Stopped at any moment, the same command goes on where it was. The same file again changes nothing.
    """

    async def work() -> dict[str, Any]:
        found = crm_file.look_through(file)
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                brand = await brand_named(session, slug)
            assert brand.brand_id is not None
            until = _until(system_clock(), tier_days)
            order = Order(found, brand.group_id, brand.brand_id, mode, until)
            listed = report or file.with_name(file.name + REPORT_SUFFIX)
            with (
                terminal.progress("import", "rows", max(found.lines - 1, 1), as_json=as_json) as tell,
                replacing(listed) as bad_rows,
            ):
                outcome = await crm_import.run(
                    shop.database, shop.vault, order, bad_rows, system_clock, tell, rehearse=dry_run
                )
            return _told(outcome, listed, dry_run=dry_run)

    terminal.run(work, as_json=as_json, show=_show)


def _until(now: datetime, days: int) -> datetime:
    return now + timedelta(days=days)


def _told(outcome: Outcome, listed: Path, *, dry_run: bool) -> dict[str, Any]:
    counts = outcome.counts
    return {
        "import_id": str(outcome.import_id),
        "dry_run": dry_run,
        "rows": counts.rows,
        "resumed_rows": outcome.resumed_rows,
        "already_imported": outcome.was_finished,
        "new_members": counts.new_members,
        "known_members": counts.known_members,
        "changed": counts.changed,
        "held_back": counts.held_back,
        "points": counts.points,
        "experience": counts.experience,
        "duplicates": counts.duplicates,
        "bad_rows": counts.bad,
        "bad_rows_by_reason": dict(outcome.reasons),
        "ignored_columns": list(outcome.ignored_columns),
        "report": str(listed),
    }


def _show(result: dict[str, Any]) -> None:
    if result["already_imported"]:
        out.print("This file was imported before; nothing was changed.")
    elif result["dry_run"]:
        out.print("Nothing was changed. The import would come to this:")
    reasons = result["bad_rows_by_reason"]
    hidden = ("dry_run", "already_imported", "bad_rows_by_reason")
    shown = {name: value for name, value in result.items() if name not in hidden}
    terminal.fields({**shown, "reasons": [f"{reason} {count}" for reason, count in sorted(reasons.items())]})
