"""Code orders: one row for an order of any size, from which every item of it can be told and judged.

An item has no row here. Whether a serial was issued follows from the order's quantity and the serial permutation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import CheckConstraint, Text, UniqueConstraint, false, or_, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, SQLModel, col, func, select

from codes.catalogue import Brand, Product, gtin14, product_with
from codes.pipeline import Recipe
from codes.serials import ITEM_NUMBERS, SerialScheme, scheme_of
from kit import locks
from kit.db import Moment, Session
from kit.errors import Conflict, Invalid, NotFound
from kit.paging import Position, newest_first
from kit.vault import Vault
from offline_sdk.code_text import Profile, check_base_url
from offline_sdk.errors import Malformed
from signer.keys import ORDER_NUMBER_MAX, SigningKeyMissing, active_key

QUANTITY_MIN = 1
QUANTITY_MAX = ITEM_NUMBERS
RECALL_REASON_CHARACTERS_MAX = 500
_ORDER_ID_MAX = (2**63 - 1) // ITEM_NUMBERS - 1


class QuantityOutOfRange(Invalid):
    code = "QuantityOutOfRange"


class FacesInvalid(Invalid):
    code = "FacesInvalid"


class BaseUrlInvalid(Invalid):
    code = "BaseUrlInvalid"


class OrderNumbersUsedUp(Conflict):
    code = "OrderNumbersUsedUp"


class OrderUnknown(NotFound):
    code = "OrderUnknown"


class OrderStateForbids(Conflict):
    code = "OrderStateForbids"


class RecallReasonInvalid(Invalid):
    code = "RecallReasonInvalid"


class OrderState(StrEnum):
    DORMANT = "dormant"  # issued, not yet on sale: a scan proves, nothing is paid
    ACTIVE = "active"
    RECALLED = "recalled"


class CodeOrder(SQLModel, table=True):
    """An order of codes for one product."""

    __tablename__: ClassVar[str] = "code_order"
    __table_args__ = (
        UniqueConstraint("gtin", "order_number"),
        CheckConstraint(f"quantity BETWEEN {QUANTITY_MIN} AND {QUANTITY_MAX}", name="quantity"),
        CheckConstraint(f"order_number BETWEEN 1 AND {ORDER_NUMBER_MAX}", name="order_number"),
        CheckConstraint("outer_face OR inner_face", name="faces"),
        CheckConstraint("state IN ('dormant', 'active', 'recalled')", name="state"),
    )

    order_id: int | None = Field(default=None, primary_key=True)
    gtin: str = Field(foreign_key="product.gtin", sa_type=Text)
    order_number: int
    quantity: int
    outer_face: bool
    inner_face: bool
    base_url: str = Field(sa_type=Text)
    kid: int = Field(foreign_key="signing_key.kid")
    state: str = Field(default=OrderState.DORMANT, sa_type=Text)
    recall_reason: str | None = Field(default=None, sa_type=Text)
    # Whether `codes.ranges` keeps states of its parts; a scan of an order without them asks no more than this row.
    has_ranges: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    created_at: datetime = Field(sa_type=Moment)

    @property
    def faces(self) -> tuple[Profile, ...]:
        """The profiles that this order's items carry."""
        return tuple(
            face for face, wanted in ((Profile.OUTER, self.outer_face), (Profile.INNER, self.inner_face)) if wanted
        )

    @property
    def recipe(self) -> Recipe:
        """What the order's codes are made from."""
        return Recipe(self.gtin, self.order_number, self.quantity, self.faces, self.base_url, self.kid)

    def serial(self, item_number: int) -> str:
        return f"{self.order_number:05d}{item_number:09d}"

    def item_key(self, item_number: int) -> int:
        """The 63-bit key of an item in every table that has rows for touched items."""
        assert self.order_id is not None  # rows read from the database have their key
        return self.order_id * ITEM_NUMBERS + item_number


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """What an order would become; nothing is stored yet."""

    product: Product
    brand: Brand
    order_number: int
    quantity: int
    faces: tuple[Profile, ...]
    base_url: str
    kid: int

    def order(self, now: datetime) -> CodeOrder:
        """The order, not stored."""
        return CodeOrder(
            gtin=self.product.gtin,
            order_number=self.order_number,
            quantity=self.quantity,
            outer_face=Profile.OUTER in self.faces,
            inner_face=Profile.INNER in self.faces,
            base_url=self.base_url,
            kid=self.kid,
            created_at=now,
        )


async def plan(session: Session, gtin: str, quantity: int, faces: Sequence[Profile], base_url: str) -> OrderPlan:
    """Check an order without placing it.

    Raises QuantityOutOfRange (1..10^9), FacesInvalid, BaseUrlInvalid, GtinInvalid, ProductUnknown, SigningKeyMissing,
    and OrderNumbersUsedUp when the GTIN has had its 99,999 orders or the key its last one.
    """
    if not QUANTITY_MIN <= quantity <= QUANTITY_MAX:
        raise QuantityOutOfRange(
            f"an order has {QUANTITY_MIN} to {QUANTITY_MAX:,} items, not {quantity:,}",
            hint="Split a larger need into several orders.",
        )
    if not faces or len(set(faces)) != len(faces):
        raise FacesInvalid("an order has the face outer, the face inner, or both, each once")
    try:
        check_base_url(base_url)
    except Malformed as error:
        raise BaseUrlInvalid(error.message) from None
    product = await product_with(session, gtin14(gtin))
    brand = await session.get_one(Brand, product.brand_id)
    key = await active_key(session, brand.issuer_id)
    highest = (await session.exec(select(func.max(CodeOrder.order_number)).where(CodeOrder.gtin == product.gtin))).one()
    order_number = max((highest or 0) + 1, key.order_min)
    if order_number > ORDER_NUMBER_MAX:
        raise OrderNumbersUsedUp(f"GTIN {product.gtin} has had all its {ORDER_NUMBER_MAX:,} orders")
    if order_number > key.order_max:
        raise SigningKeyMissing(
            f"key {key.kid} signs orders up to {key.order_max:05d}, the next is {order_number:05d}",
            hint="`fanxing key create` makes a key for the following orders.",
        )
    return OrderPlan(product, brand, order_number, quantity, tuple(sorted(faces)), base_url, key.kid)


