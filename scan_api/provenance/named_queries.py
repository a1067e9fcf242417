"""Named queries: event queries that a brand keeps under a name, to be asked and subscribed to (EPCIS 2.0, 12.8)."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import Text, delete, func
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.errors import Conflict, Invalid, NotFound
from scan_api.provenance.event_query import (
    EventQuery,
    QueryParameterInvalid,
    declared_context,
    parse_values,
)

QUERIES_PER_BRAND_MAX: Final = 200
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,99}")
DEFINITION_BYTES_MAX: Final = 64 * 1024
RESERVED: Final = frozenset({"SimpleEventQuery", "SimpleMasterDataQuery"})
_NOT_KEPT: Final = frozenset({"perPage", "nextPageToken"})


class NamedQueryInvalid(Invalid):
    """This cannot be a named query (`QueryValidationException`)."""

    code = "NamedQueryInvalid"
    problem_type = "epcisException:QueryValidationException"


class NamedQueryUnknown(NotFound):
    """The brand has no query of this name (`NoSuchNameException`)."""

    code = "NamedQueryUnknown"
    problem_type = "epcisException:NoSuchNameException"


class NamedQueryTaken(Conflict):
    """The brand has another query of this name (`DuplicateNameException`), or as many as it may have."""

    code = "NamedQueryTaken"
    problem_type = "epcisException:DuplicateNameException"


class NamedQuery(SQLModel, table=True):
    """A query of one brand. It is never changed: what it finds is what its subscribers agreed to."""

    __tablename__: ClassVar[str] = "event_named_query"

    brand_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(primary_key=True, sa_type=Text)
    definition: str = Field(sa_type=Text)
    """The JSON object of parameters, as it was sent."""
    created_at: datetime = Field(sa_type=Moment)

    @property
    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = json.loads(self.definition)
        return parameters

    def query(self) -> EventQuery:
        """What it asks for."""
        return query_of(self.parameters)


def query_of(parameters: Mapping[str, Any]) -> EventQuery:
    """The query that a JSON object of parameters asks for (query schema of the REST binding); `@context` declares
    prefixes.

    A parameter's value is a text, a number, a truth value, a list of those, or null where it has none. Raises
    QueryParameterInvalid.
    """
    context = declared_context(parameters["@context"]) if "@context" in parameters else declared_context({})
    values = {name: _texts(name, value) for name, value in parameters.items() if name != "@context"}
    if forbidden := _NOT_KEPT & values.keys():
        raise QueryParameterInvalid(f"{min(forbidden)} belongs to the request for a page, and to no query")
    return parse_values(values, context)


def _texts(name: str, value: object) -> Sequence[str]:
    return [_text(name, one) for one in (value if isinstance(value, list) else [value])]


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise QueryParameterInvalid(f"{name[:60]}: a value is a text, a number, true, false, or a list of them")


async def add(session: Session, brand_id: int, name: str, parameters: Mapping[str, Any], now: datetime) -> NamedQuery:
    """Keep a query. The same again is no harm. Raises NamedQueryInvalid, QueryParameterInvalid, NamedQueryTaken."""
    if NAME.fullmatch(name) is None or name in RESERVED:
        raise NamedQueryInvalid(
            "a query's name has 1 to 100 letters, digits and _.~-, and is none of the standard's own names"
        )
    query_of(parameters)
    definition = json.dumps(parameters, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if len(definition.encode()) > DEFINITION_BYTES_MAX:
        raise NamedQueryInvalid(f"a query has at most {DEFINITION_BYTES_MAX // 1024} KiB")
    held = await session.exec(select(func.count()).select_from(NamedQuery).where(NamedQuery.brand_id == brand_id))
    if held.one() >= QUERIES_PER_BRAND_MAX:
        raise NamedQueryTaken(f"a brand has at most {QUERIES_PER_BRAND_MAX} queries", hint="Remove one.")
    made = NamedQuery(brand_id=brand_id, name=name, definition=definition, created_at=now)
    await session.exec(insert(session, NamedQuery).values(**made.model_dump()).on_conflict_do_nothing())
    kept = await named(session, brand_id, name)
    if kept.definition != definition:
        raise NamedQueryTaken("there is another query of this name", hint="Remove it first, or choose another name.")
    return kept


async def named(session: Session, brand_id: int, name: str) -> NamedQuery:
    """A brand's query. Raises NamedQueryUnknown."""
    found = await session.get(NamedQuery, (brand_id, name)) if NAME.fullmatch(name) else None
    if found is None:
        raise NamedQueryUnknown("there is no query of this name")
    return found


async def listed(session: Session, brand_id: int, after: str, count: int) -> list[NamedQuery]:
    """A brand's queries behind a name, by name."""
    rows = await session.exec(
        select(NamedQuery)
        .where(NamedQuery.brand_id == brand_id, col(NamedQuery.name) > after)
        .order_by(col(NamedQuery.name))
        .limit(count)
    )
    return list(rows)


async def remove(session: Session, brand_id: int, name: str) -> None:
    """Forget a query. Raises NamedQueryUnknown."""
    removed = await session.exec(
        delete(NamedQuery)
        .where(col(NamedQuery.brand_id) == brand_id, col(NamedQuery.name) == name)
        .returning(col(NamedQuery.name))
    )
    if removed.first() is None:
        raise NamedQueryUnknown("there is no query of this name")
