"""Pools of imported codes: somebody else's vouchers, sealed at rest, each dealt to one member.

The undealt codes of a benefit are its stock in the ledger, one for one; `verify` checks it.
"""

import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    bindparam,
    func,
    text,
    update,
)
from sqlalchemy import insert as plain_insert
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert, is_postgresql, table_of
from kit.errors import Conflict
from kit.ids import derived_id
from kit.vault import Vault
from loyalty.benefits import coupon_codes, pool_files, stock
from loyalty.benefits.catalogue import Benefit, BenefitInvalid, BenefitKind
from loyalty.benefits.coupon_codes import POOL_FINGERPRINT_BYTES
from loyalty.benefits.held import MemberBenefit
from loyalty.benefits.pool_files import Line
from loyalty.ledger import Account, Purpose

CHUNK_CODES = 20_000
"""Codes that one transaction imports; what a crash loses."""
SHARDS = 16
"""Those who take a code look in one of so many places first, so that they do not all try the same row."""
COLUMN = "code"
_LOOKED_UP_AT_ONCE = 5_000  # SQLite takes 32,766 parameters
_COPY_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# Five fields, each with its length: benefit, fingerprint, shard, sealed; the last's content follows.
_COPY_ROW = struct.Struct(">hi16si16sihi")
_COPY_END = struct.pack(">h", -1)


_KNOWN = text(
    "SELECT c.fingerprint FROM generate_series(0, :last) AS n(at) JOIN pool_code AS c "
    "ON c.benefit_id = :benefit AND c.fingerprint = substr(:all, n.at * :width + 1, :width)"
).bindparams(
    bindparam("benefit", type_=Uuid()),
    bindparam("all", type_=LargeBinary()),
    bindparam("last", type_=Integer()),
    bindparam("width", POOL_FINGERPRINT_BYTES, type_=Integer()),
)


class PoolImportOvertaken(Conflict):
    """Another process imports the same file."""

    code = "PoolImportOvertaken"


class PoolCode(SQLModel, table=True):
    """One imported code. `shard` is 0..15 and follows from the fingerprint."""

    __tablename__: ClassVar[str] = "pool_code"
    __table_args__ = (
        CheckConstraint("(held_id IS NULL) = (member_id IS NULL)", name="dealt"),
        Index(
            "ix_pool_code_undealt",
            "benefit_id",
            "shard",
            postgresql_where=text("held_id IS NULL"),
            sqlite_where=text("held_id IS NULL"),
        ),
    )

    benefit_id: uuid.UUID = Field(primary_key=True)
    fingerprint: bytes = Field(primary_key=True, sa_type=LargeBinary)
    shard: int = Field(sa_type=SmallInteger)
    sealed: bytes = Field(sa_type=LargeBinary)
    member_id: uuid.UUID | None = None
    held_id: uuid.UUID | None = None


class PoolFile(SQLModel, table=True):
    """A file of codes and how far its import has come. A reference table."""

    __tablename__: ClassVar[str] = "pool_file"
    __table_args__ = (CheckConstraint("added + duplicates + refused <= lines", name="lines"),)

    benefit_id: uuid.UUID = Field(primary_key=True)
    file_id: uuid.UUID = Field(primary_key=True)
    """Follows from the content: the same content is the same file, whatever its name."""
    name: str = Field(sa_type=Text)
    sha256: bytes = Field(sa_type=LargeBinary)
    lines: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    """Lines that are done."""
    added: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    duplicates: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    refused: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    started_at: datetime = Field(sa_type=Moment)
    finished_at: datetime | None = Field(default=None, sa_type=Moment)


@dataclass(frozen=True)
class Chunk:
    """What became of some lines: codes added, and the numbers of the lines that were not."""

    added: int
    duplicates: tuple[int, ...]
    """Their code stands earlier in the file or is in the pool."""
    refused: tuple[int, ...]
    """Not 4..64 printable ASCII characters without spaces."""


@dataclass(frozen=True)
class PoolReport:
    """What `verify` counted, and every contradiction it found, in words. `stock` counts campaigns' budgets too."""

    codes: int
    dealt: int
    stock: int
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.faults


async def begin(session: Session, benefit: Benefit, name: str, sha256: bytes, now: datetime) -> PoolFile:
    """The file's record: new, half done, or finished long ago. Raises BenefitInvalid for another kind of benefit."""
    if benefit.kind != BenefitKind.POOL:
        raise BenefitInvalid(f"codes are imported for a benefit of the kind pool, not {benefit.kind}")
    file_id = derived_id("pool-file", benefit.benefit_id, sha256.hex())
    await session.exec(
        insert(session, PoolFile)
        .values(
            benefit_id=benefit.benefit_id,
            file_id=file_id,
            name=name[-200:],
            sha256=sha256,
            lines=0,
            added=0,
            duplicates=0,
            refused=0,
            started_at=now,
        )
        .on_conflict_do_nothing()
    )
    return await session.get_one(PoolFile, (benefit.benefit_id, file_id))


