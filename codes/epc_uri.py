"""EPC URIs: one name for one thing, whether it comes as an EPC URN, as a Digital Link on any host, or as our code text.

    urn:epc:id:sgtin:0614141.107346.2017           https://id.gs1.org/01/10614141073464/21/2017
    https://example.com/01/10614141073464/21/2017  https://id.gs1.org/01/10614141073464/21/2017

The name is the canonical Digital Link of the finest level that the identifier reaches, without attributes, as CBV 2.0
has it for event hashes (8.9). Classes are those of CBV 2.0, 8.3. docs/digital-link.md has the table.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from codes.digital_link import CANONICAL_STEM, DigitalLink, DigitalLinkInvalid, parse, written
from codes.epc_schemes import (
    COMPANY_PREFIX_DIGITS_MAX,
    COMPANY_PREFIX_DIGITS_MIN,
    LGTIN,
    NO_EXTENSION,
    OF_KEY,
    OF_QUALIFIED_KEY,
    EpcUriInvalid,
    Scheme,
    scheme_of,
    urn_text,
)
from codes.gs1.dictionary import ELEMENTS

__all__ = ["EpcUriInvalid", "Pattern", "canonical", "epc_pattern", "item_name", "item_names", "to_urn"]

URN_CHARACTERS_MAX: Final = 512
"""The longest URN of any scheme is about 130, all characters escaped."""
NAMES_KEPT: Final = 16_384
"""Places and steps come with every event, so the names of the last few thousand are kept."""

_URN: Final = re.compile(r"(?i:urn:epc:)(id|idpat|class):([a-z]+):(.*)", re.DOTALL)
# Serials of letters and digits alone are written alike in URN, link and name, and what is before them recurs.
_ITEM_STEM: Final = re.compile(r"urn:epc:id:sgtin:[0-9]+\.[0-9]+\.|https://[A-Za-z0-9.:-]+/01/[0-9]{14}/21/")
_STEM_CHARACTERS_MAX: Final = 128
_SERIAL_CHARACTERS_MAX: Final = 20
_FOREIGN: Final = frozenset({"adi", "bic", "gid", "imovn", "usdod"})
"""EPC schemes that name no GS1 key."""
_RANGE: Final = re.compile(r"\[([0-9]{1,20})-([0-9]{1,20})\]")

# The qualifiers that tell things apart most finely; those after them say nothing more once one of these is there.
_FINEST: Final = {"01": ("21", "235", "10", "22"), "8006": ("21", "10", "22")}


def canonical(identifier: str) -> str:
    """The one name of what this identifies; an identifier of another system comes back as it is.

    EPC URNs (pure identities, lots, and patterns that stand for a class) and Digital Links on any host become
    canonical Digital Links: "https://id.gs1.org/01/10614141073464/21/2017". Where a serial is known, variant and lot
    are left out of the name, and so are attributes. Raises EpcUriInvalid for a malformed EPC URN; what is no Digital
    Link for any reason is another system's web address.
    """
    if not isinstance(identifier, str):
        raise EpcUriInvalid("an identifier is text")
    name = item_name(identifier)
    if name is not None:
        return name
    return _kept(identifier) if len(identifier) <= URN_CHARACTERS_MAX else _canonical(identifier)


def _canonical(identifier: str) -> str:
    if identifier[:8].lower() == "urn:epc:":
        return _name_of_urn(identifier)
    if identifier[:4] in {"http", "HTTP"}:
        try:
            return _name(parse(identifier))
        except DigitalLinkInvalid:
            return identifier
    return identifier


_kept = lru_cache(maxsize=NAMES_KEPT)(_canonical)


def item_name(identifier: str) -> str | None:
    """The same for an item whose serial is of letters and digits alone, as most things are; None for all others.

    What has such a name is a URI, and a single thing.
    """
    cut = identifier.rfind("." if identifier[:1] == "u" else "/") + 1
    serial = identifier[cut:]
    if cut > _STEM_CHARACTERS_MAX or len(serial) > _SERIAL_CHARACTERS_MAX:
        return None
    if not (serial.isalnum() and serial.isascii()):
        return None
    stem = _stem(identifier[:cut])
    return None if stem is None else stem + serial


def item_names(identifiers: Iterable[object]) -> list[str] | None:
    """The names of things that are all such items, in their order; None where one of them is not."""
    names, begin, stem = [], "", ""
    for identifier in identifiers:
        if not isinstance(identifier, str):
            return None
        # Mostly they are of one product, and begin alike.
        if stem and identifier.startswith(begin):
            serial = identifier[len(begin) :]
            if len(serial) <= _SERIAL_CHARACTERS_MAX and serial.isalnum() and serial.isascii():
                names.append(stem + serial)
                continue
        name = item_name(identifier)
        if name is None:
            return None
        names.append(name)
        cut = max(identifier.rfind("."), identifier.rfind("/")) + 1
        begin, stem = identifier[:cut], name[: cut - len(identifier)]
    return names


@lru_cache(maxsize=NAMES_KEPT)
def _stem(stem: str) -> str | None:
    """What the name of an item begins with, up to its serial; None where no item is named so."""
    if _ITEM_STEM.fullmatch(stem) is None:
        return None
    try:
        return _canonical(f"{stem}0")[:-1]
    except EpcUriInvalid:
        return None


def _name(link: DigitalLink) -> str:
    (ai, value), qualifiers = link.key, link.qualifiers
    if len(qualifiers) > 1 and (finest := _FINEST.get(ai)):
        qualifiers = (min(qualifiers, key=lambda pair: finest.index(pair[0])),)
    name = f"{CANONICAL_STEM}/{written(ai, value)}"
    for pair in qualifiers:
        if pair != ("254", NO_EXTENSION):
            name += f"/{written(*pair)}"
    return name


def _name_of_urn(urn: str) -> str:
    match = _URN.fullmatch(urn) if len(urn) <= URN_CHARACTERS_MAX else None
    if match is None:
        return _not_ours(urn)
    kind, name, body = match.groups()
    if name in _FOREIGN:
        return urn
    if kind == "idpat":
        pattern = _pattern_of_urn(name, body)
        if len(pattern.names) != 1 or (pattern.prefixes and not scheme_of("id", name).has_classes):
            raise EpcUriInvalid(f"a pattern of {name} that stands for no single class names nothing")
        return pattern.names[0]
    scheme = scheme_of(kind, name)
    prefix, reference, *rest = scheme.parts(body)
    serial = scheme.text(rest.pop()) if scheme.has_serial else ""
    return scheme.name_of(prefix, reference, tuple(rest), serial)


def _not_ours(urn: str) -> str:
    if urn[8:].partition(":")[0] in {"id", "idpat", "class"}:
        raise EpcUriInvalid(
            f"an EPC URN reads urn:epc:id:SCHEME:PREFIX.REFERENCE…, at most {URN_CHARACTERS_MAX} characters"
        )
    return urn  # urn:epc:tag, urn:epc:raw: the bits of a tag, not the thing it is on


@dataclass(frozen=True, slots=True)
class Pattern:
    """The names that a MATCH_ parameter of an EPCIS query stands for (EPCIS 2.0, 8.2.7.1).

    A name belongs to the pattern if it is one of `names`, or begins with one of `prefixes` (a prefix may have % and _
    in it: compare ranges rather than LIKE); where `prefixes_decide` is False, `matches` has to look at those that
    begin so once more.
    """

    names: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    prefixes_decide: bool = True
    _shape: re.Pattern[str] | None = None
    _range: tuple[str, str] | None = None

    @property
    def exact(self) -> bool:
        return not self.prefixes

    def matches(self, name: str) -> bool:
        """Tell whether this canonical name belongs to the pattern."""
        if name in self.names:
            return True
        if not name.startswith(self.prefixes):
            return False
        if self.prefixes_decide:
            return True
        match = self._shape.fullmatch(name) if self._shape is not None else None
        if match is None or self._range is None:
            return match is not None
        return _within("".join(match.groups(default="")), *self._range)


def _within(digits: str, low: str, high: str) -> bool:
    if len(low) == len(high) == len(digits):
        return low <= digits <= high
    return all(_is_plain(number) for number in (digits, low, high)) and int(low) <= int(digits) <= int(high)


def _is_plain(number: str) -> bool:
    return number == "0" or not number.startswith("0")


def epc_pattern(text: str) -> Pattern:
    """The pattern that a value of MATCH_epc and its like stands for; EpcUriInvalid where it is malformed.

    - urn:epc:idpat:sgtin:0614141.107346.* (the class itself and every item of it), …:0614141.*.*, …:*.*.*; in the
      place of the last number also a range, [10-99]. From the first * on, all parts are *.
    - a Digital Link with /* for its last value: https://id.gs1.org/01/10614141073464/10/*.
    - the name of a class: the same as its urn:epc:idpat. Any other identifier: that one.
    """
    if not isinstance(text, str):
        raise EpcUriInvalid("a pattern is text")
    match = _URN.fullmatch(text) if len(text) <= URN_CHARACTERS_MAX else None
    if match is not None and match[1] == "idpat" and match[2] not in _FOREIGN:
        return _pattern_of_urn(match[2], match[3])
    if text.endswith("/*") and text[:4] in {"http", "HTTP"}:
        return _pattern_of_link(text)
    name = canonical(text)
    try:
        link = parse(name)
    except DigitalLinkInvalid:
        return Pattern((name,))
    scheme = OF_KEY.get(link.key[0])
    if scheme is None or not scheme.has_classes or link.path_elements > 1:
        return Pattern((name,))
    if not scheme.serial_ai and len(link.key[1]) > scheme.key_digits:
        return Pattern((name,))
    return _class_pattern(scheme, name)


def _class_pattern(scheme: Scheme, name: str) -> Pattern:
    return Pattern((name,), (f"{name}/{scheme.serial_ai}/" if scheme.serial_ai else name,))


def _pattern_of_link(text: str) -> Pattern:
    """Of the values behind one AI, all."""
    above, _, ai = text.removesuffix("/*").rpartition("/")
    element = ELEMENTS.get(ai)
    if element is not None and element.is_key:
        return Pattern((), (f"{CANONICAL_STEM}/{ai}/",))
    try:
        link = parse(above)
    except DigitalLinkInvalid as refused:
        raise EpcUriInvalid(f"before the last part and its *: {refused.message}", hint=refused.hint) from refused
    if link.path_elements > 1 or ai not in {ai for way in ELEMENTS[link.key[0]].qualifiers for ai in way}:
        raise EpcUriInvalid(f"({ai[:4]}) is no qualifier right behind the key of this pattern")
    return Pattern((), (f"{_name(link)}/{ai}/",))


def _pattern_of_urn(name: str, body: str) -> Pattern:
    scheme = scheme_of("id", name)
    parts = scheme.parts(body)
    if "*" in parts and any(part != "*" for part in parts[parts.index("*") :]):
        raise EpcUriInvalid("behind a * in a pattern there may only be more of them")
    if "*" not in parts and (numbers := _RANGE.fullmatch(parts[-1])) is not None:
        return _range_pattern(scheme, parts, numbers[1], numbers[2])
    prefix, reference, *rest = parts
    if parts[-1] != "*":
        serial = scheme.text(rest.pop()) if scheme.has_serial else ""
        return Pattern((scheme.name_of(prefix, reference, tuple(rest), serial),))
    if scheme.has_serial and parts[-2] != "*":
        return _class_pattern(scheme, scheme.name_of(prefix, reference, tuple(rest[:-1]), ""))
    return _open_pattern(scheme, prefix, reference)


def _open_pattern(scheme: Scheme, prefix: str, reference: str) -> Pattern:
    """All of a scheme, or of a company in it, or (ITIP) the pieces of a trade item."""
    begins: tuple[str, ...] = (scheme.key_begins,)
    if reference != "*":
        key = scheme.key(prefix, reference, tuple("0" * length for length in scheme.extra))
        begins = (key[: scheme.key_digits],)
    elif prefix != "*":
        scheme.check_prefix(prefix)
        leads = tuple("0123456789") if scheme.reference_leads else ("",)
        begins = tuple(scheme.key_begins + lead + prefix for lead in leads)
    prefixes = tuple(f"{CANONICAL_STEM}/{scheme.ai}/{begin}" for begin in begins)
    if not ELEMENTS[scheme.ai].qualifiers:
        return Pattern((), prefixes)
    serial = f"(?:/{scheme.serial_ai}/[^/]+)?" if scheme.serial_ai else ""
    shape = re.compile(f"{re.escape(CANONICAL_STEM)}/{scheme.ai}/[^/]+{serial}")
    return Pattern((), prefixes, prefixes_decide=False, _shape=shape)


def _range_pattern(scheme: Scheme, parts: list[str], low: str, high: str) -> Pattern:
    if not scheme.has_serial and not scheme.digits:
        raise EpcUriInvalid(f"{scheme.name} ends in text, which has no ranges")
    if not _within(low, low, high):
        raise EpcUriInvalid("a range goes from a lower to a higher number, both without leading zeros or equally long")
    prefix, reference, *rest = parts
    if scheme.has_serial:
        above = scheme.name_of(prefix, reference, tuple(rest[:-1]), "")
        begin = f"{above}/{scheme.serial_ai}/" if scheme.serial_ai else above
        return Pattern((), (begin,), False, re.compile(re.escape(begin) + "([0-9]{1,20})"), (low, high))
    scheme.check_prefix(prefix)
    if not len(prefix) + len(low) == len(prefix) + len(high) == scheme.digits:
        raise EpcUriInvalid(f"prefix and reference of {scheme.name} are not {scheme.digits} digits together")
    stem = f"{CANONICAL_STEM}/{scheme.ai}/{scheme.key_begins}"
    lead = "([0-9])" if scheme.reference_leads else ""
    shape = re.compile(f"{re.escape(stem)}{lead}{prefix}([0-9]{{{len(low) - bool(lead)}}})[0-9]")
    leads = [str(digit) for digit in range(int(low[0]), int(high[0]) + 1)] if lead else [""]
    return Pattern((), tuple(stem + digit + prefix for digit in leads), False, shape, (low, high))


def to_urn(name: str, company_prefix_digits: int) -> str:
    """The EPC URN of a canonical name, whose company prefix has 6 to 12 digits; EpcUriInvalid where it has none.

    Classes come back as patterns (urn:epc:idpat:sgtin:0614141.107346.*), lots as urn:epc:class:lgtin.
    """
    if not COMPANY_PREFIX_DIGITS_MIN <= company_prefix_digits <= COMPANY_PREFIX_DIGITS_MAX:
        raise EpcUriInvalid(
            f"a company prefix has {COMPANY_PREFIX_DIGITS_MIN} to {COMPANY_PREFIX_DIGITS_MAX} digits in a URN"
        )
    try:
        link = parse(name)
    except DigitalLinkInvalid as refused:
        raise EpcUriInvalid(f"the name is no Digital Link: {refused.message}", hint=refused.hint) from refused
    (ai, value), qualifiers = link.key, link.qualifiers
    scheme = OF_QUALIFIED_KEY.get((ai, qualifiers[0][0])) if qualifiers else OF_KEY.get(ai)
    if scheme is None or len(qualifiers) > 1:
        raise EpcUriInvalid(f"no EPC scheme names a key ({ai}) with these qualifiers")
    parts, serial = scheme.split(value, company_prefix_digits)
    if qualifiers:
        serial = qualifiers[0][1]
    elif scheme.name == "sgln":
        serial = NO_EXTENSION
    kind = "class" if scheme is LGTIN else "id"
    if scheme.has_serial:
        kind, last = (kind, urn_text(serial)) if serial else ("idpat", "*")
        parts.append(last)
    return f"urn:epc:{kind}:{scheme.name}:{'.'.join(parts)}"
