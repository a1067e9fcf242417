"""Pages of lists over HTTP: `?limit=` and an opaque `?cursor=`, answered as `{"data": […], "next_cursor": …}`."""

import base64
import binascii
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from kit.errors import Invalid
from kit.paging import Position

LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 20
CURSOR_CHARACTERS_MAX: Final = 200
_INTEGER_MAX: Final = 2**63 - 1

T = TypeVar("T")
Row = TypeVar("Row")


class CursorInvalid(Invalid):
    code = "CursorInvalid"


class Page(BaseModel, Generic[T]):
    """A part of a list. `next_cursor` leads to the part after it, and is null at the end."""

    data: list[T]
    next_cursor: str | None = Field(description="Send it back as ?cursor= for the next page; null: this was the last")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page is asked for. Every list has a name, so that a cursor of one list is refused by another."""

    limit: int
    cursor: str | None

    @property
    def count(self) -> int:
        """Rows to fetch: one more than is shown tells whether there is another page."""
        return self.limit + 1

    def after(self, name: str) -> Position | None:
        """Where the page before this one ended, for `kit.paging.newest_first`. Raises CursorInvalid."""
        if self.cursor is None:
            return None
        try:
            at, row_id = decode(name, self.cursor, 2)
            moment = datetime.fromisoformat(str(at))
            if moment.tzinfo is None or isinstance(at, int):
                raise ValueError("no moment")
            return Position(moment, row_id if isinstance(row_id, int) else uuid.UUID(row_id))
        except (ValueError, OverflowError):
            raise _invalid() from None

    def after_number(self, name: str) -> int | None:
        """The same for a list that is sorted by one number. Raises CursorInvalid."""
        if self.cursor is None:
            return None
        [number] = decode(name, self.cursor, 1)
        if not isinstance(number, int):
            raise _invalid()
        return number

    def page(
        self, name: str, rows: Sequence[Row], key: Callable[[Row], Position | int], show: Callable[[Row], T]
    ) -> dict[str, Any]:
        """The page of up to `count` rows: `key` gives a row's place in the list, `show` its form."""
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        return {
            "data": [show(row) for row in shown],
            "next_cursor": _cursor(name, key(shown[-1])) if more else None,
        }


def _cursor(name: str, key: Position | int) -> str:
    if isinstance(key, int):
        return encode(name, [key])
    moment = key.at.astimezone(UTC).isoformat()
    return encode(name, [moment, key.id if isinstance(key.id, int) else str(key.id)])


def encode(name: str, key: Sequence[str | int]) -> str:
    """A cursor: base64url without padding (RFC 4648, 5) of the list's name and the sort key as JSON."""
    content = json.dumps([name, *key], separators=(",", ":"), ensure_ascii=True)
    return base64.urlsafe_b64encode(content.encode("ascii")).rstrip(b"=").decode("ascii")


def decode(name: str, cursor: str, parts: int) -> list[str | int]:
    """The sort key in a cursor. Only what `encode` wrote for this list is taken. Raises CursorInvalid.

    A cursor grants nothing: whoever makes one up asks for a page that he may see anyway. So it needs no signature.
    """
    try:
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _invalid() from None
    if not isinstance(content, list) or len(content) != parts + 1 or content[0] != name:
        raise _invalid()
    key = content[1:]
    if not all(type(part) is str or (type(part) is int and abs(part) <= _INTEGER_MAX) for part in key):
        raise _invalid()
    if encode(name, key) != cursor:
        raise _invalid()
    return key


def _invalid() -> CursorInvalid:
    return CursorInvalid(
        "this cursor does not belong to this list", hint="Start without a cursor, and send next_cursor as it came."
    )


# A coroutine although nothing is awaited: the framework would send a plain function to a thread, for every request.
async def _paging(
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most entries of a page")] = LIMIT_DEFAULT,
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_CHARACTERS_MAX, description="next_cursor of the page before")
    ] = None,
) -> Paging:
    return Paging(limit, cursor)


Paged = Annotated[Paging, Depends(_paging)]
"""A parameter of a router that answers pages."""