async def place(session: Session, plan: OrderPlan, now: datetime) -> CodeOrder:
    """Store an order. Raises OrderStateForbids when another order took the number since the plan was made."""
    order = plan.order(now)
    # Written beforehand: a failed flush expires every row, and asking one for its GTIN then fails in its turn.
    taken = OrderStateForbids(
        f"order {plan.order_number:05d} of {plan.product.gtin} was placed by someone else just now",
        hint="Nothing was stored. Place the order again.",
    )
    session.add(order)
    try:
        await session.flush()
    except IntegrityError:
        raise taken from None
    assert order.order_id is not None  # flushed rows have their key
    if order.order_id > _ORDER_ID_MAX:
        raise OrderNumbersUsedUp("this database has no room for another order")
    return order


async def order_numbered(session: Session, gtin: str, order_number: int) -> CodeOrder:
    """Raises OrderUnknown."""
    order = (
        await session.exec(select(CodeOrder).where(CodeOrder.gtin == gtin, CodeOrder.order_number == order_number))
    ).first()
    if order is None:
        raise OrderUnknown(
            f"there is no order {order_number:05d} of GTIN {gtin}", hint="`fanxing order list` shows the orders."
        )
    return order


async def scheme_of_order(session: Session, vault: Vault, order: CodeOrder) -> SerialScheme:
    """The permutation of an order's serials, which is its issuer's. Raises SerialKeyMissing."""
    brand = await session.get_one(Brand, (await product_with(session, order.gtin)).brand_id)
    return await scheme_of(session, vault, brand.issuer_id)


async def activate(session: Session, order: CodeOrder) -> bool:
    """Put a dormant order on sale, all but what is voided. Whether that changed anything.

    Raises OrderStateForbids for a recalled one.
    """
    moved = await _move(session, order, OrderState.ACTIVE, None)
    if order.state == OrderState.RECALLED:
        raise OrderStateForbids(f"order {order.order_number:05d} of {order.gtin} is recalled and stays so")
    return moved


async def recall(session: Session, order: CodeOrder, reason: str) -> bool:
    """Recall every item of an order; whether that changed anything. There is no way back.

    A recalled item that is sold again gets a new code. Raises RecallReasonInvalid: shoppers read it, so one is needed,
    of at most 500 characters.
    """
    if not 1 <= len(reason.strip()) <= RECALL_REASON_CHARACTERS_MAX:
        raise RecallReasonInvalid(f"a recall gives its reason in 1 to {RECALL_REASON_CHARACTERS_MAX} characters")
    return await _move(session, order, OrderState.RECALLED, reason.strip())


def lock_of(order_id: int) -> int:
    """The lock that claims with items of an order share."""
    return locks.key_of("order", order_id)


async def _move(session: Session, order: CodeOrder, state: OrderState, reason: str | None) -> bool:
    assert order.order_id is not None
    await locks.change(session, lock_of(order.order_id))
    # The database decides, not the row in hand: two callers may activate at once, and an activation may meet a recall.
    moved = await session.exec(
        update(CodeOrder)
        .where(col(CodeOrder.order_id) == order.order_id, col(CodeOrder.state).not_in((state, OrderState.RECALLED)))
        .values(state=state, recall_reason=reason)
    )
    session.add(order)  # it may have been read in a session that is closed by now
    await session.refresh(order)
    return moved.rowcount > 0


async def newest_of(
    session: Session, brand_id: int, gtin_prefixes: Sequence[str], after: Position | None, count: int
) -> Sequence[CodeOrder]:
    """A brand's latest orders of GTINs under one of the prefixes, or of any when there is none, for a page of them."""
    query = select(CodeOrder).join(Product, col(CodeOrder.gtin) == Product.gtin).where(Product.brand_id == brand_id)
    if gtin_prefixes:
        # A company prefix starts after the indicator digit of a GTIN-14.
        query = query.where(or_(*(func.substr(CodeOrder.gtin, 2).startswith(prefix) for prefix in gtin_prefixes)))
    page = newest_first(query, col(CodeOrder.created_at), col(CodeOrder.order_id), after, count)
    return (await session.exec(page)).all()


async def orders_of(session: Session, brand_id: int | None = None) -> Sequence[CodeOrder]:
    """All orders, or one brand's, oldest first."""
    query = select(CodeOrder).join(Product, col(CodeOrder.gtin) == Product.gtin).order_by(col(CodeOrder.order_id))
    if brand_id is not None:
        query = query.where(Product.brand_id == brand_id)
    return (await session.exec(query)).all()
