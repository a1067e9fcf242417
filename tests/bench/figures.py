"""Figures: a measured rate beside the rate of its yardstick."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_WHOLE_FROM = 100

Rate = Callable[[], float]
"""Does some work and returns how much of it was done a second."""


@dataclass(frozen=True)
class Figure:
    """One measurement. `ratio` is value to yardstick: medians of rates taken in turns."""

    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float
    ratio: float

    def line(self) -> str:
        value, yardstick = f"{_shown(self.value)} {self.unit}", f"{self.yardstick} {_shown(self.yardstick_value)}"
        return f"{self.name:<46} {value:>18} | {yardstick:<48} | {self.ratio:.3f}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE_FROM else f"{value:,.3g}"


def figure(name: str, rates: Sequence[float], unit: str, yardstick: str, yardstick_rates: Sequence[float]) -> Figure:
    """A figure from rates that were taken in turns; the ratio is the median of those within one turn."""
    ratios = [rate / beside for rate, beside in zip(rates, yardstick_rates, strict=True)]
    middle = statistics.median
    return Figure(name, middle(rates), unit, yardstick, middle(yardstick_rates), middle(ratios))


def in_turns(rounds: int, *works: Rate) -> list[list[float]]:
    """Every work once a round, so that what disturbs the machine disturbs all of them. The rates of each."""
    rates: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, measured in zip(works, rates, strict=True):
            measured.append(work())
    return rates


def rate_of(count: int, work: Callable[[], object]) -> float:
    """How many a second, when `work` does `count` of them."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)
