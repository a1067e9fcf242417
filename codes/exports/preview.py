"""Preview: a picture of the first page, made by the real renderer from codes that are worth nothing."""

from dataclasses import replace
from hashlib import sha512

import pypdfium2
from PIL import Image, ImageDraw, ImageFont

from codes.exports.layout import MM_PER_INCH, Layout
from codes.exports.pdf import POINTS_PER_INCH, PdfExport
from codes.pipeline import Chunk, Recipe, Section
from codes.qr import measure
from offline_sdk.code_text import ITEM_DIGITS, ORDER_DIGITS, Profile, encode_texts

SIDE_PX_MAX = 4_000
WORD = "SPECIMEN"
_WORD_RGBA = (200, 0, 0, 110)


def preview(recipe: Recipe, layout: Layout) -> Image.Image:
    """The first page of an order's outer codes in colour, at the printer's resolution or SIDE_PX_MAX a side.

    Only GTIN and base URL are taken from the recipe. Raises LayoutInvalid, Malformed for a base URL, SymbolTooLarge.
    """
    labels = layout.sheet(measure(recipe.base_url, layout.level, layout.printed_module_mm).modules).labels
    nothing = replace(recipe, order_number=0, quantity=labels, faces=(Profile.OUTER,), kid=0)
    document = pypdfium2.PdfDocument(PdfExport(nothing, layout).render(_specimens(nothing)))
    try:
        long_side = max(layout.paper_width_mm, layout.paper_height_mm)
        dpi = min(layout.dpi, SIDE_PX_MAX / long_side * MM_PER_INCH)
        page: Image.Image = document[0].render(scale=dpi / POINTS_PER_INCH).to_pil()
    finally:
        document.close()
    return _crossed_out(page.convert("RGBA"))


def _specimens(recipe: Recipe) -> Chunk:
    serials = [f"{recipe.order_number:0{ORDER_DIGITS}d}{item:0{ITEM_DIGITS}d}" for item in range(recipe.quantity)]
    # A hash of the serial looks like a signature and is none: no verifier takes it, whatever its keys.
    fillers = [sha512(f"{WORD}{serial}".encode("ascii")).digest() for serial in serials]
    texts = encode_texts(recipe.base_url, Profile.OUTER, recipe.kid, recipe.gtin, serials, fillers)
    return Chunk(Section(Profile.OUTER, 0, ((0, recipe.quantity - 1),)), serials, texts)


def _crossed_out(page: Image.Image) -> Image.Image:
    """The page with the word across it, from corner to corner as far as it is wide."""
    short_side = min(page.size)
    font = ImageFont.load_default(size=max(8, short_side // 6))
    word = Image.new("RGBA", page.size)
    ImageDraw.Draw(word).text((page.width / 2, page.height / 2), WORD, _WORD_RGBA, font, anchor="mm")
    return Image.alpha_composite(page, word.rotate(30, Image.Resampling.BICUBIC)).convert("RGB")
