"""Frontier: the right edge of a log's tree, which is all that appending leaves to it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from ..errors import LogMalformed, TileMissing
from .tiles import LEVEL_MAX, TILE_BYTES, TILE_HASHES, TILE_HEIGHT, TileId, partial_tiles
from .tree import HASH_BYTES, TREE_SIZE_MAX, check_hashes, check_whole, fold, row_root

APPEND_HASHES_MAX: Final = 1 << 16
"""Leaves appended at once; each takes 32 bytes of memory, thrice."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A complete tile of hashes: 8,192 bytes that never change again."""

    id: TileId
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: its size, and for each level of tiles the hashes that fill no tile yet.

    `rows[l]` has (size >> 8 l) % 256 hashes of 32 bytes, for l 0 to LEVEL_MAX. Other lengths raise LogMalformed.
    """

    size: int = 0
    rows: tuple[bytes, ...] = (b"",) * (LEVEL_MAX + 1)

    def __post_init__(self) -> None:
        check_whole(self.size, "the tree size", 0, TREE_SIZE_MAX)
        if [len(row) for row in self.rows] != [count * HASH_BYTES for count in _widths(self.size)]:
            raise LogMalformed("the partial tiles are not as wide as a tree of this size has them")

    @classmethod
    def of_tiles(cls, size: int, tiles: Sequence[bytes]) -> Self:
        """The edge of a tree of this size, from the contents of `partial_tiles(size)` in their order.

        Raises TileMissing when there are more or fewer, LogMalformed when one has another width.
        """
        wanted = partial_tiles(size)
        if len(tiles) != len(wanted):
            raise TileMissing(f"a tree of {size} leaves has {len(wanted)} partial tiles, not {len(tiles)}")
        rows = {tile.level: content for tile, content in zip(wanted, tiles, strict=True)}
        return cls(size, tuple(rows.get(level, b"") for level in range(LEVEL_MAX + 1)))

    def append(self, hashes: Sequence[bytes]) -> "Grown":
        """Append leaves by their hashes, up to APPEND_HASHES_MAX; the tree never grows past TREE_SIZE_MAX.

        Returns the new edge and the tiles that became complete, each after those that it is made of.
        """
        check_hashes(hashes, "the leaf hashes")
        check_whole(len(hashes), "the number of leaves to append", 0, APPEND_HASHES_MAX)
        check_whole(self.size + len(hashes), "the tree size", 0, TREE_SIZE_MAX)
        rows, complete = list(self.rows), []
        more = b"".join(hashes)
        for level in range(LEVEL_MAX + 1):
            row = rows[level] + more
            index = (self.size >> (TILE_HEIGHT * level)) // TILE_HASHES
            full = len(row) // TILE_BYTES
            tiles = [row[at * TILE_BYTES : (at + 1) * TILE_BYTES] for at in range(full)]
            complete += [Tile(TileId(level, index + at), tile) for at, tile in enumerate(tiles)]
            rows[level] = row[full * TILE_BYTES :]
            if not full:
                break
            more = b"".join(map(row_root, tiles))
        return Grown(Frontier(self.size + len(hashes), tuple(rows)), tuple(complete))

    @property
    def root(self) -> bytes:
        """The root of the tree (RFC 9162, 2.1.1)."""
        roots = []
        for row in reversed(self.rows):
            at, count = 0, len(row) // HASH_BYTES
            while at < count:
                power = 1 << ((count - at).bit_length() - 1)
                roots.append(row_root(row[at * HASH_BYTES : (at + power) * HASH_BYTES]))
                at += power
        return fold(roots)

    @property
    def partial(self) -> tuple[tuple[TileId, bytes], ...]:
        """The partial tiles, the lowest level first: to be served for this size beside the complete ones."""
        return tuple((tile, self.rows[tile.level or 0]) for tile in partial_tiles(self.size))


@dataclass(frozen=True, slots=True)
class Grown:
    """What appending made: the new edge, and the tiles that became complete."""

    frontier: Frontier
    tiles: tuple[Tile, ...]


def _widths(size: int) -> list[int]:
    return [(size >> (TILE_HEIGHT * level)) % TILE_HASHES for level in range(LEVEL_MAX + 1)]
