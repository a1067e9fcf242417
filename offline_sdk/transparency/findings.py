"""Findings: what an audit says is not as it was signed, and how two rows of leaves come to differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from .export import Export
from .tiles import TileId, split_entries

AHEAD: Final = 256
"""Leaves after a difference among which its like is looked for, to tell what was removed from what was put in."""
ALIKE: Final = 4
"""Leaves that must be alike after a difference to say how it came."""


class Change(StrEnum):
    """What a finding is of; callers compare these texts, so they never change."""

    CHECKPOINT_UNTRUSTED = "checkpoint_untrusted"
    WITNESSES_MISSED = "witnesses_missed"
    HISTORY_SHORTENED = "history_shortened"
    HISTORY_REWRITTEN = "history_rewritten"
    ENTRY_ALTERED = "entry_altered"
    ENTRY_REMOVED = "entry_removed"
    ENTRY_INSERTED = "entry_inserted"
    ENTRY_IN_RANGE = "entry_in_range"
    """An entry of this range was altered, removed or put in; the tiles that would tell which one are altered too."""
    TILE_ALTERED = "tile_altered"
    TILE_MISSING = "tile_missing"
    EVENT_ALTERED = "event_altered"
    EVENT_REMOVED = "event_removed"
    EVENT_INSERTED = "event_inserted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was signed.

    `index` is the first leaf that it touches, `index_max` the last one that it may begin at, `count` how many leaves,
    where these are known; `file` and `offset`, in bytes, say where it lies in the export.
    """

    change: Change
    message: str
    index: int | None = None
    index_max: int | None = None
    count: int | None = None
    file: str | None = None
    offset: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding, ready for json.dumps."""
        return {
            "change": self.change.value,
            "index": self.index,
            "index_max": self.index_max,
            "count": self.count,
            "file": self.file,
            "offset": self.offset,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Bundle:
    """The entries of one bundle as the export has them: their file, and in a word why they are not whole."""

    tile: TileId
    path: str
    entries: list[bytes]
    why: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether there are as many entries as there must be, and nothing else."""
        return not self.why and len(self.entries) == self.tile.width

    def offset(self, at: int) -> int:
        """Where in the file the entry number `at` of the bundle begins, or would begin."""
        return sum(2 + len(entry) for entry in self.entries[:at])


def bundle_of(export: Export, tile: TileId) -> Bundle:
    """The entries of a bundle, those beyond its width cut off where a complete one stands for a partial one."""
    path, content = export.tile(tile)
    if content is None:
        return Bundle(tile, path, [], "missing")
    entries, is_whole = split_entries(content)
    return Bundle(tile, path, entries if path == tile.path else entries[: tile.width], "" if is_whole else "cut off")


def change_of(found: Sequence[bytes], wanted: Sequence[bytes]) -> tuple[str, int | None]:
    """How two rows, whose first ones differ, came to differ: altered, removed or inserted, and how many if known."""
    if not found:
        return "removed", None
    if not wanted:
        return "inserted", len(found)
    if _alike(found[1:], wanted[1:]):
        return "altered", 1
    for count in range(1, AHEAD + 1):
        if _alike(found, wanted[count:]):
            return "removed", count
        if _alike(found[count:], wanted):
            return "inserted", count
    return "altered", None


def first_difference(found: Sequence[bytes], wanted: Sequence[bytes]) -> int:
    """How many are alike before the first that is not."""
    both = enumerate(zip(found, wanted, strict=False))
    return next((at for at, (one, other) in both if one != other), min(len(found), len(wanted)))


def _alike(found: Sequence[bytes], wanted: Sequence[bytes]) -> bool:
    count = min(len(found), len(wanted), ALIKE)
    # Where both have come to their end, nothing differs any more.
    return list(found[:count]) == list(wanted[:count]) if count else not found and not wanted
