"""Schedules: the next time of each, and what is none."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan_api.provenance.schedules import Schedule, ScheduleInvalid

NOW = datetime(2026, 6, 5, 10, 30, 15, 500_000, UTC)  # a Friday


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        ({"hour": "1", "minute": "5"}, "2026-06-06T01:05:00"),
        ({"second": "0/30"}, "2026-06-05T10:30:30"),
        ({"minute": "30"}, "2026-06-05T11:30:00"),
        ({"dayOfWeek": "[1-5]", "hour": "8"}, "2026-06-08T08:00:00"),
        ({"dayOfMonth": "29", "month": "2"}, "2028-02-29T00:00:00"),
        ({"hour": "*/6"}, "2026-06-05T12:00:00"),
        ({"second": "15,16"}, "2026-06-05T10:30:16"),
    ],
)
def test_the_next_time(given_fields: dict[str, str], expected: str) -> None:
    schedule = Schedule.of(given_fields)
    assert schedule.after(NOW) == datetime.fromisoformat(f"{expected}+00:00")
    assert schedule.as_given() == given_fields


def test_a_day_that_never_is() -> None:
    assert Schedule.of({"dayOfMonth": "31", "month": "2"}).after(NOW) is None


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"year": "1"},
        {"hour": "24"},
        {"minute": ""},
        {"minute": "[5-"},
        {"dayOfWeek": "0"},
        {"second": "[9-3]"},
        {"hour": "1" * 300},
        {"hour": True},
        {"hour": "0/0,99"},
    ],
)
def test_what_is_no_schedule(fields: object) -> None:
    with pytest.raises(ScheduleInvalid):
        Schedule.of(fields)


@given(
    st.dictionaries(st.sampled_from(["second", "minute", "hour", "dayOfWeek"]), st.integers(1, 7).map(str), min_size=1),
    st.integers(0, 31_536_000).map(lambda seconds: NOW + timedelta(seconds=seconds)),
)
def test_times_lie_ahead_and_fit(fields: dict[str, str], now: datetime) -> None:
    at = Schedule.of(fields).after(now)
    assert at is not None
    assert at > now
    told = {"second": at.second, "minute": at.minute, "hour": at.hour, "dayOfWeek": at.isoweekday()}
    assert all(str(told[name]) == value for name, value in fields.items())
