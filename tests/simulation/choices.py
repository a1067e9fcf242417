"""What a rule of the machine may leave to chance: chance is a seeded generator, or hypothesis, which also shrinks."""

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    def number(self, lowest: int, highest: int) -> int: ...

    def one_of(self, things: Sequence[T]) -> T: ...


class SeededChoices:
    """Chance by a generator: a few hundred nanoseconds a choice."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def number(self, lowest: int, highest: int) -> int:
        return self._chance.randint(lowest, highest)

    def one_of(self, things: Sequence[T]) -> T:
        return self._chance.choice(things)


class DrawnChoices:
    """Chance by hypothesis: what fails is made small."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def number(self, lowest: int, highest: int) -> int:
        return self._data.draw(st.integers(lowest, highest))

    def one_of(self, things: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(things))
