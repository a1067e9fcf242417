"""Life: what holds items back, recalls them or ends their codes, by item, range, lot, order or container.

A mark is one row, however many items it reaches. It reaches what it names, and everything that was packed in that
while the mark lasted, on all levels, also what was unpacked since: nobody heals a recall by opening the box.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Index, Text
from sqlmodel import Field, SQLModel

from codes.serials import ITEM_NUMBERS
from kit import locks, procedures
from kit.db import Moment, Session
from kit.procedures import Kind, Procedure
from kit.procedures import Step as Statement
from scan_api.provenance.epcis import item_uri
from scan_api.provenance.packed import ABOVE_SQL

SUBJECT_CHARACTERS_MAX = 2_000
MESSAGE_CHARACTERS_MAX = 500

_LASTING = sa.text("lifted_at IS NULL")


class MarkKind(StrEnum):
    """What a mark does to its items."""

    HELD = "held"
    """Frozen: neither sold nor paid for until the mark is lifted."""
    RECALLED = "recalled"
    VOIDED = "voided"
    """Decommissioned, for good."""


class Reason(StrEnum):
    """Why a mark was set."""

    STOLEN = "stolen"
    LOST = "lost"
    SAMPLE = "sample"
    DAMAGED = "damaged"
    OVERPRINT = "overprint"
    EXPIRED = "expired"
    SAFETY = "safety"
    QUALITY = "quality"
    LABELLING = "labelling"
    INVESTIGATION = "investigation"
    DIVERSION = "diversion"
    OTHER = "other"


_KINDS = ", ".join(repr(str(kind)) for kind in MarkKind)
_REASONS = ", ".join(repr(str(reason)) for reason in Reason)


class LifeMark(SQLModel, table=True):
    """A mark, and from when until when it lasts. `subject` is a thing's one name, or of `order_subject`, `lot_subject`.

    Of an order it reaches the issue indexes first..last; elsewhere these are all there are.
    """

    __tablename__: ClassVar[str] = "life_mark"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint(f"reason IN ({_REASONS})", name="reason"),
        CheckConstraint("0 <= first_index AND first_index <= last_index", name="range"),
        CheckConstraint("lifted_at IS NULL OR kind = 'held'", name="lifted"),
        Index("ix_life_mark_lasting", "brand_id", "subject", postgresql_where=_LASTING, sqlite_where=_LASTING),
        Index("ix_life_mark_brand_id_subject", "brand_id", "subject"),
    )

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    mark_id: uuid.UUID = Field(primary_key=True)
    subject: str = Field(sa_type=Text)
    first_index: int = 0
    last_index: int = ITEM_NUMBERS - 1
    kind: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    message: str | None = Field(default=None, sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    by: str | None = Field(default=None, sa_type=Text)
    lifted_at: datetime | None = Field(default=None, sa_type=Moment)
    lifted_by: str | None = Field(default=None, sa_type=Text)


def order_subject(order_id: int) -> str:
    return f"order:{order_id}"


def lot_prefix(gtin: str) -> str:
    return f"lot:{gtin}/"


def lot_subject(gtin: str, lot: str) -> str:
    return lot_prefix(gtin) + lot


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that reaches an item. `on_batch`: it was set on more than the item itself."""

    kind: MarkKind
    reason: Reason
    message: str | None
    at: datetime
    on_batch: bool


@dataclass(frozen=True, slots=True)
class Lot:
    """The lot that an item was bound to, with its dates (YYYY-MM-DD) as far as they are known."""

    lot: str | None
    produced_on: str | None
    expires_on: str | None


_MARK_SQL = "SELECT kind, reason, message, at, {batch} FROM life_mark WHERE lifted_at IS NULL AND brand_id = :of_brand"
_LOT_SQL = """
    SELECT lot, produced_on, expires_on FROM (
        SELECT 0 AS place, lot, produced_on, expires_on FROM item_lot WHERE thing = :thing AND brand_id = :of_brand
        UNION ALL
        SELECT 1, nearest.value, lot_dates.produced_on, lot_dates.expires_on FROM (
            SELECT value, last_index FROM order_range
            WHERE order_id = :order AND layer = 'lot' AND first_index <= :issue_index
            ORDER BY first_index DESC LIMIT 1
        ) AS nearest
        LEFT JOIN lot_dates ON lot_dates.brand_id = :of_brand AND lot_dates.subject = :lot_prefix || nearest.value
        WHERE nearest.last_index >= :issue_index
    ) AS lots ORDER BY place LIMIT 1
"""

