"""PDF sheets: rasterised and read back by programs that are not ours."""

import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from codes import qr
from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout, preset
from codes.pipeline import Chunk, Section
from codes.qr import symbol
from offline_sdk import Profile
from offline_sdk.code_text import encode_texts
from tests.codes.conftest import Chunks, MakeRecipe, decoded
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)
DPI = 300
PER_PAGE = 99
"""Labels of a version 7 symbol on an A4 page."""
SMALL = Layout(paper_width_mm=60, paper_height_mm=72)
PER_SMALL_PAGE = 4
POPPLER = "pdftoppm is missing: apt-get install -y poppler-utils"
ZBAR = "zbarimg is missing: apt-get install -y zbar-tools"


def pages(content: bytes, dpi: int = DPI) -> Iterator[Image.Image]:
    """Each page as a printer of that resolution sees it."""
    document = pypdfium2.PdfDocument(content)
    try:
        for page in document:
            yield page.render(scale=dpi / 72, grayscale=True).to_pil()
            page.close()
    finally:
        document.close()


def labels(page: Image.Image, layout: Layout, modules: int = 45) -> Iterator[Image.Image]:
    """The sheet as the guillotine cuts it, empty labels too."""
    sheet = layout.sheet(modules)
    for place in range(sheet.labels):
        left, top = sheet.corner(place)
        yield page.crop((left, top, left + sheet.label.width, top + sheet.label.height))


def texts(content: bytes, layout: Layout, modules: int = 45) -> list[list[str]]:
    """What each label of each page holds. A decoder that is shown a whole page overlooks some of its symbols."""
    return [
        [found.text for label in labels(page, layout, modules) for found in decoded(label)]
        for page in pages(content, layout.dpi)
    ]


