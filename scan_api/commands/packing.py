"""Packing by file, and what was packed where."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.ids import derived_id
from scan_api.commands import terminal
from scan_api.commands.terminal import ArgumentInvalid, Json, out
from scan_api.provenance import line, line_file, packed
from scan_api.provenance.documents import is_moment
from scan_api.provenance.packed import Packed

packing = typer.Typer(help="What is packed in which container.", no_args_is_help=True)

CALLER_ID = derived_id("command", "packing")
"""Who captured the events of a file: this server's own terminal."""
CONTENTS_LISTED = 1_000

Slug = Annotated[str, typer.Option("--brand", help="Whose events these are.")]
Thing = Annotated[str, typer.Argument(help="A code text, EPC URN or Digital Link.")]
AtOption = Annotated[str | None, typer.Option("--at", help="Such as 2026-05-01T08:00:00Z. Default: now.")]


@packing.command("load")
def load(
    file: Annotated[
        Path, typer.Argument(help="A CSV file with the columns parent, child, action, at.", dir_okay=False)
    ],
    slug: Slug,
    at: AtOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at everything and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring in which thing went into which container, as aggregation events of the brand.

    Stopped at any moment, the same command goes on: with the same times, what is there already changes nothing.
    """

    async def work() -> dict[str, Any]:
        now = system_clock()
        default_at = _moment(at) or now
        done = {"rows": 0, "accepted": 0, "duplicates": 0, "dry_run": dry_run}
        async with terminal.workshop() as shop:
            async with shop.database.reading() as session:
                brand_id = (await brand_named(session, slug)).brand_id or 0
            with terminal.progress("packing", "rows", line_file.count_rows(file), as_json=as_json) as tell:
                for batch in line_file.batches(file, default_at):
                    async with shop.database.writing() as session:
                        told = await line.record(session, brand_id, CALLER_ID, batch.scans, now)
                        if dry_run:
                            await session.rollback()
                    done["rows"] += batch.rows
                    done["accepted"] += told.accepted
                    done["duplicates"] += told.duplicates
                    tell(batch.rows)
        return done

    terminal.run(work, as_json=as_json, show=_show_load)


@packing.command("contents")
def contents(
    thing: Thing,
    slug: Slug,
    at: AtOption = None,
    limit: Annotated[int, typer.Option(min=1, max=packed.CONTENTS_SHOWN_MAX)] = CONTENTS_LISTED,
    as_json: Json = False,
) -> None:
    """What was in a container on all levels, at any moment."""

    async def work() -> list[dict[str, Any]]:
        moment, name = _moment(at) or system_clock(), line.name(thing, "the thing")
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand_id = (await brand_named(session, slug)).brand_id or 0
            found = await packed.contents_of(session, brand_id, name, moment, limit)
        if found.is_cut:
            terminal.err.print(f"There was more: these are the first {limit:,}.")
        return [_about(one) for one in found.things]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "It held nothing."))


@packing.command("containers")
def containers(thing: Thing, slug: Slug, at: AtOption = None, as_json: Json = False) -> None:
    """In what a thing was at any moment, from the innermost container outwards."""

    async def work() -> list[dict[str, Any]]:
        moment, name = _moment(at) or system_clock(), line.name(thing, "the thing")
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand_id = (await brand_named(session, slug)).brand_id or 0
            return [_about(one) for one in await packed.containers_of(session, brand_id, name, moment)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "It was in nothing."))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    if not is_moment(text):
        raise ArgumentInvalid("--at is a moment with its zone, such as 2026-05-01T08:00:00Z")
    return datetime.fromisoformat(text)


def _about(one: Packed) -> dict[str, Any]:
    return {"level": one.level, "thing": one.child, "parent": one.parent, "since": iso(one.since)}


def _show_load(done: dict[str, Any]) -> None:
    verb = "would be" if done["dry_run"] else "are"
    out.print(f"{done['rows']:,} rows: {done['accepted']:,} events {verb} new, {done['duplicates']:,} were there.")
