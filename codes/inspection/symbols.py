"""Symbols on a page: every QR symbol of a scan, read where it can be and located where it cannot.

A reader that is shown a hundred symbols at once pairs up corners of different ones and misses a third of them. So the
whole page is read first, which finds most and tells their size; what was read is painted over, and windows a little
wider than two symbols are moved over what is left.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zxingcpp
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from codes.inspection.scans import Grey
from codes.qr import QUIET_ZONE_MODULES

EXTENT_PX_MIN = 60
"""Symbols of fewer pixels a side are not looked for: one of version 7 would have 1.3 pixels a module."""
_EXTENT_STEP = 1.7
_WINDOW_EXTENTS = 2.6
_STEP_EXTENTS = 1.2  # leaves 1.4: a symbol with its quiet zone lies whole in at least one window, also a little askew
_PAPER_QUANTILE = 0.95
_TILE = 32  # 128 pixels: some paper, or at least some light modules, are in every one
_TILE_STEP = 5
_PAPER_TONES = 10
_PRINTED_MIN = 0.03  # a symbol is 15 % of its window, its three corners alone 4 %
_BLOCK_PRINTED_MIN = 0.7
_COARSE = 4
_MARGIN_MODULES = 2  # of the quiet zone: print bleeds into it
_ENLARGED = 3
_ENLARGED_EXTENT_PX_MAX = 250
_MODULES_TYPICAL = 45  # version 7, which most orders have
_SKEW_MAX = 1.25
_SIZE_MAX = 1.15
_QR_CODES = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCodeModel2)

Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""Top left, top right, bottom right, bottom left as the symbol sees itself: x, y in pixels of the page."""


@dataclass(frozen=True)
class Symbol:
    """One symbol on a page.

    `text` is None for one that was located and cannot be read. `modules` is its side, 21..177, without quiet zone.
    `unused_correction` is the part of the error correction that was not needed, 0..1. `helped`: it could be read only
    after the picture was smoothed, sharpened or enlarged.
    """

    text: str | None
    corners: Corners
    modules: int
    unused_correction: float
    helped: bool

    @cached_property
    def centre(self) -> tuple[float, float]:
        return sum(x for x, _ in self.corners) / 4, sum(y for _, y in self.corners) / 4

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """The lengths of its four sides, in pixels."""
        a, b, c, d = self.corners
        return math.dist(a, b), math.dist(b, c), math.dist(c, d), math.dist(d, a)

    @cached_property
    def extent(self) -> float:
        """The longer side of the upright box around it, in pixels."""
        across, down = zip(*self.corners, strict=True)
        return max(max(across) - min(across), max(down) - min(down))


def find(page: Grey) -> list[Symbol]:
    """Every symbol of a page (rows, columns; 0 is black, 255 is white), in reading order. Safe from any thread."""
    search = _Search(page)
    side_px = min(page.shape)
    search.whole()
    if search.read:
        search.windows(search.extents, _plain, dense=False)
    search.windows(_ladder(side_px, search.extents), _plain, dense=bool(search.read))
    for way in (_smooth, _sharp, _enlarged):
        extents = search.extents or _ladder(side_px, ())
        search.windows([one for one in extents if way is not _enlarged or one <= _ENLARGED_EXTENT_PX_MAX], way)
    return _in_reading_order([*(_alone(page, symbol) for symbol in search.read), *search.unreadable()])


