"""Recall orders: a regulator orders a recall; the brand acknowledges it, carries it out and reports.

Each step is written once with who and when. A step that was made already is made again without effect. The database
decides between two who make steps at once.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final

from sqlalchemy import CheckConstraint, ColumnElement, Index, Text, and_, func, or_, update
from sqlmodel import Field, SQLModel, col, select

from codes import log_queue
from codes.catalogue import Product
from codes.log_queue import NewEntry
from codes.orders import RECALL_REASON_CHARACTERS_MAX, CodeOrder
from kit.clock import iso
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id
from kit.paging import Position, newest_first
from loyalty import webhooks
from loyalty.webhooks import WebhookKind
from scan_api.provenance.things import name_of
from scan_api.regulators import append_only, sights
from scan_api.regulators.accounts import Regulator

TEXT_CHARACTERS_MAX: Final = 2_000
SUBJECT_CHARACTERS_MAX: Final = 200
DEADLINE_MAX: Final = timedelta(days=366)
_LOT: Final = re.compile(r"([0-9]{14})/([!-.0-z]{1,20})")
_ORDER: Final = re.compile(r"([0-9]{14})/([0-9]{5})")
_ITEM: Final = re.compile(r"([0-9]{14})/([0-9]{14})")

assert "recall_step" in append_only.TABLES


class RecallOrderInvalid(Invalid):
    code = "RecallOrderInvalid"


class RecallSubjectUnknown(NotFound):
    """There is no such thing to recall, or the account does not reach it."""

    code = "RecallSubjectUnknown"


class RecallOrderUnknown(NotFound):
    code = "RecallOrderUnknown"


class RecallOrderForbids(Conflict):
    """The recall order stands where this step is not possible."""

    code = "RecallOrderForbids"


class SubjectKind(StrEnum):
    """What is recalled, and how it is named."""

    ITEM = "item"  # GTIN/serial
    LOT = "lot"  # GTIN/lot
    ORDER = "order"  # GTIN/order number of five digits
    GTIN = "gtin"  # GTIN
    CONTAINER = "container"  # a URN or Digital Link, such as of an SSCC


class RecallState(StrEnum):
    ORDERED = "ordered"
    ACKNOWLEDGED = "acknowledged"
    EXECUTED = "executed"
    REPORTED = "reported"
    WITHDRAWN = "withdrawn"


OPEN: Final = (RecallState.ORDERED, RecallState.ACKNOWLEDGED)
"""What can still be late: neither carried out nor withdrawn."""
_BEFORE: Final[Mapping[RecallState, tuple[RecallState, ...]]] = {
    RecallState.ACKNOWLEDGED: (RecallState.ORDERED,),
    RecallState.EXECUTED: OPEN,  # who carries it out has taken note of it
    RecallState.REPORTED: (RecallState.EXECUTED,),
    RecallState.WITHDRAWN: OPEN,
}
_LATER: Final[Mapping[RecallState, tuple[RecallState, ...]]] = {
    RecallState.ACKNOWLEDGED: (RecallState.ACKNOWLEDGED, RecallState.EXECUTED, RecallState.REPORTED),
    RecallState.EXECUTED: (RecallState.EXECUTED, RecallState.REPORTED),
    RecallState.REPORTED: (RecallState.REPORTED,),
    RecallState.WITHDRAWN: (RecallState.WITHDRAWN,),
}
_STATES: Final = ", ".join(f"'{state}'" for state in RecallState)


_HEARD: Final = {
    RecallState.ORDERED: WebhookKind.RECALL_ORDERED,
    RecallState.WITHDRAWN: WebhookKind.RECALL_WITHDRAWN,
}


class RecallOrder(SQLModel, table=True):
    """A recall order, and where it stands."""

    __tablename__: ClassVar[str] = "recall_order"
    __table_args__ = (
        CheckConstraint("kind IN ('item', 'lot', 'order', 'gtin', 'container')", name="kind"),
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("ordered_at < deadline", name="deadline"),
        Index("ix_recall_order_brand_id_ordered_at", "brand_id", "ordered_at", "recall_id"),
        Index("ix_recall_order_holder_id_ordered_at", "holder_id", "ordered_at", "recall_id"),
    )

    recall_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(foreign_key="brand.brand_id")
    holder_id: uuid.UUID
    """The regulator's account."""
    authority: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    ordered_at: datetime = Field(sa_type=Moment)
    deadline: datetime = Field(sa_type=Moment)
    state: str = Field(default=RecallState.ORDERED, sa_type=Text)

    def is_overdue(self, now: datetime) -> bool:
        """Whether it should have been carried out by now."""
        return self.state in OPEN and self.deadline <= now


