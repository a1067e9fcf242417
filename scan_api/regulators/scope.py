"""Scope: what a regulator may see, decided in one place.

An account has a jurisdiction (regions) and categories of products. An item, order or product is seen when its product
lies in the categories, and either its brand is seated in the jurisdiction, or it was at a place there. The same holds
for an event, whose places are its read point and its business location. Whatever has no category is seen only by who
is bound to none; whatever has no region only by who is bound to none, or through its brand's seat.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from scan_api.regulators import categories, regions


class Sight(StrEnum):
    """Whether something is seen, and why."""

    EVERYWHERE = "everywhere"  # bound to no region
    BY_SEAT = "by_seat"  # its brand is seated in the jurisdiction
    BY_PLACE = "by_place"  # it was at a place there
    OUTSIDE_KEY = "outside_key"  # the key is for another brand or other GTINs
    OUTSIDE_CATEGORIES = "outside_categories"
    OUTSIDE_JURISDICTION = "outside_jurisdiction"

    @property
    def is_seen(self) -> bool:
        return not self.startswith("outside")


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether something is seen: whose and of what it is, and where it was. Regions in their one form."""

    brand_id: int
    gtin: str
    """14 digits."""
    categories: Collection[str]
    seats: Collection[str]
    """Regions in which the brand is seated."""
    places: Collection[str] = ()
    """Regions of the places at which it was."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What one key may see. Empty means all: regions, categories, GTIN prefixes (after the indicator digit), brand."""

    regions: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    gtin_prefixes: tuple[str, ...] = ()
    brand_id: int | None = None
    sandbox: bool = False

    def sees(self, facts: Facts) -> Sight:
        """Whether the thing is seen, and why."""
        if self.brand_id not in (None, facts.brand_id) or not self.covers_gtin(facts.gtin):
            return Sight.OUTSIDE_KEY
        if not self.covers_categories(facts.categories):
            return Sight.OUTSIDE_CATEGORIES
        if not self.regions:
            return Sight.EVERYWHERE
        if self.covers_any(facts.seats):
            return Sight.BY_SEAT
        return Sight.BY_PLACE if self.covers_any(facts.places) else Sight.OUTSIDE_JURISDICTION

    def covers_gtin(self, gtin: str) -> bool:
        """Whether the 14-digit GTIN lies under the key's prefixes."""
        return not self.gtin_prefixes or gtin.startswith(self.gtin_prefixes, 1)

    def covers_categories(self, of_product: Collection[str]) -> bool:
        """Whether one of a product's categories lies in the scope."""
        return not self.categories or any(
            categories.covers(wide, one) for wide in self.categories for one in of_product
        )

    def covers_any(self, codes: Collection[str]) -> bool:
        """Whether one of these regions lies in the jurisdiction."""
        return not self.regions or any(regions.covers(wide, code) for wide in self.regions for code in codes)

    def covers(self, other: "Scope") -> bool:
        """Whether whatever the other may see is seen by this one, too."""
        return (
            self.sandbox == other.sandbox
            and self.brand_id in (None, other.brand_id)
            and _cover(self.regions, other.regions, regions.covers)
            and _cover(self.categories, other.categories, categories.covers)
            and _cover(self.gtin_prefixes, other.gtin_prefixes, lambda wide, prefix: prefix.startswith(wide))
        )

    @property
    def is_bounded_by_product(self) -> bool:
        """Whether a product must be known before something is seen."""
        return bool(self.categories or self.gtin_prefixes)


def _cover(wide: Collection[str], narrow: Collection[str], covers: Callable[[str, str], bool]) -> bool:
    """Whether each of `narrow` lies in one of `wide`, where none at all means everything."""
    return not wide or (bool(narrow) and all(any(covers(one, other) for one in wide) for other in narrow))
