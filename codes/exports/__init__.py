"""Exports: the forms in which an order's codes leave for a printer. docs/exports.md describes each to the byte.

An export is pure: from a chunk it makes the bytes that are appended to a file, and tells the file's name. The same
chunk gives the same bytes anywhere and at any time, so whoever writes may be stopped at any point and go on later.
"""

# ruff: noqa: PLC0415 - each kind imports what it alone needs: a worker that writes CSV starts at once and stays small

from collections.abc import Collection
from enum import StrEnum
from typing import Protocol

from codes.exports.layout import Layout
from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, Section


class ExportKind(StrEnum):
    CSV = "csv"
    CSV_ZST = "csv.zst"
    NDJSON = "ndjson"
    NDJSON_ZST = "ndjson.zst"
    PARQUET = "parquet"
    PDF = "pdf"
    SVG = "svg"
    PNG = "png"
    ZPL = "zpl"


class Export(Protocol):
    """One kind of export of one order."""

    def path(self, section: Section) -> str:
        """The file, relative to the export's folder, that the section's bytes are appended to.

        Sections that share a file follow each other in it in the order of their numbers.
        """
        ...

    def render(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk; those of a file's first section begin with whatever the file begins with."""
        ...

    def bytes_max(self, items: int) -> int:
        """Most bytes that so many items of one face may need on the disk, in sections of `section_items`."""
        ...


def open_export(kind: ExportKind, recipe: Recipe, layout: Layout) -> Export:
    """The export of that kind. Raises LayoutInvalid when the layout cannot be printed in it."""
    match kind:
        case ExportKind.CSV | ExportKind.CSV_ZST:
            from codes.exports.csv import CsvExport

            export: Export = CsvExport(recipe)
        case ExportKind.NDJSON | ExportKind.NDJSON_ZST:
            from codes.exports.ndjson import NdjsonExport

            export = NdjsonExport(recipe)
        case ExportKind.PARQUET:
            from codes.exports.parquet import ParquetExport

            export = ParquetExport(recipe)
        case ExportKind.PDF:
            from codes.exports.pdf import PdfExport

            export = PdfExport(recipe, layout)
        case ExportKind.SVG:
            from codes.exports.svg import SvgExport

            export = SvgExport(recipe, layout)
        case ExportKind.PNG:
            from codes.exports.png import PngExport

            export = PngExport(recipe, layout)
        case ExportKind.ZPL:
            from codes.exports.zpl import ZplExport

            export = ZplExport(recipe, layout)
    if kind in (ExportKind.CSV_ZST, ExportKind.NDJSON_ZST):
        from codes.exports.zstd import ZstdExport

        export = ZstdExport(export)
    return export


def section_items(kinds: Collection[ExportKind], recipe: Recipe, layout: Layout) -> int:
    """Items a section: CHUNK_ITEMS, rounded down to whole pages where pages are printed.

    Raises LayoutInvalid as `open_export` does.
    """
    if ExportKind.PDF not in kinds:
        return CHUNK_ITEMS
    from codes.qr import measure

    labels = layout.sheet(measure(recipe.base_url, layout.level, layout.printed_module_mm).modules).labels
    return CHUNK_ITEMS - CHUNK_ITEMS % labels
