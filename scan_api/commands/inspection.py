"""Verify after print: scans of printed sheets against their order."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from codes import inspection, orders
from codes.catalogue import gtin14
from codes.inspection import Expectation, Finding, Inspected, pictures
from codes.inspection.grades import MODULE_MM_MIN
from codes.inspection.scans import Page, count_pages, pages
from codes.ranges import IndexRange, ItemState, merged, parse_ranges, standing
from kit.files import PRIVATE_MODE, replacing
from offline_sdk.code_text import Profile
from offline_sdk.verifier import Action, Policy, Verifier
from scan_api.commands import terminal
from scan_api.commands.orders import Gtin, Number, face_named
from scan_api.commands.terminal import Json, Workshop, out

_NEXT = {
    Finding.DOUBLED: "Destroy one of each pair: two items must never carry one code.",
    Finding.FOREIGN: "Take them out: their codes are genuine, and belong elsewhere.",
    Finding.REFUSED: "Keep them and find out where they came from: no shopper may get them.",
    Finding.UNREADABLE: "Look at them: reprint what a phone cannot read either, or scan at a higher resolution.",
}


def inspect(
    scans: Annotated[list[Path], typer.Argument(help="Scanned sheets: PDF, PNG, JPEG or TIFF.")],
    gtin: Gtin,
    number: Number,
    expected: Annotated[
        str | None,
        typer.Option("--range", help="What should be on them: issue indexes, 0-4999,7000, or serials. Default: all."),
    ] = None,
    face: Annotated[
        list[Profile] | None,
        typer.Option(parser=face_named, metavar="outer|inner", help="A face; default: those that are met."),
    ] = None,
    dpi: Annotated[int | None, typer.Option(help="Render PDFs at, or take pictures to have, this resolution.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--pictures", help="Folder for a picture of each page, with what was found boxed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read, judge and grade every code on printed sheets; tell what is missing, doubled, foreign or unreadable."""

    clean = False

    async def work() -> dict[str, Any]:
        nonlocal clean
        async with terminal.workshop() as shop:
            expectation = await _expectation(shop, gtin, number, expected, face)
            verifier = await _verifier(shop)
        total = count_pages(scans)
        with terminal.progress("Inspecting", "pages", total, as_json=as_json) as advance:
            watch = _watch(advance, folder)
            report = inspection.inspect(pages(scans, dpi), expectation, verifier, watch)
        clean = report.is_clean
        return report.as_json()

    terminal.run(work, as_json=as_json, show=_show)
    if not clean:
        raise typer.Exit(1)


async def _expectation(
    shop: Workshop, gtin: str, number: int, expected: str | None, faces: list[Profile] | None
) -> Expectation:
    async with shop.database.reading() as session:
        order = await orders.order_numbered(session, gtin14(gtin), number)
        scheme = await orders.scheme_of_order(session, shop.vault, order)
        stretches = await standing(session, order)
    voided = [IndexRange(one.first, one.last) for one in stretches if one.state is ItemState.VOIDED]
    ranges = [IndexRange(0, order.quantity - 1)] if expected is None else parse_ranges(expected, order, scheme)
    return Expectation(order, scheme, ranges, faces or None, merged(voided))


async def _verifier(shop: Workshop) -> Verifier:
    async with shop.database.reading() as session:
        bundle = await shop.trusted_bundle(session)
    # It comes from the issuer's own database, which knows of no later revocation.
    return Verifier(bundle, Policy(on_expired=Action.ACCEPT, on_clock_suspect=Action.ACCEPT))


def _watch(advance: Callable[[int], None], folder: Path | None) -> inspection.Watch:
    def watch(page: Page, found: Sequence[Inspected]) -> None:
        if folder is not None:
            picture = io.BytesIO()
            pictures.draw(page, found).save(picture, "PNG", compress_level=1)
            # Whoever sees an inner code can claim its reward.
            name = f"{page.name.replace('/', '_')}-{page.number:04d}.png"  # a path where names are alike
            with replacing(folder / name, PRIVATE_MODE) as file:
                file.write(picture.getbuffer())
        advance(1)

    return watch


def _show(report: dict[str, Any]) -> None:
    counts, grades = report["counts"], report["grades"]
    out.print(f"pages: {report['pages']:,}, symbols: {sum(counts.values()):,}")
    rows = [{"what": name, "symbols": f"{count:,}"} for name, count in counts.items()]
    rows += [{"what": f"missing, {one['face']}", "symbols": f"{one['items']:,}"} for one in report["missing"]]
    terminal.table(rows, "")
    for one in report["missing"]:
        if one["ranges"]:
            out.print(f"\nMissing of the {one['face']} face: {_some(one['ranges'])}", soft_wrap=True)
            out.print("Print these again with --range, unless they lie on a sheet that was not scanned.")
    for finding, next_step in _NEXT.items():
        if counts[finding.value]:
            out.print(f"\n{finding.value.capitalize()}, {counts[finding.value]:,}:")
            for one in report[finding.value]:
                out.print(f"  {_line(one)}", soft_wrap=True)
            out.print(next_step)
    _show_grades(grades)
    if report["clean"]:
        out.print("\nNothing is missing, doubled, foreign, refused or unreadable.")


def _show_grades(grades: dict[str, Any]) -> None:
    out.print("\nPrint quality, as far as a scan can tell (no ISO/IEC 15415 verifier's grade):")
    out.print("  " + ", ".join(f"{grade}: {count:,}" for grade, count in grades["counts"].items()))
    for count, told in (
        (
            grades["small_modules"],
            f"have modules below {MODULE_MM_MIN} mm; the smallest is {grades['module_mm_min']} mm",
        ),
        (grades["quiet_zone_broken"], "have print in their quiet zone of 4 modules"),
        (grades["hard_to_read"], "were read only after the picture was cleaned: phones may fail"),
    ):
        if count:
            out.print(f"  {count:,} {told}")
    for one in grades["worst"]:
        out.print(f"  {one['grade']}, contrast {one['contrast']:.0%}: {_line(one)}", soft_wrap=True)


def _line(one: dict[str, Any]) -> str:
    words = [_at(one), one.get("gtin"), one.get("serial"), one.get("face"), one.get("reason")]
    first = f"first at {_at(one['first'])}" if "first" in one else None
    return ", ".join(word for word in (*words, first) if word)


def _at(place: dict[str, Any]) -> str:
    where = f"{place['x_mm']} mm, {place['y_mm']} mm" if "x_mm" in place else f"{place['x_px']} px, {place['y_px']} px"
    return f"{place['scan']} page {place['page']} ({where})"


def _some(ranges: list[str]) -> str:
    more = ", …" if len(ranges) == inspection.LISTED_MAX else ""
    return ", ".join(ranges) + more