class RecallStep(SQLModel, table=True):
    """A step of a recall order: who made it, and when."""

    __tablename__: ClassVar[str] = "recall_step"
    __table_args__ = (CheckConstraint(f"kind IN ({_STATES})", name="kind"),)

    recall_id: uuid.UUID = Field(primary_key=True, foreign_key="recall_order.recall_id")
    kind: str = Field(primary_key=True, sa_type=Text)
    at: datetime = Field(sa_type=Moment)
    by: str = Field(sa_type=Text)
    detail: str = Field(sa_type=Text)

    def told(self) -> dict[str, Any]:
        """What else is known of the step."""
        detail: dict[str, Any] = json.loads(self.detail)
        return detail


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be recalled; of a container, `gtin` is None and `name` its one name."""

    kind: SubjectKind
    name: str
    gtin: str | None = None
    part: str = ""
    """The serial, the lot or the order's number."""

    @classmethod
    def of(cls, kind: SubjectKind, name: str) -> "Subject":
        """The subject that a regulator names. Raises RecallOrderInvalid."""
        if not 1 <= len(name) <= SUBJECT_CHARACTERS_MAX or not name.isprintable():
            raise RecallOrderInvalid(f"a subject has 1 to {SUBJECT_CHARACTERS_MAX} printable characters")
        if kind is SubjectKind.CONTAINER:
            if ":" not in name:
                raise RecallOrderInvalid("a container is named by its URN or Digital Link")
            return cls(kind, name_of(name))
        if kind is SubjectKind.GTIN and re.fullmatch(r"[0-9]{14}", name):
            return cls(kind, name, name)
        pattern = {SubjectKind.ITEM: _ITEM, SubjectKind.LOT: _LOT, SubjectKind.ORDER: _ORDER}.get(kind)
        found = pattern.fullmatch(name) if pattern else None
        if found is None:
            raise RecallOrderInvalid(
                f"this names no {kind}", hint="GTIN/serial, GTIN/lot, GTIN/order of 14, 1 to 20 and 5 characters; GTIN."
            )
        return cls(kind, name, found[1], found[2])


async def order(
    session: Session,
    brand_id: int,
    holder_id: uuid.UUID,
    authority: str,
    subject: Subject,
    reason: str,
    deadline: datetime,
    now: datetime,
) -> RecallOrder:
    """Order a recall from a brand. The scope was looked at by the caller.

    Raises RecallOrderInvalid: shoppers read the reason, of at most 500 characters; the deadline lies within 366 days.
    """
    if not 1 <= len(reason.strip()) <= RECALL_REASON_CHARACTERS_MAX or "\0" in reason:
        raise RecallOrderInvalid(f"a recall gives its reason in 1 to {RECALL_REASON_CHARACTERS_MAX} characters")
    if not now < deadline <= now + DEADLINE_MAX:
        raise RecallOrderInvalid(f"the deadline lies ahead, within {DEADLINE_MAX.days} days")
    made = RecallOrder(
        recall_id=new_id(),
        brand_id=brand_id,
        holder_id=holder_id,
        authority=authority,
        kind=subject.kind,
        subject=subject.name,
        reason=reason.strip(),
        ordered_at=now,
        deadline=deadline,
    )
    session.add(made)
    await session.flush()
    await _write(session, made, RecallState.ORDERED, authority, {}, now)
    return made


async def advance(
    session: Session, recall: RecallOrder, to: RecallState, by: str, detail: Mapping[str, Any], now: datetime
) -> bool:
    """Make a step; whether it was made now. One that was made before stays as it was.

    `detail` is what JSON can hold. Raises RecallOrderForbids when the order stands where this step is not possible.
    """
    moved = await session.exec(
        update(RecallOrder)
        .where(col(RecallOrder.recall_id) == recall.recall_id, col(RecallOrder.state).in_(_BEFORE[to]))
        .values(state=to)
    )
    session.add(recall)
    await session.refresh(recall)
    if moved.rowcount:
        await _write(session, recall, to, by, detail, now)
        return True
    if recall.state in _LATER[to]:
        return False
    raise RecallOrderForbids(f"the recall order is {recall.state}, and cannot be {to}")


