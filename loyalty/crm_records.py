"""What a CRM has brought: for every number and brand a mark that only rises, and the counts of an import."""

import uuid
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint
from sqlmodel import Field, SQLModel

from kit.db import Moment
from kit.ids import derived_id
from loyalty.crm_file import CrmFile

REASON = "crm import"
"""Of the transfers."""


class Mode(StrEnum):
    """What becomes of a row that says more than was brought before."""

    OPEN = "open"
    """It is kept back and counted: since the opening, points are earned and spent here."""
    RAISE = "raise"
    """The difference is brought: the CRM goes on counting, and does not know of what is earned here."""


class CrmRecord(SQLModel, table=True):
    """What a brand's CRM has brought for one number: balances, and what they were before they last rose."""

    __tablename__: ClassVar[str] = "crm_record"
    __table_args__ = (
        CheckConstraint("0 <= points_before AND points_before <= points", name="points"),
        CheckConstraint("0 <= experience_before AND experience_before <= experience", name="experience"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    """For whom the number was enrolled, see `PhoneIdentity.origin_id`."""
    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    points: int = Field(sa_type=BigInteger)
    points_before: int = Field(sa_type=BigInteger)
    experience: int = Field(sa_type=BigInteger)
    experience_before: int = Field(sa_type=BigInteger)
    tier_rank: int
    tier_rank_before: int
    import_id: uuid.UUID
    chunk: int
    """With the import, what last raised it."""
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True)
class Order:
    """What is to be imported, for whom, and how. `tier_until`: until when a tier from the file holds at least."""

    file: CrmFile
    group_id: int
    brand_id: int
    mode: Mode
    tier_until: datetime

    @property
    def import_id(self) -> uuid.UUID:
        return derived_id("crm-import", self.brand_id, self.file.sha256.hex(), self.mode)


@dataclass(frozen=True)
class Counts:
    """What became of rows. `points` and `experience` were brought; `held_back` rows said more than was brought."""

    rows: int = 0
    bad: int = 0
    duplicates: int = 0
    new_members: int = 0
    known_members: int = 0
    changed: int = 0
    held_back: int = 0
    points: int = 0
    experience: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**Counter(asdict(self)) + Counter(asdict(other)))
