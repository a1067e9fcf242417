"""Packing the slow way: every minute is played again, and every chain is looked at in every minute."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

Told = tuple[str, str, Sequence[str]]
"""ADD, DELETE or EMPTY; a container; what is put into it or taken out."""
Addition = tuple[int, str]
"""The minute of an event, and a thing that it puts into its container."""


@dataclass
class PlainPacking:
    """What was told, a minute each, and which additions turned out to have no effect."""

    told: Sequence[Told]
    levels_max: int
    arrived: set[int] = field(default_factory=set)
    without_effect: set[Addition] = field(default_factory=set)

    def arrive(self, minutes: Collection[int]) -> None:
        """Take in what was told of these minutes, in one document. Of what cannot all be, the first ones stay."""
        before = self.stays()
        self.arrived.update(minutes)
        while True:
            now = self.stays()
            grown = sorted(one for one, stay in now.items() if not stay <= before.get(one, set()))
            counted = now.keys() - set(grown)
            faulty = set()
            for one in grown:
                if all(self._is_legal(one, minute, now, {*counted, one}) for minute in now[one]):
                    counted.add(one)
                else:
                    faulty.add(one)
            if not faulty:
                return
            self.without_effect |= faulty

    def stays(self) -> dict[Addition, set[int]]:
        """The minutes in which each addition is why a thing is where it is."""
        stays: dict[Addition, set[int]] = {}
        where: dict[str, int] = {}
        for minute, (action, container, things) in enumerate(self.told):
            if minute in self.arrived:
                for thing in list(where) if action == "EMPTY" else things:
                    is_in = thing in where and self.told[where[thing]][1] == container
                    if action == "ADD" and not is_in and (minute, thing) not in self.without_effect:
                        where[thing] = minute
                    elif action != "ADD" and is_in:
                        del where[thing]
            for thing, since in where.items():
                stays.setdefault((since, thing), set()).add(minute)
        return stays

    def where(self, minute: int) -> dict[str, str]:
        """In what each thing is at a minute."""
        return self._where(minute, self.stays(), self.stays())

    def _where(self, minute: int, stays: Mapping[Addition, set[int]], counted: Collection[Addition]) -> dict[str, str]:
        return {thing: self.told[at][1] for at, thing in counted if minute in stays[at, thing]}

    def _is_legal(
        self, one: Addition, minute: int, stays: Mapping[Addition, set[int]], counted: Collection[Addition]
    ) -> bool:
        where = self._where(minute, stays, counted)
        thing = one[1]
        above, current = 0, thing
        while current in where:
            above, current = above + 1, where[current]
            if current == thing:
                return False
        return above + 1 + self._height(thing, where) <= self.levels_max

    def _height(self, thing: str, where: Mapping[str, str]) -> int:
        return max((1 + self._height(child, where) for child, parent in where.items() if parent == thing), default=0)
