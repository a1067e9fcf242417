"""Consents: which version of which document a member agreed to, when and where, and when he took it back.

A group publishes documents in versions. Giving and withdrawing are facts that are added and never changed; they hold
no personal data, and stay under the bare id when the member is erased.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import CheckConstraint, Text, UniqueConstraint
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from kit.ids import new_id

KIND_CHARACTERS_MAX = 40
VERSION_CHARACTERS_MAX = 40
TITLE_CHARACTERS_MAX = 100
URL_CHARACTERS_MAX = 500
AGREEMENTS_MAX = 10
"""Most consents in one request."""
PRIVACY, MARKETING = "privacy", "marketing"
"""What every group needs; it may have more kinds."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class ConsentDocumentInvalid(Invalid):
    """The description of the document is not acceptable."""

    code = "ConsentDocumentInvalid"


class ConsentDocumentExists(Conflict):
    """This version was published before, with other words."""

    code = "ConsentDocumentExists"


class ConsentDocumentUnknown(NotFound):
    """The group has published no such version."""

    code = "ConsentDocumentUnknown"


class ConsentOutdated(Conflict):
    """A newer version is in force; only that can be agreed to."""

    code = "ConsentOutdated"


class Channel(StrEnum):
    """Where a consent was given or withdrawn."""

    API = "api"
    PAGE = "page"
    CRM = "crm"
    SERVICE = "service"


class ConsentDocument(SQLModel, table=True):
    """One version of a document that a group asks its members to agree to. The latest of its kind is in force."""

    __tablename__: ClassVar[str] = "consent_document"
    __table_args__ = (
        CheckConstraint(f"length(kind) BETWEEN 1 AND {KIND_CHARACTERS_MAX}", name="kind"),
        CheckConstraint(f"length(version) BETWEEN 1 AND {VERSION_CHARACTERS_MAX}", name="version"),
    )

    group_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    kind: str = Field(primary_key=True, sa_type=Text)
    version: str = Field(primary_key=True, sa_type=Text)
    title_zh: str = Field(sa_type=Text)
    title_en: str = Field(sa_type=Text)
    url: str = Field(sa_type=Text)
    published_at: datetime = Field(sa_type=Moment)


class Consent(SQLModel, table=True):
    """A member's yes or no to one version of a document."""

    __tablename__: ClassVar[str] = "consent"
    __table_args__ = (
        CheckConstraint(f"channel IN ({', '.join(repr(str(channel)) for channel in Channel)})", name="channel"),
        UniqueConstraint("member_id", "kind", "number"),
    )

    member_id: uuid.UUID = Field(primary_key=True)
    consent_id: uuid.UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    number: int
    """1.. for each member and kind: the last one is what holds."""
    version: str = Field(sa_type=Text)
    is_given: bool
    at: datetime = Field(sa_type=Moment)
    channel: str = Field(sa_type=Text)


@dataclass(frozen=True)
class NewDocument:
    """A document to be published."""

    kind: str
    version: str
    title_zh: str
    title_en: str
    url: str


@dataclass(frozen=True)
class Agreement:
    """A version of a document that somebody says yes or no to."""

    kind: str
    version: str
    is_given: bool = True


async def publish(session: Session, group_id: int, new: NewDocument, now: datetime) -> ConsentDocument:
    """Put a version in force; the same again changes nothing.

    Raises ConsentDocumentInvalid, and ConsentDocumentExists when the version stands with another title or address.
    """
    _check(new)
    await session.exec(
        insert(session, ConsentDocument)
        .values(
            group_id=group_id,
            kind=new.kind,
            version=new.version,
            title_zh=new.title_zh,
            title_en=new.title_en,
            url=new.url,
            published_at=now,
        )
        .on_conflict_do_nothing()
    )
    stands = await session.get_one(ConsentDocument, (group_id, new.kind, new.version))
    if (stands.title_zh, stands.title_en, stands.url) != (new.title_zh, new.title_en, new.url):
        raise ConsentDocumentExists(
            f"{new.kind} {new.version} was already published with other words", hint="Publish it as a new version."
        )
    return stands