async def add(
    session: Session, vault: Vault, benefit: Benefit, file: PoolFile, lines: Sequence[Line], done: int, now: datetime
) -> Chunk:
    """Import the next lines of a file, of which `done` were done before: codes, stock and progress in one transaction.

    Raises PoolImportOvertaken when another process was faster.
    """
    # One importer of a pool at a time: what is looked up below stays true till the codes are in.
    await session.exec(
        select(Benefit.benefit_id).where(Benefit.benefit_id == benefit.benefit_id).with_for_update(key_share=True)
    )
    codes, chunk = await sort_out(session, vault, benefit.benefit_id, lines)
    moved = await session.exec(
        update(PoolFile)
        .where(
            col(PoolFile.benefit_id) == benefit.benefit_id,
            col(PoolFile.file_id) == file.file_id,
            col(PoolFile.lines) == done,
            col(PoolFile.finished_at).is_(None),
        )
        .values(
            lines=PoolFile.lines + len(lines),
            added=PoolFile.added + chunk.added,
            duplicates=PoolFile.duplicates + len(chunk.duplicates),
            refused=PoolFile.refused + len(chunk.refused),
        )
        .returning(col(PoolFile.file_id))
    )
    if moved.first() is None:
        raise PoolImportOvertaken("another process imports this file", hint="Let it finish.")
    if codes:
        rows = [
            (fingerprint, vault.seal(code.encode(), _context(benefit.benefit_id, fingerprint)))
            for fingerprint, code in codes.items()
        ]
        await _store(session, benefit.benefit_id, rows)
        await stock.add(session, benefit, chunk.added, derived_id("pool-stock", file.file_id, done), now)
    return chunk


async def finish(session: Session, file: PoolFile, now: datetime) -> None:
    """Say that the file's last line is done."""
    await session.exec(
        update(PoolFile)
        .where(col(PoolFile.benefit_id) == file.benefit_id, col(PoolFile.file_id) == file.file_id)
        .values(finished_at=now)
    )


async def sort_out(
    session: Session, vault: Vault, benefit_id: uuid.UUID, lines: Iterable[Line], seen: set[bytes] | None = None
) -> tuple[dict[bytes, str], Chunk]:
    """The codes that are new, by fingerprint, and what becomes of every line. `seen`: those met before; it grows."""
    codes: dict[bytes, str] = {}
    numbers: dict[bytes, int] = {}
    duplicates, refused = [], []
    for line in lines:
        if not pool_files.acceptable(line.text):
            refused.append(line.number)
            continue
        fingerprint = coupon_codes.pool_fingerprint(vault, line.text)
        if fingerprint in codes or (seen is not None and fingerprint in seen):
            duplicates.append(line.number)
        else:
            codes[fingerprint], numbers[fingerprint] = line.text, line.number
    for known in await _known(session, benefit_id, list(codes)):
        del codes[known]
        duplicates.append(numbers[known])
    if seen is not None:
        seen.update(codes)
    # In the order of the index, which is built in half the time.
    ordered = {fingerprint: codes[fingerprint] for fingerprint in sorted(codes)}
    return ordered, Chunk(len(codes), tuple(sorted(duplicates)), tuple(refused))


async def _known(session: Session, benefit_id: uuid.UUID, fingerprints: Sequence[bytes]) -> list[bytes]:
    if is_postgresql(session):
        # All in one value: an array of so many costs the driver more than the database takes to look them up.
        given = {"benefit": benefit_id, "all": b"".join(fingerprints), "last": len(fingerprints) - 1}
        found = await (await session.connection()).execute(_KNOWN, given)
        return [bytes(fingerprint) for (fingerprint,) in found]
    known: list[bytes] = []
    for start in range(0, len(fingerprints), _LOOKED_UP_AT_ONCE):
        part = fingerprints[start : start + _LOOKED_UP_AT_ONCE]
        known += await session.exec(
            select(PoolCode.fingerprint).where(PoolCode.benefit_id == benefit_id, col(PoolCode.fingerprint).in_(part))
        )
    return known


async def _store(session: Session, benefit_id: uuid.UUID, rows: Sequence[tuple[bytes, bytes]]) -> None:
    if not is_postgresql(session):
        values = [
            {"benefit_id": benefit_id, "fingerprint": fingerprint, "shard": _shard(fingerprint), "sealed": sealed}
            for fingerprint, sealed in rows
        ]
        await session.exec(plain_insert(table_of(PoolCode)), params=values)
        return
    # PostgreSQL documentation, COPY, "Binary Format".
    head = benefit_id.bytes
    body = b"".join(
        _COPY_ROW.pack(4, 16, head, 16, fingerprint, 2, _shard(fingerprint), len(sealed)) + sealed
        for fingerprint, sealed in rows
    )
    connection = (await (await session.connection()).get_raw_connection()).driver_connection
    assert connection is not None
    statement = "COPY pool_code (benefit_id, fingerprint, shard, sealed) FROM STDIN (FORMAT BINARY)"
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(_COPY_SIGNATURE + body + _COPY_END)


