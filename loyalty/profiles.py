"""What members tell of themselves beside the phone number: the day of their birth, and the name their CRM knew.

Both are sealed under the member's own key. Birthdays are also found by a keyed hash of month and day, one for a whole
group: without the vault key a copy of the database shows who shares a birthday, and not which day it is.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlmodel import col, select

from kit.db import Session, insert
from kit.errors import Conflict, Invalid
from kit.vault import Vault
from loyalty import members
from loyalty.members import Member, MemberProfile

NAME_CHARACTERS_MAX = 100
NAME_CONTEXT, BIRTHDAY_CONTEXT = b"name", b"birthday"
_LEAP_YEAR = 2000


class BirthdayInvalid(Invalid):
    """There is no such day in any year."""

    code = "BirthdayInvalid"


class BirthdayAlreadySet(Conflict):
    """The birthday was told before. It brings gifts, so it does not move."""

    code = "BirthdayAlreadySet"


@dataclass(frozen=True, order=True)
class Birthday:
    """Month 1..12 and day; 29 February is one. Raises BirthdayInvalid when there is no such day."""

    month: int
    day: int

    def __post_init__(self) -> None:
        try:
            date(_LEAP_YEAR, self.month, self.day)
        except ValueError:
            raise BirthdayInvalid(
                "a birthday is a month and a day of it", hint='Send {"month": 2, "day": 29}.'
            ) from None

    def __str__(self) -> str:
        return f"{self.month:02}-{self.day:02}"


@dataclass(frozen=True)
class Profile:
    """What is known; None where nothing is."""

    name: str | None
    birthday: Birthday | None


def birthday_key(vault: Vault, group_id: int, birthday: Birthday) -> bytes:
    """The keyed hash under which members with this birthday are found in one group."""
    return vault.fingerprint("member-birthday", f"{group_id}\x00{birthday}")


async def set_birthday(session: Session, vault: Vault, member_id: uuid.UUID, birthday: Birthday) -> None:
    """Note the birthday, once and for all; the same day again is no error.

    Raises BirthdayAlreadySet and MemberUnknown.
    """
    group_id = (await members.get(session, member_id)).group_id
    key = await members.key_of(session, vault, member_id)
    if not await fill_birthday(session, vault, key, group_id, member_id, birthday):
        raise BirthdayAlreadySet("your birthday is already set", hint="Ask the brand's service to correct it.")


async def fill_birthday(
    session: Session, vault: Vault, key: bytes, group_id: int, member_id: uuid.UUID, birthday: Birthday
) -> bool:
    """Note the birthday with the member's key in hand; False when he has another one."""
    sealed = members.seal_field(key, member_id, str(birthday).encode(), BIRTHDAY_CONTEXT)
    found_by = birthday_key(vault, group_id, birthday)
    statement = insert(session, MemberProfile).values(
        member_id=member_id, birthday_sealed=sealed, birthday_key=found_by
    )
    written = await session.exec(
        statement.on_conflict_do_update(
            index_elements=["member_id"],
            set_={"birthday_sealed": sealed, "birthday_key": found_by},
            where=col(MemberProfile.birthday_key).is_(None) | (col(MemberProfile.birthday_key) == found_by),
        ).returning(col(MemberProfile.member_id))
    )
    return written.first() is not None


async def fill_name(session: Session, key: bytes, member_id: uuid.UUID, name: str) -> None:
    """Note the name with the member's key in hand, unless there is one."""
    sealed = members.seal_field(key, member_id, name.encode(), NAME_CONTEXT)
    await session.exec(
        insert(session, MemberProfile)
        .values(member_id=member_id, name_sealed=sealed)
        .on_conflict_do_update(
            index_elements=["member_id"],
            set_={"name_sealed": sealed},
            where=col(MemberProfile.name_sealed).is_(None),
        )
    )


async def profile_of(session: Session, vault: Vault, member_id: uuid.UUID) -> Profile:
    """The member's profile. Raises MemberUnknown when he was erased and there is something to open."""
    stored = await session.get(MemberProfile, member_id)
    name = birthday = None
    if stored is not None and stored.name_sealed is not None:
        name = (await members.unseal_for(session, vault, member_id, stored.name_sealed, NAME_CONTEXT)).decode()
    if stored is not None and stored.birthday_sealed is not None:
        opened = await members.unseal_for(session, vault, member_id, stored.birthday_sealed, BIRTHDAY_CONTEXT)
        birthday = parse_birthday(opened.decode())
    return Profile(name, birthday)


def parse_birthday(text: str) -> Birthday:
    """The birthday in MM-DD or YYYY-MM-DD; a year is dropped. Raises BirthdayInvalid."""
    parts = text.strip().split("-")[-2:]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts):
        raise BirthdayInvalid("a birthday is written MM-DD or YYYY-MM-DD")
    return Birthday(int(parts[0]), int(parts[1]))


async def born_on(
    session: Session,
    vault: Vault,
    group_id: int,
    birthdays: Sequence[Birthday],
    count_max: int,
    after: uuid.UUID | None = None,
) -> list[uuid.UUID]:
    """Members of the group with one of these birthdays, by id, beginning after one; at most `count_max`.

    In a year without 29 February ask for that day together with the 28th. Merged and erased members are left out.
    """
    keys = [birthday_key(vault, group_id, birthday) for birthday in birthdays]
    query = (
        select(MemberProfile.member_id)
        .join(Member, col(Member.member_id) == MemberProfile.member_id)
        .where(
            col(MemberProfile.birthday_key).in_(keys),
            col(Member.phone_sealed).is_not(None),
            col(Member.merged_into).is_(None),
        )
        .order_by(col(MemberProfile.member_id))
        .limit(count_max)
    )
    if after is not None:
        query = query.where(col(MemberProfile.member_id) > after)
    return list(await session.exec(query))
