"""Diagnosis: which leaf of an export is the first that is not as it was signed, and what was done to it.

The checkpoint's root vouches for the tiles that lead to it, these for those below, down to the hash of each leaf. What
entries hash to something else is then known one by one; where somebody altered the tiles as well, within their bounds.
"""

from itertools import product

from ..errors import LogMalformed
from .checkpoint import Checkpoint
from .export import Export
from .findings import Bundle, Change, Finding, bundle_of, change_of, first_difference
from .frontier import Frontier
from .tiles import LEVEL_MAX, TILE_HASHES, TILE_HEIGHT, TileId, check_tile, partial_tiles
from .tree import HASH_BYTES, leaf_hashes, row_root


def first_wrong_entry(export: Export, head: Checkpoint, computed: Frontier, low: int, high: int) -> Finding:
    """The finding about the first leaf that is wrong in an export whose entries do not lead to the checkpoint's root.

    `computed` is the tree of the entries up to the first bundle that is not complete. From elsewhere it is known that
    the leaf is at `low` or behind, and before `high`.
    """
    signed = _SignedTiles(export, head, computed)
    if computed.size < head.size:
        # The reading ended at this bundle, so if none before it is wrong, it is.
        high = min(high, computed.size + TILE_HASHES, head.size)
    index = 0
    while index < head.size:
        tile = _bundle_at(index, head.size)
        row = signed.row(0, tile.index)
        bundle = bundle_of(export, tile)
        hashes = leaf_hashes(bundle.entries)
        if row is not None:
            wanted = _split(row)
            if hashes != wanted or not bundle.is_complete:
                return _wrong(export, bundle, hashes, wanted, signed)
            index = tile.start + tile.width
            continue
        level, above = signed.known_above(tile.index)
        end = min((above + 1) << (TILE_HEIGHT * (level + 1)), head.size)
        if signed.hash_of(level, above) is None or not _leads_to(export, above, level, signed):
            start, stop = max(index, low), min(end, high)
            # A log that signed two histories has older checkpoints that do not narrow but contradict.
            return _in_range(export, start, stop) if start < stop else _in_range(export, index, end)
        index = end
    return _in_range(export, low, high)


class _SignedTiles:
    """The tiles that the checkpoint's root vouches for; of each level one is remembered, as they are read in order."""

    def __init__(self, export: Export, head: Checkpoint, computed: Frontier) -> None:
        self._export = export
        self.size = head.size
        self._root = head.root
        self._edge = self._signed_edge(computed)
        self._rows: dict[int, tuple[int, bytes | None]] = {}

    def row(self, level: int, index: int) -> bytes | None:
        """The hashes of a tile that the root vouches for, or None where the export's are others."""
        remembered = self._rows.get(level)
        if remembered is None or remembered[0] != index:
            self._rows[level] = remembered = (index, self._find(level, index))
        return remembered[1]

    def hash_of(self, level: int, index: int) -> bytes | None:
        """The hash above a complete tile that the root vouches for."""
        above = self.row(level + 1, index // TILE_HASHES) if level < LEVEL_MAX else None
        at = index % TILE_HASHES * HASH_BYTES
        return None if above is None else above[at : at + HASH_BYTES]

    def known_above(self, index: int) -> tuple[int, int]:
        """The lowest tile above a bundle whose own hash is vouched for: level and index; the highest where none is."""
        level = 0
        while self.hash_of(level, index) is None and level < LEVEL_MAX:
            level, index = level + 1, index // TILE_HASHES
        return level, index

    def _find(self, level: int, index: int) -> bytes | None:
        if index == (self.size >> (TILE_HEIGHT * level)) // TILE_HASHES:
            return None if self._edge is None else self._edge[level]
        stored, wanted = _stored(self._export, TileId(level, index)), self.hash_of(level, index)
        return stored if stored is not None and wanted is not None and row_root(stored) == wanted else None

    def _signed_edge(self, computed: Frontier) -> tuple[bytes, ...] | None:
        """The partial tiles that lead to the root: each as the export has it, or as its entries lead to."""
        choices = [[b""] for _ in range(LEVEL_MAX + 1)]
        for tile in partial_tiles(self.size):
            stored = _stored(self._export, tile)
            level = tile.level or 0
            rows = [stored, computed.rows[level] if computed.size == self.size else None]
            choices[level] = list(dict.fromkeys(row for row in rows if row is not None))
        for rows_chosen in product(*choices):
            if Frontier(self.size, rows_chosen).root == self._root:
                return rows_chosen
        return None


def _stored(export: Export, tile: TileId) -> bytes | None:
    _path, content = export.tile(tile)
    if content is None:
        return None
    try:
        return check_tile(content, tile)
    except LogMalformed:
        return None


def _wrong(export: Export, bundle: Bundle, hashes: list[bytes], wanted: list[bytes], signed: _SignedTiles) -> Finding:
    """The finding about a bundle of which each leaf's right hash is known."""
    tile, path = bundle.tile, bundle.path
    at = first_difference(hashes, wanted)
    index = tile.start + at
    if bundle.why == "missing":
        count = _missing_from(export, tile, signed.size)
        message = f"leaf {index} was removed: {path} is missing"
        return Finding(Change.ENTRY_REMOVED, message, index, index, count, path)
    found, right = hashes[at:], wanted[at:]
    if tile.start + tile.width < signed.size:
        following = _bundle_at(tile.start + tile.width, signed.size)
        row = signed.row(0, following.index)
        # Behind entries of which nothing is known, nothing may be compared.
        if row is not None:
            found = found + leaf_hashes(bundle_of(export, following).entries)
            right = right + _split(row)
    offset = bundle.offset(at)
    if bundle.why and at == len(hashes):
        message = f"leaf {index} was altered: {path} is cut off within its entry, at byte {offset}"
        return Finding(Change.ENTRY_ALTERED, message, index, index, None, path, offset)
    kind, some = change_of(found, right)
    message = f"leaf {index} was {kind}: {path} at byte {offset} is not what was signed"
    return Finding(Change(f"entry_{kind}"), message, index, index, some, path, offset)


def _missing_from(export: Export, tile: TileId, size: int) -> int:
    """How many leaves are gone from a bundle on, up to the next bundle that is there."""
    end = tile.start
    while end < size and bundle_of(export, _bundle_at(end, size)).why == "missing":
        end += _bundle_at(end, size).width
    return end - tile.start


def _in_range(export: Export, start: int, end: int) -> Finding:
    """The finding about leaves of which it is only known that one of them is wrong."""
    message = f"a leaf from {start} to {end - 1} is not what was signed; the tiles that would tell which are not either"
    path, _content = export.tile(TileId(None, start // TILE_HASHES))
    return Finding(Change.ENTRY_IN_RANGE, message, start, end - 1, None, path)


def _leads_to(export: Export, index: int, level: int, signed: _SignedTiles) -> bool:
    """Whether the entries below a tile lead to the hash that is vouched for."""
    frontier = Frontier()
    for bundle_index in range(index << (TILE_HEIGHT * level), (index + 1) << (TILE_HEIGHT * level)):
        bundle = bundle_of(export, TileId(None, bundle_index))
        if not bundle.is_complete:
            return False
        frontier = frontier.append(leaf_hashes(bundle.entries)).frontier
    return frontier.root == signed.hash_of(level, index)


def _bundle_at(index: int, size: int) -> TileId:
    start = index // TILE_HASHES
    return TileId(None, start, min(TILE_HASHES, size - start * TILE_HASHES))


def _split(row: bytes) -> list[bytes]:
    return [row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES)]
