"""Coupons: issued by a claim, shown to the member, redeemed exactly once in a shop."""

import secrets
import unicodedata
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, Text, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session
from kit.errors import Conflict, NotFound
from kit.ids import derived_id
from kit.vault import Vault
from loyalty import ledger
from loyalty.ledger import AccountId, Leg, Purpose, Transfer

CODE_CHARACTERS = 16
"""80 random bits: nobody guesses a coupon that is worth having."""
COUPONS_LISTED_MAX = 200
_CODE_GROUP = 4
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_READ_AS = str.maketrans("ILO", "110")


class CouponUnknown(NotFound):
    """There is no such coupon, or it is of a brand that this shop does not serve."""

    code = "CouponUnknown"


class CouponAlreadyRedeemed(Conflict):
    """The coupon was used before. `redeemed_at` says when."""

    code = "CouponAlreadyRedeemed"

    def __init__(self, redeemed_at: datetime) -> None:
        super().__init__("this coupon was already redeemed")
        self.redeemed_at = redeemed_at


class CouponExpired(Conflict):
    """The coupon's time is over."""

    code = "CouponExpired"


class CouponState(StrEnum):
    """What a coupon is good for. Only the first two are stored; time makes the third."""

    ISSUED = "issued"
    REDEEMED = "redeemed"
    EXPIRED = "expired"


