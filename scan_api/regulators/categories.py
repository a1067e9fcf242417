"""Categories of products: GS1's Global Product Classification, or a brand's own words.

"gpc:50000000" is a segment, "gpc:50130000" a family in it, "gpc:50131700" a class, "gpc:10000025" a brick; GPC's wider
levels end in zeros (GS1 GPC Development and Implementation Rules, 2). A brick's digits do not tell its class, so a
product names both. "own:food/dairy" lies within "own:food".
"""

import re
from collections.abc import Iterable
from typing import Final

from kit.errors import Invalid

CATEGORIES_MAX: Final = 100
"""Of one account."""
CATEGORIES_PER_PRODUCT_MAX: Final = 8
OWN_CHARACTERS_MAX: Final = 100
_GPC: Final = re.compile(r"gpc:[1-9][0-9]{7}")
_OWN: Final = re.compile(r"own:[a-z0-9-]{1,40}(/[a-z0-9-]{1,40}){0,5}")
_BRICK: Final = "gpc:1000"


class CategoryInvalid(Invalid):
    code = "CategoryInvalid"


def parse(text: str) -> str:
    """The category as it is kept. Raises CategoryInvalid."""
    if _GPC.fullmatch(text) or (_OWN.fullmatch(text) and len(text) <= OWN_CHARACTERS_MAX):
        return text
    raise CategoryInvalid(
        "a category is gpc: and 8 digits, or own: and words of a-z, 0-9 and hyphens, with / between them",
        hint="Such as gpc:50000000 or own:food/dairy.",
    )


def parse_all(texts: Iterable[str], most: int) -> tuple[str, ...]:
    """The categories, each once, sorted. Raises CategoryInvalid: also when there are more than `most`."""
    found = tuple(sorted({parse(text) for text in texts}))
    if len(found) > most:
        raise CategoryInvalid(f"at most {most} categories, not {len(found)}", hint="Name the wider ones.")
    return found


def covers(wide: str, category: str) -> bool:
    """Whether a category lies within another, or is the same; both as `parse` gives them."""
    if wide == category:
        return True
    if wide.startswith("own:"):
        return category.startswith(f"{wide}/")
    if not category.startswith("gpc:") or _BRICK in (wide[:8], category[:8]):
        return False  # a brick holds nothing, and lies in no class by its digits
    digits = wide.removeprefix("gpc:")
    while digits.endswith("00"):
        digits = digits[:-2]
    return category.startswith(f"gpc:{digits}")
