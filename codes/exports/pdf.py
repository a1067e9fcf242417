"""PDF sheet export: A4 pages of labels, ready to print and cut, each with its symbol and its serial to read.

The pages are pictures of one bit a pixel at 300 dpi, so a module is a whole number of printer dots.
The files are their owner's alone: whoever reads an inner code can claim its reward.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image, ImageDraw, ImageFont

from codes import qr
from codes.orders import CodeOrder
from codes.pipeline import Chunk
from kit.files import PRIVATE_MODE
from offline_sdk.code_text import Profile

DPI = 300
MODULE_PX = 4  # 0.34 mm: the smallest module that ordinary presses and label printers keep apart
PAGE_MM = (210, 297)
MARGIN_MM = 10
GUTTER_MM = 2
CAPTION_MM = 4
HEADER_MM = 8
PAGES_PER_FILE_MAX = 100
_CAPTION_PX = 24
_MARK_MM = 2


def _px(millimetres: float) -> int:
    return round(millimetres * DPI / 25.4)


class PdfSheetExport:
    """sheet.pdf in a folder: the pages of the outer face, then those of the inner face.

    After PAGES_PER_FILE_MAX pages the sheet goes on in sheet-2.pdf, sheet-3.pdf and so on.
    """

    def __init__(self, order: CodeOrder, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._files = 0
        self._pages_in_file = 0
        self._page_of_face = 0
        self._page: _Page | None = None

    @property
    def paths(self) -> list[Path]:
        return [self._folder / ("sheet.pdf" if number == 1 else f"sheet-{number}.pdf") for number in self._numbers()]

    def _numbers(self) -> range:
        return range(1, self._files + 1)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, chunk: Chunk) -> None:
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            modules = qr.symbol(text)
            if self._page is not None and (self._page.face != chunk.face or self._page.full):
                self._finish_page()
            if self._page is None:
                self._page_of_face = self._page_of_face + 1 if chunk.start or serial != chunk.serials[0] else 1
                self._page = _Page(self._order, chunk.face, self._page_of_face, len(modules))
            self._page.add(serial, modules)

    def _finish_page(self) -> None:
        assert self._page is not None  # both callers have just looked
        if self._files == 0 or self._pages_in_file == PAGES_PER_FILE_MAX:
            self._files += 1
            self._pages_in_file = 0
            self._beside(self.paths[-1]).unlink(missing_ok=True)
            self._beside(self.paths[-1]).touch(PRIVATE_MODE)
        moment = self._order.created_at.utctimetuple()
        self._page.image.save(
            self._beside(self.paths[-1]),
            format="PDF",
            resolution=DPI,
            append=self._pages_in_file > 0,
            title=f"GTIN {self._order.gtin} order {self._order.order_number:05d}",
            # The order's moment, not the present one: the same order gives the same bytes.
            creationDate=moment,
            modDate=moment,
        )
        self._pages_in_file += 1
        self._page = None

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(path.name + ".part")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._page is not None:
                    self._finish_page()
                for path in self.paths:
                    self._beside(path).replace(path)
        finally:
            for path in self.paths:
                self._beside(path).unlink(missing_ok=True)


class _Page:
    """One page of labels of one face, filled row by row."""

    def __init__(self, order: CodeOrder, face: Profile, number: int, symbol_modules: int) -> None:
        self.face = face
        self.image = Image.new("1", (_px(PAGE_MM[0]), _px(PAGE_MM[1])), 1)
        self._draw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(size=_CAPTION_PX)
        self._symbol_px = (symbol_modules + 2 * qr.QUIET_ZONE_MODULES) * MODULE_PX
        self._pitch = (self._symbol_px + _px(GUTTER_MM), self._symbol_px + _px(CAPTION_MM + GUTTER_MM))
        self._columns = (self.image.width - 2 * _px(MARGIN_MM)) // self._pitch[0]
        self._rows = (self.image.height - 2 * _px(MARGIN_MM) - _px(HEADER_MM)) // self._pitch[1]
        self._count = 0
        self._draw.text(
            (_px(MARGIN_MM), _px(MARGIN_MM)),
            f"GTIN {order.gtin}   order {order.order_number:05d}   {face.name.lower()} codes   page {number}   "
            f"print at 100 %: a module is {MODULE_PX * 25.4 / DPI:.2f} mm",
            font=self._font,
            fill=0,
        )

    @property
    def full(self) -> bool:
        return self._count == self._columns * self._rows

    def add(self, serial: str, modules: qr.Modules) -> None:
        row, column = divmod(self._count, self._columns)
        left = _px(MARGIN_MM) + column * self._pitch[0]
        top = _px(MARGIN_MM + HEADER_MM) + row * self._pitch[1]
        self.image.paste(qr.image(modules, MODULE_PX), (left, top))
        self._draw.text(
            (left + self._symbol_px // 2, top + self._symbol_px),
            f"{serial[:5]} {serial[5:]}",
            font=self._font,
            fill=0,
            anchor="mt",
        )
        self._crop_mark(left, top)
        self._crop_mark(left + self._pitch[0], top + self._pitch[1])
        self._count += 1

    def _crop_mark(self, left: int, top: int) -> None:
        """A small cross where the cuts meet, half a gutter outside the label."""
        x, y, arm = left - _px(GUTTER_MM / 2), top - _px(GUTTER_MM / 2), _px(_MARK_MM) // 2
        self._draw.line((x - arm, y, x + arm, y), fill=0)
        self._draw.line((x, y - arm, x, y + arm), fill=0)
