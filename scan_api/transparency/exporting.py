"""Exporting the whole log as files, with the openings of its entries, for `fanxing-audit`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlmodel import col, select

from codes.log_queue import LogEntry
from kit.db import Database
from kit.errors import Conflict
from kit.files import replacing
from offline_sdk.errors import LogMalformed
from offline_sdk.transparency import Checkpoint, Opening, SignedCheckpoint, TileId, tiles_of
from offline_sdk.transparency.commitment import ERASED_LINE
from offline_sdk.transparency.export import CHECKPOINT_FILE, EVENTS_FILE
from offline_sdk.transparency.tiles import LEVEL_MAX
from scan_api.transparency import store
from scan_api.transparency.store import LogLeaf
from scan_api.transparency.tile_files import cut

TILES_AT_ONCE: Final = 64
LEAVES_AT_ONCE: Final = 512
KEY_FILE: Final = "key"
ALTERED_LINE: Final = b'{"altered":true}'
"""Of a row that never was a salt and a record; the audit names it."""


class ExportFolderTaken(Conflict):
    """An export goes into a folder of its own."""

    code = "ExportFolderTaken"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: the checkpoint, the number of files, of openings, and of records that were erased."""

    checkpoint: Checkpoint
    files: int
    openings: int
    erased: int


async def export(
    database: Database, folder: Path, signed: SignedCheckpoint, progress: Callable[[int], None]
) -> Exported:
    """Write the log up to this checkpoint, which was published, to a new or empty folder.

    That is: checkpoint, key, tiles, bundles of entries, and `events.ndjson` with the openings. The checkpoint is
    written last: what lacks it is no export. No transaction is held while it works: the tree only grows, and a record
    that is erased meanwhile is there or is not. `progress` hears how many more leaves were exported.
    Raises LogMissing, ExportFolderTaken, OSError.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ExportFolderTaken(f"{folder} is not empty", hint="Name a folder that is not there.")
    folder.mkdir(parents=True, exist_ok=True)
    async with database.reading() as session:
        key = (await store.head_of(session)).key
    size = signed.checkpoint.size
    files = 0
    for level in (*range(LEVEL_MAX + 1), None):
        for tiles in _groups(tiles_of(size, level)):
            async with database.reading() as session:
                found = await store.tiles_at(session, tiles)
            await asyncio.to_thread(_write_tiles, folder, tiles, found)
            files += len(tiles)
    openings = erased = 0
    with replacing(folder / EVENTS_FILE) as file:
        async for lines in _lines(database, size):
            gone = lines.count(ERASED_LINE)
            erased, openings = erased + gone, openings + len(lines) - gone
            await asyncio.to_thread(file.write, b"\n".join([*lines, b""]))
            progress(len(lines))
    (folder / KEY_FILE).write_text(f"{key}\n", encoding="utf-8")
    with replacing(folder / CHECKPOINT_FILE) as file:
        file.write(bytes(signed))
    return Exported(signed.checkpoint, files + 3, openings, erased)


def _groups(tiles: Iterator[TileId]) -> Iterator[list[TileId]]:
    group: list[TileId] = []
    for tile in tiles:
        group.append(tile)
        if len(group) == TILES_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _write_tiles(folder: Path, tiles: list[TileId], found: dict[tuple[int, int], bytes]) -> None:
    for tile in tiles:
        content = cut(tile, found)
        if content is None:
            continue  # the audit says what is missing, and what that means
        path = folder / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


async def _lines(database: Database, size: int) -> AsyncIterator[list[bytes]]:
    """The lines of `events.ndjson`, some at a time; none for a leaf whose row is gone."""
    for start in range(0, size, LEAVES_AT_ONCE):
        end = min(start + LEAVES_AT_ONCE, size)
        wanted = (
            select(LogEntry.salt, LogEntry.record)
            .join(LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id)
            .where(col(LogLeaf.leaf_index) >= start, col(LogLeaf.leaf_index) < end)
            .order_by(col(LogLeaf.leaf_index))
        )
        async with database.reading() as session:
            rows = (await session.exec(wanted)).all()
        yield [_line(salt, record) for salt, record in rows]


def _line(salt: bytes | None, record: bytes | None) -> bytes:
    if salt is None or record is None:
        return ERASED_LINE
    try:
        return Opening(salt, record).line
    except LogMalformed:
        return ALTERED_LINE
