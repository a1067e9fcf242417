"""Kept: what is read once and remembered, because it does not change."""

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

KEPT_MAX = 10_000
"""Things that are remembered of one kind, unless told otherwise."""


class Kept(dict[Key, Value]):
    """A dictionary that forgets what came first when it has `count_max` keys and another one comes."""

    def __init__(self, count_max: int = KEPT_MAX) -> None:
        super().__init__()
        self._count_max = count_max

    def __setitem__(self, key: Key, value: Value) -> None:
        if key not in self and len(self) >= self._count_max:
            del self[next(iter(self))]
        super().__setitem__(key, value)