PARAMETERS: Mapping[str, Kind] = {
    "order": Kind.INTEGER,
    "issue_index": Kind.INTEGER,
    "thing": Kind.TEXT,
    "of_brand": Kind.INTEGER,
    "lot_prefix": Kind.TEXT,
    "order_subject": Kind.TEXT,
}
_MARK: Mapping[str, Kind] = {
    "kind": Kind.TEXT,
    "reason": Kind.TEXT,
    "message": Kind.TEXT,
    "at": Kind.MOMENT,
    "on_batch": Kind.BOOLEAN,
}
_MARKS_SQL = f"""
    {ABOVE_SQL}
    {_MARK_SQL.format(batch="false")} AND subject = :thing
    UNION ALL {_MARK_SQL.format(batch="true")}
        AND subject = :order_subject AND first_index <= :issue_index AND last_index >= :issue_index
    UNION ALL {_MARK_SQL.format(batch="true")} AND subject = :lot_prefix || :lot_name
    UNION ALL SELECT kind, reason, message, at, true FROM above
        JOIN life_mark ON subject = name AND (until IS NULL OR until > at)
        WHERE lifted_at IS NULL AND brand_id = :of_brand
"""  # noqa: S608
_HAS_MARKS = Statement(
    "SELECT EXISTS (SELECT 1 FROM life_mark WHERE brand_id = :of_brand AND lifted_at IS NULL)",
    gives={"has_marks": Kind.BOOLEAN},
)
_OF_LOT: Mapping[str, Kind] = {"lot_name": Kind.TEXT, "lot_made_on": Kind.TEXT, "lot_good_until": Kind.TEXT}
LOT = Statement(_LOT_SQL, gives=_OF_LOT)
"""The step that tells an item's lot, for `lot_of`."""
LIFE: Sequence[Statement] = (
    _HAS_MARKS,
    LOT,
    Statement(_MARKS_SQL, gives=_MARK, collects="life_marks", when="has_marks"),
)
"""Steps that tell an item's lot, and the marks that reach it: nearly nothing for a brand that has set none."""
ANSWER = (*_OF_LOT, "life_marks")
FREE_PARAMETERS: Mapping[str, Kind] = {**PARAMETERS, "marks_lock": Kind.BIGINT}
FREE: Sequence[Statement] = (
    Statement(f"[[{locks.SHARE_SQL.format(key=':marks_lock')}]]"),
    _HAS_MARKS,
    Statement(_LOT_SQL, gives=_OF_LOT, when="has_marks"),
    Statement(f"SELECT 1 WHERE NOT EXISTS ({_MARKS_SQL})", refusal="ItemNotActive", when="has_marks"),
)
"""Steps that go on only with an item that no mark reaches, and keep it so until the transaction ends.

Whoever sets a mark waits for it, or his mark is seen.
"""
_LIFE = Procedure("life", PARAMETERS, LIFE, ANSWER, writes=False)


def lock_of(brand_id: int) -> int:
    """The lock that claims with items of a brand share, and whoever sets its marks changes."""
    return locks.key_of("marks", brand_id)


def values(brand_id: int, order_id: int, gtin: str, serial: str, issue_index: int) -> dict[str, Any]:
    """The parameters of `LIFE` for one item."""
    return {
        "order": order_id,
        "issue_index": issue_index,
        "thing": item_uri(gtin, serial),
        "of_brand": brand_id,
        "lot_prefix": lot_prefix(gtin),
        "order_subject": order_subject(order_id),
    }


_SEVERITY = (MarkKind.RECALLED, MarkKind.VOIDED, MarkKind.HELD)


def marks_of(found: Mapping[str, Any]) -> list[Mark]:
    """The marks that `LIFE` found, the one that counts first: danger first, then what is final, then what is held.

    Among marks of one kind the batch's overrides the item's, then the newest.
    """
    marks = [
        Mark(MarkKind(kind), Reason(reason), message, at, bool(on_batch))
        for kind, reason, message, at, on_batch in found["life_marks"] or ()
    ]
    return sorted(marks, key=lambda mark: (_SEVERITY.index(mark.kind), not mark.on_batch, -mark.at.timestamp()))


def lot_of(found: Mapping[str, Any]) -> Lot | None:
    """The lot that `LOT` found; None where nothing is known."""
    lot = Lot(*(found[name] for name in _OF_LOT))
    return None if lot == Lot(None, None, None) else lot


async def life_of(session: Session, asked: Mapping[str, Any]) -> tuple[list[Mark], Lot | None]:
    """The marks that reach one item, as `marks_of`, and its lot. `asked` are `values`."""
    found = await procedures.call(session, _LIFE, asked)
    return marks_of(found), lot_of(found)
