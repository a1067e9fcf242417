"""ZPL export: one label a code for label printers that read ZPL II, one file a face.

The symbol goes as a picture (^GF), not as a text for the printer to encode (^BQ): printers choose other segments and
another version and mask than ours, so the label would be larger than ordered, and not the symbol that was checked.
"""

from collections.abc import Iterator

import numpy as np

from codes.exports.layout import Layout, LayoutInvalid
from codes.exports.symbols import symbols_of
from codes.pipeline import Chunk, Recipe, Section
from codes.qr import Modules
from offline_sdk.code_text import ORDER_DIGITS, SERIAL_DIGITS

DPI = (203, 300, 600)
GRAPHIC_BYTES_MAX = 99_999  # ZPL II Programming Guide, ^GF, parameter c
_BATCH_BYTES = 8 * 2**20


class ZplExport:
    """outer.zpl and inner.zpl. Raises LayoutInvalid for a resolution that label printers do not have."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        if layout.dpi not in DPI:
            raise LayoutInvalid(
                f"label printers print {', '.join(map(str, DPI[:-1]))} or {DPI[-1]} dots an inch, not {layout.dpi}",
                hint="Say your printer's resolution with --dpi.",
            )
        self._symbols = symbols_of(recipe.base_url, layout.level)
        label = layout.label(self._symbols.size)
        self._module = layout.module_dots
        self._row_bytes = -(-label.symbol // 8)
        graphic = self._row_bytes * label.symbol
        if graphic > GRAPHIC_BYTES_MAX:
            raise LayoutInvalid(
                f"a symbol of {label.symbol} dots a side is more than a label printer takes in one picture",
                hint="Take a smaller module or a lower resolution.",
            )
        self._head = (
            f"^XA^PW{label.width}^LL{label.height}^LH0,0"
            f"^FO{label.symbol_left},{label.symbol_top}^GFA,{graphic},{graphic},{self._row_bytes},"
        )
        # ^FB sets the serial in the middle of the label's width.
        self._caption = (
            f"^FS^FO0,{label.caption_top}^A0N,{label.letters},{label.letters}^FB{label.width},1,0,C^FD"
            if layout.caption
            else ""
        )

    def path(self, section: Section) -> str:
        return f"{section.face.name.lower()}.zpl"

    def render(self, chunk: Chunk) -> bytes:
        graphics = self._graphics(self._symbols.modules(chunk))
        return "".join(
            [
                f"{self._head}{graphic}{self._end(serial)}"
                for serial, graphic in zip(chunk.serials, graphics, strict=True)
            ]
        ).encode("ascii")

    def bytes_max(self, items: int) -> int:
        graphic = self._symbols.size * (2 * self._row_bytes + self._module - 1)
        return items * (len(self._head) + graphic + len(self._end("0" * SERIAL_DIGITS)))

    def _end(self, serial: str) -> str:
        caption = f"{self._caption}{serial[:ORDER_DIGITS]} {serial[ORDER_DIGITS:]}" if self._caption else ""
        return f"{caption}^FS^XZ\n"

    def _graphics(self, modules: Modules) -> Iterator[str]:
        # A colon stands for the row before it (ZPL II Programming Guide, "Alternative data compression scheme").
        repeats = ":" * (self._module - 1)
        digits = 2 * self._row_bytes
        batch = max(1, _BATCH_BYTES // (self._row_bytes * self._symbols.size))
        for first in range(0, len(modules), batch):
            dark = modules[first : first + batch].repeat(self._module, axis=2)
            rows = np.packbits(dark, axis=2).tobytes().hex().upper()
            starts = range(0, len(rows), digits)
            lines = [f"{rows[at : at + digits]}{repeats}" for at in starts]
            for at in range(0, len(lines), self._symbols.size):
                yield "".join(lines[at : at + self._symbols.size])
