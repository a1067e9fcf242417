"""Strict field checks of a trust bundle: each returns quietly or raises BundleMalformed naming the field."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeGuard

from .errors import BundleMalformed
from .gtin import is_valid as gtin_is_valid


def check_int(value: object, name: str, low: int, high: int) -> None:
    """Require an int, not a bool, from `low` to `high`, both included."""
    if not _is_int(value) or not low <= value <= high:
        raise BundleMalformed(f"{name} is not a whole number from {low} to {high}")


def check_name(value: object, name: str, chars_max: int) -> None:
    """Require a text of 1 to `chars_max` printable characters: names are shown on terminals and pages."""
    if not isinstance(value, str) or not 1 <= len(value) <= chars_max or not value.isprintable():
        raise BundleMalformed(f"{name} is not a text of 1 to {chars_max} printable characters")


def check_gtin(value: object, name: str) -> None:
    """Require 14 digits with a right check digit."""
    if not isinstance(value, str) or not gtin_is_valid(value):
        raise BundleMalformed(f"{name} is not a GTIN of 14 digits with a right check digit")


def check_tuple_of(value: object, kind: type, name: str, low: int, high: int) -> None:
    """Require a tuple of `low` to `high` members, each exactly of this type."""
    if not isinstance(value, tuple) or not low <= len(value) <= high:
        raise BundleMalformed(f"{name} is not an array of {low} to {high} members")
    # By exact type, so that a bool never passes for an int; as a set, because a million items are checked at load.
    if not set(map(type, value)) <= {kind}:
        raise BundleMalformed(f"{name} holds a member that is not of type {kind.__name__}")


def check_ascending(values: Sequence[Any], name: str) -> None:
    """Require each member to be greater than the one before it, so that there is one order and no duplicate."""
    if not all(before < after for before, after in pairwise(values)):
        raise BundleMalformed(f"{name} is not in ascending order without duplicates")


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int
