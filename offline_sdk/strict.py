"""Strict field checks of trust documents: each returns quietly or raises TrustMalformed naming the field."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeGuard

import cbor2

from .algorithms import Algorithm
from .errors import TrustMalformed
from .gtin import is_valid as gtin_is_valid

# Controls, spaces but " ", marks that turn or hide what is shown, surrogates, private use. Not str.isprintable: what it
# says of a character depends on the Unicode version of this Python, and devices must not disagree about a document.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e00ff\U000f0000-\U0010ffff]"
)


def check_int(value: object, name: str, low: int, high: int) -> None:
    """Require an int, not a bool, from `low` to `high`, both included."""
    if not _is_int(value) or not low <= value <= high:
        raise TrustMalformed(f"{name} is not a whole number from {low} to {high}")


def check_name(value: object, name: str, chars_max: int) -> None:
    """Require a text of 1 to `chars_max` printable characters: names are shown on terminals and pages."""
    if not isinstance(value, str) or not 1 <= len(value) <= chars_max or _UNPRINTABLE.search(value):
        raise TrustMalformed(f"{name} is not a text of 1 to {chars_max} printable characters")


def check_gtin(value: object, name: str) -> None:
    """Require 14 digits with a right check digit."""
    if not isinstance(value, str) or not gtin_is_valid(value):
        raise TrustMalformed(f"{name} is not a GTIN of 14 digits with a right check digit")


def check_bytes(value: object, name: str, length: int) -> None:
    """Require exactly this many bytes."""
    if type(value) is not bytes or len(value) != length:
        raise TrustMalformed(f"{name} is not {length} bytes")


def check_version(value: object, version: int) -> None:
    """Require the version of the format that this software reads."""
    if not _is_int(value) or value != version:
        raise TrustMalformed(f"the document is not of version {version}; update this software")


def check_tuple_of(value: object, kind: type, name: str, low: int, high: int) -> None:
    """Require a tuple of `low` to `high` members, each exactly of this type."""
    if not isinstance(value, tuple) or not low <= len(value) <= high:
        raise TrustMalformed(f"{name} is not an array of {low} to {high} members")
    # By exact type, so that a bool never passes for an int; as a set, because a million items are checked at load.
    if not set(map(type, value)) <= {kind}:
        raise TrustMalformed(f"{name} holds a member that is not of type {kind.__name__}")


def check_ascending(values: Sequence[Any], name: str) -> None:
    """Require each member to be greater than the one before it, so that there is one order and no duplicate."""
    if not all(before < after for before, after in pairwise(values)):
        raise TrustMalformed(f"{name} is not in ascending order without duplicates")


def cbor(payload: bytes) -> object:
    """Decode a payload whose signature was verified, or raise TrustMalformed."""
    try:
        content: object = cbor2.loads(payload)
    # The decoder raises whatever its tag handlers raise (ValueError, TypeError, RecursionError, …), and who loads a
    # document only expects this package's errors.
    except Exception as error:
        raise TrustMalformed(f"the payload is not CBOR: {type(error).__name__}") from None
    return content


def cbor_map(content: object, name: str, known: range, optional: tuple[int, ...] = ()) -> dict[int, Any]:
    """Require a decoded map of exactly the known fields; the optional ones may be left out."""
    if type(content) is not dict or not set(content) <= set(known) <= set(content) | set(optional):
        raise TrustMalformed(f"{name} is not a map of exactly the fields that belong there")
    # Null would be read as a field left out, which has another encoding.
    if any(content.get(field, ...) is None for field in optional):
        raise TrustMalformed(f"a field of {name} is null; one that does not apply is left out")
    return content


def cbor_array(content: object, name: str, length: int | None = None) -> list[Any]:
    """Require a decoded array, of exactly this length if one is given."""
    if type(content) is not list or (length is not None and len(content) != length):
        raise TrustMalformed(f"{name} is not an array" + ("" if length is None else f" of {length}"))
    return content


def algorithm(value: object) -> Algorithm:
    """Require the number of a registered algorithm, and return it."""
    if not _is_int(value) or value not in set(Algorithm):
        raise TrustMalformed("a key's algorithm is not registered; update this software")
    return Algorithm(value)


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int
