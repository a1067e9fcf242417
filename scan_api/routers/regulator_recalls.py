"""Recall orders over HTTP: regulators give and follow them, brands acknowledge, carry out and report."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from codes.catalogue import brand_named, brand_with
from codes.orders import RECALL_REASON_CHARACTERS_MAX
from kit.clock import When
from kit.db import Session
from kit.errors import FanxingError
from kit.paging import Position
from loyalty.sandbox import is_sandbox
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.idempotency import OnlyOnce
from scan_api.paging import Page, Paged
from scan_api.regulators import accesses, accounts, recall_orders, recalling, sights
from scan_api.regulators.accesses import ANSWERED, Asked, Told
from scan_api.regulators.recall_orders import (
    SUBJECT_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    RecallOrder,
    RecallOrderInvalid,
    RecallState,
    Subject,
    SubjectKind,
)
from scan_api.routers import At, BrandSlug
from scan_api.routers.regulator import Authorization, Purpose, regulator_of
from scan_api.services import Serve

router = APIRouter(prefix="/v1", tags=["recall orders"])

_LIST = "recall-orders"
_ID = "0197f0f0-5c00-7000-8000-0000000000c1"
_AT = "2026-05-01T08:00:00.000Z"
_GTIN = "09506000134352"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NewRecallOrder(_Body):
    """What a regulator orders."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kind": "lot",
                "subject": f"{_GTIN}/L-2026-17",
                "reason": "Glass splinters were found.",
                "deadline": "2026-05-03T08:00:00Z",
            }
        }
    )

    kind: SubjectKind
    subject: str = Field(
        min_length=1,
        max_length=SUBJECT_CHARACTERS_MAX,
        description="item: GTIN/serial; lot: GTIN/lot; order: GTIN/number of 5 digits; gtin: GTIN; container: its URI",
    )
    brand: BrandSlug | None = Field(default=None, description="Whose container it is; of the others the GTIN tells")
    reason: str = Field(min_length=1, max_length=RECALL_REASON_CHARACTERS_MAX, description="What shoppers are told")
    deadline: When = Field(description="Till when it is to be carried out, within 366 days")


class Execution(_Body):
    """How a brand carries a recall order out."""

    model_config = ConfigDict(json_schema_extra={"example": {"already_done": False}})

    already_done: bool = Field(
        default=False, description="true: the codes were recalled by other means; false: recall them now"
    )


class Report(_Body):
    """What became of the goods."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"text": "All shops have sent theirs back.", "found": 930, "destroyed": 930}}
    )

    text: str = Field(min_length=1, max_length=TEXT_CHARACTERS_MAX)
    found: int | None = Field(default=None, ge=0, le=10**12, description="Items that came back")
    destroyed: int | None = Field(default=None, ge=0, le=10**12)


class StepAnswer(BaseModel):
    """A step that was made."""

    step: RecallState
    at: At
    by: str
    detail: dict[str, Any]


class RecallOrderAnswer(BaseModel):
    """A recall order, and where it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "recall_id": _ID,
                "brand": "star-cream",
                "authority": "Xi'an Market Regulation Bureau",
                "kind": "lot",
                "subject": f"{_GTIN}/L-2026-17",
                "reason": "Glass splinters were found.",
                "ordered_at": _AT,
                "deadline": "2026-05-03T08:00:00.000Z",
                "state": "ordered",
                "overdue": False,
                "steps": [
                    {"step": "ordered", "at": _AT, "by": "Xi'an Market Regulation Bureau", "detail": {}},
                ],
            }
        }
    )

    recall_id: uuid.UUID
    brand: str
    authority: str
    kind: SubjectKind
    subject: str
    reason: str
    ordered_at: At
    deadline: At
    state: RecallState
    overdue: bool
    steps: list[StepAnswer]


Overdue = Annotated[bool, Query(description="true: only what should have been carried out by now")]


