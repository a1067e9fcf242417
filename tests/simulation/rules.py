"""The rules of the machine: everything that may be done to the house, each with how often it is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.simulation.choices import Choices
from tests.simulation.house import House

Work = Callable[[House, Choices], Awaitable[None]]


@dataclass(frozen=True)
class Rule:
    """One thing that may be done. `weight`: how often, beside the others."""

    name: str
    weight: int
    work: Work


def rule(weight: int) -> Callable[[Work], Rule]:
    """Makes a rule of a function, which is named after what is done."""
    return lambda work: Rule(work.__name__, weight, work)


def rules_in(*modules: object) -> tuple[Rule, ...]:
    """Every rule of these modules, in the order of their writing."""
    return tuple(found for module in modules for found in vars(module).values() if isinstance(found, Rule))
