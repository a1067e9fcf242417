"""The rows of a CRM's export on their way into the database: sealed beforehand, then landed by a few statements.

A chunk of rows is prepared without the database (numbers to keyed hashes, names to ciphertext), copied into a temporary
table, and from there goes to every table at once. Which of the prepared ids and ciphertexts are used turns out there.
"""

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, Table, Text, Uuid, delete, text
from sqlalchemy.schema import CreateTable

from kit.db import Moment, Session
from kit.ids import new_id
from kit.vault import Vault
from loyalty import members, profiles
from loyalty.crm_file import Row, merged
from loyalty.experience import EntryKind
from loyalty.members import SealedIdentity
from loyalty.phones import phone_fingerprint
from loyalty.profiles import parse_birthday

STATEMENT_TIMEOUT_MS = 300_000

# Metadata of their own: these tables are no part of the schema.
_TEMPORARY = MetaData()
STAGED = Table(
    "crm_staged",
    _TEMPORARY,
    Column("fingerprint", LargeBinary, nullable=False),
    Column("member_id", Uuid, nullable=False),
    Column("origin_id", Uuid, nullable=False),
    Column("entry_id", Uuid, nullable=False),
    Column("is_new", Boolean, nullable=False),
    Column("phone_sealed", LargeBinary, nullable=False),
    Column("key_sealed", LargeBinary, nullable=False),
    Column("name_sealed", LargeBinary),
    Column("birthday_sealed", LargeBinary),
    Column("birthday_key", LargeBinary),
    Column("card_number", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("experience", BigInteger, nullable=False),
    Column("tier_rank", Integer, nullable=False),
    Column("joined_at", Moment),
    prefixes=["TEMPORARY"],
)
STAGED_CONSENTS = Table(
    "crm_staged_consent",
    _TEMPORARY,
    Column("fingerprint", LargeBinary, nullable=False),
    Column("consent_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    prefixes=["TEMPORARY"],
)
_NAMES = [column.name for column in STAGED.columns]
_COPY = f"COPY {STAGED.name} ({', '.join(_NAMES)}) FROM STDIN (FORMAT BINARY)"
# PostgreSQL documentation, COPY, "Binary Format": a field is its length in 32 bits and its bytes; -1 is NULL.
_COPY_BEGIN, _COPY_END = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_IDS = struct.Struct(">hi32si16si16si16sib")
_BEGIN = struct.Struct(">hi16s")
_ID = struct.Struct(">i16s")
_COUNTED = struct.Struct(">iiiqiqiq")
_VERSION = struct.Struct(">iiii")
_ORIGIN = struct.Struct(">i16sii")
_OPENED = struct.Struct(">iqiqiqiqiiii")
_INTEGER = struct.Struct(">ii")
_FIGURES = struct.Struct(">iqiqii")
_LENGTH = struct.Struct(">i")
_MOMENT = struct.Struct(">iq")
_NULL = _LENGTH.pack(-1)
_MICROSECOND = timedelta(microseconds=1)
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Staged:
    """One number, and what becomes of it if it is new."""

    fingerprint: bytes
    member_id: uuid.UUID
    identity: SealedIdentity
    name_sealed: bytes | None
    birthday_sealed: bytes | None
    birthday_key: bytes | None
    card_number: str
    row: Row

    @property
    def has_profile(self) -> bool:
        return self.name_sealed is not None or self.birthday_key is not None


@dataclass(frozen=True)
class Prepared:
    """A chunk ready to land, one row a phone number: in PostgreSQL's format when that is where it goes."""

    numbers: int
    duplicates: int
    content: bytes | Sequence[Staged]
    additions: Sequence[tuple[str, bytes]]
    """For PostgreSQL, when every number turns out to be new: COPY statements that make members, cards and records."""
    consents: Sequence[tuple[bytes, str, str]]
    """Keyed hash of the number, kind, version."""
    has_tiers: bool
    experience: int
    """That the additions bring themselves: the rows' without a tier."""


def by_number(vault: Vault, group_id: int, rows: Sequence[Row]) -> dict[bytes, Row]:
    """What rows say of each number, by its keyed hash and in its order.

    One order for every import, so that two at a time wait for each other and not in a circle.
    """
    said: dict[str, Row] = {}
    for row in rows:
        before = said.get(row.phone_e164)
        said[row.phone_e164] = row if before is None else merged(before, row)
    hashed = {phone_fingerprint(vault, group_id, number): row for number, row in said.items()}
    return {fingerprint: hashed[fingerprint] for fingerprint in sorted(hashed)}


@dataclass(frozen=True)
class Aim:
    """Where rows go: group and brand, and the import and chunk that they come with."""

    group_id: int
    brand_id: int
    import_id: uuid.UUID
    chunk: int
    rules_version: int
    """The brand's rules for tiers that are in force."""


def prepare(vault: Vault, aim: Aim, rows: Sequence[Row], now: datetime, *, on_postgresql: bool) -> Prepared:
    """Merge rows of one number and make what a new member needs: id, key, sealed fields, card number."""
    said = by_number(vault, aim.group_id, rows)
    cards = members.new_card_numbers(len(said))
    staged = [
        _stage(vault, aim.group_id, fingerprint, row, card)
        for (fingerprint, row), card in zip(said.items(), cards, strict=True)
    ]
    consents = [(fingerprint, *given) for fingerprint, row in said.items() for given in row.consents]
    if not on_postgresql:
        return Prepared(len(staged), len(rows) - len(staged), staged, (), consents, True, 0)
    content = b"".join((_COPY_BEGIN, *map(_copied, staged), _COPY_END))
    return Prepared(
        len(staged),
        len(rows) - len(staged),
        content,
        _additions(staged, aim, now),
        consents,
        has_tiers=any(one.row.tier_rank for one in staged),
        experience=sum(one.row.experience for one in staged if not one.row.tier_rank),
    )


def _additions(staged: Sequence[Staged], aim: Aim, now: datetime) -> list[tuple[str, bytes]]:
    at = _moment(now)
    group, brand = _INTEGER.pack(4, aim.group_id), _INTEGER.pack(4, aim.brand_id)
    imported, version = _field(EntryKind.IMPORTED.encode()), _VERSION.pack(4, aim.rules_version, 4, 0)
    by = _ORIGIN.pack(16, aim.import_id.bytes, 4, aim.chunk) + at
    rows: dict[str, list[bytes]] = {
        "member (member_id, group_id, phone_sealed, created_at)": [
            b"".join((_BEGIN.pack(4, 16, one.member_id.bytes), group, _field(one.identity.phone_sealed), at))
            for one in staged
        ],
        "member_key (member_id, key_sealed)": [
            b"".join((_BEGIN.pack(2, 16, one.member_id.bytes), _field(one.identity.key_sealed))) for one in staged
        ],
        "member_profile (member_id, name_sealed, birthday_sealed, birthday_key)": [
            b"".join(
                (
                    _BEGIN.pack(4, 16, one.member_id.bytes),
                    _field(one.name_sealed),
                    _field(one.birthday_sealed),
                    _field(one.birthday_key),
                )
            )
            for one in staged
            if one.has_profile
        ],
        "card (member_id, brand_id, card_number, joined_at, tier_check_at)": [
            b"".join(
                (
                    _BEGIN.pack(5, 16, one.member_id.bytes),
                    brand,
                    _field(one.card_number.encode()),
                    at if one.row.joined_at is None else _moment(one.row.joined_at),
                    at if one.row.experience or one.row.tier_rank else _NULL,
                )
            )
            for one in staged
        ],
        "crm_record (member_id, brand_id, points, points_before, experience, experience_before, tier_rank,"
        " tier_rank_before, import_id, chunk, at)": [
            b"".join(
                (
                    _BEGIN.pack(11, 16, one.member_id.bytes),
                    brand,
                    _OPENED.pack(8, one.row.points, 8, 0, 8, one.row.experience, 8, 0, 4, one.row.tier_rank, 4, 0),
                    by,
                )
            )
            for one in staged
        ],
    }
    # As `tier_imports` enters the first figures of a card on which nothing was decided, for cards that are due anyway.
    rows[
        "experience_entry (member_id, entry_id, kind, brand_id, seq, purchases, fen, experience, at, recorded_at,"
        " rules_version, grant_rank)"
    ] = [
        b"".join(
            (
                _BEGIN.pack(12, 16, one.member_id.bytes),
                _ID.pack(16, one.member_id.bytes),
                imported,
                brand,
                _COUNTED.pack(4, 1, 8, 0, 8, 0, 8, one.row.experience),
                at,
                at,
                version,
            )
        )
        for one in staged
        if one.row.experience and not one.row.tier_rank
    ]
    return [
        (f"COPY {table} FROM STDIN (FORMAT BINARY)", b"".join((_COPY_BEGIN, *some, _COPY_END)))
        for table, some in rows.items()
        if some
    ]


def _moment(moment: datetime) -> bytes:
    return _MOMENT.pack(8, (moment - _POSTGRES_EPOCH) // _MICROSECOND)


def _stage(vault: Vault, group_id: int, fingerprint: bytes, row: Row, card_number: str) -> Staged:
    member_id = new_id()
    identity = members.sealed_identity(vault, member_id, row.phone_e164)
    name = birthday = birthday_key = None
    if row.name is not None:
        name = members.seal_field(identity.key, member_id, row.name.encode(), profiles.NAME_CONTEXT)
    if row.birthday is not None:
        birthday = members.seal_field(identity.key, member_id, row.birthday.encode(), profiles.BIRTHDAY_CONTEXT)
        birthday_key = profiles.birthday_key(vault, group_id, parse_birthday(row.birthday))
    return Staged(fingerprint, member_id, identity, name, birthday, birthday_key, card_number, row)


def _copied(staged: Staged) -> bytes:
    own, row, card = staged.member_id.bytes, staged.row, staged.card_number.encode()
    joined = row.joined_at
    return b"".join(
        (
            _IDS.pack(len(_NAMES), 32, staged.fingerprint, 16, own, 16, own, 16, own, 1, 1),
            _field(staged.identity.phone_sealed),
            _field(staged.identity.key_sealed),
            _field(staged.name_sealed),
            _field(staged.birthday_sealed),
            _field(staged.birthday_key),
            _field(card),
            _FIGURES.pack(8, row.points, 8, row.experience, 4, row.tier_rank),
            _NULL if joined is None else _moment(joined),
        )
    )


def _field(value: bytes | None) -> bytes:
    return b"".join((_LENGTH.pack(len(value)), value)) if value is not None else _NULL


def _values(staged: Staged) -> dict[str, object]:
    row = staged.row
    return {
        "fingerprint": staged.fingerprint,
        "member_id": staged.member_id,
        "origin_id": staged.member_id,
        "entry_id": staged.member_id,
        "is_new": True,
        "phone_sealed": staged.identity.phone_sealed,
        "key_sealed": staged.identity.key_sealed,
        "name_sealed": staged.name_sealed,
        "birthday_sealed": staged.birthday_sealed,
        "birthday_key": staged.birthday_key,
        "card_number": staged.card_number,
        "points": row.points,
        "experience": row.experience,
        "tier_rank": row.tier_rank,
        "joined_at": row.joined_at,
    }


async def stage(session: Session, prepared: Prepared) -> None:
    """Fill the temporary tables with a chunk and nothing else."""
    connection = await session.connection()
    for table in (STAGED, STAGED_CONSENTS):
        await connection.execute(CreateTable(table, if_not_exists=True))
        await connection.execute(delete(table))
    if isinstance(prepared.content, bytes):
        # A chunk is no request: on a busy machine it may take its time.
        await connection.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))
        # The pages that a chunk looks up are in memory; by the default the planner reads whole tables instead.
        await connection.execute(text("SET LOCAL random_page_cost = 1.1"))
        await _copy(session, [(_COPY, prepared.content)])
    else:
        await connection.execute(STAGED.insert(), [_values(staged) for staged in prepared.content])
    consents = [
        {"fingerprint": fingerprint, "consent_id": new_id(), "kind": kind, "version": version}
        for fingerprint, kind, version in prepared.consents
    ]
    if consents:
        await connection.execute(STAGED_CONSENTS.insert(), consents)


async def add_members(session: Session, prepared: Prepared) -> None:
    """Make the members of a chunk of new numbers, with profiles, cards and records."""
    await _copy(session, prepared.additions)


async def _copy(session: Session, copies: Sequence[tuple[str, bytes]]) -> None:
    driver = (await (await session.connection()).get_raw_connection()).driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    async with driver.cursor() as cursor:
        for statement, content in copies:
            async with cursor.copy(statement) as copy:
                await copy.write(content)
