"""Cursors: opaque to callers, exact to the server, of one list only."""

import base64
import json
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.paging import Position
from scan_api import paging
from scan_api.paging import CursorInvalid, Paging

AT = datetime(2026, 5, 1, 8, 0, 0, 123_456, tzinfo=UTC)
ID = uuid.UUID("0197f0f0-0000-7000-8000-000000000001")
GOLDEN = "WyJwb2ludHMiLDQyXQ"  # apps keep cursors while the server is replaced: the form stays


def written(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).rstrip(b"=").decode()


def test_a_cursor_is_the_sort_key_in_base64url() -> None:
    assert paging.encode("points", [42]) == GOLDEN
    assert Paging(20, GOLDEN).after_number("points") == 42
    assert Paging(20, None).after_number("points") is None


@given(st.datetimes(timezones=st.just(UTC)), st.uuids() | st.integers(0, 2**63 - 1))
def test_the_next_page_begins_where_the_last_row_ended(at: datetime, row_id: uuid.UUID | int) -> None:
    rows = [Position(AT, ID), Position(at, row_id), Position(AT, ID)]
    page = Paging(2, None).page("things", rows, lambda row: row, str)
    assert page["data"] == [str(row) for row in rows[:2]]
    assert len(page["next_cursor"]) <= paging.CURSOR_CHARACTERS_MAX
    assert Paging(2, page["next_cursor"]).after("things") == Position(at, row_id)


@pytest.mark.parametrize(("rows", "shown", "more"), [(0, 0, False), (1, 1, False), (2, 2, False), (3, 2, True)])
def test_a_cursor_is_given_when_there_is_more(rows: int, shown: int, more: bool) -> None:
    page = Paging(2, None).page("numbers", list(range(rows)), lambda row: row, lambda row: row)
    assert (len(page["data"]), page["next_cursor"] is not None) == (shown, more)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "****",
        "é",
        GOLDEN + "=",
        GOLDEN + "\n",
        "[" * 199,
        written(["points"]),
        written(["points", 42, 43]),
        written(["coupons", 42]),
        written(["points", "42"]),
        written(["points", 42.0]),
        written(["points", True]),
        written(["points", None]),
        written(["points", 2**63]),
        written({"points": 42}),
        base64.urlsafe_b64encode(b'["points", 42]').rstrip(b"=").decode(),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
    ],
    ids=range(18),
)
def test_what_no_server_wrote_is_refused(cursor: str) -> None:
    with pytest.raises(CursorInvalid):
        Paging(20, cursor).after_number("points")


@pytest.mark.parametrize(
    "key",
    [
        ["2026-05-01", str(ID)],
        ["2026-05-01T08:00:00", str(ID)],
        [1_777_000_000, str(ID)],
        ["2026-05-01T08:00:00+00:00", "no id"],
        ["2026-05-01T08:00:00+00:00", "\x00"],
    ],
    ids=range(5),
)
def test_a_moment_and_an_id_are_looked_at(key: list[str | int]) -> None:
    with pytest.raises(CursorInvalid):
        Paging(20, paging.encode("things", key)).after("things")
