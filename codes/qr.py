"""QR symbols of code texts (ISO/IEC 18004), with the segments that keep them small."""

from typing import Literal

import numpy as np
import qrcode
from numpy.typing import NDArray
from PIL import Image
from qrcode.util import QRData

from offline_sdk.code_text import segments

Level = Literal["L", "M", "Q", "H"]

QUIET_ZONE_MODULES = 4  # ISO/IEC 18004, 5.3.8
_LEVELS = {
    "L": qrcode.constants.ERROR_CORRECT_L,
    "M": qrcode.constants.ERROR_CORRECT_M,
    "Q": qrcode.constants.ERROR_CORRECT_Q,
    "H": qrcode.constants.ERROR_CORRECT_H,
}
# Mode indicators (ISO/IEC 18004, table 2): byte, numeric, alphanumeric, numeric, alphanumeric, numeric.
_MODES: tuple[Literal[1, 2, 4], ...] = (4, 1, 2, 1, 2, 1)

Modules = NDArray[np.bool_]


def symbol(text: str, level: Level = "M") -> Modules:
    """The symbol of a code text, without quiet zone: (size, size), True is dark, the least-penalty mask chosen.

    Raises Malformed for anything that is not a code text.
    """
    code = qrcode.QRCode(error_correction=_LEVELS[level], border=0)
    for part, mode in zip(segments(text), _MODES, strict=True):
        code.add_data(QRData(part, mode=mode), optimize=0)
    code.make(fit=True)
    return np.array(code.modules, dtype=np.bool_)


def image(modules: Modules, module_px: int, quiet_zone_modules: int = QUIET_ZONE_MODULES) -> Image.Image:
    """The symbol as a picture of one bit a pixel, with its quiet zone."""
    light = ~np.pad(modules, quiet_zone_modules)
    return Image.fromarray(light.repeat(module_px, axis=0).repeat(module_px, axis=1))


def version(modules: Modules) -> int:
    """The symbol's version, 1..40 (ISO/IEC 18004, 5.3.1)."""
    return (len(modules) - 17) // 4
