"""PDF sheet export: pages of labels to print and cut, each with its symbol and its serial to read.

A symbol is an image mask of one sample a module, scaled to whole dots and painted in black ink alone (PDF Reference
1.4, 4.8.5), so it is as sharp as the printer. Texts are set in an embedded font. The writer is our own, for speed: a
page is one string, and nothing is drawn.
"""

import hashlib
import zlib
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import ImageFont

from codes.exports.layout import MM_PER_INCH, Layout, Sheet
from codes.exports.symbols import symbols_of
from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, Section
from offline_sdk.code_text import ITEM_DIGITS, ORDER_DIGITS

POINTS_PER_INCH = 72
HEADER_LETTERS_MM = 2.5
MARK_MM = 2
MARK_LINE_MM = 0.1
_HAIR = 0.01  # dots
_EM = 1_000  # units of a font's em square (PDF Reference 1.4, 5.1.3), and of this font in its own file
_CHARS = [chr(code) for code in range(32, 127)]
# Most bytes of a label beside its symbol, of a page beside its labels and of a file beside its pages.
_LABEL_BYTES_MAX = 75
_CAPTION_BYTES_MAX = 35
_PAGE_BYTES_MAX = 450
_HEADER_BYTES_MAX = 250
_FILE_BYTES_MAX = 14_000
_MARK_BYTES_MAX = 20


