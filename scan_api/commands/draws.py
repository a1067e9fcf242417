"""Draws: published with a commitment, played, closed, revealed; and verified by anybody, from a file alone."""

import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from codes.catalogue import brand_named
from kit.clock import iso, system_clock
from kit.db import Session
from kit.files import replacing
from kit.ids import new_id
from loyalty.draws import catalogue, fair, item_record, notice, plays, record
from loyalty.draws.catalogue import Draw
from loyalty.draws.fair import DrawInvalid
from loyalty.draws.item_record import CheckedItems, ItemPrizeCount
from loyalty.draws.record import Checked
from loyalty.draws.terms import from_plan
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, Workshop, out

draw = typer.Typer(help="Draws that anybody can recompute.", no_args_is_help=True)

PLAN_BYTES_MAX = 1 << 20

DrawId = Annotated[uuid.UUID, typer.Argument(help="The draw's id; `fanxing draw list` shows it.")]


@draw.command("create")
def create(
    plan: Annotated[Path, typer.Argument(help="A JSON file: form, title, opens_at, closes_at, prizes, …")],
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show quantities and odds, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Publish a draw: commit to its terms and seed, and set its prizes aside. Nothing can be changed afterwards."""

    async def work() -> dict[str, Any]:
        now, document = system_clock(), _plan(plan)
        async with terminal.workshop() as shop:
            if dry_run:
                terms = from_plan(document, new_id(), bytes(fair.SEED_BYTES))
                catalogue.check(terms, now)
                return {"dry_run": True, "odds": notice.odds(terms)}
            async with shop.database.writing() as session:
                brand = await brand_named(session, slug)
                assert brand.brand_id is not None
                made = await catalogue.publish(
                    session,
                    shop.vault,
                    brand_id=brand.brand_id,
                    group_id=brand.group_id,
                    make_terms=lambda draw_id, seed_hash: from_plan(document, draw_id, seed_hash),
                    now=now,
                )
            return {**_about(made), "odds": notice.odds(catalogue.terms_of(made))}

    terminal.run(work, as_json=as_json, show=_show_made)


def _plan(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes()[: PLAN_BYTES_MAX + 1])
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise DrawInvalid(f"{path.name} is not a JSON object", hint="docs/loyalty/draws.md shows one.")
    return document


@draw.command("list")
def list_draws(
    slug: Annotated[str, typer.Option("--brand", help="The brand's short name.")], as_json: Json = False
) -> None:
    """A brand's draws, latest first."""

    async def work() -> list[dict[str, Any]]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            brand = await brand_named(session, slug)
            assert brand.brand_id is not None
            return [_about(found) for found in await catalogue.of_brand(session, brand.brand_id)]

    terminal.run(work, as_json=as_json, show=lambda rows: terminal.table(rows, "No draw yet."))


@draw.command("open")
def open_draw(draw_id: DrawId, as_json: Json = False) -> None:
    """Let members play, from the time that the terms name. Publish the commitment first, where it stays."""
    _step(lambda _shop, session: catalogue.open_plays(session, draw_id, system_clock()), as_json=as_json)


@draw.command("close")
def close(
    draw_id: DrawId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: a closed draw never opens again.")] = False,
    as_json: Json = False,
) -> None:
    """End the plays for good, publish where each chain ended, take unwon prizes back. Without --yes, only look."""
    _step(
        lambda _shop, session: (
            catalogue.close(session, draw_id, system_clock()) if yes else catalogue.get(session, draw_id)
        ),
        as_json=as_json,
    )


@draw.command("reveal")
def reveal(
    draw_id: DrawId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: the seed is public from then on.")] = False,
    as_json: Json = False,
) -> None:
    """Publish the seed of a closed draw, and with it the record. Without --yes, only look."""
    _step(
        lambda shop, session: (
            catalogue.reveal(session, shop.vault, draw_id, system_clock()) if yes else catalogue.get(session, draw_id)
        ),
        as_json=as_json,
    )


def _step(take: Callable[[Workshop, Session], Awaitable[Draw]], *, as_json: bool) -> None:
    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            return _about(await take(shop, session))

    terminal.run(work, as_json=as_json, show=terminal.fields)


@draw.command("record")
def export(
    draw_id: DrawId,
    output: Annotated[Path, typer.Option(help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write the record of a revealed draw to a file, as GET /v1/draws/{id}/record gives it."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.reading() as session:
            found = await catalogue.get(session, draw_id)
            closing, _seed = plays.require_revealed(found)
            count = sum(end["plays"] for end in closing["stripes"])
            with replacing(output) as file, terminal.progress("Writing", "plays", count, as_json=as_json) as advance:
                async for line in plays.record_of(session, found):
                    file.write(line)
                    advance(1)
        return {"draw_id": str(draw_id), "plays": count, "file": str(output)}

    terminal.run(work, as_json=as_json, show=terminal.fields)


@draw.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(metavar="RECORD", help="The record of the draw.")],
    commitment: Annotated[str, typer.Option(help="The commitment as it was published before the draw, in hex.")] = "",
    closing: Annotated[str, typer.Option(help="The closing digest as it was published at the end, in hex.")] = "",
    receipt: Annotated[
        list[Path] | None, typer.Option(help="A file of receipts that players kept, one a line.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute a draw from its record alone: commitment, outcomes, links, totals. Names the first fault, exits with 1.

    Needs no database, no key and no network. Without --commitment and --closing it shows that the record agrees with
    itself; with them, that it is the one that was promised. Also takes the record of a campaign that draws for items
    (`fanxing campaign record`): it has no closing, and a receipt is an item's GS1 text, 01…21….
    """

    async def work() -> dict[str, Any]:
        kept = [line.strip() for file in receipt or [] for line in file.read_bytes().splitlines() if line.strip()]
        promised = _digest(commitment, "--commitment")
        with _lines(path, as_json=as_json) as (reading, advance):
            first = next(reading, b"")
            lines = chain([first], reading)
            if item_record.FORMAT.encode() in first:
                if closing:
                    raise typer.BadParameter("a draw for items has no closing", param_hint="--closing")
                tickets = [line.decode("ascii", "replace") for line in kept]
                items = item_record.check(lines, commitment=promised, tickets=tickets, advance=advance)
                return _verified_items(items, bool(commitment), len(kept))
            ended = _digest(closing, "--closing")
            checked = record.check(lines, commitment=promised, closing=ended, receipts=kept, advance=advance)
        return _verified(checked, bool(commitment), bool(closing), len(kept))

    terminal.run(work, as_json=as_json, show=_show_verified)


@contextmanager
def _lines(path: Path, *, as_json: bool) -> Iterator[tuple[Iterator[bytes], Callable[[int], None]]]:
    with path.open("rb") as file:
        total = sum(1 for _ in _bounded(file)) - 1
        file.seek(0)
        with terminal.progress("Verifying", "plays", max(total, 0), as_json=as_json) as advance:
            yield _bounded(file), advance


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    # One byte more than any line has, so that a file without line feeds is not read as a whole.
    while line := file.readline(record.LINE_BYTES_MAX + 1):
        yield line


def _digest(text: str, option: str) -> bytes | None:
    try:
        return bytes.fromhex(text) if text else None
    except ValueError:
        raise typer.BadParameter("a digest is 64 hex digits", param_hint=option) from None


def _verified(checked: Checked, committed: bool, closed: bool, receipts: int) -> dict[str, Any]:
    terms = checked.terms
    return {
        "draw_id": str(terms.draw_id),
        "form": terms.form.value,
        "commitment": checked.commitment.hex(),
        "commitment_is_the_published_one": committed or None,
        "closing_digest": checked.closing_digest.hex(),
        "closing_is_the_published_one": closed or None,
        "plays": checked.plays,
        "receipts_found": receipts,
        "prizes": [
            {
                "name": count.name_en,
                "name_zh": count.name_zh,
                "published": count.published,
                "given": count.given,
                "left": count.left,
            }
            for count in checked.prizes
        ],
        "totals_match": checked.totals_match,
        "notes": list(checked.notes),
    }


def _verified_items(checked: CheckedItems, committed: bool, receipts: int) -> dict[str, Any]:
    return {
        "draw_id": str(checked.draw_id),
        "form": item_record.FORM,
        "commitment": checked.commitment.hex(),
        "commitment_is_the_published_one": committed or None,
        "plays": checked.claims,
        "receipts_found": receipts,
        "prizes": [{"name": f"{count.amount} {count.kind}", **_counted(count)} for count in checked.prizes],
        "totals_match": True,
        "notes": ["Whether a claim was left out, only those can tell who claimed: give their items with --receipt."],
    }


def _counted(count: ItemPrizeCount) -> dict[str, Any]:
    left = count.published - count.given if count.published is not None else None
    return {"published": count.published, "drawn": count.drawn, "given": count.given, "left": left}


def _show_verified(result: dict[str, Any]) -> None:
    out.print(f"Every outcome of draw {result['draw_id']} follows from its commitment: {result['plays']} plays.")
    terminal.table(
        [{name: count[name] for name in ("name", "published", "given", "left")} for count in result["prizes"]], ""
    )
    out.print("The totals match the published quantities.")
    for said, option, digest in (
        ("commitment", "--commitment", "commitment"),
        ("closing", "--closing", "closing_digest"),
    ):
        if digest not in result:
            continue
        if result[f"{said}_is_the_published_one"]:
            out.print(f"The {said} is the one given.")
        else:
            out.print(f"Compare the {said} yourself, or give it with {option}.")
        out.print(f"{digest.replace('_', ' ')}: {result[digest]}", soft_wrap=True)
    for note in result["notes"]:
        out.print(note)


def _about(made: Draw) -> dict[str, Any]:
    terms, closing = catalogue.terms_of(made), catalogue.closing_of(made)
    return {
        "draw_id": str(made.draw_id),
        "title": terms.title.en,
        "form": terms.form.value,
        "state": made.state,
        "opens_at": iso(made.opens_at),
        "closes_at": iso(made.closes_at),
        "commitment": made.commitment.hex(),
        "closing_digest": record.closing_digest(closing).hex() if closing else None,
        "seed": made.seed.hex() if made.seed else None,
    }


def _show_made(result: dict[str, Any]) -> None:
    terminal.table(
        [
            {
                "prize": entry["name"]["en"],
                "quantity": entry["quantity"] if entry["quantity"] is not None else "unlimited",
                "odds": f"{entry['odds']['of']} in {entry['odds']['in']}",
                "percent": entry["percent"],
            }
            for entry in result["odds"]
        ],
        "",
    )
    if result.get("dry_run"):
        out.print("Nothing was changed.")
        return
    terminal.fields({name: value for name, value in result.items() if name != "odds"})
    out.print("Publish the commitment where it cannot be taken back, then `fanxing draw open`.")
