"""Paging: a list that grows is read in pages, newest first, each page from where the one before it ended."""

import uuid
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import literal, tuple_
from sqlalchemy.orm import Mapped
from sqlmodel.sql.expression import Select, SelectOfScalar

Statement = TypeVar("Statement", bound=Select[*tuple[Any, ...]] | SelectOfScalar[Any])


class Position(NamedTuple):
    """Where a page ended: the sort key of its last row. The id parts rows of one moment."""

    at: datetime
    id: uuid.UUID | int


def newest_first(
    statement: Statement, at: Mapped[Any], row_id: Mapped[Any], after: Position | None, count: int
) -> Statement:
    """The statement's next `count` rows by (at, id) descending; the two columns must be unique together.

    By keys and not by OFFSET: rows that come meanwhile neither repeat nor hide others, and an index on the two finds
    the last page as fast as the first.
    """
    page: Any = statement  # for the type checker, `where` gives back a kind that it cannot match with the first
    if after is not None:
        columns: list[Any] = [at, row_id]
        ended = [literal(value, column.type) for value, column in zip(after, columns, strict=True)]
        page = page.where(tuple_(at, row_id) < tuple_(*ended))
    rows: Statement = page.order_by(at.desc(), row_id.desc()).limit(count)
    return rows
