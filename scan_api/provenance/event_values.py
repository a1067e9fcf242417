"""What is found wrong with an event, and the rules for its single values and structures (EPCIS 2.0, 7.3; JSON Schema).

A rule is a function of a value, its pointer and the findings; `event_rules` makes tables of them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from scan_api.provenance import vocabulary
from scan_api.provenance.documents import Context, is_moment, is_uri

ELEMENTS_PER_LIST_MAX = 10_000
"""Elements of any other list of an event: quantities, transactions, parties, sensors and their reports."""
EXTENSION_DEPTH_MAX = 32
EXTENSION_VALUES_MAX = 20_000
"""Values in all extensions of an event together: each comes up by its full name in what is hashed."""
NAME_CHARACTERS_MAX = 512
"""Of the full name of an extension, with its namespace."""
TEXT_CHARACTERS_MAX = 65_536
NUMBER_MAX = 1e300
SHOWN_CHARACTERS_MAX = 60

_OFFSET = re.compile(r"[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00)")
_UNIT = re.compile(r"[A-Z0-9]{2,3}")
_HEX = re.compile(r"[A-Fa-f0-9]+")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SPELT_BARE = (vocabulary.CBV_URN, vocabulary.GS1, "https://ns.gs1.org/cbv/")
"""What standard words begin with elsewhere: the JSON Schema wants them bare, so nothing of these is left to say."""


class FaultCode(StrEnum):
    """What is wrong with an event; part of the public interface, so that the words never change."""

    NOT_AN_OBJECT = "not_an_object"
    TYPE_UNKNOWN = "type_unknown"
    CONTEXT_INVALID = "context_invalid"
    FIELD_MISSING = "field_missing"
    FIELD_UNKNOWN = "field_unknown"
    FIELD_NOT_ALLOWED = "field_not_allowed"
    PREFIX_UNDECLARED = "prefix_undeclared"
    WRONG_TYPE = "wrong_type"
    URI_INVALID = "uri_invalid"
    TIME_INVALID = "time_invalid"
    OFFSET_INVALID = "offset_invalid"
    ACTION_UNKNOWN = "action_unknown"
    WORD_UNKNOWN = "word_unknown"
    UNIT_INVALID = "unit_invalid"
    UNIT_WITHOUT_QUANTITY = "unit_without_quantity"
    NUMBER_INVALID = "number_invalid"
    TEXT_INVALID = "text_invalid"
    CLASS_NOT_INSTANCE = "class_not_instance"
    INSTANCE_NOT_CLASS = "instance_not_class"
    PARENT_MISSING = "parent_missing"
    CHILDREN_MISSING = "children_missing"
    OBJECTS_MISSING = "objects_missing"
    TRANSACTIONS_MISSING = "transactions_missing"
    INPUTS_MISSING = "inputs_missing"
    OUTPUTS_MISSING = "outputs_missing"
    ILMD_NOT_ALLOWED = "ilmd_not_allowed"
    DUPLICATE = "duplicate"
    LIST_EMPTY = "list_empty"
    TOO_MANY = "too_many"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the code, a pointer into the event (RFC 6901, empty for the event itself), and words."""

    code: FaultCode
    pointer: str
    message: str


class Full(Exception):
    """As many faults as are wanted have been found."""


class Findings:
    __slots__ = ("context", "faults", "faults_max", "values_left")

    def __init__(self, context: Context, faults_max: int) -> None:
        self.context = context
        self.faults: list[Fault] = []
        self.faults_max = faults_max
        self.values_left = EXTENSION_VALUES_MAX

    def add(self, code: FaultCode, pointer: str, message: str) -> None:
        self.faults.append(Fault(code, pointer, message))
        if len(self.faults) >= self.faults_max:
            raise Full


Rule = Callable[[object, str, Findings], object]
Rules = Mapping[str, Rule]


# Fields of one's own.


def extension(name: str, value: object, pointer: str, findings: Findings) -> None:
    place = f"{pointer}/{escaped(name)}"
    full = findings.context.expanded(name)
    if full is None:
        if ":" in name:
            findings.add(FaultCode.PREFIX_UNDECLARED, place, "No @context declares the prefix of this name.")
        else:
            findings.add(
                FaultCode.FIELD_UNKNOWN,
                place,
                "The standard has no such field here; names of your own have a declared prefix or are full URIs.",
            )
    _check_name(name, full, place, findings)
    content(value, place, findings, 1)


def _check_name(name: str, full: str | None, place: str, findings: Findings) -> None:
    if len(full or name) > NAME_CHARACTERS_MAX:
        findings.add(
            FaultCode.TEXT_INVALID, place, f"A name has at most {NAME_CHARACTERS_MAX} characters with its namespace."
        )


def content(value: object, pointer: str, findings: Findings, depth: int) -> None:
    """What an extension holds: any JSON, as long as it can be kept; bare names are free inside."""
    if isinstance(value, str):
        if len(value) > TEXT_CHARACTERS_MAX or _UNSTORABLE.search(value) is not None:
            findings.add(
                FaultCode.TEXT_INVALID,
                pointer,
                f"A text has at most {TEXT_CHARACTERS_MAX} characters, no NUL and no half of a surrogate pair.",
            )
    elif isinstance(value, dict | list):
        findings.values_left -= len(value)
        if findings.values_left < 0:
            findings.add(
                FaultCode.TOO_MANY, pointer, f"The extensions of an event have at most {EXTENSION_VALUES_MAX:,} values."
            )
            raise Full
        if depth > EXTENSION_DEPTH_MAX:
            findings.add(FaultCode.TOO_DEEP, pointer, f"Extensions nest at most {EXTENSION_DEPTH_MAX} levels deep.")
        elif isinstance(value, dict):
            for name, inner in value.items():
                place = f"{pointer}/{escaped(name)}"
                full = findings.context.expanded(name)
                if ":" in name and full is None:
                    findings.add(FaultCode.PREFIX_UNDECLARED, place, "No @context declares the prefix of this name.")
                _check_name(name, full, place, findings)
                content(name, place, findings, depth)
                content(inner, place, findings, depth + 1)
        else:
            for index, inner in enumerate(value):
                content(inner, f"{pointer}/{index}", findings, depth + 1)
    elif value is not None and not isinstance(value, bool):
        number(value, pointer, findings)


