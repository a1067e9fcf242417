"""PNG export: one picture a code, one bit a pixel, in a zip file a section.

Written with zlib directly: a symbol's rows repeat, and saying so with PNG's own filter takes a quarter of the time that
an image library needs to find it out.
"""

import zlib
from collections.abc import Iterator
from struct import Struct

import numpy as np

from codes.exports.archive import ENTRY_BYTES_MAX, FILE_BYTES_MAX, pack
from codes.exports.layout import MM_PER_INCH, Layout, LayoutInvalid
from codes.exports.symbols import symbols_of
from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, Section
from codes.qr import Modules

MODULE_PX_MAX = 32  # so that a section's pictures, which are held in memory at once, stay under 100 MB
# PNG specification (ISO/IEC 15948), clauses 5 and 11.
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = Struct(">IIBBBBB")
_PHYS = Struct(">IIB")
_U32 = Struct(">I")
_METRE = 1
_GREY = 0
_FILTER_UP = 2
_BATCH_BYTES = 8 * 2**20
_FRAME_BYTES = len(_SIGNATURE) + (12 + _IHDR.size) + (12 + _PHYS.size) + 12 + 12


class PngExport:
    """png/outer-00001.zip and so on, with SERIAL.png of every code: the symbol and its quiet zone.

    Raises LayoutInvalid for modules of more than MODULE_PX_MAX pixels.
    """

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        if layout.module_dots > MODULE_PX_MAX:
            raise LayoutInvalid(
                f"a module of {layout.module_dots} pixels is wider than the {MODULE_PX_MAX} that a picture may have",
                hint="Take a smaller module, a lower resolution, or SVG.",
            )
        self._symbols = symbols_of(recipe.base_url, layout.level)
        self._quiet = layout.quiet_zone_modules
        self._module_px = layout.module_dots
        self._side_px = (self._symbols.size + 2 * self._quiet) * self._module_px
        per_metre = round(layout.dpi * 1_000 / MM_PER_INCH)
        header = _IHDR.pack(self._side_px, self._side_px, 1, _GREY, 0, 0, 0)
        self._head = _SIGNATURE + _part(b"IHDR", header) + _part(b"pHYs", _PHYS.pack(per_metre, per_metre, _METRE))
        self._tail = _part(b"IEND", b"")

    def path(self, section: Section) -> str:
        return f"png/{section.face.name.lower()}-{section.number + 1:05d}.zip"

    def render(self, chunk: Chunk) -> bytes:
        names = (f"{serial}.png" for serial in chunk.serials)
        return pack(zip(names, self._pictures(self._symbols.modules(chunk)), strict=True), deflate=False)

    def bytes_max(self, items: int) -> int:
        # Measured with modules of 2 pixels and more: a module takes more the wider it is.
        symbol = self._symbols.size**2 * (0.1 + 0.08 * self._module_px)
        picture = _FRAME_BYTES + ENTRY_BYTES_MAX + int(symbol) + self._side_px**2 // 1_000
        return items * picture + (1 + 2 * items // CHUNK_ITEMS) * FILE_BYTES_MAX

    def _pictures(self, modules: Modules) -> Iterator[bytes]:
        row_bytes = 1 + -(-self._side_px // 8)
        batch = max(1, _BATCH_BYTES // (row_bytes * self._side_px))
        for first in range(0, len(modules), batch):
            quiet = ((0, 0), (self._quiet, self._quiet), (self._quiet, self._quiet))
            light = np.pad(~modules[first : first + batch], quiet, constant_values=True)
            count, side, _ = light.shape
            # Scan lines, each behind its filter: the first of a module's lines has the pixels, the others no change.
            lines = np.zeros((count, side, self._module_px, row_bytes), np.uint8)
            lines[:, :, 0, 1:] = np.packbits(light.repeat(self._module_px, axis=2), axis=2)
            lines[:, :, 1:, 0] = _FILTER_UP
            for picture in lines:
                yield b"".join((self._head, _part(b"IDAT", zlib.compress(picture.tobytes(), 1)), self._tail))


def _part(kind: bytes, content: bytes) -> bytes:
    return b"".join((_U32.pack(len(content)), kind, content, _U32.pack(zlib.crc32(content, zlib.crc32(kind)))))
