"""Events as procedures collect them: the columns that answers are made of, without what whole objects cost."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from kit.procedures import Kind

CONTENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of all events that one step collects, as they were sent; one event is always collected."""
COLUMNS: Final[Mapping[str, Kind]] = {
    "event_key": Kind.UUID,
    "event_id": Kind.TEXT,
    "type": Kind.TEXT,
    "event_time": Kind.MOMENT,
    "record_time": Kind.MOMENT,
    "action": Kind.TEXT,
    "read_point": Kind.TEXT,
    "biz_location": Kind.TEXT,
    "is_error": Kind.BOOLEAN,
    "context_id": Kind.UUID,
    "is_undone": Kind.BOOLEAN,
    "content": Kind.TEXT,
}
_NAMES: Final = ", ".join(name for name in COLUMNS if name not in ("is_undone", "content"))


class EventRow(Struct, frozen=True, gc=False):
    """A kept event, see `repository.EpcisEvent`. `is_undone`: it was declared an error later."""

    event_key: uuid.UUID
    event_id: str
    type: str
    event_time: datetime
    record_time: datetime
    action: str | None
    read_point: str | None
    biz_location: str | None
    is_error: bool
    context_id: uuid.UUID
    is_undone: bool
    content: str


def rows_of(collected: Sequence[Sequence[Any]]) -> tuple[list[EventRow], bool]:
    """The events of a step by `events_sql`, and whether there was no room for more of them."""
    rows = [EventRow(*row) for row in collected if row[-1] is not None]
    return rows, len(rows) < len(collected)


def events_sql(keys: str, direction: str) -> str:
    """A SELECT of `COLUMNS`: the first `:events_max` of the events whose keys another SELECT gives, by time.

    `direction` is ASC or DESC. Those for which there is no room have no content.
    """
    order = f"ORDER BY event_time {direction}, event_key {direction}"
    return f"""
        SELECT {_NAMES},
            EXISTS (SELECT 1 FROM undone_event WHERE undone_event.event_key = sized.event_key) AS is_undone,
            CASE WHEN size <= {CONTENT_BYTES_MAX} OR position = 1 THEN content END
        FROM (
            SELECT {_NAMES}, content, row_number() OVER ordered AS position,
                sum([[octet_]]length(content)) OVER ordered AS size
            FROM (SELECT * FROM epcis_event WHERE event_key IN ({keys}) {order} LIMIT :events_max) AS first_ones
            WINDOW ordered AS ({order})
        ) AS sized {order}
    """  # noqa: S608 - words of ours
