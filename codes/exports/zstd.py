"""Zstandard (RFC 8878) around another export: one frame a section; frames in a row are one file to every decoder."""

import zstandard

from codes.exports import Export
from codes.pipeline import CHUNK_ITEMS, Chunk, Section

LEVEL = 3  # zstd's own default; a higher one saves little where most bits are a signature
_ITEM_BYTES_MAX = 120
"""Measured: 89 to 93. The 64 bytes of a signature cannot be compressed; as digits they take a little more."""
_FRAME_BYTES_MAX = 600
"""Header, checksum, and the first item, which has nothing before it to be like."""


class ZstdExport:
    """The other export's files, with .zst at the end of their names."""

    def __init__(self, plain: Export) -> None:
        self._plain = plain
        # The size and the checksum let a print house see a file that was cut short or damaged.
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)

    def path(self, section: Section) -> str:
        return f"{self._plain.path(section)}.zst"

    def render(self, chunk: Chunk) -> bytes:
        return self._compressor.compress(self._plain.render(chunk))

    def bytes_max(self, items: int) -> int:
        return items * _ITEM_BYTES_MAX + (1 + 2 * items // CHUNK_ITEMS) * _FRAME_BYTES_MAX