def _check(new: NewDocument) -> None:
    for name, value, length in (
        ("kind", new.kind, KIND_CHARACTERS_MAX),
        ("version", new.version, VERSION_CHARACTERS_MAX),
    ):
        if not (len(value) <= length and _NAME.fullmatch(value)):
            raise ConsentDocumentInvalid(f"a {name} is 1 to {length} of a-z, 0-9, dots and hyphens")
    for title in (new.title_zh, new.title_en):
        if not 1 <= len(title.strip()) <= TITLE_CHARACTERS_MAX or not title.isprintable():
            raise ConsentDocumentInvalid(f"a title is 1 to {TITLE_CHARACTERS_MAX} printable characters")
    if len(new.url) > URL_CHARACTERS_MAX or not re.fullmatch(r"https?://[^\s]+", new.url):
        raise ConsentDocumentInvalid("a document stands at an http:// or https:// address")


async def in_force(session: Session, group_id: int) -> list[ConsentDocument]:
    """The latest version of every kind, by kind."""
    published = await session.exec(
        select(ConsentDocument)
        .where(ConsentDocument.group_id == group_id)
        .order_by(col(ConsentDocument.published_at), col(ConsentDocument.version))
    )
    latest = {document.kind: document for document in published}
    return [latest[kind] for kind in sorted(latest)]


async def published(session: Session, group_id: int) -> dict[str, frozenset[str]]:
    """Every published version by kind."""
    versions: dict[str, set[str]] = {}
    for document in await session.exec(select(ConsentDocument).where(ConsentDocument.group_id == group_id)):
        versions.setdefault(document.kind, set()).add(document.version)
    return {kind: frozenset(found) for kind, found in versions.items()}


async def held_by(session: Session, member_id: uuid.UUID) -> dict[str, Consent]:
    """The last word of the member on every kind that he was asked about."""
    said = await session.exec(select(Consent).where(Consent.member_id == member_id).order_by(col(Consent.number)))
    return {consent.kind: consent for consent in said}


async def record(
    session: Session,
    member_id: uuid.UUID,
    group_id: int,
    agreements: Sequence[Agreement],
    channel: Channel,
    now: datetime,
) -> list[Consent]:
    """Note what a member says; what holds already is not noted again. Gives back the last word on each.

    Only the version in force can be agreed to, any published one withdrawn. Raises ConsentDocumentUnknown and
    ConsentOutdated.
    """
    await require_in_force(session, group_id, agreements)
    for agreement in agreements:
        await _add(session, member_id, agreement, channel, now)
    held = await held_by(session, member_id)
    return [held[agreement.kind] for agreement in agreements]


async def require_in_force(session: Session, group_id: int, agreements: Sequence[Agreement]) -> None:
    """Refuse what cannot be recorded. Raises ConsentDocumentUnknown and ConsentOutdated."""
    if not agreements:
        return
    current = {document.kind: document.version for document in await in_force(session, group_id)}
    for agreement in agreements:
        # What is no name is not looked up: PostgreSQL could not even be asked for a text with a NUL.
        is_name = _NAME.fullmatch(agreement.kind) and _NAME.fullmatch(agreement.version)
        known = await session.get(ConsentDocument, (group_id, agreement.kind, agreement.version)) if is_name else None
        if known is None:
            raise ConsentDocumentUnknown(
                "there is no such version of that document", hint="GET /v1/me/consents lists what is in force."
            )
        if agreement.is_given and current[agreement.kind] != agreement.version:
            raise ConsentOutdated(
                f"{agreement.kind} {current[agreement.kind]} is in force now", hint="Show it, and ask again."
            )


async def _add(session: Session, member_id: uuid.UUID, agreement: Agreement, channel: Channel, now: datetime) -> None:
    # Two at once want the same number: one gets it, and the other looks again at what holds then.
    while True:
        last = (await held_by(session, member_id)).get(agreement.kind)
        if last is not None and (last.version, last.is_given) == (agreement.version, agreement.is_given):
            return
        added = await session.exec(
            insert(session, Consent)
            .values(
                member_id=member_id,
                consent_id=new_id(),
                kind=agreement.kind,
                number=last.number + 1 if last else 1,
                version=agreement.version,
                is_given=agreement.is_given,
                at=now,
                channel=channel,
            )
            .on_conflict_do_nothing()
            .returning(col(Consent.number))
        )
        if added.first() is not None:
            return
