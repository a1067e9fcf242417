"""Members of a group: found by their phone number, holding one card a brand, and forgotten when they ask for it.

The number is stored encrypted under a key of the member's own, and found by a keyed hash. Erasure destroys key and
hash; the member's id, accounts and claims stay, so that the ledger still balances.
"""

import secrets
import uuid
from datetime import datetime
from typing import ClassVar

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from sqlalchemy import CheckConstraint, LargeBinary, Text, delete, update
from sqlmodel import Field, SQLModel, col, select

from kit import vault as vaults
from kit.db import Moment, Session, insert
from kit.errors import Invalid, NotFound
from kit.ids import new_id
from kit.vault import Vault

PHONE_REGION_DEFAULT = "CN"
PHONE_CHARACTERS_MAX = 32
CARD_NUMBER_DIGITS = 16

_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


class PhoneInvalid(Invalid):
    """The text is not a mobile phone number."""

    code = "PhoneInvalid"


class MemberUnknown(NotFound):
    """There is no such member, or the member was erased."""

    code = "MemberUnknown"


class Member(SQLModel, table=True):
    """A shopper as one group of brands knows him."""

    __tablename__: ClassVar[str] = "member"

    member_id: uuid.UUID = Field(primary_key=True)
    group_id: int
    phone_sealed: bytes | None = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=Moment)


class MemberKey(SQLModel, table=True):
    """The key that a member's personal data is sealed with. Without this row the data is noise."""

    __tablename__: ClassVar[str] = "member_key"

    member_id: uuid.UUID = Field(primary_key=True)
    key_sealed: bytes = Field(sa_type=LargeBinary)


class PhoneIdentity(SQLModel, table=True):
    """Which member a phone number is, in one group."""

    __tablename__: ClassVar[str] = "phone_identity"

    fingerprint: bytes = Field(primary_key=True, sa_type=LargeBinary)
    group_id: int
    member_id: uuid.UUID = Field(index=True)


class Card(SQLModel, table=True):
    """A member's card of one brand."""

    __tablename__: ClassVar[str] = "card"
    __table_args__ = (CheckConstraint(f"length(card_number) = {CARD_NUMBER_DIGITS}", name="card_number"),)

    member_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(primary_key=True)
    card_number: str = Field(sa_type=Text)
    joined_at: datetime = Field(sa_type=Moment)


def parse_phone(text: str, region: str = PHONE_REGION_DEFAULT) -> str:
    """The mobile number in E.164 form, for example +8613800138000.

    A number without a country code is taken to be of `region`. Raises PhoneInvalid.
    """
    try:
        if len(text) > PHONE_CHARACTERS_MAX:
            raise ValueError
        number = phonenumbers.parse(text, region)
        if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in _MOBILE:
            raise ValueError
    except (phonenumbers.NumberParseException, ValueError):
        # The number itself stays out of the message: messages are logged.
        raise PhoneInvalid(
            "this is not a mobile phone number",
            hint="Send a number of China, or one with + and its country code.",
        ) from None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def phone_fingerprint(vault: Vault, group_id: int, phone_e164: str) -> bytes:
    """The keyed hash under which a number is found in one group; the same number differs between groups."""
    return vault.fingerprint("member-phone", f"{group_id}\x00{phone_e164}")


async def find_or_enrol(
    session: Session, vault: Vault, group_id: int, phone: str, now: datetime
) -> tuple[Member, bool]:
    """The member with this phone number, and whether he is new. Raises PhoneInvalid.

    Call it only for a number whose owner is proven, see `loyalty.sign_in`.
    """
    phone_e164 = parse_phone(phone)
    fingerprint = phone_fingerprint(vault, group_id, phone_e164)
    known = select(Member).join(PhoneIdentity, col(PhoneIdentity.member_id) == Member.member_id)
    while True:
        found = (await session.exec(known.where(PhoneIdentity.fingerprint == fingerprint))).first()
        if found is not None:
            return found, False
        member_id = new_id()
        claimed = await session.exec(
            insert(session, PhoneIdentity)
            .values(fingerprint=fingerprint, group_id=group_id, member_id=member_id)
            .on_conflict_do_nothing()
            .returning(col(PhoneIdentity.member_id))
        )
        # A conflict means that somebody enrolled the number since we looked, so look again.
        if claimed.first() is not None:
            member = Member(member_id=member_id, group_id=group_id, phone_sealed=None, created_at=now)
            await _enrol(session, vault, member, phone_e164)
            return member, True


