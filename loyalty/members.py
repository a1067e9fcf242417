"""Members of a group: found by their phone number, holding one card a brand, and forgotten when they ask for it.

The number is stored encrypted under a key of the member's own, and found by a keyed hash. Erasure destroys key and
hash; the member's id, accounts and claims stay, so that the ledger still balances.
"""

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import numpy as np
from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, delete, text, update
from sqlmodel import Field, SQLModel, col, select

from kit import vault as vaults
from kit.clock import iso
from kit.db import Moment, Session, insert
from kit.errors import NotFound
from kit.ids import new_id
from kit.vault import Vault
from loyalty import webhooks
from loyalty.phones import parse_phone, phone_fingerprint
from loyalty.webhooks import WebhookKind

CARD_NUMBER_DIGITS = 16
KEY_CONTEXT, PHONE_CONTEXT, FIELD_CONTEXT = b"member-key", b"member-phone", b"member-field"
"""What a member's key, his number and his other fields are sealed for, before his id. Fixed for ever: it is stored."""
_PAYLOAD_MIN = 10 ** (CARD_NUMBER_DIGITS - 2)
_DOUBLED = np.array([0, 2, 4, 6, 8, 1, 3, 5, 7, 9], np.uint64)
"""The sum of the digits of twice a digit (ISO/IEC 7812-1, annex B)."""


class MemberUnknown(NotFound):
    """There is no such member, or the member was erased."""

    code = "MemberUnknown"


