"""What is packed where: the contents of a container and the containers of a thing, at any moment, on all levels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kit.db import Moment, Session, is_postgresql, table_of
from scan_api.provenance.aggregation import LEVELS_MAX
from scan_api.provenance.packing import Packing

CONTENTS_SHOWN_MAX = 100_000
"""Things of one answer; what is nearer to the container comes first."""

_TABLE = table_of(Packing)


AMONG_SQL = {True: "= ANY(CAST(:things AS text[]))", False: "IN (SELECT value FROM json_each(:things))"}
"""That a column is one of `:things`, on PostgreSQL (True) and on SQLite; `names_given` are its values."""


def _joined(column: str, to: str, brand: str, *, on_postgresql: bool) -> str:
    """A join of `packing`, looked up for each row: where many rows are expected, PostgreSQL would read all of it."""
    held = f"packing.{column} = {to} AND packing.brand_id = :{brand}"
    if on_postgresql:
        return f"CROSS JOIN LATERAL (SELECT * FROM packing WHERE {held} OFFSET 0) AS packing"  # noqa: S608
    return f"JOIN packing ON {held}"


def _above_sql(things: str, joined: str) -> str:
    return f"""
    WITH RECURSIVE above(thing, name, since, until, level) AS (
        SELECT child, parent, since, until, 1 FROM packing
        WHERE child {things} AND brand_id = :of_brand AND kind = 'add' AND (until IS NULL OR until > since)
        UNION ALL
        SELECT above.thing, packing.parent,
            CASE WHEN packing.since > above.since THEN packing.since ELSE above.since END,
            CASE WHEN above.until IS NULL OR packing.until < above.until THEN packing.until ELSE above.until END,
            above.level + 1
        FROM above {joined}
        WHERE packing.kind = 'add' AND above.level < {LEVELS_MAX}
            AND (packing.until IS NULL OR (packing.until > packing.since AND packing.until > above.since))
            AND (above.until IS NULL OR packing.since < above.until)
    )
"""  # noqa: S608 - words of ours


ABOVE_SQL = _above_sql("= :thing", _joined("child", "above.name", "of_brand", on_postgresql=False))
"""The beginning of a statement: `above` has every container that `:thing` was ever in, and from when until when."""
ABOVE_ALL_SQL = {
    on_postgresql: _above_sql(among, _joined("child", "above.name", "of_brand", on_postgresql=on_postgresql))
    for on_postgresql, among in AMONG_SQL.items()
}
"""The same for many `:things`, which stand beside their containers as `thing`."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A thing in a container, since when; `level` 1 is what was asked for."""

    child: str
    parent: str
    since: datetime
    until: datetime | None
    level: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What was in a container on all levels, by level and name; `is_cut` when there was more than asked for."""

    things: Sequence[Packed]
    is_cut: bool


def _at_that_time(table: sa.FromClause) -> sa.ColumnElement[bool]:
    at = sa.bindparam("at", type_=Moment())
    return sa.and_(
        table.c.brand_id == sa.bindparam("brand"),
        table.c.since <= at,
        sa.or_(table.c.until.is_(None), table.c.until > at),
    )


def _walk(from_column: str, to_column: str) -> sa.Select[Any]:
    """From a thing along one direction, level by level: there are no circles, and at most 8 levels."""
    start = _TABLE.alias("start")
    columns = ("child", "parent", "since", "until")
    found = (
        sa.select(*(start.c[name] for name in columns), sa.literal(1).label("level"))
        .where(start.c[from_column] == sa.bindparam("thing"), _at_that_time(start))
        .cte("found", recursive=True)
    )
    further = _TABLE.alias("further")
    found = found.union_all(
        sa.select(*(further.c[name] for name in columns), found.c.level + 1)
        .select_from(further.join(found, further.c[from_column] == found.c[to_column]))
        .where(_at_that_time(further), found.c.level < LEVELS_MAX)
    )
    return sa.select(*(found.c[name] for name in (*columns, "level"))).order_by(found.c.level, found.c.child)


_CONTENTS, _CONTAINERS = _walk("parent", "child"), _walk("child", "parent")


async def contents_of(
    session: Session, brand_id: int, name: str, at: datetime, limit: int = CONTENTS_SHOWN_MAX
) -> Contents:
    """What was in the container of this one name (`things.name_of`) at a moment, as far as the brand's events tell."""
    asked = {"thing": name, "brand": brand_id, "at": at}
    rows = (await (await session.connection()).execute(_CONTENTS.limit(limit + 1), asked)).all()
    return Contents([Packed(*row) for row in rows[:limit]], len(rows) > limit)


async def containers_of(session: Session, brand_id: int, name: str, at: datetime) -> list[Packed]:
    """In what the thing of this one name was at a moment: from the innermost container outwards, each with its own."""
    asked = {"thing": name, "brand": brand_id, "at": at}
    return [Packed(*row) for row in (await (await session.connection()).execute(_CONTAINERS, asked)).all()]


def names_given(session: Session, names: Sequence[str]) -> Any:
    """What `AMONG_SQL` takes for `:things`."""
    return list(names) if is_postgresql(session) else json.dumps(names)


_EVER = {
    on_postgresql: sa.text(f"""
    WITH RECURSIVE inside(name, since, until, level) AS (
        SELECT child, CASE WHEN since > :since THEN since ELSE :since END, until, 1 FROM packing
        WHERE parent {among} AND brand_id = :brand AND kind = 'add'
            AND (until IS NULL OR (until > since AND until > :since))
        UNION
        SELECT packing.child,
            CASE WHEN packing.since > inside.since THEN packing.since ELSE inside.since END,
            CASE WHEN inside.until IS NULL OR packing.until < inside.until THEN packing.until ELSE inside.until END,
            inside.level + 1
        FROM inside {_joined("parent", "inside.name", "brand", on_postgresql=on_postgresql)}
        WHERE packing.kind = 'add' AND inside.level < {LEVELS_MAX}
            AND (packing.until IS NULL OR (packing.until > packing.since AND packing.until > inside.since))
            AND (inside.until IS NULL OR packing.since < inside.until)
    )
    SELECT DISTINCT name FROM inside WHERE name > :after ORDER BY name LIMIT :count_max
    """)  # noqa: S608 - words of ours
    .bindparams(sa.bindparam("since", type_=Moment()))
    .columns(name=sa.Text)
    for on_postgresql, among in AMONG_SQL.items()
}


async def ever_inside(
    session: Session, brand_id: int, names: Sequence[str], since: datetime, limit: int, after: str = ""
) -> list[str]:
    """The names of all that was in one of these containers at any time from a moment on, the first `limit` behind
    `after` in the order of their bytes.
    """
    things = names_given(session, names)
    asked = {"things": things, "brand": brand_id, "since": since, "count_max": limit, "after": after}
    return list((await (await session.connection()).execute(_EVER[is_postgresql(session)], asked)).scalars())
