"""QR symbols of code texts (ISO/IEC 18004:2015): as small as their segments make them, drawn by the ten thousand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codes.qr_layout import HALF_BITS, fitting_version, text_layout
from codes.qr_map import Level, Modules, Words, symbol_size, unpacked
from kit.errors import Invalid
from offline_sdk.code_text import PATH_CHARS, check_base_url, parse

__all__ = [
    "QUIET_ZONE_MODULES",
    "Level",
    "MeasureOutOfRange",
    "Modules",
    "OtherBaseUrl",
    "Size",
    "SizeWarning",
    "SymbolEncoder",
    "image",
    "measure",
    "symbol",
    "version",
]

QUIET_ZONE_MODULES = 4  # ISO/IEC 18004:2015, 5.3.8
QUIET_ZONE_MODULES_MAX = 100
MODULE_MM_MIN = 0.01
MODULE_MM_MAX = 100.0
MODULE_MM_RELIABLE = 0.33  # about four dots of a label printer at 300 dpi
_ENCODERS_REMEMBERED = 4


class OtherBaseUrl(Invalid):
    """The code text stands under another base URL than the encoder's."""

    code = "OtherBaseUrl"


class MeasureOutOfRange(Invalid):
    """A length of a symbol is not one that anybody prints."""

    code = "MeasureOutOfRange"


@dataclass(frozen=True, slots=True)
class SizeWarning:
    """Why a symbol may read badly: a code that never changes, and a sentence."""

    code: str
    message: str


SMALL_MODULES = SizeWarning(
    "SmallModules", f"Modules below {MODULE_MM_RELIABLE} mm print unreliably; try a sample on your press."
)
NARROW_QUIET_ZONE = SizeWarning(
    "NarrowQuietZone", f"A quiet zone below {QUIET_ZONE_MODULES} modules is against the standard; some readers fail."
)
UPPER_CASE = SizeWarning("UpperCase", "Some phones do not open a web address whose scheme is in upper case.")
LOW_CORRECTION = SizeWarning("LowCorrection", "Level L bears little damage: about 7 % of the symbol.")


@dataclass(frozen=True, slots=True)
class Size:
    """How large the symbols of an order will be: version 1..11, modules a side, and `width_mm` with quiet zone."""

    version: int
    modules: int
    width_mm: float
    warnings: tuple[SizeWarning, ...]


def measure(base_url: str, level: Level, module_mm: float, quiet_zone_modules: int = QUIET_ZONE_MODULES) -> Size:
    """The size of every symbol under a base URL at a level, from modules of `module_mm` millimetres, 0.01..100.

    `quiet_zone_modules` 0..100. Raises Malformed for a wrong base URL, SymbolTooLarge, MeasureOutOfRange.
    """
    if not (math.isfinite(module_mm) and MODULE_MM_MIN <= module_mm <= MODULE_MM_MAX):
        raise MeasureOutOfRange(f"a module is {MODULE_MM_MIN} to {MODULE_MM_MAX:.0f} mm wide", hint="try 0.4")
    if not 0 <= quiet_zone_modules <= QUIET_ZONE_MODULES_MAX:
        raise MeasureOutOfRange(
            f"a quiet zone is 0 to {QUIET_ZONE_MODULES_MAX} modules wide", hint=f"try {QUIET_ZONE_MODULES}"
        )
    fitting = fitting_version(check_base_url(base_url), level)
    size = symbol_size(fitting)
    doubts = (
        (SMALL_MODULES, module_mm < MODULE_MM_RELIABLE),
        (NARROW_QUIET_ZONE, quiet_zone_modules < QUIET_ZONE_MODULES),
        (UPPER_CASE, base_url.isupper()),
        (LOW_CORRECTION, level == "L"),
    )
    warnings = tuple(warning for warning, holds in doubts if holds)
    return Size(fitting, size, (size + 2 * quiet_zone_modules) * module_mm, warnings)


class SymbolEncoder:
    """Draws the symbols of code texts under one base URL, each under its least-penalty mask (7.8.3).

    They are the symbols that `qrcode` draws of the same segments, version, level and mask, module for module. One
    encoder may serve many threads. Raises Malformed for a wrong base URL, and SymbolTooLarge for one that needs more
    than version 11.
    """

    def __init__(self, base_url: str, level: Level = "M") -> None:
        self._base_url = check_base_url(base_url)
        self._layout = text_layout(base_url, level)

    @property
    def version(self) -> int:
        """The version of every symbol, 1..11."""
        return self._layout.version

    @property
    def size(self) -> int:
        """Modules a side, without quiet zone."""
        return symbol_size(self.version)

    def encode(self, texts: Sequence[str]) -> Modules:
        """The symbols, without quiet zone: (n, size, size), True is dark. Raises as `encode_rows` does."""
        return unpacked(self.encode_rows(texts), self.size)

    def encode_rows(self, texts: Sequence[str]) -> Words:
        """The symbols, without quiet zone, a row of modules a word: (n, size).

        Bit 63 is the left column, dark is 1, and the bits past the right column are 0: as big-endian bytes the words
        are raster lines of one bit a module. Raises Malformed for anything that is no code text, and OtherBaseUrl.
        """
        # Numba takes half a second to import, and most of the program draws nothing.
        from codes.qr_kernels import draw, first_malformed  # noqa: PLC0415

        layout = self._layout
        chars = self._chars(texts)
        wrong = first_malformed(chars, layout.form, layout.signature_at, layout.gtin_at)
        if wrong < len(chars):
            self._refuse(texts[wrong:])
        rows = np.empty((len(chars), self.size), np.uint64)
        draw(chars, layout.groups, HALF_BITS, layout.tables, layout.offset, layout.frames, layout.dark_points, rows)
        return rows

    def _chars(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """The texts as bytes, (n, length)."""
        length = len(self._base_url) + PATH_CHARS
        joined = "".join(texts)
        if not joined.isascii() or any(len(text) != length for text in texts):
            self._refuse(texts)
        return np.frombuffer(joined.encode("ascii"), np.uint8).reshape(-1, length)

    def _refuse(self, texts: Sequence[str]) -> NoReturn:
        for text in texts:
            parse(text)
            if text[:-PATH_CHARS] != self._base_url:
                raise OtherBaseUrl(
                    "a code text stands under another base URL than its order", hint="make an encoder for each base URL"
                )
        raise AssertionError("the encoder refused a right code text")


def symbol(text: str, level: Level = "M") -> Modules:
    """The symbol of one code text, without quiet zone: (size, size), True is dark, the least-penalty mask chosen.

    Raises Malformed for anything that is not a code text, and SymbolTooLarge.
    """
    parse(text)
    modules: Modules = _encoder(text[:-PATH_CHARS], level).encode([text])[0]
    return modules


def image(modules: Modules, module_px: int, quiet_zone_modules: int = QUIET_ZONE_MODULES) -> Image.Image:
    """The symbol as a picture of one bit a pixel, with its quiet zone."""
    light = ~np.pad(modules, quiet_zone_modules)
    return Image.fromarray(light.repeat(module_px, axis=0).repeat(module_px, axis=1))


def version(modules: Modules) -> int:
    """The symbol's version, 1..40 (ISO/IEC 18004:2015, 5.3.1)."""
    return (len(modules) - 17) // 4


@lru_cache(maxsize=_ENCODERS_REMEMBERED)
def _encoder(base_url: str, level: Level) -> SymbolEncoder:
    return SymbolEncoder(base_url, level)
