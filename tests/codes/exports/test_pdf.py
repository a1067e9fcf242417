"""PDF sheets: rasterised and read back by programs that are not ours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from codes import qr
from codes.exports import pdf
from codes.exports.csv import CsvExport
from codes.exports.pdf import DPI, PdfSheetExport
from offline_sdk import Profile
from tests.codes.conftest import NOW, Chunks, MakeOrder, decoded

BOTH = (Profile.OUTER, Profile.INNER)
PER_PAGE = 99
"""Labels of a version 7 symbol on an A4 page."""
SMALL_PAGE_MM = (70, 82)
PER_SMALL_PAGE = 4


def pages(path: Path) -> Iterator[Image.Image]:
    """Each page as a printer of 300 dpi sees it."""
    document = pypdfium2.PdfDocument(path)
    try:
        for page in document:
            yield page.render(scale=DPI / 72, grayscale=True).to_pil()
            page.close()
    finally:
        document.close()


def labels(page: Image.Image) -> Iterator[Image.Image]:
    """The sheet as the guillotine cuts it: rows from the top, each from the left, empty ones too."""

    def px(millimetres: float) -> int:
        return round(millimetres * DPI / 25.4)

    side = (45 + 2 * qr.QUIET_ZONE_MODULES) * pdf.MODULE_PX
    right, bottom = page.width - px(pdf.MARGIN_MM), page.height - px(pdf.MARGIN_MM)
    first_left, first_top = px(pdf.MARGIN_MM), px(pdf.MARGIN_MM + pdf.HEADER_MM)
    for top in range(first_top, bottom - side, side + px(pdf.CAPTION_MM + pdf.GUTTER_MM)):
        for left in range(first_left, right - side, side + px(pdf.GUTTER_MM)):
            yield page.crop((left, top, left + side, top + side))


def texts(path: Path) -> list[list[str]]:
    """What each label of each page holds. A decoder that is shown a whole page overlooks some of its symbols."""
    return [[symbol.text for label in labels(page) for symbol in decoded(label)] for page in pages(path)]


def export(chunks: Chunks, order: object, folder: Path) -> list[Path]:
    with PdfSheetExport(order, folder) as writing:  # type: ignore[arg-type]
        for chunk in chunks(order):  # type: ignore[arg-type]
            writing.add(chunk)
    return writing.paths


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "PAGE_MM", SMALL_PAGE_MM)


def test_every_symbol_of_a_sheet_is_read_back_in_the_order_of_the_csv(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks
) -> None:
    order = make_order(PER_PAGE + 1, BOTH)
    with PdfSheetExport(order, tmp_path) as sheet, CsvExport(order, tmp_path) as table:
        for chunk in chunks(order):
            sheet.add(chunk)
            table.add(chunk)
    (path,) = sheet.paths
    by_page = texts(path)
    # A full page, one label on the next, and the inner codes begin a page of their own.
    assert [len(page) for page in by_page] == [PER_PAGE, 1, PER_PAGE, 1]
    listed = [[line.split(",")[1] for line in csv.read_text().splitlines()[1:]] for csv in table.paths]
    assert [by_page[0] + by_page[1], by_page[2] + by_page[3]] == listed


def test_a_page_is_a4_and_a_module_a_third_of_a_millimetre(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks
) -> None:
    (path,) = export(chunks, make_order(1), tmp_path)
    document = pypdfium2.PdfDocument(path)
    width, height = document.get_page_size(0)
    document.close()
    assert (width / 72 * 25.4, height / 72 * 25.4) == pytest.approx((210, 297), abs=0.1)
    (page,) = pages(path)
    assert page.size == pytest.approx((2480, 3508), abs=1)
    (symbol,) = decoded(page)
    side = symbol.position.top_right.x - symbol.position.top_left.x
    assert side == pytest.approx(45 * pdf.MODULE_PX, abs=2)


@pytest.mark.parametrize(
    ("quantity", "labels"),
    [
        (PER_SMALL_PAGE - 1, [3]),
        (PER_SMALL_PAGE, [4]),
        (PER_SMALL_PAGE + 1, [4, 1]),
        (2 * PER_SMALL_PAGE, [4, 4]),
        (2 * PER_SMALL_PAGE + 1, [4, 4, 1]),
    ],
)
@pytest.mark.usefixtures("small_pages")
def test_a_page_breaks_exactly_when_it_is_full(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, quantity: int, labels: list[int]
) -> None:
    (path,) = export(chunks, make_order(quantity), tmp_path)
    assert [len(page) for page in texts(path)] == labels


@pytest.mark.usefixtures("small_pages")
def test_pages_do_not_care_how_the_pipeline_cuts(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = make_order(10, BOTH)
    (whole,) = export(chunks, order, tmp_path / "whole")
    monkeypatch.setattr("codes.pipeline.CHUNK_ITEMS", 3)
    (cut,) = export(chunks, order, tmp_path / "cut")
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("page_count", "files"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (5, [2, 2, 1])],
)
def test_a_long_sheet_goes_on_in_further_files(
    tmp_path: Path,
    make_order: MakeOrder,
    chunks: Chunks,
    monkeypatch: pytest.MonkeyPatch,
    page_count: int,
    files: list[int],
) -> None:
    monkeypatch.setattr(pdf, "PAGES_PER_FILE_MAX", 2)
    order = make_order(page_count * PER_SMALL_PAGE)
    paths = export(chunks, order, tmp_path)
    assert [path.name for path in paths] == ["sheet.pdf", "sheet-2.pdf", "sheet-3.pdf"][: len(files)]
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)
    by_file = [texts(path) for path in paths]
    assert [len(of_file) for of_file in by_file] == files
    (chunk,) = chunks(order)
    assert [text for of_file in by_file for page in of_file for text in page] == chunk.texts


@pytest.mark.usefixtures("small_pages")
def test_the_same_order_gives_the_same_bytes(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    order = make_order(9, BOTH)
    first, second = (export(chunks, order, tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.usefixtures("small_pages")
def test_the_moment_in_the_file_is_the_orders(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    (path,) = export(chunks, make_order(1), tmp_path)
    document = pypdfium2.PdfDocument(path)
    about = document.get_metadata_dict()
    document.close()
    assert about["CreationDate"] == f"D:{NOW:%Y%m%d%H%M%S}Z"
    assert about["Title"] == "GTIN 06901234567892 order 00001"


@pytest.mark.usefixtures("small_pages")
def test_a_failure_midway_leaves_no_file(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "PAGES_PER_FILE_MAX", 1)
    with pytest.raises(RuntimeError), PdfSheetExport(make_order(9, BOTH), tmp_path) as writing:
        fail_after_one(writing, chunks, make_order)
    assert os.listdir(tmp_path) == []


def fail_after_one(writing: PdfSheetExport, chunks: Chunks, make_order: MakeOrder) -> None:
    for chunk in chunks(make_order(9, BOTH)):
        writing.add(chunk)
        raise RuntimeError


@pytest.mark.usefixtures("small_pages")
def test_a_failure_on_the_last_page_leaves_no_file(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    writing = PdfSheetExport(make_order(5), tmp_path).__enter__()
    for chunk in chunks(make_order(5)):
        writing.add(chunk)
    assert os.listdir(tmp_path) == ["sheet.pdf.part"]
    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        writing.__exit__(None, None, None)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("small_pages")
def test_captions_and_cut_marks_leave_the_quiet_zone_alone(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks
) -> None:
    (path,) = export(chunks, make_order(PER_SMALL_PAGE), tmp_path)
    (page,) = pages(path)
    symbols = decoded(page)
    assert len(symbols) == PER_SMALL_PAGE
    side = 45 * pdf.MODULE_PX
    quiet = qr.QUIET_ZONE_MODULES * pdf.MODULE_PX
    blur = 2  # pixels, of the rasteriser and of the decoder's corners
    for symbol in symbols:
        left, top = symbol.position.top_left.x, symbol.position.top_left.y
        around = page.crop(
            (left - quiet + blur, top - quiet + blur, left + side + quiet - blur, top + side + quiet - blur)
        )
        inside = (quiet - 2 * blur, quiet - 2 * blur, side + quiet, side + quiet)
        around.paste(255, inside)
        assert around.getextrema() == (255, 255)