class _Search:
    """What was found on a page so far, and the page with that painted over."""

    def __init__(self, page: Grey) -> None:
        self.read: list[Symbol] = []
        self._located: list[Symbol] = []
        self._left = page.copy()
        # Averages of small squares tell print from paper also where the scanner added noise.
        coarse = np.asarray(Image.fromarray(page).reduce(_COARSE))
        self._paper = _paper_around(coarse)
        self._printed = coarse < self._paper.astype(np.int16) - _PAPER_TONES

    @property
    def extents(self) -> list[float]:
        """The sizes met so far, from small to large, without those that a window for another serves."""
        kept: list[float] = []
        for extent in sorted(symbol.extent for symbol in self.read):
            if not kept or extent > kept[-1] * _SIZE_MAX:
                kept.append(extent)
        return kept

    def whole(self) -> None:
        """Read the page as one picture."""
        self._take(zxingcpp.read_barcodes(self._left, formats=_QR_CODES, try_invert=False), 0, 0, 1, helped=False)

    def windows(self, extents: Sequence[float], way: "_Way", *, dense: bool = True) -> None:
        """Read what is left, window by window, for symbols of up to these sizes.

        `dense`: only where something is dark all over, which a caption is not, and a scratched symbol is not either.
        """
        for extent in extents:
            for left, top, right, bottom in _boxes(self._left.shape, extent):
                if self._is_paper(left, top, right, bottom, extent / 3 / _EXTENT_STEP if dense else None):
                    continue
                shown, scale = way(np.ascontiguousarray(self._left[top:bottom, left:right]), extent)
                seen = zxingcpp.read_barcodes(
                    shown, formats=_QR_CODES, try_invert=False, try_downscale=False, return_errors=True
                )
                self._take(seen, left, top, scale, helped=way is not _plain)

    def unreadable(self) -> list[Symbol]:
        """What has the corners and the size of a symbol, but no text that could be read."""
        # Where nothing could be read, corners of different symbols that were paired up are the exception.
        sizes = self.extents or [float(np.median([one.extent for one in self._located] or [0]))]
        kept: list[Symbol] = []
        for symbol in sorted(self._located, key=_skew):
            known = any(size / _SIZE_MAX < symbol.extent < size * _SIZE_MAX for size in sizes)
            if known and not _meets(symbol, self.read) and not _meets(symbol, kept):
                kept.append(symbol)
        return kept

    def _is_paper(self, left: int, top: int, right: int, bottom: int, block_px: float | None) -> bool:
        """Whether a window has next to no print or, with a size of blocks, no block that is mostly printed."""
        printed = self._printed[top // _COARSE : bottom // _COARSE, left // _COARSE : right // _COARSE]
        if np.count_nonzero(printed) <= _PRINTED_MIN * printed.size:
            return True
        if block_px is None:
            return False
        block = max(1, int(block_px / _COARSE))
        rows, columns = printed.shape[0] // block, printed.shape[1] // block
        blocks = printed[: rows * block, : columns * block].reshape(rows, block, columns, block)
        return not np.any(blocks.mean(axis=(1, 3)) >= _BLOCK_PRINTED_MIN)

    def _paint_over(self, symbol: Symbol) -> None:
        margin = 1 + 2 * _MARGIN_MODULES / symbol.modules
        at = np.array(symbol.centre)
        corners = at + (np.array(symbol.corners) - at) * margin
        row, column = (min(int(at[axis]) // _COARSE, self._paper.shape[1 - axis] - 1) for axis in (1, 0))
        _paint(self._left, corners, int(self._paper[row, column]))
        _paint(self._printed, corners / _COARSE, 0)

    def _take(self, seen: Sequence[Any], left: int, top: int, scale: int, *, helped: bool) -> None:
        for one in seen:
            if not one.extra:
                continue  # corners that no symbol could be sampled from
            symbol = _symbol(one, left, top, scale, helped=helped)
            if symbol.text is None:
                if _skew(symbol) < _SKEW_MAX:
                    self._located.append(symbol)
            elif not _meets(symbol, self.read):
                self.read.append(symbol)
                self._paint_over(symbol)


_Way = Callable[[Grey, float], tuple[Grey, int]]
"""A way to show a window that was cut for symbols of an extent in pixels: the picture, and how many times larger."""


def _plain(window: Grey, _extent: float) -> tuple[Grey, int]:
    return window, 1


def _smooth(window: Grey, extent: float) -> tuple[Grey, int]:
    blur = ImageFilter.GaussianBlur(extent / _MODULES_TYPICAL / 3)
    return np.asarray(Image.fromarray(window).filter(blur)), 1


def _sharp(window: Grey, extent: float) -> tuple[Grey, int]:
    unsharp = ImageFilter.UnsharpMask(extent / _MODULES_TYPICAL, 300, 0)
    return np.asarray(Image.fromarray(window).filter(unsharp)), 1


def _enlarged(window: Grey, _extent: float) -> tuple[Grey, int]:
    size = (window.shape[1] * _ENLARGED, window.shape[0] * _ENLARGED)
    return np.asarray(Image.fromarray(window).resize(size, Image.Resampling.BICUBIC)), _ENLARGED


def _paper_around(coarse: Grey) -> Grey:
    """The tone of the paper at each place: the lamp of a camera or an open scanner lights no page evenly."""
    rows, columns = (-(-length // _TILE) for length in coarse.shape)
    padding = [(0, count * _TILE - length) for count, length in zip((rows, columns), coarse.shape, strict=True)]
    tiles = np.pad(coarse, padding, mode="edge").reshape(rows, _TILE, columns, _TILE).swapaxes(1, 2)
    sample = np.sort(tiles.reshape(rows, columns, -1)[..., ::_TILE_STEP], axis=2)
    tones = Image.fromarray(np.ascontiguousarray(sample[..., int(sample.shape[2] * _PAPER_QUANTILE)]))
    light = tones.filter(ImageFilter.BoxBlur(1)).resize((columns * _TILE, rows * _TILE), Image.Resampling.BILINEAR)
    return np.asarray(light)[: coarse.shape[0], : coarse.shape[1]]


def _paint(picture: NDArray[Any], corners: NDArray[np.float64], tone: int) -> None:
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    box = picture[top:bottom, left:right]
    shape = Image.new("1", (box.shape[1], box.shape[0]))
    ImageDraw.Draw(shape).polygon([(x - left, y - top) for x, y in corners.tolist()], fill=1, outline=1)
    box[np.asarray(shape)] = tone


def _ladder(side_px: int, known: Sequence[float]) -> list[float]:
    """Sizes to look for besides known ones, each in a window for all sizes down to the one before.

    Sizes far below the known ones are left out: at their scale a caption looks like a symbol, and takes as long.
    """
    smallest = max(EXTENT_PX_MIN, min(known, default=0) / _EXTENT_STEP)
    steps = math.ceil(math.log(max(side_px, smallest) / smallest, _EXTENT_STEP))
    return [smallest * _EXTENT_STEP**step for step in range(1, steps + 1)]


def _boxes(shape: tuple[int, ...], extent: float) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping windows over a page of these rows and columns: left, top, right, bottom."""
    side, step = round(extent * _WINDOW_EXTENTS), round(extent * _STEP_EXTENTS)
    for top in range(0, max(1, shape[0] - side + step), step):
        for left in range(0, max(1, shape[1] - side + step), step):
            yield left, top, left + side, top + side


def _alone(page: Grey, symbol: Symbol) -> Symbol:
    """The symbol as it reads without its neighbours, which mislead the reader about its corners."""
    if symbol.helped or symbol.unused_correction == 1:
        return symbol
    margin = math.ceil(max(symbol.sides) / symbol.modules * QUIET_ZONE_MODULES)
    left, top = (max(0, math.floor(min(values)) - margin) for values in zip(*symbol.corners, strict=True))
    right, bottom = (math.ceil(max(values)) + margin for values in zip(*symbol.corners, strict=True))
    window = np.ascontiguousarray(page[top:bottom, left:right])
    seen = zxingcpp.read_barcodes(window, formats=_QR_CODES, try_invert=False, try_downscale=False)
    again = (_symbol(one, left, top, 1, helped=False) for one in seen)
    best = max(again, key=lambda one: one.unused_correction, default=symbol)
    return best if best.text == symbol.text and best.unused_correction > symbol.unused_correction else symbol


def _symbol(seen: Any, left: int, top: int, scale: int, *, helped: bool) -> Symbol:
    at, about = seen.position, seen.extra
    a, b, c, d = (
        (left + point.x / scale, top + point.y / scale)
        for point in (at.top_left, at.top_right, at.bottom_right, at.bottom_left)
    )
    text = seen.text if seen.valid else None
    modules = 17 + 4 * int(about["Version"])  # ISO/IEC 18004, 5.3.1
    return Symbol(text, (a, b, c, d), modules, float(about["UEC"]), helped)


def _meets(symbol: Symbol, others: Sequence[Symbol]) -> bool:
    """Whether it is one of the others seen again."""
    return any(math.dist(symbol.centre, other.centre) < other.extent / 2 for other in others)


def _skew(symbol: Symbol) -> float:
    """How far from a square it is: 1 for one."""
    sides = (
        *symbol.sides,
        math.dist(*symbol.corners[::2]) / math.sqrt(2),
        math.dist(*symbol.corners[1::2]) / math.sqrt(2),
    )
    return max(sides) / max(min(sides), 1)


def _in_reading_order(symbols: Sequence[Symbol]) -> list[Symbol]:
    """Rows from the top, each from the left; whose centres differ by less than half a symbol stand in one row."""
    rows: list[list[Symbol]] = []
    for symbol in sorted(symbols, key=lambda one: one.centre[1]):
        if rows and symbol.centre[1] - rows[-1][0].centre[1] < symbol.extent / 2:
            rows[-1].append(symbol)
        else:
            rows.append([symbol])
    return [symbol for row in rows for symbol in sorted(row, key=lambda one: one.centre[0])]
