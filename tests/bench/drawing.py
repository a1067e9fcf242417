"""How fast symbols are drawn: ours beside `qrcode`, zxing-cpp and libqrencode, all with the best of the eight masks."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qrcode
import zxingcpp
from qrcode.util import QRData

from codes.qr import SymbolEncoder
from offline_sdk.code_text import segments
from tests.bench.factory import BASE_URL, Factory
from tests.bench.figures import Figure, figure, in_turns, rate_of

ROUNDS = 5
SYMBOLS = 10_000
QRCODE_SYMBOLS = 12
ZXING_SYMBOLS = 300
LIBQRENCODE_SYMBOLS = 1_000
LEVEL = "M"
SIZE = 45

_LIBQRENCODE = "libqrencode.so.4"
# qrencode.h: QR_MODE_8, QR_MODE_NUM, QR_MODE_AN; QR_ECLEVEL_M.
_LIBQRENCODE_MODES = (2, 0, 1, 0, 1, 0)
_LIBQRENCODE_LEVEL = 1


class _LibqrencodeSymbol(ctypes.Structure):
    _fields_ = (("version", ctypes.c_int), ("width", ctypes.c_int), ("data", ctypes.POINTER(ctypes.c_ubyte)))


def symbols(folder: Path) -> list[Figure]:
    """QR symbols of version 7-M of the same six segments; zxing-cpp and no other finds its segments itself."""
    texts = Factory(folder / "keys").texts(SYMBOLS)
    encoder = SymbolEncoder(BASE_URL, LEVEL)
    encoder.encode(texts[:1])

    def ours() -> None:
        assert encoder.encode(texts).shape == (SYMBOLS, SIZE, SIZE)

    yardsticks: dict[str, tuple[int, Callable[[str], int]]] = {
        "qrcode, same segments": (QRCODE_SYMBOLS, _with_qrcode),
        "zxing-cpp": (ZXING_SYMBOLS, _with_zxing),
        "libqrencode in C, same segments": (LIBQRENCODE_SYMBOLS, _with_libqrencode()),
    }

    def drawing(count: int, size_of: Callable[[str], int]) -> Callable[[], float]:
        def draw() -> None:
            for text in texts[:count]:
                assert size_of(text) == SIZE

        return lambda: rate_of(count, draw)

    rates, *beside = in_turns(
        ROUNDS, lambda: rate_of(SYMBOLS, ours), *(drawing(count, size_of) for count, size_of in yardsticks.values())
    )
    return [
        figure("QR symbols, best mask, one core", rates, "symbols/s", name, theirs)
        for name, theirs in zip(yardsticks, beside, strict=True)
    ]


def _with_qrcode(text: str) -> int:
    code = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_M, border=0)
    for part, mode in zip(segments(text), (4, 1, 2, 1, 2, 1), strict=True):
        code.add_data(QRData(part, mode=mode), optimize=0)
    code.make(fit=True)
    return len(code.modules)


def _with_zxing(text: str) -> int:
    barcode = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, ec_level=LEVEL)
    return len(np.asarray(barcode.to_image(scale=1, add_quiet_zones=False)))


def _with_libqrencode() -> Callable[[str], int]:
    try:
        library = ctypes.CDLL(_LIBQRENCODE)
    except OSError:
        sys.exit(f"{_LIBQRENCODE} is missing and is this bench's yardstick: apt-get install -y libqrencode4")
    library.QRinput_new2.restype = ctypes.c_void_p
    library.QRinput_append.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p)
    library.QRcode_encodeInput.argtypes = (ctypes.c_void_p,)
    library.QRcode_encodeInput.restype = ctypes.POINTER(_LibqrencodeSymbol)
    library.QRcode_free.argtypes = (ctypes.POINTER(_LibqrencodeSymbol),)
    library.QRinput_free.argtypes = (ctypes.c_void_p,)

    def size_of(text: str) -> int:
        content = library.QRinput_new2(0, _LIBQRENCODE_LEVEL)
        for part, mode in zip(segments(text), _LIBQRENCODE_MODES, strict=True):
            library.QRinput_append(content, mode, len(part), part.encode("ascii"))
        drawn = library.QRcode_encodeInput(content)
        width: int = drawn.contents.width
        library.QRcode_free(drawn)
        library.QRinput_free(content)
        return width

    return size_of