async def deal(
    session: Session, vault: Vault, benefit_id: uuid.UUID, member_id: uuid.UUID, held_id: uuid.UUID
) -> tuple[bytes, str] | None:
    """Give an undealt code to a held benefit: its fingerprint and text; None when there is none."""
    undealt = select(PoolCode.fingerprint).where(PoolCode.benefit_id == benefit_id, col(PoolCode.held_id).is_(None))
    # Held ids of one moment differ in their last bits only.
    in_one_shard = undealt.where(PoolCode.shard == held_id.int % SHARDS)
    for wanted in (in_one_shard, undealt):
        chosen = wanted.limit(1).with_for_update(skip_locked=True).scalar_subquery()
        dealt = await session.exec(
            update(PoolCode)
            .where(col(PoolCode.benefit_id) == benefit_id, col(PoolCode.fingerprint) == chosen)
            .values(member_id=member_id, held_id=held_id)
            .returning(col(PoolCode.fingerprint), col(PoolCode.sealed))
            .execution_options(synchronize_session=False)
        )
        found = dealt.first()
        if found is not None:
            fingerprint, sealed = found
            return fingerprint, vault.unseal(sealed, _context(benefit_id, fingerprint)).decode()
    return None


async def take_back(session: Session, benefit_id: uuid.UUID, fingerprint: bytes) -> None:
    """Put a dealt code, which nobody has seen, among the undealt again."""
    await session.exec(
        update(PoolCode)
        .where(col(PoolCode.benefit_id) == benefit_id, col(PoolCode.fingerprint) == fingerprint)
        .values(member_id=None, held_id=None)
    )


async def files_of(session: Session, benefit_id: uuid.UUID) -> list[PoolFile]:
    """The files of a pool, oldest first."""
    files = await session.exec(
        select(PoolFile).where(PoolFile.benefit_id == benefit_id).order_by(col(PoolFile.started_at))
    )
    return list(files)


async def verify(session: Session, benefit: Benefit) -> PoolReport:
    """Check that undealt codes are the stock (with what campaigns set aside), and every dealt one with its holder.

    Run it in a session that sees one state of the database, such as `Database.reading`.
    """
    benefit_id = benefit.benefit_id
    counted = await session.exec(
        select(func.count(), func.count(col(PoolCode.held_id))).where(PoolCode.benefit_id == benefit_id)
    )
    codes, dealt = counted.one()
    laid_up = await session.exec(
        select(func.coalesce(func.sum(Account.balance), 0)).where(
            Account.asset == stock.asset_of(benefit_id), col(Account.purpose).in_([Purpose.STOCK, Purpose.BUDGET])
        )
    )
    in_stock = int(laid_up.one())
    imported = await session.exec(
        select(func.coalesce(func.sum(PoolFile.added), 0)).where(PoolFile.benefit_id == benefit_id)
    )
    held = await session.exec(
        select(func.count(), func.count(func.distinct(MemberBenefit.code_fingerprint))).where(
            MemberBenefit.benefit_id == benefit_id, col(MemberBenefit.code_fingerprint).is_not(None)
        )
    )
    holding, distinct = held.one()
    astray = await session.exec(
        select(func.count())
        .select_from(PoolCode)
        .outerjoin(
            MemberBenefit,
            # Not by the member: since then he may have been merged into another, who holds it now.
            (col(MemberBenefit.benefit_id) == PoolCode.benefit_id) & (col(MemberBenefit.held_id) == PoolCode.held_id),
        )
        .where(
            PoolCode.benefit_id == benefit_id,
            col(PoolCode.held_id).is_not(None),
            col(MemberBenefit.code_fingerprint).is_distinct_from(PoolCode.fingerprint),
        )
    )
    wrong = astray.one()
    found = [
        (codes - dealt != in_stock, f"{codes - dealt} codes are undealt, the stock is {in_stock}"),
        (int(imported.one()) != codes, f"the files brought another number of codes than the {codes} that are there"),
        (holding != distinct, f"{holding - distinct} codes are held twice"),
        (holding != dealt, f"{dealt} codes are dealt, {holding} are held"),
        (wrong != 0, f"{wrong} dealt codes are not with those they were dealt to"),
    ]
    return PoolReport(codes, dealt, in_stock, tuple(fault for is_fault, fault in found if is_fault))


def _shard(fingerprint: bytes) -> int:
    return fingerprint[0] % SHARDS


def _context(benefit_id: uuid.UUID, fingerprint: bytes) -> bytes:
    return b"pool-code" + benefit_id.bytes + fingerprint
