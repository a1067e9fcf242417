"""Grades: how well a symbol was printed, as far as a scan can tell.

An indication and not a verifier's grade: ISO/IEC 15415 wants calibrated light, a calibrated reflectance and a
measuring aperture, and grades five more parameters than these.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codes.inspection.scans import Grey
from codes.inspection.symbols import Symbol
from codes.qr import QUIET_ZONE_MODULES

MODULE_MM_MIN = 0.33
"""The smallest module that ordinary presses and label printers keep apart."""
_MM_PER_INCH = 25.4
_WHITE = 255
_APERTURE = (-0.2, 0.2)  # of a module, around its centre: what is measured keeps off the edges
_MODULE_SLACK_MM = 0.003  # corners are told in whole pixels: a part in 180 of a version 7 symbol at 300 dpi


class Grade(StrEnum):
    """A is best; F fails (ISO/IEC 15415, 5.2)."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    F = "F"


_CONTRAST = ((0.70, Grade.A), (0.55, Grade.B), (0.40, Grade.C), (0.20, Grade.D))
_UNUSED_CORRECTION = ((0.62, Grade.A), (0.50, Grade.B), (0.37, Grade.C), (0.25, Grade.D))


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured of a symbol.

    `contrast` is the lightest less the darkest module of symbol and quiet zone, `unused_correction` what was left of
    the error correction, both 0..1; `module_mm` is None where the scan's resolution is not known; `quiet_zone` tells
    whether four light modules stand around the symbol (ISO/IEC 18004, 5.3.8).
    """

    contrast: float
    unused_correction: float
    module_px: float
    module_mm: float | None
    quiet_zone: bool

    @property
    def grade(self) -> Grade:
        """The worse of the grades of contrast and of unused error correction (ISO/IEC 15415, 7.8)."""
        return max(_graded(self.contrast, _CONTRAST), _graded(self.unused_correction, _UNUSED_CORRECTION))

    @property
    def is_small(self) -> bool:
        """Whether its modules are smaller than printers print reliably."""
        return self.module_mm is not None and self.module_mm < MODULE_MM_MIN - _MODULE_SLACK_MM

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps, rounded to what a scan can tell."""
        return {
            "grade": self.grade.value,
            "contrast": round(self.contrast, 2),
            "unused_correction": round(self.unused_correction, 2),
            "module_px": round(self.module_px, 2),
            "module_mm": None if self.module_mm is None else round(self.module_mm, 3),
            "quiet_zone": self.quiet_zone,
        }


def measure(page: Grey, symbol: Symbol, dpi: float | None) -> Quality:
    """Measure a symbol of a page that was scanned at this resolution."""
    tones = _modules(page, symbol)
    light, dark = float(tones.max()), float(tones.min())
    around = np.ones(tones.shape, dtype=np.bool_)
    around[QUIET_ZONE_MODULES:-QUIET_ZONE_MODULES, QUIET_ZONE_MODULES:-QUIET_ZONE_MODULES] = False
    module_px = sum(symbol.sides) / 4 / symbol.modules
    return Quality(
        contrast=(light - dark) / _WHITE,
        unused_correction=symbol.unused_correction,
        module_px=module_px,
        module_mm=None if dpi is None else module_px * _MM_PER_INCH / dpi,
        quiet_zone=bool(tones[around].min() >= (light + dark) / 2),
    )


def _graded(value: float, scale: tuple[tuple[float, Grade], ...]) -> Grade:
    return next((grade for least, grade in scale if value >= least), Grade.F)


def _modules(page: Grey, symbol: Symbol) -> NDArray[np.float64]:
    """The tone of every module of the symbol and its quiet zone, 0..255."""
    places = np.arange(-QUIET_ZONE_MODULES, symbol.modules + QUIET_ZONE_MODULES) + 0.5
    steps = (places[:, None] + np.array(_APERTURE)).ravel() / symbol.modules
    x, y = _on_page(symbol, steps)
    rows = np.clip(y, 0, page.shape[0] - 1).astype(np.intp)
    columns = np.clip(x, 0, page.shape[1] - 1).astype(np.intp)
    tones = page[rows, columns].reshape(len(places), len(_APERTURE), len(places), len(_APERTURE))
    return np.asarray(tones.mean(axis=(1, 3)))


def _on_page(symbol: Symbol, steps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the points (u, v) lie whose parts of the way across and down the symbol are `steps`: x and y, [v, u].

    The perspective that takes the unit square to the four corners.
    """
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = symbol.corners
    sx, sy = ax - bx + cx - dx, ay - by + cy - dy
    determinant = (bx - cx) * (dy - cy) - (dx - cx) * (by - cy)
    g = (sx * (dy - cy) - (dx - cx) * sy) / determinant
    h = ((bx - cx) * sy - sx * (by - cy)) / determinant
    u, v = steps[None, :], steps[:, None]
    w = g * u + h * v + 1
    x = ((bx - ax + g * bx) * u + (dx - ax + h * dx) * v + ax) / w
    y = ((by - ay + g * by) * u + (dy - ay + h * dy) * v + ay) / w
    return x, y
