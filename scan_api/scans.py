"""Scans: what a code text turns out to be, and the record that somebody looked at the item."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Text, UpdateBase, bindparam, func
from sqlmodel import Field, SQLModel, col, select

from codes import ranges
from codes.catalogue import Brand, Product
from codes.orders import CodeOrder
from codes.ranges import ItemStanding, ItemState
from codes.serials import ITEM_NUMBERS, SerialScheme, scheme_of
from kit.db import Moment, Session, insert_into, is_postgresql, table_of
from kit.errors import Invalid, NotFound
from kit.ids import id_at
from kit.kept import Kept
from kit.procedures import Kind, Step
from kit.vault import Vault
from offline_sdk.code_text import ORDER_DIGITS, Profile
from offline_sdk.errors import Revoked
from offline_sdk.verifier import GENUINE, Verdict, Verifier
from scan_api.provenance import life
from scan_api.provenance.life import Lot, Mark, MarkKind

_HELD = "the brand holds this item back for now; do not sell or use it until the brand lets it go"
# From this count on the page says that the code may have been copied. A household scans an item a few times; a number
# in the tens needs another explanation.
SCANNED_OFTEN_FROM = 20


class CodeRefused(Invalid):
    """The code was judged and is not good for what was asked; `code` is the verdict's error."""

    def __init__(self, judgement: "Judgement") -> None:
        super().__init__(judgement.message, hint="Scan the code on the item again; do not type it.")
        self.code = judgement.error or "Malformed"


class ItemUnknown(NotFound):
    code = "ItemUnknown"


class Item(SQLModel, table=True):
    """An item that was scanned: its first scan and how many there were."""

    __tablename__: ClassVar[str] = "item"

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    first_scan_at: datetime = Field(sa_type=Moment)
    last_scan_at: datetime = Field(sa_type=Moment)
    scan_count: int


class Scan(SQLModel, table=True):
    """One scan. It holds neither the code text nor anything about the person."""

    __tablename__: ClassVar[str] = "scan"
    __table_args__ = (
        CheckConstraint("face IN (1, 2)", name="face"),
        CheckConstraint("channel IN ('page', 'api', 'device')", name="channel"),
    )

    item_key: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    scan_id: uuid.UUID = Field(primary_key=True)
    face: int
    channel: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """All of an order that never changes, what it is of and whose: nothing here can be altered once it was made."""

    order_id: int
    gtin: str
    order_number: int
    quantity: int
    faces: tuple[Profile, ...]
    kid: int
    issuer_id: int
    product: Product
    brand: Brand

    @property
    def brand_id(self) -> int:
        return self.product.brand_id

    def item_key(self, item_number: int) -> int:
        """As `codes.orders.CodeOrder.item_key`."""
        return self.order_id * ITEM_NUMBERS + item_number


@dataclass(frozen=True, slots=True)
class Issued:
    """An item that a genuine signature speaks of, and that was truly issued."""

    facts: OrderFacts
    item_key: int
    issue_index: int

    def life_values(self) -> dict[str, Any]:
        """What `life.LIFE` asks for."""
        facts, item_number = self.facts, self.item_key % ITEM_NUMBERS
        serial = f"{facts.order_number:05d}{item_number:09d}"
        return life.values(facts.brand_id, facts.order_id, facts.gtin, serial, self.issue_index)


@dataclass(frozen=True, slots=True)
class Subject:
    """The item that was judged, and what became of it."""

    item: Issued
    state: ItemState
    lot: Lot | None = None

    @property
    def facts(self) -> OrderFacts:
        return self.item.facts

    @property
    def product(self) -> Product:
        return self.facts.product

    @property
    def brand(self) -> Brand:
        return self.facts.brand

    @property
    def on_sale(self) -> bool:
        return self.state is ItemState.ACTIVE