def test_every_symbol_of_a_sheet_is_read_back_in_issue_order(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    recipe = make_recipe(PER_PAGE + 1, BOTH)
    files = write(ExportKind.PDF, recipe)
    assert list(files) == ["sheets/outer-00001.pdf", "sheets/inner-00001.pdf"]
    for chunk, content in zip(chunks(recipe), files.values(), strict=True):
        by_page = texts(content, Layout())
        assert [len(page) for page in by_page] == [PER_PAGE, 1]
        assert by_page[0] + by_page[1] == chunk.texts


@pytest.mark.parametrize("name", ["a4", "letter", "compact", "roll-30"])
@pytest.mark.parametrize("dpi", [203, 300, 600])
def test_every_preset_prints_what_is_read_back(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, name: str, dpi: int
) -> None:
    recipe = make_recipe(3)
    layout = preset(name).with_options(dpi=dpi)
    (chunk,) = chunks(recipe)
    (content,) = write(ExportKind.PDF, recipe, layout).values()
    size = qr.measure(recipe.base_url, layout.level, layout.printed_module_mm).modules
    assert [text for page in texts(content, layout, size) for text in page] == chunk.texts


@pytest.mark.parametrize("name", ["a4", "a3", "letter", "roll-30"])
def test_a_page_has_the_size_of_its_paper(write: Write, make_recipe: MakeRecipe, name: str) -> None:
    layout = preset(name)
    (content,) = write(ExportKind.PDF, make_recipe(1), layout).values()
    document = pypdfium2.PdfDocument(content)
    width, height = document.get_page_size(0)
    document.close()
    wanted = (layout.paper_width_mm, layout.paper_height_mm)
    assert (width / 72 * 25.4, height / 72 * 25.4) == pytest.approx(wanted, abs=25.4 / DPI)


def test_modules_fill_whole_dots_of_black_ink(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(1)
    (chunk,) = chunks(recipe)
    (content,) = write(ExportKind.PDF, recipe).values()
    (page,) = pages(content)
    (label,) = list(labels(page, Layout()))[:1]
    drawn = label.crop((0, 0, label.width, label.width)).point(lambda grey: 255 * (grey > 127), "1")
    assert label.crop((0, 0, label.width, label.width)).getcolors(2) is not None, "edges are blurred"
    assert drawn.tobytes() == qr.image(symbol(chunk.texts[0]), 4).tobytes()
    stream = _streams(content)[-1]
    assert b"0 0 0 1 k" in stream  # black ink alone: four inks on top of each other blur
    assert b"BI/W 45/H 45/IM true" in stream


@pytest.mark.parametrize(
    ("quantity", "by_page"),
    [
        (PER_SMALL_PAGE - 1, [3]),
        (PER_SMALL_PAGE, [4]),
        (PER_SMALL_PAGE + 1, [4, 1]),
        (2 * PER_SMALL_PAGE, [4, 4]),
        (2 * PER_SMALL_PAGE + 1, [4, 4, 1]),
    ],
)
def test_a_page_breaks_exactly_when_it_is_full(
    write: Write, make_recipe: MakeRecipe, quantity: int, by_page: list[int]
) -> None:
    (content,) = write(ExportKind.PDF, make_recipe(quantity), SMALL).values()
    assert [len(page) for page in texts(content, SMALL)] == by_page


def test_a_section_is_a_file(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(10)
    files = write(ExportKind.PDF, recipe, SMALL, items_max=PER_SMALL_PAGE)
    assert list(files) == [f"sheets/outer-0000{number}.pdf" for number in (1, 2, 3)]
    (chunk,) = chunks(recipe)
    assert [text for content in files.values() for page in texts(content, SMALL) for text in page] == chunk.texts


def _streams(content: bytes) -> list[bytes]:
    found = re.finditer(rb"/Length (\d+)>>stream\n", content)
    return [zlib.decompress(content[one.end() : one.end() + int(one[1])]) for one in found]


def test_the_file_tells_its_order_and_no_time(write: Write, make_recipe: MakeRecipe) -> None:
    (content,) = write(ExportKind.PDF, make_recipe(1, order_number=12), SMALL).values()
    document = pypdfium2.PdfDocument(content)
    about = {name: value for name, value in document.get_metadata_dict().items() if value}
    document.close()
    assert about == {"Title": "GTIN 06901234567892 order 00012", "Producer": "Fanxing"}
    assert content.startswith(b"%PDF-1.4\n")
    assert b"Date" not in content


def test_every_object_stands_where_the_table_says(write: Write, make_recipe: MakeRecipe) -> None:
    (content,) = write(ExportKind.PDF, make_recipe(10), SMALL).values()
    start = int(content.rsplit(b"startxref\n", 1)[1].split()[0])
    table = content[start:].split(b"trailer", maxsplit=1)[0].splitlines()
    assert table[:3] == [b"xref", f"0 {len(table) - 2}".encode(), b"0000000000 65535 f "]
    for number, line in enumerate(table[3:], start=1):
        assert content[int(line[:10]) :].startswith(f"{number} 0 obj\n".encode())
    assert all(len(line) == 19 for line in table[2:])  # 20 bytes with the line's end (PDF Reference 1.4, 3.4.3)


def test_the_texts_on_a_page_can_be_read_and_searched(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(PER_PAGE + 1)
    (chunk,) = chunks(recipe)
    (content,) = write(ExportKind.PDF, recipe).values()
    document = pypdfium2.PdfDocument(content)
    first, second = (page.get_textpage().get_text_bounded() for page in document)
    document.close()
    header, *serials = first.splitlines()
    assert header == (
        "GTIN 06901234567892 order 00001 outer codes sheet 1, page 1 of 2 print at 100 %: a module is 0.339 mm"
    )
    assert [serial.replace(" ", "") for line in serials for serial in re.findall(r"\d{5} \d{9}", line)] == (
        chunk.serials[:PER_PAGE]
    )
    assert "page 2 of 2" in second


def test_what_was_not_asked_for_is_not_there(write: Write, make_recipe: MakeRecipe) -> None:
    bare = SMALL.with_options(caption=False, crop_marks=False, header=False)
    (content,) = write(ExportKind.PDF, make_recipe(1), bare).values()
    (page,) = pages(content)
    sheet = bare.sheet(45)
    left, top = sheet.corner(0)
    assert page.crop((left, top, left + sheet.label.width, top + sheet.label.height)).getextrema()[0] < 64
    page.paste(255, (left, top, left + sheet.label.width, top + sheet.label.height))
    assert page.getextrema() == (255, 255)


def test_captions_and_cut_marks_leave_the_quiet_zone_alone(write: Write, make_recipe: MakeRecipe) -> None:
    (content,) = write(ExportKind.PDF, make_recipe(PER_SMALL_PAGE), SMALL).values()
    (page,) = pages(content)
    sheet = SMALL.sheet(45)
    label = sheet.label
    for place in range(sheet.labels):
        left, top = sheet.corner(place)
        around = page.crop((left + 1, top + 1, left + label.width - 1, top + label.width - 1))
        around.paste(255, (label.symbol_left - 1, label.symbol_top - 1, *(2 * [label.symbol_left + label.symbol])))
        assert around.getextrema() == (255, 255)
        assert page.crop((left, top + label.width, left + label.width, top + label.height)).getextrema()[0] < 128


def test_crop_marks_stand_where_labels_are_cut(write: Write, make_recipe: MakeRecipe) -> None:
    (content,) = write(ExportKind.PDF, make_recipe(1), SMALL).values()
    (page,) = pages(content)
    sheet, half_gutter = SMALL.sheet(45), 12
    for row in range(sheet.rows + 1):
        for column in range(sheet.columns + 1):
            x = sheet.left + column * sheet.pitch_across - half_gutter
            y = sheet.top + row * sheet.pitch_down - half_gutter
            assert page.crop((x - 8, y - 2, x - 4, y + 2)).getextrema()[0] < 192
            assert page.crop((x - 2, y - 8, x + 2, y - 4)).getextrema()[0] < 192


def test_poppler_sees_the_same_codes_and_an_embedded_font(
    tmp_path: Path, write: Write, make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    assert shutil.which("pdftoppm"), POPPLER
    recipe = make_recipe(PER_PAGE)
    (chunk,) = chunks(recipe)
    ((name, content),) = write(ExportKind.PDF, recipe).items()
    path = tmp_path / Path(name).name
    path.write_bytes(content)
    done = subprocess.run(
        ["pdftoppm", "-r", str(DPI), "-gray", path, tmp_path / "page"], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    (picture,) = tmp_path.glob("page*.pgm")
    with Image.open(picture) as page:
        for label, text in zip(labels(page, Layout()), chunk.texts, strict=True):
            assert [found.text for found in decoded(label)] == [text]
            drawn = label.crop((0, 0, label.width, label.width)).point(lambda grey: 255 * (grey > 127), "1")
            assert drawn.tobytes() == qr.image(symbol(text), 4).tobytes()
    fonts = subprocess.run(["pdffonts", path], check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(fonts) == 3
    assert re.match(r"Aileron-Regular +TrueType +WinAnsi +yes ", fonts[2])


LABELS, SAMPLE = 100_000, 1_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_of_a_hundred_thousand_labels_two_decoders_read_every_one_of_a_sample(
    tmp_path: Path, make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    assert shutil.which("zbarimg"), ZBAR
    recipe = make_recipe(LABELS)
    export = open_export(ExportKind.PDF, recipe, Layout())
    few = next(chunks(make_recipe(1)))
    wanted: list[str] = []
    cut: list[Path] = []
    section_items = PER_PAGE * (10_000 // PER_PAGE)
    page_every = LABELS // SAMPLE
    for number, start in enumerate(range(0, LABELS, section_items)):
        chunk = _signed_by_nobody(few, number, start, min(section_items, LABELS - start))
        document = pypdfium2.PdfDocument(export.render(chunk))
        for place in range(-start % page_every, chunk.section.count, page_every):
            wanted.append(chunk.texts[place])
            cut.append(tmp_path / f"{start + place:06d}.png")
            _label(document, place).save(cut[-1])
        document.close()
    assert len(wanted) == SAMPLE
    assert [[found.text for found in decoded(Image.open(path))] for path in cut] == [[text] for text in wanted]
    assert _read_by_zbar(cut) == wanted


def _signed_by_nobody(few: Chunk, number: int, start: int, count: int) -> Chunk:
    """A section with signatures that were never made: 100,000 real ones take longer than the sheets."""
    from random import Random

    random = Random(start)
    serials = [f"00001{random.randrange(10**9):09d}" for _ in range(count)]
    signatures = [random.randbytes(64) for _ in range(count)]
    base_url, _, _ = few.texts[0].partition("/1")
    texts = encode_texts(base_url, 1, 1, "06901234567892", serials, signatures)
    return replace(
        few, section=Section(Profile.OUTER, number, ((start, start + count - 1),)), serials=serials, texts=texts
    )


def _label(document: pypdfium2.PdfDocument, place: int) -> Image.Image:
    page_number, on_page = divmod(place, PER_PAGE)
    page = document[page_number].render(scale=DPI / 72, grayscale=True).to_pil()
    sheet = Layout().sheet(45)
    left, top = sheet.corner(on_page)
    return page.crop((left, top, left + sheet.label.width, top + sheet.label.height))


def _read_by_zbar(paths: Sequence[Path]) -> list[str]:
    run = ["zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"]
    done = subprocess.run([*run, *paths], check=False, capture_output=True, text=True)
    return done.stdout.splitlines()