@router.post("/regulator/recall-orders", status_code=201, summary="Order a recall")
async def give(
    body: NewRecallOrder, services: Serve, once: OnlyOnce, authorization: Authorization = None, purpose: Purpose = None
) -> RecallOrderAnswer:
    """Order the brand to recall goods that the account reaches. The brand sees it at once."""
    regulator, now = await regulator_of(services, authorization), services.clock()
    asked = Asked("recall_order", f"{body.kind} {body.subject}", {}, accesses.purpose_of(purpose))
    try:
        subject = Subject.of(body.kind, body.subject)
        async with services.database.writing() as session:

            async def work() -> RecallOrderAnswer:
                brand_id = await _brand_to_recall(session, subject, body, regulator)
                recall = await recall_orders.order(
                    session, brand_id, regulator.holder_id, regulator.name, subject, body.reason, body.deadline, now
                )
                await accesses.record(session, regulator, asked, Told(1, {brand_id: 1}), ANSWERED, now)
                return await _shown(session, recall, now)

            return RecallOrderAnswer(
                **await once.run(session, regulator.key.caller_id, "recall_order", body, now, work)
            )
    except FanxingError as error:
        # A refusal tells whether goods are there and reached; what was written beside it is undone.
        async with services.database.writing() as session:
            await accesses.record(session, regulator, asked, Told(), error.code, now)
        raise


async def _brand_to_recall(
    session: Session, subject: Subject, body: NewRecallOrder, regulator: accounts.Regulator
) -> int:
    """Whose goods these are, if the account reaches them.

    Raises RecallOrderInvalid, RecallSubjectUnknown, OutsideScope for containers.
    """
    if subject.gtin is not None:
        product = await recall_orders.product_of(session, subject)
        brand = await brand_with(session, product.brand_id)
        sight = regulator.scope.sees(await sights.product_facts(session, product))
        if not sight.is_seen or await is_sandbox(session, brand.group_id) != regulator.scope.sandbox:
            raise recall_orders.subject_unknown()
        return product.brand_id
    if body.brand is None:
        raise RecallOrderInvalid("whose container is it?", hint="Name the brand.")
    reach = await sights.reach_of(session, regulator.scope)
    brand_id = await sights.reached_named(session, reach, body.brand)
    if brand_id is None or brand_id not in reach.seated - reach.mixed:
        raise sights.OutsideScope(
            "containers are recalled of brands seated in the jurisdiction, all of whose products it covers",
            hint="Name lots or items.",
        )
    return brand_id


@router.get("/regulator/recall-orders", summary="My recall orders")
async def given(
    services: Serve, paging: Paged, overdue: Overdue = False, authorization: Authorization = None
) -> Page[RecallOrderAnswer]:
    """The recall orders that this account gave, newest first."""
    now = services.clock()
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, now)
        return await _page(session, paging, now, overdue=overdue, given_by=regulator)


