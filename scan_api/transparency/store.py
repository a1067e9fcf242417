"""What the log keeps in the database: its head, the tiles of its tree, the leaf of each entry, and its witnesses.

Everything only ever grows: a tile gets wider until it is complete, a head moves on, a leaf is written once.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    LargeBinary,
    Text,
    bindparam,
    func,
    tuple_,
    update,
)
from sqlmodel import Field, SQLModel, col, select

from codes.log_queue import write_rows
from kit.db import Moment, Session, insert, table_of
from kit.errors import Conflict, Unavailable
from offline_sdk.errors import LogError
from offline_sdk.transparency import (
    Frontier,
    Grown,
    SignatureType,
    Subtree,
    TileId,
    Tiles,
    VerifierKey,
    decode_entries,
    leaf_hashes,
    partial_tiles,
    tiles_holding,
)
from offline_sdk.transparency.tree import EMPTY_ROOT, HASH_BYTES

ENTRIES_LEVEL: Final = -1
"""Of bundles of entries among the tiles."""
UNSIGNED: Final = -1
"""The size of a checkpoint that there is none of."""
_THE_LOG: Final = 1
_TILES_ASKED_AT_ONCE_MAX: Final = 400
_RESTORE: Final = "Restore the database from a backup that is not older than the newest checkpoint."


class LogMissing(Unavailable):
    """This installation keeps no transparency log yet."""

    code = "LogMissing"


class LogDamaged(Unavailable):
    """What the database holds of the tree is not what was signed."""

    code = "LogDamaged"


class LogRaced(Conflict):
    """Another sequencer was quicker; nothing was changed."""

    code = "LogRaced"


class LogHead(SQLModel, table=True):
    """The one log: its name and key, how far its tree goes, what was signed of it, and what is served of that.

    size >= signed_size >= published_size: tiles are committed first, then signed, then shown to witnesses and served.
    """

    __tablename__: ClassVar[str] = "log_head"
    __table_args__ = (
        CheckConstraint(f"log_id = {_THE_LOG}", name="one"),
        CheckConstraint(
            f"{UNSIGNED} <= published_size AND published_size <= signed_size AND signed_size <= size", name="sizes"
        ),
    )

    log_id: int = Field(default=_THE_LOG, primary_key=True, sa_column_kwargs={"autoincrement": False})
    origin: str = Field(sa_type=Text)
    custody_name: str = Field(sa_type=Text)
    public: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=Moment)
    size: int = Field(default=0, sa_type=BigInteger)
    root: bytes = Field(default=EMPTY_ROOT, sa_type=LargeBinary)
    grown_at: datetime = Field(sa_type=Moment)
    signed_size: int = Field(default=UNSIGNED, sa_type=BigInteger)
    signed: bytes | None = Field(default=None, sa_type=LargeBinary)
    published_size: int = Field(default=UNSIGNED, sa_type=BigInteger)
    published: bytes | None = Field(default=None, sa_type=LargeBinary)
    published_at: datetime | None = Field(default=None, sa_type=Moment)

    @property
    def key(self) -> VerifierKey:
        """The log's verifier key."""
        return VerifierKey(self.origin, SignatureType.ED25519, self.public)


class LogTile(SQLModel, table=True):
    """A tile of hashes, or a bundle of entries (level -1), as wide as the tree makes it."""

    __tablename__: ClassVar[str] = "log_tile"

    level: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    tile_index: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    content: bytes = Field(sa_type=LargeBinary)


class LogLeaf(SQLModel, table=True):
    """The place of an entry in the tree, counted from 0."""

    __tablename__: ClassVar[str] = "log_leaf"

    leaf_index: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    entry_id: uuid.UUID = Field(unique=True)


class LogWitness(SQLModel, table=True):
    """A witness that is asked to cosign checkpoints, and how it answered last."""

    __tablename__: ClassVar[str] = "log_witness"

    name: str = Field(primary_key=True, sa_type=Text)
    verifier_key: str = Field(sa_type=Text, unique=True)
    url: str = Field(sa_type=Text)
    added_at: datetime = Field(sa_type=Moment)
    cosigned_size: int = Field(default=0, sa_type=BigInteger)
    cosigned_at: datetime | None = Field(default=None, sa_type=Moment)
    trouble: str | None = Field(default=None, sa_type=Text)
    """Why it did not cosign when it was asked last."""

    @property
    def key(self) -> VerifierKey:
        return VerifierKey.read(self.verifier_key)


# Built once: a proof's tiles are fetched in a millisecond, half of which it would take to build the statement.
_TILES: Final = select(LogTile.level, LogTile.tile_index, LogTile.content).where(
    tuple_(col(LogTile.level), col(LogTile.tile_index)).in_(bindparam("places", expanding=True))
)