async def _enrol(session: Session, vault: Vault, member: Member, phone_e164: str) -> None:
    key = vaults.new_key()
    member.phone_sealed = vaults.seal(key, phone_e164.encode(), _phone_context(member.member_id))
    session.add(member)
    session.add(MemberKey(member_id=member.member_id, key_sealed=vault.seal(key, _key_context(member.member_id))))
    await session.flush()


async def get(session: Session, member_id: uuid.UUID) -> Member:
    """The member, erased or not. Raises MemberUnknown."""
    member = await session.get(Member, member_id)
    if member is None:
        raise MemberUnknown("no such member")
    return member


async def member_with(session: Session, vault: Vault, group_id: int, phone: str) -> uuid.UUID:
    """The member with this phone number. Raises PhoneInvalid and MemberUnknown."""
    fingerprint = phone_fingerprint(vault, group_id, parse_phone(phone))
    found = await session.exec(select(PhoneIdentity.member_id).where(PhoneIdentity.fingerprint == fingerprint))
    member_id = found.first()
    if member_id is None:
        raise MemberUnknown("no member has this phone number")
    return member_id


async def phone_of(session: Session, vault: Vault, member_id: uuid.UUID) -> str:
    """The member's phone number in E.164 form. Raises MemberUnknown when he was erased."""
    row = (
        await session.exec(
            select(Member.phone_sealed, MemberKey.key_sealed)
            .join(MemberKey, col(MemberKey.member_id) == Member.member_id)
            .where(Member.member_id == member_id)
        )
    ).first()
    if row is None or row[0] is None:
        raise MemberUnknown("no such member, or the member was erased")
    phone_sealed, key_sealed = row
    key = vault.unseal(key_sealed, _key_context(member_id))
    return vaults.unseal(key, phone_sealed, _phone_context(member_id)).decode()


def _key_context(member_id: uuid.UUID) -> bytes:
    return b"member-key" + member_id.bytes


def _phone_context(member_id: uuid.UUID) -> bytes:
    return b"member-phone" + member_id.bytes


async def erase(session: Session, member_id: uuid.UUID) -> None:
    """Forget who the member is: key, phone number and the hash that finds him, and with them his sign-ins.

    Accounts, claims, cards and coupons stay under the bare id. The same number may enrol again, as a new member.
    Raises MemberUnknown.
    """
    await get(session, member_id)
    await session.exec(delete(MemberKey).where(col(MemberKey.member_id) == member_id))
    await session.exec(delete(PhoneIdentity).where(col(PhoneIdentity.member_id) == member_id))
    await session.exec(update(Member).where(col(Member.member_id) == member_id).values(phone_sealed=None))


async def join_brand(session: Session, member_id: uuid.UUID, brand_id: int, now: datetime) -> Card:
    """The member's card of the brand, made now unless he has one."""
    held = select(Card).where(Card.member_id == member_id, Card.brand_id == brand_id)
    card = (await session.exec(held)).first()  # most claims are by members who have the card
    if card is not None:
        return card
    await session.exec(
        insert(session, Card)
        .values(member_id=member_id, brand_id=brand_id, card_number=_new_card_number(), joined_at=now)
        .on_conflict_do_nothing()
    )
    return (await session.exec(held)).one()


async def cards_of(session: Session, member_id: uuid.UUID) -> list[Card]:
    """The member's cards, earliest first."""
    cards = await session.exec(
        select(Card).where(Card.member_id == member_id).order_by(col(Card.joined_at), col(Card.brand_id))
    )
    return list(cards)


def _new_card_number() -> str:
    payload = f"{secrets.randbelow(9 * 10 ** (CARD_NUMBER_DIGITS - 2)) + 10 ** (CARD_NUMBER_DIGITS - 2)}"
    return f"{payload}{luhn_digit(payload)}"


def luhn_digit(payload: str) -> int:
    """The check digit that follows the digits of `payload` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(payload)):
        doubled = int(digit) * (2 if position % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return -total % 10
