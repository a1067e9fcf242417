"""Scans: the pages of PDF files and pictures, as grey arrays, with limits and without surprises."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
from numpy.typing import NDArray
from PIL import Image

from kit.errors import FanxingError, Invalid

DPI_MIN = 150
DPI_DEFAULT = 300
DPI_MAX = 1200
PAGE_PIXELS_MAX = 89_000_000
"""A2 at 450 dpi, A3 at 600: less than Pillow itself takes for a decompression bomb."""
PAGES_MAX = 10_000
_POINTS_PER_INCH = 72
_METADATA_DPI_MIN = 100  # 1, 72 and 96 are what programs write that know nothing of a scanner
_FORMATS = ("PNG", "JPEG", "TIFF")  # a decoder of each other format would be one more for hostile files to aim at
_PDF_MARK = b"%PDF-"
_PDF_MARK_BYTES_MAX = 1024  # readers look for it in the first kilobyte (ISO 32000-1, annex H.3.4.1)

Grey = NDArray[np.uint8]
"""A picture: (rows, columns), 0 is black, 255 is white."""


class ScanUnreadable(Invalid):
    code = "ScanUnreadable"


class ScanTooLarge(Invalid):
    code = "ScanTooLarge"


class DpiOutOfRange(Invalid):
    code = "DpiOutOfRange"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scan.

    `name` is its file's, or the path where several files have that name; `number` counts the pages of its file from 1;
    `dpi` is None where nobody knows it.
    """

    name: str
    number: int
    grey: Grey
    dpi: float | None


def count_pages(scans: Sequence[Path]) -> int:
    """How many pages the scans have, before any is read. Raises ScanUnreadable, and ScanTooLarge above PAGES_MAX."""
    count = 0
    for scan in scans:
        if _is_pdf(scan):
            with _document(scan) as document:
                count += len(document)
        else:
            with _picture(scan) as picture:
                count += _frames(picture)
        if count > PAGES_MAX:
            raise ScanTooLarge(
                f"{scan}: more than {PAGES_MAX:,} pages in all",
                hint="Inspect fewer at a time, and name what is on them with --range.",
            )
    return count


def pages(scans: Sequence[Path], dpi: int | None = None) -> Iterator[Page]:
    """The pages of the scans, one after another, each read when it is asked for.

    `dpi`, 150..1200, is what a PDF is rendered at (default 300) and overrides what a picture says of itself.
    Raises ScanUnreadable, ScanTooLarge and DpiOutOfRange.
    """
    if dpi is not None and not DPI_MIN <= dpi <= DPI_MAX:
        raise DpiOutOfRange(
            f"--dpi is {DPI_MIN} to {DPI_MAX}, not {dpi}", hint="300 suits most labels, 600 small ones."
        )
    names = Counter(scan.name for scan in scans)
    for scan in scans:
        name = scan.name if names[scan.name] == 1 else str(scan)
        yield from _pdf_pages(scan, name, dpi or DPI_DEFAULT) if _is_pdf(scan) else _picture_pages(scan, name, dpi)


def _is_pdf(scan: Path) -> bool:
    try:
        with scan.open("rb") as file:
            return _PDF_MARK in file.read(_PDF_MARK_BYTES_MAX)
    except OSError as error:
        raise ScanUnreadable(f"{scan}: {error.strerror}", hint="Is the path right, and may you read it?") from None


def _document(scan: Path) -> Any:
    try:
        document = pypdfium2.PdfDocument(scan)
    except pypdfium2.PdfiumError as error:
        raise _unreadable(scan, None, error) from None
    if len(document) == 0:
        document.close()
        raise ScanUnreadable(f"{scan}: no pages", hint="Export or scan it again.")
    return document


@contextmanager
def _picture(scan: Path) -> Iterator[Image.Image]:
    """An open picture, whose size was not checked yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(scan, formats=_FORMATS)
        with picture:
            yield picture
    except (FanxingError, GeneratorExit):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(scan, 1) from None
    # What the decoders of a dozen formats raise over damaged files is not written down anywhere.
    except Exception as error:
        raise _unreadable(scan, None, error) from None


def _pdf_pages(scan: Path, name: str, dpi: int) -> Iterator[Page]:
    with _document(scan) as document:
        for index in range(len(document)):
            yield Page(name, index + 1, _rendered(document, index, scan, dpi), dpi)


def _rendered(document: Any, index: int, scan: Path, dpi: int) -> Grey:
    scale = dpi / _POINTS_PER_INCH
    try:
        page = document[index]
    except pypdfium2.PdfiumError as error:
        raise _unreadable(scan, index + 1, error) from None
    try:
        width, height = page.get_size()
        _check_size(scan, index + 1, width * scale, height * scale)
        bitmap = page.render(scale=scale, grayscale=True)
        try:
            return np.array(bitmap.to_numpy(), dtype=np.uint8).reshape(bitmap.height, bitmap.width)
        finally:
            bitmap.close()
    except pypdfium2.PdfiumError as error:
        raise _unreadable(scan, index + 1, error) from None
    finally:
        page.close()


def _picture_pages(scan: Path, name: str, dpi: int | None) -> Iterator[Page]:
    with _picture(scan) as picture:
        for index in range(_frames(picture)):
            yield _frame(picture, index, scan, name, dpi)


def _frames(picture: Image.Image) -> int:
    # What a phone puts behind a photograph (CIPA DC-007) is a smaller copy of it, or how bright it shines: no page.
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def _frame(picture: Image.Image, index: int, scan: Path, name: str, dpi: int | None) -> Page:
    try:
        picture.seek(index)
        _check_size(scan, index + 1, *picture.size)
        return Page(name, index + 1, _grey(picture), dpi or _told_dpi(picture))
    except FanxingError:
        raise
    except Exception as error:  # as for the file
        raise _unreadable(scan, index + 1, error) from None


def _grey(frame: Image.Image) -> Grey:
    if frame.mode.startswith("I;16"):
        return (np.asarray(frame) >> 8).astype(np.uint8)
    if frame.has_transparency_data:
        paper = Image.new("RGBA", frame.size, "white")
        frame = Image.alpha_composite(paper, frame.convert("RGBA"))
    return np.array(frame.convert("L"), dtype=np.uint8)


def _told_dpi(frame: Image.Image) -> float | None:
    try:
        across, down = (float(value) for value in frame.info["dpi"])
    except (KeyError, TypeError, ValueError):
        return None
    return (across + down) / 2 if min(across, down) >= _METADATA_DPI_MIN else None


def _check_size(scan: Path, number: int, width: float, height: float) -> None:
    if width * height > PAGE_PIXELS_MAX:
        raise _too_large(scan, number)


def _too_large(scan: Path, number: int) -> ScanTooLarge:
    return ScanTooLarge(
        f"{scan}, page {number}: more than {PAGE_PIXELS_MAX / 1e6:.0f} million pixels",
        hint="Scan at a lower resolution, give a lower --dpi, or cut the sheet into parts.",
    )


def _unreadable(scan: Path, number: int | None, error: Exception) -> ScanUnreadable:
    where = str(scan) if number is None else f"{scan}, page {number}"
    if "password" in str(error).lower():
        return ScanUnreadable(f"{where}: it asks for a password", hint="Save it without one, and try again.")
    return ScanUnreadable(
        f"{where}: damaged, or neither a PDF nor a picture that can be read",
        hint="Scan or save it again as PDF, PNG, JPEG or TIFF. Nothing was judged.",
    )
