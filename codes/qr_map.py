"""How data bits become modules: the affine map over GF(2) that a QR symbol is, learned from `qrcode`.

For one version and level, Reed-Solomon coding, interleaving, placement and masking (ISO/IEC 18004:2015, 7.5 to 7.8) are
linear or constant. `qrcode` stays the only source of how they go; it is asked once what each bit does.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import qrcode
from numpy.typing import NDArray
from qrcode.base import RSBlock, rs_blocks
from qrcode.util import BitBuffer, create_bytes

Level = Literal["L", "M", "Q", "H"]
Modules = NDArray[np.bool_]
Words = NDArray[np.uint64]

LEVELS: dict[Level, int] = {
    "L": qrcode.constants.ERROR_CORRECT_L,
    "M": qrcode.constants.ERROR_CORRECT_M,
    "Q": qrcode.constants.ERROR_CORRECT_Q,
    "H": qrcode.constants.ERROR_CORRECT_H,
}
MASKS = 8
WORD_BITS = 64


@dataclass(frozen=True, slots=True, eq=False)
class SymbolMap:
    """The symbols of one version and level. A row of modules is a word: bit 63 is the left column, dark is 1.

    A symbol is the frame of its mask, (8, size), with the modules of every data bit that is 1, (bits, size), added by
    exclusive or.
    """

    modules: Words
    frames: Words


@cache
def learn(version: int, level: Level) -> SymbolMap:
    """The map of a version, 1..11, at a level; learned once a process, in a tenth of a second or less."""
    codeword_bits = _codeword_bits(version, level)
    places = _places(version, level)
    size = symbol_size(version)
    modules = np.zeros((len(codeword_bits), size * size), np.bool_)
    modules[:, places] = codeword_bits
    nothing = [0] * (len(places) // 8)
    frames = np.stack([drawn(version, level, nothing, mask) for mask in range(MASKS)])
    return SymbolMap(packed(modules.reshape(-1, size, size)), packed(frames))


def symbol_size(version: int) -> int:
    """Modules a side, without quiet zone (ISO/IEC 18004:2015, 5.3.1)."""
    return 17 + 4 * version


def drawn(version: int, level: Level, codewords: list[int], mask: int) -> Modules:
    """The symbol that `qrcode` draws of interleaved codewords under a mask: (size, size)."""
    code = qrcode.QRCode(version, LEVELS[level], border=0)
    code.data_cache = codewords
    code.makeImpl(False, mask)
    return np.array(code.modules, np.bool_)


def packed(modules: Modules) -> Words:
    """Rows of at most 64 modules as words: (..., columns) becomes (...)."""
    columns = modules.shape[-1]
    wide = np.zeros((*modules.shape[:-1], WORD_BITS), np.bool_)
    wide[..., :columns] = modules
    return np.packbits(wide, axis=-1).view(">u8")[..., 0].astype(np.uint64)


def unpacked(rows: Words, columns: int) -> Modules:
    """The modules of rows held as words: (...) becomes (..., columns)."""
    octets = rows.astype(">u8")[..., None].view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=columns).view(np.bool_)


def _codeword_bits(version: int, level: Level) -> Modules:
    """What each data bit adds to the interleaved codewords of a symbol: (data bits, codeword bits)."""
    blocks = rs_blocks(version, LEVELS[level])
    longest = max(block.data_count for block in blocks)
    correction = blocks[0].total_count - blocks[0].data_count
    parity = _parity_bits(longest, correction)
    numbered = list(enumerate(blocks))
    # ISO/IEC 18004:2015, 7.6: the first codeword of every block, then the second of every block that has one, ...
    order = [(number, byte) for byte in range(longest) for number, block in numbered if byte < block.data_count]
    order += [(number, -1 - byte) for byte in range(correction) for number, _ in numbered]
    position = {codeword: place * 8 + np.arange(8) for place, codeword in enumerate(order)}
    bits = np.zeros((8 * sum(block.data_count for block in blocks), 8 * len(order)), np.bool_)
    first = 0
    for number, block in numbered:
        own = np.arange(first, first + 8 * block.data_count)
        bits[own, np.concatenate([position[number, byte] for byte in range(block.data_count)])] = True
        checks = np.concatenate([position[number, -1 - byte] for byte in range(correction)])
        # A shorter block is a longer one that starts with zeros.
        bits[own[:, None], checks] = parity[-len(own) :]
        first += len(own)
    return bits


def _parity_bits(data_count: int, correction: int) -> Modules:
    """What each data bit of one block adds to its error correction bits: (8 data_count, 8 correction)."""
    # Asked of blocks of one codeword alone, and never of a block of zeros, on which qrcode 8.2 fails.
    buffer = BitBuffer()
    buffer.buffer = list(range(1, 256))
    answer = create_bytes(buffer, [RSBlock(1 + correction, 1)] * 255)
    octets = np.zeros((256, correction), np.uint8)
    octets[1:] = np.reshape(answer, (-1, 255))[1:].T
    parity = np.empty((data_count, 8, correction), np.uint8)
    parity[-1] = octets[1 << np.arange(7, -1, -1)]
    for byte in range(data_count - 2, -1, -1):
        # The code is cyclic: one codeword earlier is one step more of the division by the generator polynomial.
        later = parity[byte + 1]
        parity[byte] = octets[later[:, 0]]
        parity[byte, :, :-1] ^= later[:, 1:]
    return np.unpackbits(parity.reshape(-1, correction), axis=1).view(np.bool_)


def _places(version: int, level: Level) -> NDArray[np.intp]:
    """The module of each codeword bit, row * size + column."""
    count = 8 * sum(block.total_count for block in rs_blocks(version, LEVELS[level]))
    # Symbols whose codewords spell the digits of their bits' own numbers; 0 is left to the function patterns.
    numbers = np.arange(1, count + 1)
    nothing = drawn(version, level, [0] * (count // 8), 0)
    spelled = np.zeros(nothing.shape, np.intp)
    for digit in range(count.bit_length()):
        codewords = np.packbits(numbers >> digit & 1).tolist()
        spelled |= (drawn(version, level, codewords, 0) ^ nothing).astype(np.intp) << digit
    (places,) = np.nonzero(spelled.ravel())
    return places[np.argsort(spelled.ravel()[places])]
