"""Symbols of a chunk, drawn once for all the exports of a run that need them."""

from functools import lru_cache

from codes.exports.layout import Level
from codes.pipeline import Chunk
from codes.qr import Modules, SymbolEncoder
from codes.qr_map import Words, unpacked


class Symbols:
    """The symbols of one base URL and level. The last chunk's are kept: a PDF and a PNG export ask for the same."""

    def __init__(self, base_url: str, level: Level) -> None:
        self._encoder = SymbolEncoder(base_url, level)
        self.size = self._encoder.size
        self._chunk: Chunk | None = None
        self._rows: Words | None = None

    def rows(self, chunk: Chunk) -> Words:
        """The chunk's symbols without quiet zone, a row a word from its highest bit on: (n, size), 1 is dark."""
        if self._rows is None or self._chunk is not chunk:
            self._rows = self._encoder.encode_rows(chunk.texts)
            self._chunk = chunk
        return self._rows

    def modules(self, chunk: Chunk) -> Modules:
        """The chunk's symbols without quiet zone: (n, size, size), True is dark."""
        return unpacked(self.rows(chunk), self.size)


@lru_cache(maxsize=2)
def symbols_of(base_url: str, level: Level) -> Symbols:
    """Learning to draw takes a while, so every export of a run shares what was learnt."""
    return Symbols(base_url, level)