class Coupon(SQLModel, table=True):
    """A coupon of a member. It keeps the words and the value under which it was issued."""

    __tablename__: ClassVar[str] = "coupon"
    __table_args__ = (
        CheckConstraint("status IN ('issued', 'redeemed')", name="status"),
        CheckConstraint("(status = 'redeemed') = (redeemed_at IS NOT NULL)", name="redeemed_at"),
        CheckConstraint("value_fen >= 0", name="value_fen"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    coupon_id: uuid.UUID = Field(primary_key=True)
    campaign_id: uuid.UUID
    brand_id: int
    code_fingerprint: bytes = Field(sa_type=LargeBinary, index=True)
    code_sealed: bytes = Field(sa_type=LargeBinary)
    text_zh: str = Field(sa_type=Text)
    text_en: str = Field(sa_type=Text)
    value_fen: int = Field(sa_type=BigInteger)
    status: str = Field(sa_type=Text)
    issued_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    redeemed_at: datetime | None = Field(default=None, sa_type=Moment)
    redeemed_by: uuid.UUID | None = None


@dataclass(frozen=True)
class NewCoupon:
    """A coupon to be issued. `value_fen` is its value in money, in fen; 0 when it has none."""

    coupon_id: uuid.UUID
    member_id: uuid.UUID
    campaign_id: uuid.UUID
    brand_id: int
    text_zh: str
    text_en: str
    value_fen: int
    expires_at: datetime


@dataclass(frozen=True)
class HeldCoupon:
    """A coupon as its member may see it, code included."""

    coupon_id: uuid.UUID
    campaign_id: uuid.UUID
    brand_id: int
    text_zh: str
    text_en: str
    value_fen: int
    code: str
    state: CouponState
    issued_at: datetime
    expires_at: datetime
    redeemed_at: datetime | None


@dataclass(frozen=True)
class Redemption:
    """A coupon that was just redeemed."""

    coupon_id: uuid.UUID
    campaign_id: uuid.UUID
    brand_id: int
    text_zh: str
    text_en: str
    value_fen: int
    at: datetime


def coupon_asset(campaign_id: uuid.UUID) -> str:
    """The ledger's name for the coupons of one campaign."""
    return f"coupon:{campaign_id}"


async def issue(session: Session, vault: Vault, new: NewCoupon, now: datetime) -> HeldCoupon:
    """Write a coupon out for a member; the caller has moved it to his account of the ledger."""
    code = "".join(secrets.choice(_ALPHABET) for _ in range(CODE_CHARACTERS))
    coupon = Coupon(
        member_id=new.member_id,
        coupon_id=new.coupon_id,
        campaign_id=new.campaign_id,
        brand_id=new.brand_id,
        code_fingerprint=_fingerprint(vault, code),
        code_sealed=vault.seal(code.encode(), _context(new.coupon_id)),
        text_zh=new.text_zh,
        text_en=new.text_en,
        value_fen=new.value_fen,
        status=CouponState.ISSUED,
        issued_at=now,
        expires_at=new.expires_at,
    )
    session.add(coupon)
    await session.flush()
    return _held(vault, coupon, now)


async def redeem(
    session: Session,
    vault: Vault,
    code: str,
    *,
    shop_caller_id: uuid.UUID,
    brand_ids: Collection[int] | None,
    now: datetime,
) -> Redemption:
    """Check a coupon off. It works once, however many shops try at the same time.

    `brand_ids` are the brands that the shop serves, None: all. Raises CouponUnknown, CouponAlreadyRedeemed and
    CouponExpired.
    """
    fingerprint = _fingerprint(vault, _read_code(code))
    served = [col(Coupon.brand_id).in_(brand_ids)] if brand_ids is not None else []
    used = await session.exec(
        update(Coupon)
        .where(
            col(Coupon.code_fingerprint) == fingerprint,
            col(Coupon.status) == CouponState.ISSUED,
            col(Coupon.expires_at) > now,
            *served,
        )
        .values(status=CouponState.REDEEMED, redeemed_at=now, redeemed_by=shop_caller_id)
        .returning(Coupon)
        .execution_options(synchronize_session=False)
    )
    coupon = used.scalar_one_or_none()
    if coupon is None:
        found = await session.exec(select(Coupon).where(Coupon.code_fingerprint == fingerprint, *served))
        raise _refusal(found.first())
    asset = coupon_asset(coupon.campaign_id)
    legs = (
        Leg(AccountId(coupon.member_id, asset, Purpose.AVAILABLE), -1),
        Leg(AccountId(coupon.member_id, asset, Purpose.REDEEMED), 1),
    )
    await ledger.post(session, Transfer(derived_id("redeemed", coupon.coupon_id), "coupon redeemed", legs), now)
    return Redemption(
        coupon_id=coupon.coupon_id,
        campaign_id=coupon.campaign_id,
        brand_id=coupon.brand_id,
        text_zh=coupon.text_zh,
        text_en=coupon.text_en,
        value_fen=coupon.value_fen,
        at=now,
    )


def _refusal(coupon: Coupon | None) -> CouponUnknown | CouponAlreadyRedeemed | CouponExpired:
    if coupon is None:
        return CouponUnknown("no such coupon", hint="Check the code for typing errors.")
    if coupon.redeemed_at is not None:
        return CouponAlreadyRedeemed(coupon.redeemed_at)
    return CouponExpired("this coupon's time is over")


async def coupons_of(session: Session, vault: Vault, member_id: uuid.UUID, now: datetime) -> list[HeldCoupon]:
    """The member's coupons with their codes, at most 200: those not yet redeemed first, the latest in front."""
    coupons = await session.exec(
        select(Coupon)
        .where(Coupon.member_id == member_id)
        .order_by(
            (col(Coupon.status) == CouponState.ISSUED).desc(),
            col(Coupon.issued_at).desc(),
            col(Coupon.coupon_id).desc(),
        )
        .limit(COUPONS_LISTED_MAX)
    )
    return [_held(vault, coupon, now) for coupon in coupons]


async def coupon_of(
    session: Session, vault: Vault, member_id: uuid.UUID, coupon_id: uuid.UUID, now: datetime
) -> HeldCoupon:
    """One of the member's coupons, with its code."""
    return _held(vault, await session.get_one(Coupon, (member_id, coupon_id)), now)


def _held(vault: Vault, coupon: Coupon, now: datetime) -> HeldCoupon:
    state = CouponState(coupon.status)
    if state is CouponState.ISSUED and coupon.expires_at <= now:
        state = CouponState.EXPIRED
    return HeldCoupon(
        coupon_id=coupon.coupon_id,
        campaign_id=coupon.campaign_id,
        brand_id=coupon.brand_id,
        text_zh=coupon.text_zh,
        text_en=coupon.text_en,
        value_fen=coupon.value_fen,
        code=show_code(vault.unseal(coupon.code_sealed, _context(coupon.coupon_id)).decode()),
        state=state,
        issued_at=coupon.issued_at,
        expires_at=coupon.expires_at,
        redeemed_at=coupon.redeemed_at,
    )


def show_code(code: str) -> str:
    """The code in groups of four, as people read it aloud."""
    return "-".join(code[start : start + _CODE_GROUP] for start in range(0, len(code), _CODE_GROUP))


def _read_code(typed: str) -> str:
    # Anything may stand between the groups, and letters that look like digits are read as digits.
    return "".join(c for c in unicodedata.normalize("NFKC", typed).upper() if c.isalnum()).translate(_READ_AS)


def _fingerprint(vault: Vault, code: str) -> bytes:
    return vault.fingerprint("coupon-code", code)


def _context(coupon_id: uuid.UUID) -> bytes:
    return b"coupon-code" + coupon_id.bytes
