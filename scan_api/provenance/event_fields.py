"""What a decoded event says in its fields, and tests of that: those parameters of a query that no index answers.

A test looks at one event in its context (EPCIS 2.0, 8.2.7.1). Names of extensions are compared by what they mean: the
prefix of the query and that of the document need not be the same.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from scan_api.provenance import units
from scan_api.provenance.documents import STANDARD, Context, is_moment
from scan_api.provenance.things import name_of

LEVELS_MAX: Final = 34
"""Extensions nest 32 levels deep; see `event_values`."""
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """An event as it was sent, in the context that gives its names their meaning."""

    event: Fields
    context: Context

    @classmethod
    def of(cls, event: Fields, declared: object) -> "Sight":
        """`declared` is the `@context` of the document that the event came in."""
        return cls(event, STANDARD.of_event({"@context": declared}).of_event(event))


Test = Callable[[Sight], bool]
Holds = Callable[[Any], bool]
ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "GT": operator.gt,
    "GE": operator.ge,
    "LT": operator.lt,
    "LE": operator.le,
}


@dataclass(frozen=True, slots=True)
class FieldName:
    """A name of a field that is asked for: its full names, or, where its prefix is unknown, the text itself."""

    text: str
    full: frozenset[str]

    @classmethod
    def of(cls, text: str, context: Context) -> "FieldName":
        """A CURIE, a full URI, or a namespace, # and a name, as EPCIS 1.2 has it."""
        expanded = context.expanded(text)
        if expanded is None or not expanded.startswith("{"):
            return cls(text, frozenset())
        full = expanded.replace("{", "", 1).replace("}", "", 1)
        namespace, hash_, local = full.rpartition("#")
        return cls(text, frozenset({full, namespace + local} if hash_ else {full}))

    def names(self, name: str, context: Context) -> bool:
        """Whether a field's name in an event is this one."""
        if not self.full:
            return name == self.text
        expanded = context.expanded(name)
        return expanded is not None and expanded.replace("{", "", 1).replace("}", "", 1) in self.full


def objects(value: object) -> Iterator[Fields]:
    """The objects in a list of them, or the one."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            yield one


def _sensor_elements(event: Fields) -> Iterator[Fields]:
    return objects(event.get("sensorElementList"))


def sensor_metadata(event: Fields) -> Iterator[Fields]:
    """The metadata of each sensor element."""
    return (one for element in _sensor_elements(event) for one in objects(element.get("sensorMetadata")))


def sensor_reports(event: Fields) -> Iterator[Fields]:
    """The reports of all sensor elements."""
    return (one for element in _sensor_elements(event) for one in objects(element.get("sensorReport")))


SCOPES: Final[Mapping[str, Callable[[Fields], Iterator[Fields]]]] = {
    "": objects,
    "ILMD": lambda event: objects(event.get("ilmd")),
    "ERROR_DECLARATION": lambda event: objects(event.get("errorDeclaration")),
    "SENSORELEMENT": _sensor_elements,
    "SENSORMETADATA": sensor_metadata,
    "SENSORREPORT": sensor_reports,
    "readPoint": lambda event: objects(event.get("readPoint")),
    "bizLocation": lambda event: objects(event.get("bizLocation")),
}
"""Where a field is looked for, by the word in the parameter's name."""


def _direct(sight: Sight, scope: str, name: FieldName) -> Iterator[Any]:
    for holder in SCOPES[scope](sight.event):
        for field, value in holder.items():
            if name.names(field, sight.context):
                yield value


def _inner(sight: Sight, scope: str, name: FieldName) -> Iterator[Any]:
    """Values of that name anywhere within extensions, but not the extensions themselves."""
    for holder in SCOPES[scope](sight.event):
        for field, value in holder.items():
            if sight.context.expanded(field) is not None:
                yield from _nested(sight.context, value, name, 0)


def _nested(context: Context, value: object, name: FieldName, level: int) -> Iterator[Any]:
    if level > LEVELS_MAX:
        return
    if isinstance(value, list):
        for one in value:
            yield from _nested(context, one, name, level + 1)
    elif isinstance(value, dict):
        for field, one in value.items():
            if name.names(field, context):
                yield one
            yield from _nested(context, one, name, level + 1)


def field_test(scope: str, name: FieldName, holds: Holds | None, *, inner: bool) -> Test:
    """That a field of this name is there, and (`holds`) one of its values is as asked."""
    look = _inner if inner else _direct

    def test(sight: Sight) -> bool:
        values = look(sight, scope, name)
        if holds is None:
            return next(values, values) is not values
        return any(holds(one) for value in values for one in simple(value))

    return test


def simple(value: object) -> Iterator[Any]:
    """The simple values in what a field holds: itself, those of a list, the text of an element with attributes."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict):
            for name in ("#text", "@value", "id", "@id"):
                if name in one:
                    yield one[name]
        elif not isinstance(one, list):
            yield one


def equal_to(texts: Sequence[str]) -> Holds:
    """That a value is one of these: as a text, an identifier by any name, a moment, a number, or true and false."""
    wanted = frozenset(texts) | {name_of(text) for text in texts}
    moments = frozenset(datetime.fromisoformat(text) for text in texts if is_moment(text))
    numbers = frozenset(number for text in texts if (number := number_of(text)) is not None)

    def holds(value: object) -> bool:
        if isinstance(value, bool):
            return ("true" if value else "false") in wanted
        if isinstance(value, int | float):
            return value in numbers
        if not isinstance(value, str):
            return False
        if value in wanted or name_of(value) in wanted:
            return True
        return bool(moments) and is_moment(value) and datetime.fromisoformat(value) in moments

    return holds


def ordered(comparison: str, text: str) -> Holds | None:
    """That a value is greater or less, as a moment or as a number; None where the text is neither."""
    compare = ORDERS[comparison]
    if is_moment(text):
        moment = datetime.fromisoformat(text)
        return lambda value: (
            isinstance(value, str) and is_moment(value) and compare(datetime.fromisoformat(value), moment)
        )
    number = number_of(text)
    if number is None:
        return None

    def holds(value: object) -> bool:
        told = number_of(value) if isinstance(value, str) else value
        return isinstance(told, int | float) and not isinstance(told, bool) and compare(told, number)

    return holds


_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


def number_of(text: str) -> float | None:
    """A number's text as a number; None where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def measured(comparison: str, wanted: Sequence[float], field: str, unit: str | None) -> Callable[[Fields], bool]:
    """That an object's field, in the unit that its `uom` names, is as asked; without `unit` the number as it stands."""
    targets = [units.comparable(value, unit) if unit else ("", value) for value in wanted]

    def holds(holder: Fields) -> bool:
        value = holder.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        quantity, amount = units.comparable(value, str(holder.get("uom", ""))) if unit else ("", value)
        return any(quantity == kind and _compared(comparison, amount, target) for kind, target in targets)

    return holds


def _compared(comparison: str, amount: float, target: float) -> bool:
    if comparison == "EQ":
        return units.is_equal(amount, target)
    # What is equal but for the cost of converting is neither greater nor less.
    if units.is_equal(amount, target):
        return comparison in ("GE", "LE")
    return ORDERS[comparison](amount, target)
