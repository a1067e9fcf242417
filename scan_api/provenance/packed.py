"""What is packed where: the contents of a container and the containers of a thing, at any moment, on all levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kit.db import Moment, Session, table_of
from scan_api.provenance.aggregation import LEVELS_MAX
from scan_api.provenance.packing import Packing

CONTENTS_SHOWN_MAX = 100_000
"""Things of one answer; what is nearer to the container comes first."""

_TABLE = table_of(Packing)


ABOVE_SQL = f"""
    WITH RECURSIVE above(name, since, until, level) AS (
        SELECT parent, since, until, 1 FROM packing
        WHERE child = :thing AND brand_id = :of_brand AND kind = 'add' AND (until IS NULL OR until > since)
        UNION ALL
        SELECT packing.parent,
            CASE WHEN packing.since > above.since THEN packing.since ELSE above.since END,
            CASE WHEN above.until IS NULL OR packing.until < above.until THEN packing.until ELSE above.until END,
            above.level + 1
        FROM above JOIN packing ON packing.child = above.name AND packing.brand_id = :of_brand
        WHERE packing.kind = 'add' AND above.level < {LEVELS_MAX}
            AND (packing.until IS NULL OR (packing.until > packing.since AND packing.until > above.since))
            AND (above.until IS NULL OR packing.since < above.until)
    )
"""  # noqa: S608 - words of ours
"""The beginning of a statement: `above` has every container that `:thing` was ever in, and from when until when."""


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


_EVER = (
    sa.text(f"""
    WITH RECURSIVE inside(name, since, until, level) AS (
        SELECT child, CASE WHEN since > :since THEN since ELSE :since END, until, 1 FROM packing
        WHERE parent = :thing AND brand_id = :brand AND kind = 'add'
            AND (until IS NULL OR (until > since AND until > :since))
        UNION
        SELECT packing.child,
            CASE WHEN packing.since > inside.since THEN packing.since ELSE inside.since END,
            CASE WHEN inside.until IS NULL OR packing.until < inside.until THEN packing.until ELSE inside.until END,
            inside.level + 1
        FROM inside JOIN packing ON packing.parent = inside.name AND packing.brand_id = :brand
        WHERE packing.kind = 'add' AND inside.level < {LEVELS_MAX}
            AND (packing.until IS NULL OR (packing.until > packing.since AND packing.until > inside.since))
            AND (inside.until IS NULL OR packing.since < inside.until)
    )
    SELECT DISTINCT name FROM inside ORDER BY name LIMIT :count_max
    """)  # noqa: S608 - words of ours
    .bindparams(sa.bindparam("since", type_=Moment()))
    .columns(name=sa.Text)
)


async def ever_inside(session: Session, brand_id: int, name: str, since: datetime, limit: int) -> list[str]:
    """The names of all that was in a container at any time from a moment on, `limit` at most."""
    asked = {"thing": name, "brand": brand_id, "since": since, "count_max": limit}
    return list((await (await session.connection()).execute(_EVER, asked)).scalars())
