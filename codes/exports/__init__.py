"""Exports: the forms in which an order's codes leave for a printer, each written in constant memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from codes.exports.csv import CsvExport
from codes.exports.pdf import PdfSheetExport
from codes.exports.png import PngExport
from codes.orders import CodeOrder
from codes.pipeline import Chunk


class ExportKind(StrEnum):
    CSV = "csv"
    PNG = "png"
    PDF = "pdf"


class Export(AbstractContextManager["Export"], Protocol):
    """One export being written. Its files appear under their names when it is left without an error."""

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk, in the order in which the pipeline makes them."""
        ...

    @property
    def paths(self) -> list[Path]:
        """What was written so far: files, or a folder of them."""
        ...


_EXPORTS: dict[ExportKind, Callable[[CodeOrder, Path], Export]] = {
    ExportKind.CSV: CsvExport,
    ExportKind.PNG: PngExport,
    ExportKind.PDF: PdfSheetExport,
}


def open_export(kind: ExportKind, order: CodeOrder, folder: Path) -> Export:
    """An export of that kind into a folder, which is made when missing."""
    return _EXPORTS[kind](order, folder)
