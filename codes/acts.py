"""Acts: what was done to an order and by whom, each written once and never changed."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Text
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Invalid
from kit.ids import new_id

KIND_CHARACTERS_MAX = 40
DETAIL_CHARACTERS_MAX = 262_144  # thousands of ranges
_KIND = re.compile(rf"[a-z][a-z_]{{0,{KIND_CHARACTERS_MAX - 1}}}")


class ActInvalid(Invalid):
    code = "ActInvalid"


class OrderAct(SQLModel, table=True):
    """An act, as it is stored."""

    __tablename__: ClassVar[str] = "order_act"
    __table_args__ = (CheckConstraint(f"length(kind) BETWEEN 1 AND {KIND_CHARACTERS_MAX}", name="kind"),)

    order_id: int = Field(primary_key=True, foreign_key="code_order.order_id")
    act_id: uuid.UUID = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)
    kind: str = Field(sa_type=Text)
    by: str | None = Field(default=None, sa_type=Text)
    detail: str = Field(sa_type=Text)


@dataclass(frozen=True, slots=True)
class Act:
    """One act: its kind (such as voided, activated, package_fetched), who did it, and what else is known of it."""

    act_id: uuid.UUID
    at: datetime
    kind: str
    by: str | None
    detail: dict[str, Any]


async def record_act(
    session: Session, order_id: int, kind: str, by: str | None, detail: Mapping[str, Any], now: datetime
) -> uuid.UUID:
    """Write down an act in the transaction that does it. Returns its id.

    `kind` is 1 to 40 of a-z and _; `detail` holds what JSON can, and no secret. `by` None: somebody at this server's
    own terminal. Raises ActInvalid, also for a detail of more than 262,144 characters of JSON.
    """
    if not _KIND.fullmatch(kind):
        raise ActInvalid(f"the kind of an act is 1 to {KIND_CHARACTERS_MAX} of a-z and _")
    text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
    if len(text) > DETAIL_CHARACTERS_MAX:
        raise ActInvalid(f"the detail of an act is at most {DETAIL_CHARACTERS_MAX:,} characters, not {len(text):,}")
    act_id = new_id()
    session.add(OrderAct(order_id=order_id, act_id=act_id, at=now, kind=kind, by=by, detail=text))
    await session.flush()
    return act_id


async def acts_of(session: Session, order_id: int) -> list[Act]:
    """An order's acts, oldest first."""
    found = await session.exec(select(OrderAct).where(OrderAct.order_id == order_id).order_by(col(OrderAct.act_id)))
    return [Act(row.act_id, row.at, row.kind, row.by, json.loads(row.detail)) for row in found]
