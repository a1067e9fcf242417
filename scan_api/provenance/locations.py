"""A brand's locations: which lies in which, and what is known of them, for the parameters of queries that ask for it.

`WD_readPoint` and `WD_bizLocation` find a location with all below it (EPCIS 2.0, 8.2.7.1): those that the brand has put
under it, and those of its own GLN with an extension (GS1 General Specifications, AI 254), which are inside it by their
names. `HASATTR_…` and `EQATTR_…` ask for attributes of locations. Events need not name a location that is listed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from sqlalchemy import Column, ColumnElement, Index, Text, and_, delete, func, or_
from sqlmodel import Field, SQLModel, col, select

from kit.db import Session, insert
from kit.errors import Conflict, Invalid
from scan_api.provenance.documents import is_uri
from scan_api.provenance.things import name_of

PUT_AT_ONCE_MAX: Final = 1_000
LOCATIONS_MAX: Final = 100_000
"""Of a brand."""
FOUND_MAX: Final = 10_000
"""Locations that one parameter of a query may stand for."""
LEVELS_MAX: Final = 16
ATTRIBUTES_MAX: Final = 50
NAME_BYTES_MAX: Final = 1_000
VALUE_CHARACTERS_MAX: Final = 1_000
_ASKED_AT_ONCE: Final = 200
_EXTENSION: Final = "/254/"
_LAST_CHARACTER: Final = "\U0010ffff"
_BY_BYTES: Final = Text().with_variant(Text(collation="C"), "postgresql")


class LocationInvalid(Invalid):
    """A location, or what is told of it, cannot be kept."""

    code = "LocationInvalid"


class TooManyLocations(Conflict):
    """A query stands for more locations than are looked for, or a brand would have too many."""

    code = "TooManyLocations"


class Location(SQLModel, table=True):
    """A location of a brand, by its one name, and the one that it lies in."""

    __tablename__: ClassVar[str] = "location"
    __table_args__ = (Index("ix_location_brand_id_parent", "brand_id", "parent"),)

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    location: str = Field(sa_column=Column(_BY_BYTES, primary_key=True))
    parent: str | None = Field(default=None, sa_column=Column(_BY_BYTES, nullable=True))


class LocationAttribute(SQLModel, table=True):
    """Something known of a location, such as `urn:epcglobal:cbv:mda:countryCode`."""

    __tablename__: ClassVar[str] = "location_attribute"
    __table_args__ = (Index("ix_location_attribute_brand_id_attribute", "brand_id", "attribute", "location"),)

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    location: str = Field(sa_column=Column(_BY_BYTES, primary_key=True))
    attribute: str = Field(sa_column=Column(Text, primary_key=True))
    value: str = Field(sa_type=Text)


@dataclass(frozen=True, slots=True)
class Below:
    """That a column of events names one of these locations, or one below it."""

    column: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Described:
    """That it names a location with one of these attributes, and one of `values` for it; None: any."""

    column: str
    attributes: frozenset[str]
    values: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Found:
    """The locations that a parameter stands for."""

    column: str
    names: frozenset[str]
    with_inner: bool

    def has(self, name: str | None) -> bool:
        """Whether an event's location is one of them; with those inside it by their names, where that is asked."""
        if name is None:
            return False
        return name in self.names or (self.with_inner and name.partition(_EXTENSION)[0] in self.names)


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a location: None for `parent` is nothing above it. Names are as they were given."""

    location: str
    parent: str | None
    attributes: Mapping[str, str]


async def found(session: Session, brand_id: int, asked: Below | Described) -> Found:
    """The locations that a parameter stands for, at most 10,000. Raises TooManyLocations."""
    if isinstance(asked, Below):
        return Found(asked.column, frozenset(await _with_below(session, brand_id, asked.names)), with_inner=True)
    statement = select(LocationAttribute.location).where(
        LocationAttribute.brand_id == brand_id, col(LocationAttribute.attribute).in_(asked.attributes)
    )
    if asked.values is not None:
        statement = statement.where(col(LocationAttribute.value).in_(asked.values))
    names = frozenset((await session.exec(statement.limit(FOUND_MAX + 1))).all())
    _check_count(names)
    return Found(asked.column, names, with_inner=False)


def _check_count(names: Collection[str]) -> None:
    if len(names) > FOUND_MAX:
        raise TooManyLocations(
            f"more than {FOUND_MAX:,} locations are meant", hint="Ask for some that lie further down."
        )


async def _with_below(session: Session, brand_id: int, names: Iterable[str]) -> set[str]:
    """These locations and all below, level by level; a circle ends where it began."""
    known = set(names)
    level = sorted(known)
    for _ in range(LEVELS_MAX):
        children: set[str] = set()
        for start in range(0, len(level), _ASKED_AT_ONCE):
            under = _lies_in(level[start : start + _ASKED_AT_ONCE])
            statement = select(Location.location).where(Location.brand_id == brand_id, under).limit(FOUND_MAX + 1)
            children.update((await session.exec(statement)).all())
            _check_count(children)
        level = sorted(children - known)
        known |= children
        _check_count(known)
        if not level:
            break
    return known


def _lies_in(names: Sequence[str]) -> ColumnElement[bool]:
    parent = col(Location.parent)
    inner = [f"{name}{_EXTENSION}" for name in names if "/414/" in name and _EXTENSION not in name]
    return or_(parent.in_(names), *(and_(parent >= start, parent < start + _LAST_CHARACTER) for start in inner))


async def put(session: Session, brand_id: int, told: Sequence[Told]) -> None:
    """Tell of locations, in place of what was told of them before. Raises LocationInvalid, TooManyLocations."""
    if len(told) > PUT_AT_ONCE_MAX:
        raise LocationInvalid(f"at most {PUT_AT_ONCE_MAX:,} locations are told of at once")
    rows = {}
    attributes = []
    for one in told:
        name, parent = _checked(one.location), None if one.parent is None else _checked(one.parent)
        if name == parent or name in rows:
            raise LocationInvalid(f"{name[:80]}: a location is told of once, and lies in another")
        rows[name] = {"brand_id": brand_id, "location": name, "parent": parent}
        _check_attributes(one.attributes)
        attributes += [
            {"brand_id": brand_id, "location": name, "attribute": attribute, "value": value}
            for attribute, value in one.attributes.items()
        ]
    await _check_room(session, brand_id, rows)
    for start in range(0, len(rows), _ASKED_AT_ONCE):
        some = list(rows.values())[start : start + _ASKED_AT_ONCE]
        statement = insert(session, Location).values(some)
        await session.exec(
            statement.on_conflict_do_update(
                index_elements=["brand_id", "location"], set_={"parent": statement.excluded.parent}
            )
        )
        await session.exec(
            delete(LocationAttribute).where(
                col(LocationAttribute.brand_id) == brand_id,
                col(LocationAttribute.location).in_([row["location"] for row in some]),
            )
        )
    for start in range(0, len(attributes), _ASKED_AT_ONCE):
        await session.exec(insert(session, LocationAttribute).values(attributes[start : start + _ASKED_AT_ONCE]))


async def _check_room(session: Session, brand_id: int, rows: Collection[str]) -> None:
    held = select(func.count()).select_from(Location).where(Location.brand_id == brand_id)
    if (await session.exec(held)).one() + len(rows) > LOCATIONS_MAX:
        raise TooManyLocations(f"a brand has at most {LOCATIONS_MAX:,} locations")


def _checked(identifier: str) -> str:
    if is_uri(identifier) is None or len(identifier.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise LocationInvalid(f"a location is named by a URI of at most {NAME_BYTES_MAX:,} bytes")
    return name_of(identifier)


def _check_attributes(attributes: Mapping[str, str]) -> None:
    if len(attributes) > ATTRIBUTES_MAX:
        raise LocationInvalid(f"a location has at most {ATTRIBUTES_MAX} attributes")
    for name, value in attributes.items():
        if not 1 <= len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX or len(value) > VALUE_CHARACTERS_MAX:
            raise LocationInvalid(
                f"an attribute is a name of {NAME_BYTES_MAX:,} bytes and {VALUE_CHARACTERS_MAX:,} characters"
            )
        if any("\0" in text or not _is_text(text) for text in (name, value)):
            raise LocationInvalid("names and values of attributes are text in UTF-8, without a NUL")


def _is_text(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "ignore").decode() == text


async def listed(session: Session, brand_id: int, after: str | None, count: int) -> list[Told]:
    """A brand's locations behind `after`, by name, as they stand."""
    statement = select(Location).where(Location.brand_id == brand_id)
    if after is not None:
        statement = statement.where(col(Location.location) > after)
    rows = (await session.exec(statement.order_by(col(Location.location)).limit(count))).all()
    known: dict[str, dict[str, str]] = {row.location: {} for row in rows}
    described = select(LocationAttribute).where(
        LocationAttribute.brand_id == brand_id, col(LocationAttribute.location).in_(known)
    )
    for one in await session.exec(described):
        known[one.location][one.attribute] = one.value
    return [Told(row.location, row.parent, known[row.location]) for row in rows]


async def forget(session: Session, brand_id: int, identifier: str) -> None:
    """Forget a location; those that lay in it keep saying so. One that is not there is forgotten already."""
    name = name_of(identifier)
    for model in (Location, LocationAttribute):
        await session.exec(delete(model).where(col(model.brand_id) == brand_id, col(model.location) == name))