@router.get("/regulator/recall-orders/{recall_id}", summary="One recall order")
async def one_given(recall_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> RecallOrderAnswer:
    """Where it stands, step by step."""
    now = services.clock()
    async with services.database.reading() as session:
        regulator = await accounts.authenticate(session, authorization, now)
        return await _shown(session, await recall_orders.of_holder(session, regulator, recall_id), now)


@router.post("/regulator/recall-orders/{recall_id}/withdraw", summary="Withdraw a recall order")
async def withdraw(recall_id: uuid.UUID, services: Serve, authorization: Authorization = None) -> RecallOrderAnswer:
    """Take it back, while it is not carried out. Again, it stays so."""
    now = services.clock()
    async with services.database.writing() as session:
        regulator = await accounts.authenticate(session, authorization, now)
        recall = await recall_orders.of_holder(session, regulator, recall_id)
        await recall_orders.advance(session, recall, RecallState.WITHDRAWN, regulator.name, {}, now)
        return await _shown(session, recall, now)


@router.get("/brand/{brand}/recall-orders", summary="Recall orders for a brand")
async def received(
    brand: BrandSlug, services: Serve, paging: Paged, overdue: Overdue = False, authorization: Authorization = None
) -> Page[RecallOrderAnswer]:
    """The recall orders that regulators gave the brand, newest first."""
    now = services.clock()
    async with services.database.reading() as session:
        brand_id, _label = await _brand(session, authorization, brand)
        return await _page(session, paging, now, overdue=overdue, brand_id=brand_id)


@router.get("/brand/{brand}/recall-orders/{recall_id}", summary="One recall order of a brand")
async def one_received(
    brand: BrandSlug, recall_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> RecallOrderAnswer:
    """Where it stands, step by step."""
    async with services.database.reading() as session:
        brand_id, _label = await _brand(session, authorization, brand)
        return await _shown(session, await recall_orders.of_brand(session, brand_id, recall_id), services.clock())


@router.post("/brand/{brand}/recall-orders/{recall_id}/acknowledge", summary="Acknowledge a recall order")
async def acknowledge(
    brand: BrandSlug, recall_id: uuid.UUID, services: Serve, authorization: Authorization = None
) -> RecallOrderAnswer:
    """Say that the brand has taken note. Again, it stays so."""
    now = services.clock()
    async with services.database.writing() as session:
        brand_id, label = await _brand(session, authorization, brand)
        recall = await recall_orders.of_brand(session, brand_id, recall_id)
        await recall_orders.advance(session, recall, RecallState.ACKNOWLEDGED, label, {}, now)
        return await _shown(session, recall, now)


@router.post("/brand/{brand}/recall-orders/{recall_id}/execute", summary="Carry a recall order out")
async def execute(
    brand: BrandSlug, recall_id: uuid.UUID, body: Execution, services: Serve, authorization: Authorization = None
) -> RecallOrderAnswer:
    """Recall what it names: from now on its codes are refused, and scanners hear of it with the next trust bundle.

    Again, it stays so. The step tells how many items of whole orders, and how many marks on lots, items or containers.
    """
    now = services.clock()
    async with services.database.writing() as session:
        brand_id, label = await _brand(session, authorization, brand)
        recall = await recall_orders.of_brand(session, brand_id, recall_id)
        if recall.state in recall_orders.OPEN:
            detail: dict[str, Any] = {"already_done": body.already_done}
            if not body.already_done:
                issuer_id = (await brand_with(session, brand_id)).issuer_id
                scheme = await services.scans.scheme(session, issuer_id)
                done = await recalling.recall(session, recall, scheme, label, now)
                detail |= {"items": done.items, "marks": done.marks}
            await recall_orders.advance(session, recall, RecallState.EXECUTED, label, detail, now)
        else:
            await recall_orders.advance(session, recall, RecallState.EXECUTED, label, {}, now)
        return await _shown(session, recall, now)


@router.post("/brand/{brand}/recall-orders/{recall_id}/report", summary="Report on a recall")
async def report(
    brand: BrandSlug, recall_id: uuid.UUID, body: Report, services: Serve, authorization: Authorization = None
) -> RecallOrderAnswer:
    """Tell the regulator what became of the goods. The first report stays."""
    now = services.clock()
    async with services.database.writing() as session:
        brand_id, label = await _brand(session, authorization, brand)
        recall = await recall_orders.of_brand(session, brand_id, recall_id)
        told = body.model_dump(exclude_none=True)
        await recall_orders.advance(session, recall, RecallState.REPORTED, label, told, now)
        return await _shown(session, recall, now)


async def _brand(session: Session, authorization: str | None, slug: str) -> tuple[int, str]:
    """The brand, and who acts for it: a key for all of its GTINs."""
    key = await api_keys.authenticate(session, authorization, Role.BRAND)
    found = await brand_named(session, slug)
    assert found.brand_id is not None  # rows read from the database have their key
    key.require_brand(found.brand_id)
    key.require_all_gtins("recall orders are")
    return found.brand_id, key.label


async def _page(
    session: Session, paging: Paged, now: datetime, *, overdue: bool, **whose: Any
) -> Page[RecallOrderAnswer]:
    rows = await recall_orders.page(
        session, paging.after(_LIST), paging.count, overdue_at=now if overdue else None, **whose
    )
    shown = {row.recall_id: await _shown(session, row, now) for row in rows[: paging.limit]}
    return Page[RecallOrderAnswer](
        **paging.page(
            _LIST, rows, lambda row: Position(row.ordered_at, row.recall_id), lambda row: shown[row.recall_id]
        )
    )


def _position(recall: RecallOrder) -> Position:
    return Position(recall.ordered_at, recall.recall_id)


async def _shown(session: Session, recall: RecallOrder, now: datetime) -> RecallOrderAnswer:
    brand = await brand_with(session, recall.brand_id)
    steps = await recall_orders.steps_of(session, recall.recall_id)
    return RecallOrderAnswer(
        recall_id=recall.recall_id,
        brand=brand.slug,
        authority=recall.authority,
        kind=SubjectKind(recall.kind),
        subject=recall.subject,
        reason=recall.reason,
        ordered_at=recall.ordered_at,
        deadline=recall.deadline,
        state=RecallState(recall.state),
        overdue=recall.is_overdue(now),
        steps=[StepAnswer(step=RecallState(step.kind), at=step.at, by=step.by, detail=step.told()) for step in steps],
    )
