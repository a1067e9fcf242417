"""Everything that is held about a member, for him to take along: section after section, row after row.

A section is a table whose rows are found by the member; a table that is added is in the export by itself. What stands
there sealed or hashed is left out; where that hides something of his own, `OPENED` tells it in clear.
"""

import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from typing import Any, Protocol

from sqlalchemy import Column, Table, select
from sqlmodel import SQLModel

from kit.clock import iso
from kit.db import Session
from kit.vault import Vault
from loyalty import members, profiles

ROWS_READ_AT_ONCE = 500
OWNERS = ("member_id", "holder_id", "survivor_id")
"""Columns that say whose a row is, the first that a table has."""
LEFT_OUT: Mapping[str, str] = {
    "claim": "found by the item, not by the member; what was claimed stands in the ledger's entries",
    "member": "told in clear, see OPENED",
    "member_key": "the key itself",
    "member_profile": "told in clear, see OPENED",
    "phone_identity": "nothing but a hash of the phone number",
    "pool_code": "found by the benefit; those that the member has seen are told in clear, see OPENED",
    "receipt": "found by the purchase; the member's own stand among his purchases",
    "red_packet": "found by the packet; what it brought stands in the ledger's entries",
    "red_packet_share": "found by the packet; what it brought stands in the ledger's entries",
    "referral_link": "found by its code",
    "shop_redemption": "found by the shop; the member's own stand among the steps of his benefits",
}
"""Tables that name members and are no sections, and why."""
_SECRET_ENDINGS = ("_sealed", "fingerprint", "_hash", "_key", "head", "link")

Rows = AsyncIterator[dict[str, Any]]


class Contributor(Protocol):
    """Tells what a table cannot tell by itself, in clear."""

    def __call__(self, session: Session, vault: Vault, member_id: uuid.UUID, /) -> Rows: ...


async def export(session: Session, vault: Vault, member_id: uuid.UUID) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Each row with the name of its section, of the member and of everybody merged into him. Raises MemberUnknown."""
    family = await members.family_of(session, member_id)
    for section, contributor in OPENED.items():
        for one in family:
            async for row in contributor(session, vault, one):
                yield section, row
    for table in sections():
        for one in family:
            async for row in _rows_of(session, table, one):
                yield table.name, row


def sections() -> list[Table]:
    """The tables that are told row by row, by name."""
    named = [table for table in SQLModel.metadata.tables.values() if owner_of(table) is not None]
    return sorted((table for table in named if table.name not in LEFT_OUT), key=lambda table: table.name)


def owner_of(table: Table) -> Column[Any] | None:
    """The column that says whose a row is."""
    return next((table.c[name] for name in OWNERS if name in table.c), None)


async def _rows_of(session: Session, table: Table, member_id: uuid.UUID) -> Rows:
    owner = owner_of(table)
    assert owner is not None
    told = [column for column in table.columns if not column.name.endswith(_SECRET_ENDINGS)]
    query = select(*told).where(owner == member_id).execution_options(yield_per=ROWS_READ_AT_ONCE)
    async for row in await session.stream(query):
        yield {column.name: _plain(value) for column, value in zip(told, row, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, uuid.UUID | date):
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


async def _member(session: Session, vault: Vault, member_id: uuid.UUID) -> Rows:
    member = await members.get(session, member_id)
    profile = await profiles.profile_of(session, vault, member_id)
    yield {
        "member_id": str(member_id),
        "phone": await members.phone_of(session, vault, member_id),
        "name": profile.name,
        "birthday": None if profile.birthday is None else str(profile.birthday),
        "created_at": iso(member.created_at),
        "first_signed_in_at": None if member.proven_at is None else iso(member.proven_at),
        "merged_into": None if member.merged_into is None else str(member.merged_into),
    }


OPENED: dict[str, Contributor] = {"member": _member}
"""What is told in clear, before the tables. A module that seals something of a member's adds its line."""
