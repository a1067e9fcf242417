"""Time is passed in: everything that needs "now" takes a clock or a moment, always aware and in UTC."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

Clock = Callable[[], datetime]
CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China's time: one zone, without summer time since 1991."""


def system_clock() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def china_day(moment: datetime) -> date:
    """The day in China on which a moment lies: limits, streaks and statements count by it."""
    return moment.astimezone(CHINA).date()


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with milliseconds and a Z, the form every answer of the API uses."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
