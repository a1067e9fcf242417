"""Tiles: how a log's hashes and entries are cut into files, what they are called, and what is in them.

C2SP tlog-tiles: a tile of level l has up to 256 roots of subtrees of height 8 l, an entry bundle up to 256 entries.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from ..errors import LogMalformed, TileMissing
from .commitment import COMMITTED_ENTRY, OPENING_LINE
from .tree import HASH_BYTES, TREE_SIZE_MAX, Subtree, check_whole, row_root

TILE_HEIGHT: Final = 8
TILE_HASHES: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_HASHES * HASH_BYTES
LEVEL_MAX: Final = 6
"""The level whose tiles reach TREE_SIZE_MAX."""
ENTRY_BYTES_MAX: Final = 65_535
"""An entry's length has two bytes (tlog-tiles, log entries)."""
ENTRY_BUNDLE_BYTES_MAX: Final = TILE_HASHES * (2 + ENTRY_BYTES_MAX)
PATH_CHARS_MAX: Final = 64

_DIGEST_ENTRY: Final = b"sha-256:"
_PATH: Final = re.compile(r"tile/(?:([0-6])|entries)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True)
class TileId:
    """Which tile: `level` 0 to LEVEL_MAX, None for a bundle of entries; `index` from the left; `width` 1 to 256.

    A width below 256 is that of a partial tile. A bad field raises LogMalformed.
    """

    level: int | None
    index: int
    width: int = TILE_HASHES

    def __post_init__(self) -> None:
        if self.level is not None:
            check_whole(self.level, "a tile's level", 0, LEVEL_MAX)
        check_whole(self.index, "a tile's index", 0, TREE_SIZE_MAX >> (TILE_HEIGHT * ((self.level or 0) + 1)))
        check_whole(self.width, "a tile's width", 1, TILE_HASHES)

    @classmethod
    def of_path(cls, path: str) -> Self:
        """The tile of this path, as `path` writes it. Raises LogMalformed."""
        match = _PATH.fullmatch(path) if len(path) <= PATH_CHARS_MAX else None
        if match is None:
            raise LogMalformed("this is not the path of a tile")
        level, steps, last, width = match.groups()
        index = int((steps.replace("x", "") + last).replace("/", ""))
        tile = cls(None if level is None else int(level), index, TILE_HASHES if width is None else int(width))
        # One tile has one path: `x000/` before the number and `.p/256` end here.
        if tile.path != path:
            raise LogMalformed("this path of a tile is not in its one form")
        return tile

    @property
    def path(self) -> str:
        """Where the tile is served and kept, from the log's prefix, such as tile/0/x001/x234/067.p/8."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        steps = "".join(f"x{group}/" for group in groups[:-1])
        partial = "" if self.width == TILE_HASHES else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{steps}{groups[-1]}{partial}"

    @property
    def start(self) -> int:
        """The index of the tile's first leaf."""
        return self.index << (TILE_HEIGHT * ((self.level or 0) + 1))


def partial_tiles(size: int) -> tuple[TileId, ...]:
    """The partial tiles of hashes at the right edge of a tree of this size, the lowest level first."""
    check_whole(size, "the tree size", 0, TREE_SIZE_MAX)
    found = []
    for level in range(LEVEL_MAX + 1):
        count = size >> (TILE_HEIGHT * level)
        if count % TILE_HASHES:
            found.append(TileId(level, count // TILE_HASHES, count % TILE_HASHES))
    return tuple(found)


def tiles_of(size: int, level: int | None) -> Iterator[TileId]:
    """The tiles of a level in a tree of this size, from the left; of None, the bundles of entries."""
    count = size >> (TILE_HEIGHT * (level or 0))
    for index in range(count // TILE_HASHES):
        yield TileId(level, index)
    if count % TILE_HASHES:
        yield TileId(level, count // TILE_HASHES, count % TILE_HASHES)


def tile_holding(subtree: Subtree, size: int) -> TileId:
    """The tile, in a tree of this size, from whose hashes the root of a subtree is made."""
    level, within = divmod(subtree.height, TILE_HEIGHT)
    index = (subtree.index << within) // TILE_HASHES
    return TileId(level, index, min(TILE_HASHES, (size >> (TILE_HEIGHT * level)) - index * TILE_HASHES))


def tiles_holding(subtrees: Iterable[Subtree], size: int) -> tuple[TileId, ...]:
    """The tiles, each once, to fetch before proving from these subtrees; few, whatever the size: O(log size)."""
    return tuple(dict.fromkeys(tile_holding(subtree, size) for subtree in subtrees))


class Tiles:
    """A HashReader of tiles that were fetched: by (level, index), at least as wide as the tree needs them."""

    def __init__(self, tiles: Mapping[tuple[int, int], bytes]) -> None:
        self._tiles = tiles

    def read(self, subtree: Subtree) -> bytes:
        """The root of this subtree, 32 bytes. Raises TileMissing."""
        level, within = divmod(subtree.height, TILE_HEIGHT)
        index, at = divmod(subtree.index << within, TILE_HASHES)
        tile = self._tiles.get((level, index), b"")
        row = tile[at * HASH_BYTES : (at + (1 << within)) * HASH_BYTES]
        if len(row) != HASH_BYTES << within:
            raise TileMissing(f"tile {index} of level {level} is not there or not wide enough; fetch it")
        return row_root(row)


def check_tile(content: bytes, tile: TileId) -> bytes:
    """Return the hashes of a tile, those beyond its width cut off. Raises LogMalformed when it has another length."""
    wanted = tile.width * HASH_BYTES
    if len(content) not in (wanted, TILE_BYTES):
        raise LogMalformed(f"{tile.path} has {len(content)} bytes, not {wanted}")
    return content[:wanted]


def entry_of(record: bytes) -> bytes:
    """The entry of a record: itself, or `sha-256:` and its digest in hex where it is longer than an entry can be.

    So that no record passes for another one, no record may begin with `sha-256:`, as a commitment does, or as the line
    of an opening does. Raises LogMalformed.
    """
    if record.startswith((_DIGEST_ENTRY, COMMITTED_ENTRY, OPENING_LINE)):
        raise LogMalformed("a record that begins with sha-256:, or as a commitment does, could pass for another one")
    return record if len(record) <= ENTRY_BYTES_MAX else _DIGEST_ENTRY + sha256(record).hexdigest().encode()


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """The bundle of 1 to 256 entries (tlog-tiles, log entries). Raises LogMalformed when one is too long."""
    check_whole(len(entries), "the number of entries of a bundle", 1, TILE_HASHES)
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise LogMalformed(f"an entry has at most {ENTRY_BYTES_MAX} bytes; log the digest of a longer record")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_entries(bundle: bytes) -> list[bytes]:
    """The entries of a bundle, 1 to 256. Raises LogMalformed when it ends within one, or has more or none."""
    entries, is_whole = split_entries(bundle)
    if not is_whole:
        raise LogMalformed("a bundle of entries ends within an entry")
    if not 1 <= len(entries) <= TILE_HASHES:
        raise LogMalformed(f"a bundle does not have 1 to {TILE_HASHES} entries")
    return entries


def split_entries(bundle: bytes) -> tuple[list[bytes], bool]:
    """The whole entries of any bytes, and whether nothing is left behind the last one."""
    entries, at, end = [], 0, len(bundle)
    length_at = struct.Struct(">H").unpack_from
    while at + 2 <= end:
        start = at + 2
        after = start + length_at(bundle, at)[0]
        if after > end:
            break
        entries.append(bundle[start:after])
        at = after
    return entries, at == end