@dataclass(frozen=True, slots=True)
class Judgement:
    """The online verdict: the offline one, and what the order says besides.

    `error` is one of the offline verdict's codes, or NeverIssued, Recalled, Voided or Held. `subject` is there whenever
    the item was truly issued, also when it is refused.
    """

    verdict: Verdict
    error: str | None
    message: str
    subject: Subject | None

    @property
    def genuine(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """What is known of an item's scans, this one included when it was one."""

    first_scan_at: datetime | None
    scan_count: int


NEVER_SCANNED = ScanRecord(None, 0)


class Scans:
    """Judges code texts against trust bundle and orders."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._schemes: dict[int, SerialScheme] = {}  # an issuer's serial key never changes
        self._orders: Kept[tuple[str, int], OrderFacts] = Kept()

    async def judge(self, session: Session, verifier: Verifier, text: str) -> Judgement:
        """Say what a code text is. Nothing is recorded."""
        verdict = verifier.check(text)
        if verdict.issuer is None:
            return unbelieved(verdict)
        item = self.issued(self.kept_order(verdict) or await self.order(session, verdict), verdict)
        if item is None:
            return never_issued(verdict)
        standing = await ranges.standing_at(session, item.facts.order_id, item.issue_index)
        marks, lot = await life.life_of(session, item.life_values())
        return judgement_of(verdict, item, standing, marks, lot)

    def kept_order(self, verdict: Verdict) -> OrderFacts | None:
        """The order that a believed code names, if it was read before."""
        gtin, order_number, _ = _named(verdict)
        return self._orders.get((gtin, order_number))

    async def order(self, session: Session, verdict: Verdict) -> OrderFacts | None:
        """The order that a believed code names; read, and kept from now on. None when there is none."""
        gtin, order_number, _ = _named(verdict)
        found = await find_order(session, gtin, order_number)
        if found is None:
            return None
        facts = facts_of(*found)
        await self.scheme(session, facts.issuer_id)
        self._orders[facts.gtin, facts.order_number] = facts
        return facts

    def issued(self, facts: OrderFacts | None, verdict: Verdict) -> Issued | None:
        """The item of this order, which was read here, that a believed code names; None when it was never issued."""
        if facts is None:
            return None
        _, _, item_number = _named(verdict)
        index = issue_index(self._schemes[facts.issuer_id], facts, verdict.profile, verdict.kid, item_number)
        return None if index is None else Issued(facts, facts.item_key(item_number), index)

    async def scheme(self, session: Session, issuer_id: int) -> SerialScheme:
        """The issuer's permutation of serials, read once."""
        scheme = self._schemes.get(issuer_id)
        if scheme is None:
            scheme = self._schemes[issuer_id] = await scheme_of(session, self._vault, issuer_id)
        return scheme

    async def items(
        self, session: Session, order: CodeOrder, issuer_id: int, serials: Sequence[str]
    ) -> list[tuple[int, int]]:
        """Key and issue index of the items with these 14-digit serials. Raises ItemUnknown for one never issued."""
        scheme, found = await self.scheme(session, issuer_id), []
        for serial in serials:
            item_number = int(serial[ORDER_DIGITS:])
            index = scheme.issue_index(order.gtin, order.order_number, item_number)
            if int(serial[:ORDER_DIGITS]) != order.order_number or index >= order.quantity:
                raise ItemUnknown(f"order {order.order_number:05d} of GTIN {order.gtin} has no item {serial}")
            found.append((order.item_key(item_number), index))
        return found


def facts_of(order: CodeOrder, product: Product, brand: Brand) -> OrderFacts:
    """What of an order can be kept."""
    assert order.order_id is not None  # rows read from the database have their key
    return OrderFacts(
        order_id=order.order_id,
        gtin=order.gtin,
        order_number=order.order_number,
        quantity=order.quantity,
        faces=order.faces,
        kid=order.kid,
        issuer_id=brand.issuer_id,
        product=product,
        brand=brand,
    )


def issue_index(
    scheme: SerialScheme, order: CodeOrder | OrderFacts, profile: int | None, kid: int | None, item_number: int
) -> int | None:
    """The issue index of the item that a rightly signed code speaks of; None when the order never had such a code."""
    if profile not in order.faces or kid != order.kid:
        return None
    index = scheme.issue_index(order.gtin, order.order_number, item_number)
    return index if index < order.quantity else None


def _named(verdict: Verdict) -> tuple[str, int, int]:
    """GTIN, order number and item number that a believed code names."""
    assert verdict.gtin is not None
    assert verdict.serial is not None
    return verdict.gtin, int(verdict.serial[:ORDER_DIGITS]), int(verdict.serial[ORDER_DIGITS:])


def unbelieved(verdict: Verdict) -> Judgement:
    """The judgement of what no signature that can be believed speaks for."""
    return Judgement(verdict, verdict.error, verdict.message, None)


def never_issued(verdict: Verdict) -> Judgement:
    """The judgement of a code that is rightly signed, and of nothing."""
    message = "the signature is right, but no such item was ever issued; report it to the brand"
    return Judgement(verdict, "NeverIssued", message, None)


def judgement_of(
    verdict: Verdict, item: Issued, standing: ItemStanding, marks: Sequence[Mark] = (), lot: Lot | None = None
) -> Judgement:
    """The judgement of an item that was issued; `marks` reach it, the one that counts first."""
    mark = marks[0] if marks else None
    kind = None if mark is None else mark.kind
    marked = standing.state if kind in (None, MarkKind.HELD) or standing.is_recalled else ItemState(kind)
    subject = Subject(item, marked, lot)
    # Bundles list what was recalled or voided as revoked; here there is more to tell of it.
    withdrawn = verdict.verdict == GENUINE or verdict.error == Revoked.code
    if withdrawn and (standing.is_recalled or kind is MarkKind.RECALLED):
        # Said of a voided item too: whoever holds it must hear of the danger first.
        reason = standing.recall_reason or (mark.message if mark is not None and kind is MarkKind.RECALLED else None)
        return Judgement(verdict, "Recalled", reason or "the item was recalled", subject)
    if withdrawn and subject.state is ItemState.VOIDED:
        return voided(Judgement(verdict, None, "", subject))
    if mark is not None and kind is MarkKind.HELD and verdict.error is None:
        return Judgement(verdict, "Held", mark.message or _HELD, subject)
    return Judgement(verdict, verdict.error, verdict.message, subject)


def voided(judgement: Judgement) -> Judgement:
    """The judgement of an item that turns out to be voided."""
    message = "this code was withdrawn before sale and belongs on no item; report it to the brand"
    return replace(judgement, error="Voided", message=message)


_ORDER = (
    select(CodeOrder, Product, Brand)
    .join(Product, col(CodeOrder.gtin) == Product.gtin)
    .join(Brand, col(Product.brand_id) == Brand.brand_id)
    .where(col(CodeOrder.gtin) == bindparam("gtin"), col(CodeOrder.order_number) == bindparam("number"))
)


async def find_order(session: Session, gtin: str, order_number: int) -> tuple[CodeOrder, Product, Brand] | None:
    """An order with its product and brand, in one round trip."""
    return (await session.exec(_ORDER, params={"gtin": gtin, "number": order_number})).first()


RECORDING_PARAMETERS: Mapping[str, Kind] = {
    "item": Kind.BIGINT,
    "scan": Kind.UUID,
    "face": Kind.INTEGER,
    "channel": Kind.TEXT,
    "now": Kind.MOMENT,
}
_RECORDED: Mapping[str, Kind] = {"first_scan_at": Kind.MOMENT, "scan_count": Kind.INTEGER}
RECORDING: Sequence[Step] = (
    Step("INSERT INTO scan (item_key, scan_id, face, channel, at) VALUES (:item, :scan, :face, :channel, :now)"),
    Step(
        "INSERT INTO item (item_key, first_scan_at, last_scan_at, scan_count) VALUES (:item, :now, :now, 1) "
        "ON CONFLICT (item_key) DO UPDATE SET scan_count = item.scan_count + 1, last_scan_at = excluded.last_scan_at "
        "RETURNING first_scan_at, scan_count",
        gives=_RECORDED,
    ),
)
"""Steps that keep a scan, count it at its item and tell what is known of the item. `channel` is "page" or "api"."""
RECORDED: Sequence[Step] = (Step("SELECT first_scan_at, scan_count FROM item WHERE item_key = :item", gives=_RECORDED),)
"""Steps that tell the same without a scan."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A scan that happened some time ago."""

    item_key: int
    face: Profile
    at: datetime


def _recording_many(*, on_postgresql: bool) -> tuple[UpdateBase, UpdateBase]:
    """The statements that keep scans of any time, and count them at their items."""
    # What is returned makes them one statement for many rows each.
    keep = insert_into(Scan, on_postgresql=on_postgresql).returning(col(Scan.item_key))
    count = insert_into(Item, on_postgresql=on_postgresql)
    least, greatest = (func.least, func.greatest) if on_postgresql else (func.min, func.max)
    held, told = table_of(Item).c, count.excluded
    return keep, count.on_conflict_do_update(
        index_elements=["item_key"],
        set_={
            "first_scan_at": least(held.first_scan_at, told.first_scan_at),
            "last_scan_at": greatest(held.last_scan_at, told.last_scan_at),
            "scan_count": held.scan_count + told.scan_count,
        },
    ).returning(col(Item.item_key))


_RECORDING_MANY = {on_postgresql: _recording_many(on_postgresql=on_postgresql) for on_postgresql in (False, True)}


async def record_many(session: Session, channel: str, seen: Sequence[Seen]) -> None:
    """Record scans that are told of late, in two statements; an item's first scan may turn out to be earlier."""
    if not seen:
        return
    keep, count = _RECORDING_MANY[is_postgresql(session)]
    await session.exec(
        keep,
        params=[
            # The id tells when, not now: an item's scans are read in the order of their ids.
            {
                "item_key": one.item_key,
                "scan_id": id_at(one.at),
                "face": int(one.face),
                "channel": channel,
                "at": one.at,
            }
            for one in seen
        ],
    )
    times: dict[int, list[datetime]] = {}
    for one in seen:
        times.setdefault(one.item_key, []).append(one.at)
    await session.exec(
        count,
        params=[
            {"item_key": key, "first_scan_at": min(at), "last_scan_at": max(at), "scan_count": len(at)}
            for key, at in sorted(times.items())  # in one order, so that no two batches wait for each other
        ],
    )


async def record_of(session: Session, item_key: int) -> ScanRecord:
    """What is known of an item's scans, without adding one."""
    item = await session.get(Item, item_key)
    return ScanRecord(item.first_scan_at, item.scan_count) if item else NEVER_SCANNED


async def scans_of(session: Session, item_key: int, limit: int) -> list[Scan]:
    """The first `limit` scans of an item, oldest first."""
    return list(
        (
            await session.exec(select(Scan).where(Scan.item_key == item_key).order_by(col(Scan.scan_id)).limit(limit))
        ).all()
    )


def refuse_unless_genuine(judgement: Judgement) -> Subject:
    """The item of a genuine code. Raises CodeRefused for any other."""
    if judgement.subject is None or not judgement.genuine:
        raise CodeRefused(judgement)
    return judgement.subject
