"""Levels: what a link may hang on, a GS1 key alone or with qualifiers, and the levels that one Digital Link reaches."""

from itertools import combinations
from typing import Final, NamedTuple

from codes import epc_uri
from codes.digital_link import CANONICAL_STEM, DigitalLink, Pair, parse, written
from codes.gs1.dictionary import ELEMENTS
from kit.errors import Invalid

KEYS: Final = frozenset(ai for ai, element in ELEMENTS.items() if element.is_key)
"""The AIs that a path may begin with."""
PRODUCT_KEYS: Final = frozenset({"01", "8006"})
"""Those whose first 14 digits are a GTIN."""
_UNIT: Final = frozenset({"21", "235"})
# Where the company prefix begins, after an indicator, an extension digit or a filling zero; elsewhere it comes first.
_PREFIX_AT: Final = {"00": 1, "01": 1, "8003": 1, "8006": 1}


class LevelInvalid(Invalid):
    code = "LevelInvalid"


class Level(NamedTuple):
    """A key and those of its qualifiers that name what a link belongs to."""

    elements: tuple[Pair, ...]

    @property
    def path(self) -> str:
        """Its one name, which is also its path on this host: "/01/09506000134352/10/L1", escaped as RFC 3986 says."""
        return "".join([f"/{written(ai, value)}" for ai, value in self.elements])

    @property
    def key(self) -> Pair:
        return self.elements[0]

    @property
    def key_path(self) -> str:
        return f"/{written(*self.key)}"

    @property
    def gtin(self) -> str | None:
        """The 14-digit GTIN, where the key is one or has one."""
        ai, value = self.key
        return value[:14] if ai in PRODUCT_KEYS else None

    @property
    def company_digits(self) -> str:
        """The key's value from its company prefix on."""
        ai, value = self.key
        return value[_PREFIX_AT.get(ai, 0) :]


def levels_of(link: DigitalLink) -> tuple[Level, ...]:
    """The levels whose links are those of this Digital Link, the finest first and the key's own last.

    A serial number (21) or a third party's (235) names one item, so it outranks lot and variant and stands without
    them; of the others more outrank fewer, and the lot the variant. At most 8.
    Source: GS1-Conformant Resolver Standard 1.2, 2.5.9, rules 1 to 4.
    """
    key, qualifiers = link.key, link.qualifiers
    units = [(pair,) for pair in qualifiers if key[0] in PRODUCT_KEYS and pair[0] in _UNIT]
    others = [pair for pair in qualifiers if (pair,) not in units]
    # Within a path qualifiers grow finer to the right.
    chosen = [part for count in range(len(others), 0, -1) for part in reversed(list(combinations(others, count)))]
    return tuple(Level((key, *part)) for part in (*units, *chosen, ()))


def level_named(identifier: str) -> Level:
    """The level that somebody names to hang a link on it: a Digital Link on any host, its path, or an EPC URN.

    Raises LevelInvalid, DigitalLinkInvalid, EpcUriInvalid.
    """
    uri = CANONICAL_STEM + identifier if identifier.startswith("/") else identifier
    link = parse(epc_uri.canonical(uri) if uri[:4].lower() == "urn:" else uri)
    if link.attributes or link.other_query or link.fragment is not None:
        raise LevelInvalid("links hang on a key and its qualifiers alone", hint="Leave out what follows the path.")
    level = levels_of(link)[0]
    if len(level.elements) != link.path_elements:
        raise LevelInvalid(
            "a serial number names an item by itself, without variant or lot",
            hint="Leave out AIs (22) and (10); GS1-Conformant Resolver Standard, 2.5.9, rule 2.",
        )
    return level