class Member(SQLModel, table=True):
    """A shopper as one group of brands knows him."""

    __tablename__: ClassVar[str] = "member"
    __table_args__ = (
        Index(
            "ix_member_merged_into",
            "merged_into",
            postgresql_where=text("merged_into IS NOT NULL"),
            sqlite_where=text("merged_into IS NOT NULL"),
        ),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    group_id: int
    phone_sealed: bytes | None = Field(sa_type=LargeBinary)
    """None: the member was erased."""
    created_at: datetime = Field(sa_type=Moment)
    proven_at: datetime | None = Field(default=None, sa_type=Moment)
    """When the number's owner first signed in; None: only a shop or a CRM has told of him."""
    merged_into: uuid.UUID | None = None
    """The member who acts for this one since the two were merged; see `loyalty.merges`."""


class MemberKey(SQLModel, table=True):
    """The key that a member's personal data is sealed with. Without this row the data is noise."""

    __tablename__: ClassVar[str] = "member_key"

    member_id: uuid.UUID = Field(primary_key=True)
    key_sealed: bytes = Field(sa_type=LargeBinary)


class MemberProfile(SQLModel, table=True):
    """What else a member or his CRM told, sealed under his key, with a hash that finds birthdays."""

    __tablename__: ClassVar[str] = "member_profile"
    __table_args__ = (
        CheckConstraint("(birthday_sealed IS NULL) = (birthday_key IS NULL)", name="birthday"),
        # Most of a CRM's customers never told theirs.
        Index(
            "ix_member_profile_birthday",
            "birthday_key",
            "member_id",
            postgresql_where=text("birthday_key IS NOT NULL"),
            sqlite_where=text("birthday_key IS NOT NULL"),
        ),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    name_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    birthday_sealed: bytes | None = Field(default=None, sa_type=LargeBinary)
    birthday_key: bytes | None = Field(default=None, sa_type=LargeBinary)


class PhoneIdentity(SQLModel, table=True):
    """Which member a phone number is, in one group."""

    __tablename__: ClassVar[str] = "phone_identity"

    fingerprint: bytes = Field(primary_key=True, sa_type=LargeBinary)
    group_id: int
    member_id: uuid.UUID = Field(index=True)
    """Who signs in with it."""
    origin_id: uuid.UUID
    """For whom it was enrolled: another one once he was merged into somebody."""


class Card(SQLModel, table=True):
    """A member's card of one brand."""

    __tablename__: ClassVar[str] = "card"
    __table_args__ = (
        CheckConstraint(f"length(card_number) = {CARD_NUMBER_DIGITS}", name="card_number"),
        CheckConstraint("tier_rank >= 0 AND granted_rank >= 0 AND tier_seq >= 0", name="tier"),
        Index(
            "ix_card_tier_check_at",
            "tier_check_at",
            postgresql_where=text("tier_check_at IS NOT NULL"),
            sqlite_where=text("tier_check_at IS NOT NULL"),
        ),
        Index(
            "ix_card_tier_version",
            "brand_id",
            "tier_version",
            postgresql_where=text("tier_seq > 0"),
            sqlite_where=text("tier_seq > 0"),
        ),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    brand_id: int = Field(primary_key=True)
    card_number: str = Field(sa_type=Text, index=True)
    joined_at: datetime = Field(sa_type=Moment)
    # What follows is written by `loyalty.tiers` alone: where the card stands, and up to where that was decided.
    tier_rank: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    tier_since: datetime | None = Field(default=None, sa_type=Moment)
    tier_until: datetime | None = Field(default=None, sa_type=Moment)
    granted_rank: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    granted_until: datetime | None = Field(default=None, sa_type=Moment)
    tier_moment: datetime | None = Field(default=None, sa_type=Moment)
    tier_seq: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    tier_changes: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    tier_version: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    tier_check_at: datetime | None = Field(default=None, sa_type=Moment)


async def find_or_enrol(
    session: Session, vault: Vault, group_id: int, phone: str, now: datetime
) -> tuple[Member, bool]:
    """The member with this phone number, and whether he is new. Raises PhoneInvalid.

    Call it only for a number whose owner is proven, see `loyalty.sign_in`. A member of whom only a shop or a CRM told
    until now is proven from here on, and not new.
    """
    member, is_new = await _find_or_add(session, vault, group_id, phone, now, proven_at=now)
    if member.proven_at is None:
        await session.exec(
            update(Member)
            .where(col(Member.member_id) == member.member_id, col(Member.proven_at).is_(None))
            .values(proven_at=now)
        )
    return member, is_new


async def find_or_record(
    session: Session, vault: Vault, group_id: int, phone: str, now: datetime
) -> tuple[Member, bool]:
    """The same for a number that somebody else told of, such as a till: its owner proves it when he first signs in."""
    return await _find_or_add(session, vault, group_id, phone, now, proven_at=None)


async def _find_or_add(
    session: Session, vault: Vault, group_id: int, phone: str, now: datetime, *, proven_at: datetime | None
) -> tuple[Member, bool]:
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
            .values(fingerprint=fingerprint, group_id=group_id, member_id=member_id, origin_id=member_id)
            .on_conflict_do_nothing()
            .returning(col(PhoneIdentity.member_id))
        )
        # A conflict means that somebody enrolled the number since we looked, so look again.
        if claimed.first() is not None:
            secrets_of = sealed_identity(vault, member_id, phone_e164)
            member = Member(
                member_id=member_id,
                group_id=group_id,
                phone_sealed=secrets_of.phone_sealed,
                created_at=now,
                proven_at=proven_at,
            )
            session.add_all([member, MemberKey(member_id=member_id, key_sealed=secrets_of.key_sealed)])
            await session.flush()
            return member, True


@dataclass(frozen=True, slots=True)
class SealedIdentity:
    """A new member's key, in clear and as it is stored, and the phone number sealed under it."""

    key: bytes
    key_sealed: bytes
    phone_sealed: bytes


def sealed_identity(vault: Vault, member_id: uuid.UUID, phone_e164: str) -> SealedIdentity:
    """A fresh key for a new member, with his phone number sealed under it."""
    key = vaults.new_key()
    return SealedIdentity(
        key,
        vault.seal(key, _key_context(member_id)),
        vaults.seal(key, phone_e164.encode(), _phone_context(member_id)),
    )


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


async def seal_for(session: Session, vault: Vault, member_id: uuid.UUID, plaintext: bytes, context: bytes) -> bytes:
    """Personal data sealed under the member's own key: noise from the moment he is erased.

    `context` names the field, and the row where a member may have several; the same is needed to open it. Raises
    MemberUnknown when he was erased.
    """
    return seal_field(await key_of(session, vault, member_id), member_id, plaintext, context)


def seal_field(key: bytes, member_id: uuid.UUID, plaintext: bytes, context: bytes) -> bytes:
    """The same with the member's key in hand."""
    return vaults.seal(key, plaintext, _field_context(member_id, context))


async def unseal_for(session: Session, vault: Vault, member_id: uuid.UUID, sealed: bytes, context: bytes) -> bytes:
    """What `seal_for` sealed. Raises MemberUnknown when the member was erased, and VaultSealBroken."""
    return vaults.unseal(await key_of(session, vault, member_id), sealed, _field_context(member_id, context))


async def key_of(session: Session, vault: Vault, member_id: uuid.UUID) -> bytes:
    """The key that the member's personal data is sealed with. Raises MemberUnknown when he was erased."""
    stored = await session.exec(select(MemberKey.key_sealed).where(MemberKey.member_id == member_id))
    key_sealed = stored.first()
    if key_sealed is None:
        raise MemberUnknown("no such member, or the member was erased")
    return open_key(vault, member_id, key_sealed)


def open_key(vault: Vault, member_id: uuid.UUID, key_sealed: bytes) -> bytes:
    """A member's key from its row. Raises VaultSealBroken."""
    return vault.unseal(key_sealed, _key_context(member_id))


def _key_context(member_id: uuid.UUID) -> bytes:
    return KEY_CONTEXT + member_id.bytes


def _phone_context(member_id: uuid.UUID) -> bytes:
    return PHONE_CONTEXT + member_id.bytes


def _field_context(member_id: uuid.UUID, context: bytes) -> bytes:
    return FIELD_CONTEXT + member_id.bytes + context


async def family_of(session: Session, member_id: uuid.UUID) -> list[uuid.UUID]:
    """The member and everybody merged into him, directly or through others; he comes first."""
    family = [member_id]
    layer = [member_id]
    while layer:
        found = await session.exec(select(Member.member_id).where(col(Member.merged_into).in_(layer)))
        layer = list(found)
        family += layer
    return family


async def acting_for(session: Session, member_id: uuid.UUID) -> Member:
    """Who acts for a member just now: himself, or the one that he was merged into, who may have been erased."""
    while True:
        member = await session.get(Member, member_id, populate_existing=True)
        if member is None:
            raise MemberUnknown("no such member")
        if member.merged_into is None:
            return member
        member_id = member.merged_into


async def erase(session: Session, member_id: uuid.UUID) -> None:
    """Forget who the member is: key, phone number, profile and the hash that finds him; he cannot sign in any more.

    So it goes for everybody who was merged into him. Accounts, claims, cards, coupons and consents stay under the bare
    id. The same number may enrol again, as a new member. Raises MemberUnknown.

    `loyalty.erasure` also tells those who have to know; this is its core.
    """
    await get(session, member_id)
    family = await family_of(session, member_id)
    await session.exec(delete(MemberKey).where(col(MemberKey.member_id).in_(family)))
    await session.exec(delete(PhoneIdentity).where(col(PhoneIdentity.member_id).in_(family)))
    await session.exec(delete(MemberProfile).where(col(MemberProfile.member_id).in_(family)))
    await session.exec(update(Member).where(col(Member.member_id).in_(family)).values(phone_sealed=None))


async def join_brand(session: Session, member_id: uuid.UUID, brand_id: int, now: datetime) -> Card:
    """The member's card of the brand, made now unless he has one."""
    held = select(Card).where(Card.member_id == member_id, Card.brand_id == brand_id)
    card = (await session.exec(held)).first()  # most claims are by members who have the card
    if card is not None:
        return card
    made = await session.exec(
        insert(session, Card)
        .values(member_id=member_id, brand_id=brand_id, card_number=new_card_number(), joined_at=now)
        .on_conflict_do_nothing()
        .returning(col(Card.card_number))
    )
    if made.first() is not None:
        await tell_joined(session, member_id, brand_id, now)
    return (await session.exec(held)).one()


async def tell_joined(session: Session, member_id: uuid.UUID, brand_id: int, at: datetime) -> None:
    """Let the brand's endpoints hear of its new member."""
    await webhooks.emit(session, brand_id, WebhookKind.MEMBER_JOINED, member_id, {"joined_at": iso(at)}, at)


async def cards_of(session: Session, member_id: uuid.UUID) -> list[Card]:
    """The member's cards, earliest first."""
    cards = await session.exec(
        select(Card).where(Card.member_id == member_id).order_by(col(Card.joined_at), col(Card.brand_id))
    )
    return list(cards)


def new_card_number() -> str:
    """A fresh card number: it tells nothing, and nobody guesses the next one."""
    payload = str(_PAYLOAD_MIN + secrets.randbelow(9 * _PAYLOAD_MIN))
    return f"{payload}{luhn_digit(payload)}"


def new_card_numbers(count: int) -> list[str]:
    """Many fresh card numbers."""
    # From 64 random bits the first of these payloads is likelier than the last by one in 20,000, which is no help.
    numbers = np.frombuffer(secrets.token_bytes(8 * count), np.uint64)
    payloads = numbers % np.uint64(9 * _PAYLOAD_MIN) + np.uint64(_PAYLOAD_MIN)
    rest, total = payloads.copy(), np.zeros(count, np.uint64)
    for position in range(CARD_NUMBER_DIGITS - 1):
        digit = rest % np.uint64(10)
        total += _DOUBLED[digit] if position % 2 == 0 else digit
        rest //= np.uint64(10)
    return [f"{payload}{-check % 10}" for payload, check in zip(payloads.tolist(), total.tolist(), strict=True)]


def luhn_digit(payload: str) -> int:
    """The check digit that follows the digits of `payload` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(payload)):
        doubled = int(digit) * (2 if position % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return -total % 10