class PdfExport:
    """sheets/outer-00001.pdf and so on: a file a section."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        self._recipe = recipe
        self._layout = layout
        self._symbols = symbols_of(recipe.base_url, layout.level)
        self._sheet = layout.sheet(self._symbols.size)
        label = self._sheet.label
        self._row_bytes = -(-self._symbols.size // 8)
        # Everything is placed in dots from the top left corner, downwards; in a PDF upwards is positive.
        corners = [self._sheet.corner(place) for place in range(self._sheet.labels)]
        # A hair less than its dots, or rounding outwards makes a symbol a dot wider, and one module with it.
        size, side = self._symbols.size, f"{label.symbol - 2 * _HAIR:g}"
        bottom = label.symbol_top + label.symbol - _HAIR
        self._symbol_heads = [
            # Hexadecimal, since in binary samples some readers find the end of the image too early.
            f"q {side} 0 0 {side} {left + label.symbol_left + _HAIR:.2f} {-(top + bottom):.2f} cm "
            f"BI/W {size}/H {size}/IM true/F/AHx ID "
            for left, top in corners
        ]
        indent = (label.width - label.letters * _ems(f"{'0' * ORDER_DIGITS} {'0' * ITEM_DIGITS}")) / 2
        self._caption_heads = [
            f"1 0 0 1 {left + indent:.1f} {-(top + label.caption_top + label.letters)} Tm(" for left, top in corners
        ]

    def path(self, section: Section) -> str:
        return f"sheets/{section.face.name.lower()}-{section.number + 1:05d}.pdf"

    def render(self, chunk: Chunk) -> bytes:
        # A 0 is what an image mask paints.
        octets = (~self._symbols.rows(chunk)).astype(">u8")[..., None].view(np.uint8)
        samples = octets[..., : self._row_bytes].tobytes().hex()
        digits = len(samples) // len(chunk.serials)
        file = _File(self._recipe, self._layout, _marks(self._sheet, self._layout) if self._layout.crop_marks else "")
        firsts = range(0, len(chunk.serials), self._sheet.labels)
        for page, first in enumerate(firsts, start=1):
            serials = chunk.serials[first : first + self._sheet.labels]
            starts = range(first * digits, (first + len(serials)) * digits, digits)
            heads = self._symbol_heads[: len(serials)]
            drawn = [f"{head}{samples[at : at + digits]}>\nEI Q\n" for head, at in zip(heads, starts, strict=True)]
            file.add_page(self._header(chunk.section, page, len(firsts)), "".join(drawn), self._captions(serials))
        return file.close()

    def bytes_max(self, items: int) -> int:
        labels = self._sheet.labels
        pages = -(-items // labels)
        files = -(-pages // (CHUNK_ITEMS // labels))
        digits = 2 * self._row_bytes * self._symbols.size
        # A digit is one of 16 and takes 4 bits, and a little for the letters around it.
        label = digits * 0.54 + _LABEL_BYTES_MAX + (_CAPTION_BYTES_MAX if self._layout.caption else 0)
        file = _FILE_BYTES_MAX + (_MARK_BYTES_MAX * labels if self._layout.crop_marks else 0)
        page = _PAGE_BYTES_MAX + (_HEADER_BYTES_MAX if self._layout.header else 0)
        return int(items * label + pages * page + files * file)

    def _header(self, section: Section, page: int, pages: int) -> str:
        if not self._layout.header:
            return ""
        text = (
            f"GTIN {self._recipe.gtin}   order {self._recipe.order_number:05d}   {section.face.name.lower()} codes   "
            f"sheet {section.number + 1}, page {page} of {pages}   "
            f"print at 100 %: a module is {self._layout.printed_module_mm:.3f} mm"
        )
        margin = self._layout.dots(self._layout.margin_mm)
        room = self._layout.dots(self._layout.paper_width_mm) - 2 * margin
        letters = min(self._layout.dots(HEADER_LETTERS_MM), room / _ems(text))
        baseline = margin + self._layout.dots(HEADER_LETTERS_MM)
        return f"BT/F {letters:.1f} Tf {margin} {-baseline} Td({text})Tj ET\n"

    def _captions(self, serials: list[str]) -> str:
        if not self._layout.caption:
            return ""
        lines = [
            f"{head}{serial[:ORDER_DIGITS]} {serial[ORDER_DIGITS:]})Tj\n"
            for head, serial in zip(self._caption_heads[: len(serials)], serials, strict=True)
        ]
        return f"BT/F {self._sheet.label.letters} Tf\n{''.join(lines)}ET\n"


class _File:
    """A PDF file of pages that share a size, a font and crop marks. No time is in it."""

    def __init__(self, recipe: Recipe, layout: Layout, marks: str) -> None:
        self._parts = [b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"]  # the second line tells that the file is binary (3.4.1)
        self._bytes = len(self._parts[0])
        self._offsets: dict[int, int] = {}
        self._pages: list[int] = []
        across, down = layout.dots(layout.paper_width_mm), layout.dots(layout.paper_height_mm)
        dot = POINTS_PER_INCH / layout.dpi
        # Whole dots and a hair less: a rasteriser rounds a fraction of a dot up and stretches the page to it.
        width, height = (across - _HAIR) * dot, (down - _HAIR) * dot
        self._box = f"/MediaBox[0 0 {width:.4f} {height:.4f}]"
        self._start = f"{dot:.8f} 0 0 {dot:.8f} 0 {height:.4f} cm\n0 0 0 1 k 0 0 0 1 K\n/M Do\n"
        title = f"GTIN {recipe.gtin} order {recipe.order_number:05d}"
        self._add(1, b"<</Type/Catalog/Pages 2 0 R>>")
        self._add(3, _font_dictionary())
        self._add(4, _font_descriptor())
        self._add(5, _stream(_font_file(), f"/Length1 {len(_font_file())}", zlib.Z_DEFAULT_STRATEGY))
        self._add(6, _stream(marks.encode("ascii"), f"/Type/XObject/Subtype/Form/BBox[0 {-down} {across} 0]"))
        self._add(7, f"<</Title({title})/Producer(Fanxing)>>".encode("ascii"))

    def add_page(self, *content: str) -> None:
        number = 8 + 2 * len(self._pages)
        self._pages.append(number)
        self._add(number, f"<</Type/Page/Parent 2 0 R/Contents {number + 1} 0 R>>".encode("ascii"))
        self._add(number + 1, _stream("".join((self._start, *content)).encode("ascii")))

    def close(self) -> bytes:
        kids = " ".join(f"{number} 0 R" for number in self._pages)
        resources = "/Resources<</Font<</F 3 0 R>>/XObject<</M 6 0 R>>>>"
        pages = f"<</Type/Pages/Count {len(self._pages)}/Kids[{kids}]{self._box}{resources}>>"
        self._add(2, pages.encode("ascii"))
        body = b"".join(self._parts)
        name = hashlib.sha256(body).hexdigest()[:32]
        entries = "".join(f"{self._offsets[number]:010d} 00000 n \n" for number in sorted(self._offsets))
        count = len(self._offsets) + 1
        trailer = (
            f"xref\n0 {count}\n0000000000 65535 f \n{entries}"
            f"trailer\n<</Size {count}/Root 1 0 R/Info 7 0 R/ID[<{name}><{name}>]>>\nstartxref\n{len(body)}\n%%EOF\n"
        )
        return body + trailer.encode("ascii")

    def _add(self, number: int, content: bytes) -> None:
        self._offsets[number] = self._bytes
        for part in (f"{number} 0 obj\n".encode("ascii"), content, b"\nendobj\n"):
            self._parts.append(part)
            self._bytes += len(part)


def _stream(content: bytes, entries: str = "", strategy: int = zlib.Z_HUFFMAN_ONLY) -> bytes:
    # Samples repeat nothing that is worth a search: Huffman codes alone take a seventh of the time, and 10 % more room.
    packer = zlib.compressobj(level=6, strategy=strategy)
    packed = packer.compress(content) + packer.flush()
    head = f"<<{entries}/Filter/FlateDecode/Length {len(packed)}>>stream\n"
    return b"".join((head.encode("ascii"), packed, b"\nendstream"))


def _marks(sheet: Sheet, layout: Layout) -> str:
    """A small cross wherever cuts meet, in the middle of the gutters."""
    arm = layout.dots(MARK_MM / 2)
    half_gutter = (sheet.pitch_across - sheet.label.width) / 2
    lines = []
    for row in range(sheet.rows + 1):
        y = -(sheet.top + row * sheet.pitch_down - half_gutter)
        for column in range(sheet.columns + 1):
            x = sheet.left + column * sheet.pitch_across - half_gutter
            lines.append(f"{x - arm:g} {y:g} m {x + arm:g} {y:g} l {x:g} {y - arm:g} m {x:g} {y + arm:g} l\n")
    return f"{MARK_LINE_MM / MM_PER_INCH * layout.dpi:.2f} w\n{''.join(lines)}S\n"


# Pillow's own font: Aileron by Sora Sagano, in the public domain (CC0), so it may be embedded and passed on.
@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=_EM)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    source = _font().path
    assert isinstance(source, BytesIO)  # it has no file of its own
    return source.getvalue()


@lru_cache(maxsize=len(_CHARS))
def _width(char: str) -> int:
    return round(_font().getlength(char))


def _ems(text: str) -> float:
    """Width of a text in heights of its letters."""
    return sum(map(_width, text)) / _EM


def _font_dictionary() -> bytes:
    widths = " ".join(str(_width(char)) for char in _CHARS)
    return (
        f"<</Type/Font/Subtype/TrueType/BaseFont/Aileron-Regular/Encoding/WinAnsiEncoding/FontDescriptor 4 0 R"
        f"/FirstChar {ord(_CHARS[0])}/LastChar {ord(_CHARS[-1])}/Widths[{widths}]>>"
    ).encode("ascii")


def _font_descriptor() -> bytes:
    ascent, descent = _font().getmetrics()
    return (
        f"<</Type/FontDescriptor/FontName/Aileron-Regular/Flags 32/FontBBox[-150 -210 945 800]/ItalicAngle 0"
        f"/Ascent {ascent}/Descent {-descent}/CapHeight 700/StemV 80/FontFile2 5 0 R>>"
    ).encode("ascii")
