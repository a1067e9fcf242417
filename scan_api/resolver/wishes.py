"""Wishes: what a request to the resolver asks for, read from its query and headers; nothing in them can be wrong.

Sources: GS1-Conformant Resolver Standard 1.2, 2.6 and 2.9; RFC 9110, 12.5.1 and 12.5.4; RFC 4647, 3.4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from scan_api.resolver import link_types

HEADER_CHARACTERS_MAX: Final = 1_000
RANGES_MAX: Final = 32
"""Of one header; browsers send under ten. What comes after them is not looked at."""
CONTEXTS_MAX: Final = 8
_ANY: Final = "*"


class Form(Enum):
    """How a list of links is written."""

    LINK_SET_JSON = "application/linkset+json"
    JSON = "application/json"
    JSON_LD = "application/ld+json"
    LINK_SET = "application/linkset"
    HTML = "text/html"


class Range(NamedTuple):
    """A range of a header in lower case, and its weight in 0..1."""

    value: str
    weight: float


class Fit(NamedTuple):
    """How well a link meets one wish: `grade` 2 is met, 1 not touched, 0 missed, -1 refused."""

    grade: int
    weight: float = 0.0
    exactness: int = 0


_UNTOUCHED: Final = Fit(1)
_MISSED: Final = Fit(0)
_REFUSED: Final = Fit(-1)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for."""

    link_type: str | None = None
    """A bare name, or whatever was written; None: no type in particular."""
    form: Form | None = None
    """All links are asked for, in this form."""
    page: bool = False
    """Answers without a redirect are wanted as pages."""
    media: tuple[Range, ...] = ()
    languages: tuple[Range, ...] = ()
    contexts: frozenset[str] = frozenset()

    def media_fit(self, media_type: str | None) -> Fit:
        if media_type is None or not self.media:
            return _UNTOUCHED
        family = media_type.partition("/")[0] + "/*"
        for exactness, value in ((2, media_type), (1, family), (0, "*/*")):
            found = next((one for one in self.media if one.value == value), None)
            if found is not None:
                if not found.weight:
                    return _REFUSED
                return Fit(2, found.weight, exactness) if exactness else _UNTOUCHED
        return _MISSED

    def language_fit(self, tags: Sequence[str]) -> Fit:
        if not tags:
            return _UNTOUCHED
        if not self.languages:
            return _MISSED
        return max(self._fit_of_tag(tag.lower()) for tag in tags)

    def _fit_of_tag(self, tag: str) -> Fit:
        best = Fit(-2)
        for value, weight in self.languages:
            if value == tag:
                fit = Fit(2, weight, 3)
            elif tag.startswith(value + "-"):  # any kind of this language will do
                fit = Fit(2, weight, 2)
            elif weight and value.startswith(tag + "-"):  # the language, if not this kind of it
                fit = Fit(2, weight, 1)
            else:
                continue
            # What a header says of the tag itself, also that it is refused, counts more than what it says of a family.
            best = max(best, fit, key=lambda one: (one.grade, one.exactness, one.weight))
        if best.grade == 2:
            return best if best.weight else _REFUSED
        anything = next((one.weight for one in self.languages if one.value == _ANY), None)
        return _MISSED if anything is None else _UNTOUCHED if anything else _REFUSED

    def context_fit(self, contexts: Sequence[str]) -> Fit:
        if not contexts:
            return _UNTOUCHED
        return Fit(2) if self.contexts.intersection(contexts) else _MISSED


def wish_of(query: str, accept: str, accept_language: str) -> Wish:
    """The wish of a request. `query` is undecoded and has no question mark; unknown parameters mean nothing.

    An Accept that names a link set wins over `linkType`, and `linkType` over everything else.
    """
    link_type = next(_values(query, "linkType"), None) or None
    contexts = [part.strip().upper() for value in _values(query, "context") for part in value.split(",")]
    media = _ranges(accept)
    form = _form_by_header(media)
    page = any(one.value == Form.HTML.value and one.weight for one in media)
    if form is None and link_type in link_types.LINK_SET:
        form = _form(media)
    return Wish(
        link_types.bare(link_type) if link_type is not None else None,
        form,
        page,
        media,
        _ranges(accept_language),
        frozenset(contexts[:CONTEXTS_MAX]) - {""},
    )


def asks_for_links(query: bytes, accept: str) -> bool:
    """Whether a request for a signed code may want links rather than the verdict; cheap, as every scan asks it."""
    return b"linkType" in query or b"%" in query or "linkset" in accept.lower()


def _form_by_header(media: Sequence[Range]) -> Form | None:
    """The link set that the header names, unless it likes a page better."""
    named = [one for one in media if one.value in {Form.LINK_SET_JSON.value, Form.LINK_SET.value} and one.weight]
    if not named:
        return None
    best = max(named, key=lambda one: one.weight)
    page = max((one.weight for one in media if one.value == Form.HTML.value), default=0.0)
    return Form(best.value) if best.weight >= page else None


def _form(media: Sequence[Range]) -> Form:
    named = [one for one in media if one.weight and one.value in _FORMS]
    return _FORMS[max(named, key=lambda one: one.weight).value] if named else Form.LINK_SET_JSON


_FORMS: Final = {form.value: form for form in Form}


def _values(query: str, name: str) -> Iterator[str]:
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if unquote_plus(key) == name:
            yield unquote_plus(value)


def _ranges(header: str) -> tuple[Range, ...]:
    """The ranges of an Accept or Accept-Language header in their order; parameters but the weight are ignored."""
    found = []
    for part in header[:HEADER_CHARACTERS_MAX].split(",")[:RANGES_MAX]:
        value, *parameters = [piece.strip().lower() for piece in part.split(";")]
        if value:
            found.append(Range(value, _weight(parameters)))
    return tuple(found)


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0