def escaped(name: str) -> str:
    return name[:SHOWN_CHARACTERS_MAX].replace("~", "~0").replace("/", "~1")


# Values.


def string(value: object, pointer: str, findings: Findings) -> bool:
    if isinstance(value, str):
        return True
    findings.add(FaultCode.WRONG_TYPE, pointer, "It is a text.")
    return False


def uri(value: object, pointer: str, findings: Findings) -> bool:
    if isinstance(value, str) and is_uri(value) is not None:
        return True
    if string(value, pointer, findings):
        findings.add(FaultCode.URI_INVALID, pointer, "It is a URI, such as urn:epc:id:… or https://id.gs1.org/….")
    return False


def moment(value: object, pointer: str, findings: Findings) -> None:
    if not (isinstance(value, str) and is_moment(value)) and string(value, pointer, findings):
        findings.add(
            FaultCode.TIME_INVALID, pointer, "It is a time of the years 1970 to 2199 with its zone (…T10:00:00+08:00)."
        )


def offset(value: object, pointer: str, findings: Findings) -> None:
    if not (isinstance(value, str) and _OFFSET.fullmatch(value)) and string(value, pointer, findings):
        findings.add(FaultCode.OFFSET_INVALID, pointer, "It is ±hh:mm, at most 14:00.")


def number(value: object, pointer: str, findings: Findings) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        findings.add(FaultCode.WRONG_TYPE, pointer, "It is a number.")
    elif -NUMBER_MAX <= value <= NUMBER_MAX:
        return True
    else:
        findings.add(FaultCode.NUMBER_INVALID, pointer, "It is finite and not so large.")
    return False


def quantity(value: object, pointer: str, findings: Findings) -> None:
    if number(value, pointer, findings) and isinstance(value, int | float) and value < 0:
        findings.add(FaultCode.NUMBER_INVALID, pointer, "A quantity is not negative.")


def unit(value: object, pointer: str, findings: Findings) -> None:
    if not (isinstance(value, str) and _UNIT.fullmatch(value)) and string(value, pointer, findings):
        findings.add(FaultCode.UNIT_INVALID, pointer, "It is a code of UN/CEFACT Recommendation 20, such as KGM.")


def text(value: object, pointer: str, findings: Findings) -> None:
    if string(value, pointer, findings):
        content(value, pointer, findings, 1)


def boolean(value: object, pointer: str, findings: Findings) -> None:
    if not isinstance(value, bool):
        findings.add(FaultCode.WRONG_TYPE, pointer, "It is true or false.")


def hexadecimal(value: object, pointer: str, findings: Findings) -> None:
    if string(value, pointer, findings) and isinstance(value, str):
        if _HEX.fullmatch(value) is None:
            findings.add(FaultCode.TEXT_INVALID, pointer, "It is hexadecimal.")
        content(value, pointer, findings, 1)


def word(words: Mapping[str, str], what: str) -> Rule:
    def rule(value: object, pointer: str, findings: Findings) -> None:
        if not isinstance(value, str):
            string(value, pointer, findings)
        elif value not in words and (is_uri(value) is None or value.startswith(_SPELT_BARE)):
            findings.add(
                FaultCode.WORD_UNKNOWN,
                pointer,
                f"It is no {what} of the CBV. JSON has standard words bare (shipping); words of your own are URIs.",
            )

    return rule


# Structures.


def list_of(rule: Rule, elements_max: int = ELEMENTS_PER_LIST_MAX, *, elements_min: int = 0) -> Rule:
    def each(value: object, pointer: str, findings: Findings) -> None:
        if not isinstance(value, list):
            findings.add(FaultCode.WRONG_TYPE, pointer, "It is a list.")
        elif len(value) < elements_min:
            findings.add(FaultCode.LIST_EMPTY, pointer, "It is empty.")
        elif len(value) > elements_max:
            findings.add(
                FaultCode.TOO_MANY, pointer, f"It has {len(value)} elements; at most {elements_max} are taken."
            )
        else:
            for index, item in enumerate(value):
                rule(item, f"{pointer}/{index}", findings)

    return each


def object_of(rules: Rules, required: tuple[str, ...] = (), *, is_open: bool = True) -> Rule:
    def each(value: object, pointer: str, findings: Findings) -> None:
        if not isinstance(value, dict):
            findings.add(FaultCode.WRONG_TYPE, pointer, "It is an object.")
            return
        for name, inner in value.items():
            rule = rules.get(name)
            if rule is not None:
                rule(inner, f"{pointer}/{name}", findings)
            elif is_open:
                extension(name, inner, pointer, findings)
            else:
                findings.add(FaultCode.FIELD_NOT_ALLOWED, f"{pointer}/{escaped(name)}", "Nothing else stands here.")
        for name in required:
            if name not in value:
                findings.add(FaultCode.FIELD_MISSING, f"{pointer}/{name}", "It is required.")

    return each
