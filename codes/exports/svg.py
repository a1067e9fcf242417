"""SVG export: one drawing a code, in millimetres, in a zip file a section."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from codes.exports.archive import ENTRY_BYTES_MAX, FILE_BYTES_MAX, pack
from codes.exports.layout import Layout
from codes.exports.symbols import symbols_of
from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, Section
from codes.qr import Modules

_BATCH = 500  # symbols whose runs are found at once


class SvgExport:
    """svg/outer-00001.zip and so on, with SERIAL.svg of every code: the symbol and its quiet zone."""

    def __init__(self, recipe: Recipe, layout: Layout) -> None:
        self._symbols = symbols_of(recipe.base_url, layout.level)
        size, quiet = self._symbols.size, layout.quiet_zone_modules
        side = size + 2 * quiet
        side_mm = f"{side * layout.printed_module_mm:.4f}mm"
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{side_mm}" height="{side_mm}" viewBox="0 0 {side} {side}">'
            f'<path fill="#fff" d="M0 0h{side}v{side}H0z"/>'
            # One path: a program that smooths edges shows no seam between the rows of one path.
            '<path d="'
        )
        self._tail = '" shape-rendering="crispEdges"/></svg>\n'
        # Every run of dark modules that there can be, by its distance from the one before in its row and its width, and
        # the place of every module, for the first of a row: few words that come again and again pack well.
        places, widths = range(size), range(1, size + 1)
        self._runs = np.array([f"m{distance} 0{_box(width)}" for distance in places for width in widths], dtype=object)
        self._places = np.array([f"M{quiet + x} {quiet + y}" for y in places for x in places], dtype=object)
        self._boxes = np.array([_box(width) for width in widths], dtype=object)

    def path(self, section: Section) -> str:
        return f"svg/{section.face.name.lower()}-{section.number + 1:05d}.zip"

    def render(self, chunk: Chunk) -> bytes:
        names = (f"{serial}.svg" for serial in chunk.serials)
        return pack(zip(names, self._drawings(self._symbols.modules(chunk)), strict=True), deflate=True)

    def bytes_max(self, items: int) -> int:
        drawing = len(self._head) + ENTRY_BYTES_MAX + self._symbols.size**2 * 3 // 4
        return items * drawing + (1 + 2 * items // CHUNK_ITEMS) * FILE_BYTES_MAX

    def _drawings(self, modules: Modules) -> Iterator[bytes]:
        size = self._symbols.size
        for begin in range(0, len(modules), _BATCH):
            batch = modules[begin : begin + _BATCH]
            edges = np.diff(np.pad(batch, ((0, 0), (0, 0), (1, 1))).view(np.int8), axis=2)
            numbers, rows, starts = np.nonzero(edges == 1)
            widths = np.nonzero(edges == -1)[2] - starts
            lines = numbers * size + rows
            first = np.diff(lines, prepend=-1) != 0
            runs = self._runs[np.where(first, 0, np.diff(starts, prepend=0)) * size + widths - 1]
            runs[first] = self._places[rows[first] * size + starts[first]] + self._boxes[widths[first] - 1]
            runs = runs.tolist()
            ends = np.cumsum(np.bincount(numbers, minlength=len(batch))).tolist()
            for start, end in pairwise([0, *ends]):
                yield f"{self._head}{''.join(runs[start:end])}{self._tail}".encode("ascii")


def _box(width: int) -> str:
    return f"h{width}v1h-{width}z"