async def find_head(session: Session) -> LogHead | None:
    """The log as it is now, None when there is none."""
    return (await session.exec(select(LogHead).execution_options(populate_existing=True))).first()


async def head_of(session: Session) -> LogHead:
    """The log as it is now. Raises LogMissing."""
    found = await find_head(session)
    if found is None:
        raise LogMissing("this installation keeps no transparency log yet", hint="`fanxing log init` begins it.")
    return found


async def witnesses_of(session: Session) -> list[LogWitness]:
    """All witnesses, by name."""
    return list((await session.exec(select(LogWitness).order_by(col(LogWitness.name)))).all())


async def edge_of(session: Session, head: LogHead) -> tuple[Frontier, list[bytes]]:
    """The tree's right edge, and the entries of its last bundle. Raises LogDamaged when they are not the head's."""
    wanted = partial_tiles(head.size)
    last = [TileId(None, tile.index, tile.width) for tile in wanted if tile.level == 0]
    found = await tiles_at(session, [*wanted, *last])
    rows = [found.get((_level(tile), tile.index), b"")[: tile.width * HASH_BYTES] for tile in wanted]
    try:
        frontier = Frontier.of_tiles(head.size, rows)
        entries = [entry for tile in last for entry in decode_entries(found.get((ENTRIES_LEVEL, tile.index), b""))]
    except LogError as error:
        raise LogDamaged(f"the log's tiles are not what its head says: {error.message}", hint=_RESTORE) from None
    if frontier.root != head.root or b"".join(leaf_hashes(entries)) != frontier.rows[0]:
        raise LogDamaged("the log's tiles do not lead to its root", hint=_RESTORE)
    return frontier, entries


async def tiles_at(session: Session, tiles: Iterable[TileId]) -> dict[tuple[int, int], bytes]:
    """The contents of these tiles, as wide as they are now, by level and index; bundles of entries have level -1."""
    wanted = list(dict.fromkeys((_level(tile), tile.index) for tile in tiles))
    found: dict[tuple[int, int], bytes] = {}
    for start in range(0, len(wanted), _TILES_ASKED_AT_ONCE_MAX):
        some = {"places": wanted[start : start + _TILES_ASKED_AT_ONCE_MAX]}
        rows = await (await session.connection()).execute(_TILES, some)
        found |= {(level, index): content for level, index, content in rows}
    return found


async def reader_for(session: Session, subtrees: Iterable[Subtree], size: int) -> Tiles:
    """A reader of what these subtrees, in a tree of this size, are made of."""
    return Tiles(await tiles_at(session, tiles_holding(subtrees, size)))


async def grow(
    session: Session,
    head: LogHead,
    grown: Grown,
    bundles: Sequence[tuple[TileId, bytes]],
    entry_ids: Sequence[uuid.UUID],
    now: datetime,
) -> None:
    """Keep what appending made. Raises LogRaced unless the head is still the one that it was made from."""
    table = table_of(LogHead)
    moved = update(table).where(table.c.size == head.size, table.c.root == head.root)
    after = {"size": grown.frontier.size, "root": grown.frontier.root, "grown_at": now}
    if (await (await session.connection()).execute(moved.values(after))).rowcount != 1:
        raise LogRaced("another sequencer was quicker")
    await write_rows(session, table_of(LogLeaf), list(enumerate(entry_ids, head.size)))
    tiles = chain(((tile.id, tile.hashes) for tile in grown.tiles), grown.frontier.partial, bundles)
    rows = [{"level": _level(tile), "tile_index": tile.index, "content": content} for tile, content in tiles]
    made = insert(session, LogTile)
    wider = func.length(made.excluded.content) > func.length(col(LogTile.content))
    await (await session.connection()).execute(
        made.on_conflict_do_update(
            index_elements=["level", "tile_index"], set_={"content": made.excluded.content}, where=wider
        ),
        rows,
    )


async def sign(session: Session, size: int, signed: bytes) -> bool:
    """Keep a signed checkpoint, unless one of as many leaves is there."""
    return await _move(session, {"signed_size": size, "signed": signed}, col(LogHead.signed_size) < size)


async def publish(session: Session, size: int, published: bytes, now: datetime) -> bool:
    """Serve a checkpoint from now on, unless a later one is, or one of as many leaves and as many signatures."""
    better = (col(LogHead.published_size) < size) | (
        (col(LogHead.published_size) == size) & (func.length(col(LogHead.published)) < len(published))
    )
    values = {"published_size": size, "published": published, "published_at": now}
    return await _move(session, values, better)


async def _move(session: Session, values: Mapping[str, Any], when: ColumnElement[bool]) -> bool:
    done = await (await session.connection()).execute(update(table_of(LogHead)).where(when).values(values))
    return bool(done.rowcount)


def _level(tile: TileId) -> int:
    return ENTRIES_LEVEL if tile.level is None else tile.level
