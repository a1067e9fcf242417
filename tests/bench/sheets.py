"""How fast sheets of labels are made: as our PDF, and drawn by an image library."""

import io
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

from codes import qr
from codes.exports import ExportKind, open_export, section_items
from codes.exports.layout import Layout
from codes.pipeline import Chunk, Recipe, Section, sections
from offline_sdk.code_text import SIGNATURE_BYTES, Profile, encode_texts
from tests.bench.factory import BASE_URL, GTIN, KID
from tests.bench.figures import Figure, figure, in_turns, rate_of

ROUNDS = 3
LABELS = 100_000
PILLOW_PAGES = 2
LAYOUT = Layout()
RECIPE = Recipe(GTIN, 1, LABELS, (Profile.OUTER,), BASE_URL, KID)


def sheets(folder: Path) -> list[Figure]:
    """A PDF of 100,000 labels written to the disk, symbols and all, without signing; beside pages drawn by Pillow."""
    items_max = section_items([ExportKind.PDF], RECIPE, LAYOUT)
    chunks = [_chunk(section) for section in sections(RECIPE.faces, [(0, LABELS - 1)], items_max)]
    export = open_export(ExportKind.PDF, RECIPE, LAYOUT)
    (folder / "sheets").mkdir()

    def write() -> None:
        for chunk in chunks:
            (folder / export.path(chunk.section)).write_bytes(export.render(chunk))

    labels = PILLOW_PAGES * LAYOUT.sheet(qr.symbol(chunks[0].texts[0]).shape[0]).labels
    symbols = qr.SymbolEncoder(BASE_URL).encode(chunks[0].texts[:labels])
    write()  # compiles what is compiled once
    ours, yardstick = in_turns(
        ROUNDS,
        lambda: rate_of(LABELS, write),
        lambda: rate_of(labels, lambda: _drawn_by_pillow(symbols, chunks[0].serials[:labels])),
    )
    return [figure("PDF sheets, symbols drawn, one core", ours, "labels/s", "Pillow, symbols given", yardstick)]


def _chunk(section: Section) -> Chunk:
    random = Random(section.number)
    serials = [f"00001{item:09d}" for first, last in section.ranges for item in range(first, last + 1)]
    fillers = [random.randbytes(SIGNATURE_BYTES) for _ in serials]
    return Chunk(section, serials, encode_texts(BASE_URL, section.face, KID, GTIN, serials, fillers))


def _drawn_by_pillow(symbols: qr.Modules, serials: list[str]) -> bytes:
    """The same labels in the same places, as pages of one bit a pixel in a PDF file."""
    sheet = LAYOUT.sheet(symbols.shape[1])
    label = sheet.label
    font = ImageFont.load_default(size=label.letters)
    pages = []
    for first in range(0, len(symbols), sheet.labels):
        page = Image.new("1", (LAYOUT.dots(LAYOUT.paper_width_mm), LAYOUT.dots(LAYOUT.paper_height_mm)), 1)
        draw = ImageDraw.Draw(page)
        for place in range(min(sheet.labels, len(symbols) - first)):
            left, top = sheet.corner(place)
            page.paste(qr.image(symbols[first + place], LAYOUT.module_dots), (left, top))
            serial = serials[first + place]
            middle = (left + label.width // 2, top + label.caption_top)
            draw.text(middle, f"{serial[:5]} {serial[5:]}", font=font, fill=0, anchor="mt")
        pages.append(page)
    sink = io.BytesIO()
    pages[0].save(sink, format="PDF", resolution=LAYOUT.dpi, save_all=True, append_images=pages[1:])
    return sink.getvalue()
