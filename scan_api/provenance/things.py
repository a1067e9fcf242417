"""What an event is about: the things it names, each under its one name, and the part it plays (EPCIS 2.0, 7.4)."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypedDict

from codes.epc_uri import EpcUriInvalid, canonical, item_name

NAMES_KEPT: Final = 16_384
"""An event's things are asked for by its hash and by its index, one soon after the other."""
KEPT_CHARACTERS_MAX: Final = 256


class Part(StrEnum):
    """The part that a thing plays in an event; `…_class` are quantities of a class, such as a lot."""

    EPC = "epc"
    PARENT = "parent"
    CHILD = "child"
    INPUT = "input"
    OUTPUT = "output"
    EPC_CLASS = "epc_class"
    CHILD_CLASS = "child_class"
    INPUT_CLASS = "input_class"
    OUTPUT_CLASS = "output_class"


class Naming(TypedDict, total=False):
    """The fields of a sound event that name things, for a decoder that passes over all others."""

    parentID: str
    epcList: list[str]
    childEPCs: list[str]
    inputEPCList: list[str]
    outputEPCList: list[str]
    quantityList: list[dict[str, Any]]
    childQuantityList: list[dict[str, Any]]
    inputQuantityList: list[dict[str, Any]]
    outputQuantityList: list[dict[str, Any]]


THING_LISTS: Final = (
    ("epcList", Part.EPC),
    ("childEPCs", Part.CHILD),
    ("inputEPCList", Part.INPUT),
    ("outputEPCList", Part.OUTPUT),
)
THING_QUANTITIES: Final = (
    ("quantityList", Part.EPC_CLASS),
    ("childQuantityList", Part.CHILD_CLASS),
    ("inputQuantityList", Part.INPUT_CLASS),
    ("outputQuantityList", Part.OUTPUT_CLASS),
)


def name_of(identifier: str) -> str:
    """The one name of a thing or place: the canonical Digital Link where it has one, else the text itself."""
    name = item_name(identifier)  # not kept: items hardly recur
    if name is not None:
        return name
    return _kept(identifier) if len(identifier) <= KEPT_CHARACTERS_MAX else _name(identifier)


def _name(identifier: str) -> str:
    try:
        return canonical(identifier)
    except EpcUriInvalid:
        return identifier  # not of the form that its scheme prescribes: somebody's own


_kept = lru_cache(maxsize=NAMES_KEPT)(_name)


def things_of(event: Mapping[str, Any]) -> list[tuple[str, Part]]:
    """The things that a sound event names with their parts, each pair once, in the order of the event's fields."""
    return list(dict.fromkeys(named_in(event)))


def named_in(event: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """The same one after another, as often as the event names them."""
    parent = event.get("parentID")
    if parent is not None:
        yield name_of(parent), Part.PARENT
    for field, part in THING_LISTS:
        epcs: Sequence[str] = event.get(field) or ()
        for epc in epcs:
            yield name_of(epc), part
    for field, part in THING_QUANTITIES:
        quantities: Sequence[Mapping[str, Any]] = event.get(field) or ()
        for quantity in quantities:
            yield name_of(quantity["epcClass"]), part
