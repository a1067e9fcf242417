"""The files of the log as they are served and exported (C2SP tlog-tiles): each a cut of what the database holds."""

from kit.db import Session
from kit.errors import NotFound
from offline_sdk.errors import LogMalformed
from offline_sdk.transparency import TileId, encode_entries
from offline_sdk.transparency.tiles import split_entries
from offline_sdk.transparency.tree import HASH_BYTES
from scan_api.transparency import store
from scan_api.transparency.store import ENTRIES_LEVEL


class TileUnknown(NotFound):
    """The log has no such tile: the path is in no right form, or the tree is not as large."""

    code = "TileUnknown"


async def tile_file(session: Session, path: str) -> bytes:
    """The content of a tile's path, such as tile/0/x001/234.p/8. Raises TileUnknown."""
    try:
        tile = TileId.of_path(path)
    except LogMalformed as error:
        raise TileUnknown(error.message) from None
    content = cut(tile, await store.tiles_at(session, [tile]))
    if content is None:
        raise TileUnknown("the log has no such tile yet")
    return content


def cut(tile: TileId, found: dict[tuple[int, int], bytes]) -> bytes | None:
    """A tile, or a bundle of entries, of just its width, from what is kept; None where that is less."""
    content = found.get((ENTRIES_LEVEL if tile.level is None else tile.level, tile.index), b"")
    if tile.level is not None:
        wanted = tile.width * HASH_BYTES
        return content[:wanted] if len(content) >= wanted else None
    entries, is_whole = split_entries(content)
    if not is_whole or len(entries) < tile.width:
        return None
    return content if len(entries) == tile.width else encode_entries(entries[: tile.width])
