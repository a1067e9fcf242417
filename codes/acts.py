"""Acts: what was done to an order, or to goods of a brand, and by whom, each written once and never changed.

Each is a leaf of the transparency log too (`codes.log_queue`).
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Text
from sqlmodel import Field, SQLModel, col, select

from codes import log_queue
from codes.catalogue import Product
from codes.log_queue import NewEntry
from codes.orders import CodeOrder
from kit.clock import iso
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


class BrandAct(SQLModel, table=True):
    """An act that concerns no single order, such as the recall of a lot or of a container."""

    __tablename__: ClassVar[str] = "brand_act"
    __table_args__ = (CheckConstraint(f"length(kind) BETWEEN 1 AND {KIND_CHARACTERS_MAX}", name="kind"),)

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
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
    act = OrderAct(order_id=order_id, act_id=new_id(), at=now, kind=kind, by=by, detail=_checked(kind, detail))
    concerned = (
        select(Product.brand_id, CodeOrder.gtin, CodeOrder.order_number)
        .join(CodeOrder, col(CodeOrder.gtin) == Product.gtin)
        .where(CodeOrder.order_id == order_id)
    )
    brand_id, gtin, number = (await session.exec(concerned)).one()
    return await _write(session, act, brand_id, {"gtin": gtin, "order": number}, detail)


async def record_brand_act(
    session: Session, brand_id: int, kind: str, by: str | None, detail: Mapping[str, Any], now: datetime
) -> uuid.UUID:
    """The same for an act that concerns no single order."""
    act = BrandAct(brand_id=brand_id, act_id=new_id(), at=now, kind=kind, by=by, detail=_checked(kind, detail))
    return await _write(session, act, brand_id, {}, detail)


def _checked(kind: str, detail: Mapping[str, Any]) -> str:
    """The detail as it is kept. Raises ActInvalid."""
    if not _KIND.fullmatch(kind):
        raise ActInvalid(f"the kind of an act is 1 to {KIND_CHARACTERS_MAX} of a-z and _")
    text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
    if len(text) > DETAIL_CHARACTERS_MAX:
        raise ActInvalid(f"the detail of an act is at most {DETAIL_CHARACTERS_MAX:,} characters, not {len(text):,}")
    return text


async def _write(
    session: Session, act: OrderAct | BrandAct, brand_id: int, concerned: Mapping[str, Any], detail: Mapping[str, Any]
) -> uuid.UUID:
    """The one place where acts are written, and logged."""
    session.add(act)
    await session.flush()
    told = {
        "type": "act",
        "act": str(act.act_id),
        "brand": brand_id,
        **concerned,
        "kind": act.kind,
        "at": iso(act.at),
        "by": act.by,
        "detail": detail,
    }
    await log_queue.enqueue(session, [NewEntry("act", act.act_id, brand_id, log_queue.record_of(told))], act.at)
    return act.act_id


async def acts_of_brand(session: Session, brand_id: int) -> list[Act]:
    """The acts that concern no single order of a brand, oldest first."""
    found = await session.exec(select(BrandAct).where(BrandAct.brand_id == brand_id).order_by(col(BrandAct.act_id)))
    return [Act(row.act_id, row.at, row.kind, row.by, json.loads(row.detail)) for row in found]


async def acts_of(session: Session, order_id: int) -> list[Act]:
    """An order's acts, oldest first."""
    found = await session.exec(select(OrderAct).where(OrderAct.order_id == order_id).order_by(col(OrderAct.act_id)))
    return [Act(row.act_id, row.at, row.kind, row.by, json.loads(row.detail)) for row in found]
