"""Ids and moments: ordered, repeatable, in UTC."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

from kit.clock import iso, system_clock
from kit.ids import derived_id, new_id


def test_new_ids_are_version_seven_and_do_not_repeat() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert {type(one) for one in ids} == {uuid.UUID}
    assert {one.version for one in ids} == {7}
    assert len(set(ids)) == len(ids)


def test_derived_ids_are_the_same_for_ever() -> None:
    # Stored: ledger accounts and transfers stand under derived ids. It may never change.
    assert derived_id("brand", 10) == uuid.UUID("3d2cd233-4c51-528b-89cd-95db7f70abd9")


def test_derived_ids_tell_their_parts_apart() -> None:
    assert len({derived_id("a", "b"), derived_id("ab"), derived_id("b", "a"), derived_id("a", "b", "")}) == 4


def test_the_clock_is_in_utc() -> None:
    assert system_clock().utcoffset() == timedelta(0)


def test_a_moment_is_written_in_utc_with_milliseconds() -> None:
    beijing = datetime(2026, 5, 1, 20, 0, 0, 123999, tzinfo=timezone(timedelta(hours=8)))
    assert iso(beijing) == "2026-05-01T12:00:00.123Z"
    assert iso(datetime(2026, 5, 1, tzinfo=UTC)) == "2026-05-01T00:00:00.000Z"
