"""Sets of things that a MATCH_ parameter asks for: single names, and all names that begin in some way.

A hundred patterns can stand for a thousand beginnings, so a name is compared by searching, not one by one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codes.epc_uri import Pattern
from scan_api.provenance.things import things_of


@dataclass(frozen=True, slots=True)
class ThingSet:
    """Things in some parts of an event. `prefixes` are sorted, and none of them begins another."""

    parts: frozenset[str]
    names: frozenset[str]
    prefixes: tuple[str, ...]
    patterns: Mapping[str, Sequence[Pattern]]
    """Those of a prefix that have to look at a name once more; empty where the prefix decides."""

    @classmethod
    def of(cls, parts: frozenset[str], patterns: Iterable[Pattern]) -> "ThingSet":
        """What any of the patterns stands for."""
        names: set[str] = set()
        beginning: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            names.update(pattern.names)
            for prefix in pattern.prefixes:
                beginning.setdefault(prefix, []).append(pattern)
        kept: dict[str, list[Pattern]] = {}
        for prefix in sorted(beginning):
            above = next(reversed(kept), None)
            if above is None or not prefix.startswith(above):
                above = prefix
            kept.setdefault(above, []).extend(beginning[prefix])
        decided = {
            prefix: ()
            if any(pattern.prefixes_decide and prefix in pattern.prefixes for pattern in some)
            else tuple(some)
            for prefix, some in kept.items()
        }
        return cls(parts, frozenset(names), tuple(decided), decided)

    def has(self, name: str) -> bool:
        """Whether a thing, by its one name, is in the set."""
        if name in self.names:
            return True
        at = bisect_right(self.prefixes, name) - 1
        if at < 0 or not name.startswith(self.prefixes[at]):
            return False
        patterns = self.patterns[self.prefixes[at]]
        return not patterns or any(pattern.matches(name) for pattern in patterns)

    def is_named_in(self, event: Mapping[str, Any]) -> bool:
        """Whether a sound event names one of these things in one of the parts."""
        return any(part in self.parts and self.has(name) for name, part in things_of(event))
