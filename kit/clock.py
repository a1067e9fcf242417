"""Time is passed in: everything that needs "now" takes a clock or a moment, always aware and in UTC."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

Clock = Callable[[], datetime]
CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China's time: one zone, without summer time since 1991."""
YEAR_MIN, YEAR_END = 1970, 2200
"""The years of a moment that somebody tells: before the second."""


def system_clock() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def china_day(moment: datetime) -> date:
    """The day in China on which a moment lies: limits, streaks and statements count by it."""
    return moment.astimezone(CHINA).date()


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with milliseconds and a Z, the form every answer of the API uses."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{in_utc.isoformat(timespec='milliseconds')[:-6]}Z"  # without +00:00


def _in_our_time(moment: datetime) -> datetime:
    if not YEAR_MIN <= moment.year < YEAR_END:  # near the ends of the calendar no arithmetic is safe
        raise ValueError(f"a moment lies in the years {YEAR_MIN} to {YEAR_END - 1}")
    return moment


When = Annotated[AwareDatetime, AfterValidator(_in_our_time)]
"""A moment that somebody tells: ISO 8601 with its offset from UTC, 1970 to 2199."""
