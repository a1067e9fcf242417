"""QR symbols on pages: what a till reads off a phone, or one phone off another, as a path of SVG."""

from dataclasses import dataclass

import qrcode
from qrcode.constants import ERROR_CORRECT_M

QUIET_ZONE_MODULES = 4  # ISO/IEC 18004:2015, 5.3.8


@dataclass(frozen=True)
class QrView:
    """A symbol: `size` modules a side, with its quiet zone; `path` draws the dark ones, a unit a module."""

    size: int
    path: str


def symbol(text: str) -> QrView:
    """The symbol of a text, at level M."""
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_M, border=QUIET_ZONE_MODULES)
    code.add_data(text)
    rows = code.get_matrix()
    return QrView(len(rows), "".join(_runs(y, row) for y, row in enumerate(rows)))


def _runs(y: int, row: list[bool]) -> str:
    """The dark modules of a row, a run at a time."""
    drawn, begin = [], 0
    for x in range(1, len(row) + 1):
        if x == len(row) or row[x] != row[begin]:
            if row[begin]:
                drawn.append(f"M{begin} {y}h{x - begin}v1h{begin - x}z")
            begin = x
    return "".join(drawn)