async def _write(
    session: Session, recall: RecallOrder, kind: RecallState, by: str, detail: Mapping[str, Any], now: datetime
) -> None:
    """Write a step down, log it, and let the brand's endpoints hear of what the regulator did."""
    text = json.dumps(detail, ensure_ascii=False, separators=(",", ":"))
    session.add(RecallStep(recall_id=recall.recall_id, kind=kind, at=now, by=by, detail=text))
    await session.flush()
    about = {
        "recall_id": str(recall.recall_id),
        "authority": recall.authority,
        "kind": recall.kind,
        "subject": recall.subject,
        "reason": recall.reason,
        "deadline": iso(recall.deadline),
    }
    record = {"type": "recall_step", "brand": recall.brand_id, **about, "step": kind, "by": by, "detail": detail}
    entry = NewEntry("recall_step", recall.recall_id, recall.brand_id, log_queue.record_of({**record, "at": iso(now)}))
    await log_queue.enqueue(session, [entry], now)
    if kind in _HEARD:
        await webhooks.emit(session, recall.brand_id, _HEARD[kind], recall.recall_id, about, now)


async def steps_of(session: Session, recall_id: uuid.UUID) -> list[RecallStep]:
    """The steps that were made, oldest first."""
    asked = select(RecallStep).where(col(RecallStep.recall_id) == recall_id)
    order_of_states = list(RecallState)
    return sorted(await session.exec(asked), key=lambda step: (step.at, order_of_states.index(RecallState(step.kind))))


async def of_brand(session: Session, brand_id: int, recall_id: uuid.UUID) -> RecallOrder:
    """A recall order that a brand was given. Raises RecallOrderUnknown."""
    recall = await session.get(RecallOrder, recall_id)
    if recall is None or recall.brand_id != brand_id:
        raise RecallOrderUnknown("there is no such recall order")
    return recall


async def of_holder(session: Session, regulator: Regulator, recall_id: uuid.UUID) -> RecallOrder:
    """A recall order that a regulator gave, of goods that his key is for. Raises RecallOrderUnknown."""
    asked = select(RecallOrder).where(RecallOrder.recall_id == recall_id, await _given_by(session, regulator))
    recall = (await session.exec(asked)).first()
    if recall is None:
        raise RecallOrderUnknown("there is no such recall order")
    return recall


async def _given_by(session: Session, regulator: Regulator) -> ColumnElement[bool]:
    """Which recall orders a regulator gave of goods that his key is for; with GTIN prefixes it is for no container."""
    scope = regulator.scope
    held = [
        col(RecallOrder.holder_id) == regulator.holder_id,
        col(RecallOrder.brand_id).in_(await sights.brands_of(session, scope)),
    ]
    if scope.gtin_prefixes:
        held.append(col(RecallOrder.kind) != SubjectKind.CONTAINER)
        # A subject that is no container begins with its GTIN.
        held.append(or_(*(col(RecallOrder.subject).like(f"_{prefix}%") for prefix in scope.gtin_prefixes)))
    return and_(*held)


async def page(
    session: Session,
    after: Position | None,
    count: int,
    *,
    brand_id: int | None = None,
    given_by: Regulator | None = None,
    overdue_at: datetime | None = None,
) -> Sequence[RecallOrder]:
    """A page of recall orders of a brand, or that a regulator gave and his key is for, newest first.

    `overdue_at`: only what is late then.
    """
    asked = select(RecallOrder)
    if brand_id is not None:
        asked = asked.where(col(RecallOrder.brand_id) == brand_id)
    if given_by is not None:
        asked = asked.where(await _given_by(session, given_by))
    if overdue_at is not None:
        asked = asked.where(and_(col(RecallOrder.state).in_(OPEN), col(RecallOrder.deadline) <= overdue_at))
    listed = newest_first(asked, col(RecallOrder.ordered_at), col(RecallOrder.recall_id), after, count)
    return list(await session.exec(listed))


async def product_of(session: Session, subject: Subject) -> Product:
    """The product of an item, lot, order or GTIN that there is. Raises RecallSubjectUnknown."""
    product = await session.get(Product, subject.gtin) if subject.gtin else None
    if product is None:
        raise subject_unknown()
    if subject.kind in (SubjectKind.ORDER, SubjectKind.ITEM):
        number = int(subject.part[:5])
        held = select(func.count()).where(col(CodeOrder.gtin) == subject.gtin, col(CodeOrder.order_number) == number)
        if not (await session.exec(held)).one():
            raise subject_unknown()
    return product


def subject_unknown() -> RecallSubjectUnknown:
    """The one refusal, whether there is no such thing or the account does not reach it."""
    return RecallSubjectUnknown(
        "there is nothing of that name that this account reaches", hint="GET /v1/regulator/me tells its scope."
    )
