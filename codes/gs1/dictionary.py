"""The GS1 Syntax Dictionary: what each Application Identifier (AI) may hold and how it stands in a Digital Link.

Read once from the published file beside this module (release 2026-01-27, Apache-2.0, © GS1 AISBL), whose head
describes its syntax. A later release takes the file's place; an unknown linter or format then fails the import.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from typing import Final, NamedTuple

from codes.gs1.linters import CHECKS, LINTERS, Linter

FILE: Final = "gs1-syntax-dictionary.txt"
ENTRY_CHARACTERS_MAX: Final = 150  # the limit of GS1's own reader

_CHARACTERS: Final = {
    "N": "[0-9]",
    "X": r"[!-\"%-/0-9:-?A-Z_a-z]",  # CSET 82
    "Y": "[#/0-9A-Z-]",  # CSET 39
    "Z": "[0-9A-Za-z_=-]",  # CSET 64, with the padding that `_padding` looks at
}
_COMPONENT: Final = re.compile(r"(\[)?([NXYZ])(\.\.)?([1-9][0-9]?)\]?")
_ENTRY: Final = re.compile(r"([0-9]{2,4})(?:-([0-9]{2,4}))?\s+(?:([^A-Z\[\s]+)\s+)?([^#]*?)\s*(?:#\s*(.*))?")


class FaultKind(Enum):
    LENGTH = "length"
    CHARACTER = "character"
    CHECK = "check"
    CONTENT = "content"


class Fault(NamedTuple):
    """Why a value is not one of its AI; `what` reads on after "the value of AI (17):"."""

    kind: FaultKind
    what: str


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a value: one character set and length, and the linters that its content must pass."""

    characters: str
    length_min: int
    length_max: int
    optional: bool
    linters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Element:
    """An Application Identifier: a row of the dictionary."""

    ai: str
    title: str
    has_fixed_length: bool
    """Its length is pre-defined, so no FNC1 follows it in an element string."""
    is_attribute: bool
    """It may stand in the query of a Digital Link."""
    is_key: bool
    """It may be the primary key of a Digital Link."""
    qualifiers: tuple[tuple[str, ...], ...]
    """Alternative sequences of its key qualifiers, each in its order."""
    required: tuple[tuple[str, ...], ...]
    """Of each group, one must be there too; "01+21" means both, "31nn" any AI that begins so."""
    excluded: tuple[str, ...]
    components: tuple[Component, ...]
    length_min: int
    length_max: int
    _shape: re.Pattern[str] = field(repr=False, compare=False)
    _tests: tuple[tuple[int, int | None, str, Linter], ...] = field(repr=False, compare=False)

    def fault(self, value: str) -> Fault | None:
        """What is wrong with this value, decoded; None when nothing is."""
        if self._shape.fullmatch(value) is None:
            return self._misshapen(value)
        for start, end, name, linter in self._tests:
            part = value[start:end]
            if part and (wrong := linter(part)) is not None:
                return Fault(FaultKind.CHECK if name in CHECKS else FaultKind.CONTENT, wrong)
        return None

    def _misshapen(self, value: str) -> Fault:
        if not self.length_min <= len(value) <= self.length_max:
            lengths = f"{self.length_min} to {self.length_max}"
            expected = self.length_max if self.length_min == self.length_max else lengths
            return Fault(FaultKind.LENGTH, f"it has {len(value)} characters instead of {expected}")
        at = 0
        for component in self.components:
            part = value[at : at + component.length_max]
            allowed = _characters(component.characters)
            for offset, character in enumerate(part):
                if allowed.match(character) is None:
                    return Fault(FaultKind.CHARACTER, f"character {at + offset + 1} is not one it may have")
            at += len(part)
        return Fault(FaultKind.LENGTH, "one of its optional parts is incomplete")


@lru_cache
def _characters(characters: str) -> re.Pattern[str]:
    return re.compile(_CHARACTERS[characters])


def _padding(part: str) -> str | None:
    # Padding is optional, and where it is, GS1's reference counts in threes (test `cset64`).
    text = part.rstrip("=")
    pads = len(part) - len(text)
    if pads > 2 or (pads and len(part) % 3) or "=" in text:
        return "its padding is wrong"
    return None


@lru_cache
def _component(text: str) -> Component:
    form, *linters = text.split(",")
    match = _COMPONENT.fullmatch(form)
    if match is None:
        raise ValueError(f"the syntax dictionary has a component of unknown form: {text}")
    optional, characters, up_to, length = match.groups()
    return Component(characters, 1 if up_to else int(length), int(length), bool(optional), tuple(linters))


@lru_cache
def _shape(components: tuple[Component, ...]) -> re.Pattern[str]:
    """One expression for lengths and characters. Only the last component may vary, so it never has to step back."""
    expression = ""
    for component in reversed(components):
        part = f"{_CHARACTERS[component.characters]}{{{component.length_min},{component.length_max}}}"
        expression = f"(?:{part}{expression})?" if component.optional else part + expression
    return re.compile(expression)


@lru_cache
def _tests(components: tuple[Component, ...]) -> tuple[tuple[int, int | None, str, Linter], ...]:
    tests: list[tuple[int, int | None, str, Linter]] = []
    at = 0
    for component in components:
        end = at + component.length_max
        if component.characters == "Z":
            tests.append((at, end, "cset64", _padding))
        for name in component.linters:
            # Digits begin with digits: the company prefix of a numeric key needs no look.
            if not (name.startswith("gcppos") and component.characters == "N"):
                tests.append((at, end, name, LINTERS[name]))
        at = end
    return tuple(tests)


def _attributes(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def _elements(line: str) -> Iterator[Element]:
    match = _ENTRY.fullmatch(line)
    if match is None or len(line) > ENTRY_CHARACTERS_MAX:
        raise ValueError(f"the syntax dictionary has an entry of unknown form: {line}")
    first, last, flags, specification, title = match.groups(default="")
    words = specification.split()
    components = tuple(_component(word) for word in words if word[0].isupper() or word[0] == "[")
    attributes = list(_attributes(word for word in words if word[0].islower()))
    keys = [value for name, value in attributes if name == "dlpkey"]
    for number in range(int(first), int(last or first) + 1):
        yield Element(
            ai=str(number).zfill(len(first)),
            title=title,
            has_fixed_length="*" in flags,
            is_attribute="?" in flags,
            is_key=bool(keys),
            qualifiers=tuple(tuple(way.split(",")) for key in keys for way in key.split("|") if way),
            required=tuple(tuple(value.split(",")) for name, value in attributes if name == "req"),
            excluded=tuple(ai for name, value in attributes if name == "ex" for ai in value.split(",")),
            components=components,
            length_min=sum(component.length_min for component in components if not component.optional),
            length_max=sum(component.length_max for component in components),
            _shape=_shape(components),
            _tests=_tests(components),
        )


def read(text: str) -> dict[str, Element]:
    """The elements of a syntax dictionary by their AI; ValueError or KeyError where it has what we do not know."""
    lines = (line.strip() for line in text.splitlines())
    return {element.ai: element for line in lines if line and line[0] != "#" for element in _elements(line)}


def _sequences(elements: Iterable[Element]) -> Iterator[tuple[str, ...]]:
    for element in elements:
        if element.is_key:
            yield (element.ai,)
            for way in element.qualifiers:
                for count in range(1, len(way) + 1):
                    yield from ((element.ai, *chosen) for chosen in combinations(way, count))


ELEMENTS: Final = read(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
SEQUENCES: Final = frozenset(_sequences(ELEMENTS.values()))
"""Every sequence of AIs that the path of a Digital Link may have: a key and qualifiers of it in their order."""
