"""Schedules of subscriptions: at which seconds a report is made (EPCIS 2.0, 8.2.5.3; its REST binding).

    {"hour": "1", "minute": "5"}    every day at 01:05:00    {"second": "0/30"}    every half minute
    {"dayOfWeek": "[1-5]", "hour": "8,[12-14]"}              Monday to Friday at 8, 12, 13 and 14

A field is a number, a range in brackets, a start and a step, or a list of these; the times are those of UTC. A field
finer than the finest that is given is its lowest, a coarser one that is not given is any.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kit.errors import Invalid

DAYS_AHEAD_MAX: Final = 366 * 9
"""29 February comes round at least once in so many days, 2100 and all."""
FIELD_CHARACTERS_MAX: Final = 200
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "month": (1, 12),
    "dayOfMonth": (1, 31),
    "dayOfWeek": (1, 7),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
FIELDS: Final = frozenset(_RANGES)
_ELEMENT: Final = re.compile(r"([0-9]{1,2})|\[([0-9]{1,2})-([0-9]{1,2})\]|(\*|[0-9]{1,2})/([0-9]{1,2})|(\*)")


class ScheduleInvalid(Invalid):
    """This is no schedule (`SubscriptionControlsException`)."""

    code = "ScheduleInvalid"
    problem_type = "epcisException:SubscriptionControlsException"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a report is made. Each field holds the values that fit."""

    given: tuple[tuple[str, str], ...]
    fields: Mapping[str, frozenset[int]]

    @classmethod
    def of(cls, given: object) -> "Schedule":
        """The schedule that a JSON object, or the parameters of a query string, describe. Raises ScheduleInvalid."""
        if not isinstance(given, dict) or not given or not given.keys() <= _RANGES.keys():
            raise ScheduleInvalid(f"a schedule has at least one of {', '.join(_RANGES)}, and nothing else")
        fields = {name: _values(name, value) for name, value in given.items()}
        for finest in ("second", "minute", "hour"):
            if finest in fields:
                break
            fields[finest] = frozenset({0})
        return cls(tuple((name, str(value)) for name, value in given.items()), fields)

    def as_given(self) -> dict[str, str]:
        """The fields as they were given."""
        return dict(self.given)

    def after(self, moment: datetime) -> datetime | None:
        """The first time behind a moment; None: there is none within nine years."""
        at = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        day = at.replace(hour=0, minute=0, second=0)
        for ahead in range(DAYS_AHEAD_MAX):
            that_day = day + timedelta(days=ahead)
            if self._has_day(that_day):
                found = self._within(that_day, at if ahead == 0 else that_day)
                if found is not None:
                    return found
        return None

    def _has_day(self, day: datetime) -> bool:
        return (
            self._fits("month", day.month)
            and self._fits("dayOfMonth", day.day)
            and self._fits("dayOfWeek", day.isoweekday())
        )

    def _within(self, day: datetime, at: datetime) -> datetime | None:
        for hour in range(at.hour, 24):
            if not self._fits("hour", hour):
                continue
            first_minute = at.minute if hour == at.hour else 0
            for minute in range(first_minute, 60):
                if not self._fits("minute", minute):
                    continue
                first = at.second if (hour, minute) == (at.hour, at.minute) else 0
                second = min((one for one in range(first, 60) if self._fits("second", one)), default=None)
                if second is not None:
                    return day.replace(hour=hour, minute=minute, second=second)
        return None

    def _fits(self, name: str, value: int) -> bool:
        return name not in self.fields or value in self.fields[name]


def _values(name: str, value: Any) -> frozenset[int]:
    low, high = _RANGES[name]
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    found: set[int] = set()
    for part in text.replace(" ", "").split(",") if len(text) <= FIELD_CHARACTERS_MAX else ():
        match = _ELEMENT.fullmatch(part)
        if match is None:
            found.clear()
            break
        number, start, end, begin, step, every = match.groups()
        if number is not None:
            found.add(int(number))
        elif every is not None:
            found.update(range(low, high + 1))
        elif begin is not None:
            found.update(range(low if begin == "*" else int(begin), high + 1, int(step) or high + 1))
        else:
            found.update(range(int(start), int(end) + 1))
    if not found or not all(low <= one <= high for one in found):
        raise ScheduleInvalid(f"{name}: numbers from {low} to {high}, such as 5 or 1,[10-12] or 0/15")
    return frozenset(found)
