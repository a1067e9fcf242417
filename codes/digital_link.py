"""GS1 Digital Link: a web address read as the GS1 identifiers in it, and written in its canonical form.

    https://HOST/ANY/STEM/01/09520123456788/10/ABC/21/12345?17=261231&linkType=gs1:pip
            stem          key              qualifiers       attribute other

The rules are those of the GS1 Digital Link Standard "URI Syntax" (1.6) with the GS1 Syntax Dictionary's table of
Application Identifiers; where the standard leaves room, those of GS1's reference reader, the Barcode Syntax Engine.
docs/digital-link.md tells them.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple, NoReturn
from urllib.parse import quote

from codes.gs1.dictionary import ELEMENTS, SEQUENCES, Element, FaultKind
from kit.errors import Invalid

URI_CHARACTERS_MAX: Final = 8_191
PARTS_MAX: Final = 64
"""Elements and other query pairs together."""
CANONICAL_STEM: Final = "https://id.gs1.org"
FNC1: Final = "^"

# RFC 3986 without userinfo; the form of the host is left to whoever asks it.
_HOST: Final = r"[A-Za-z0-9.:\[\]-]+"
_IN_PATH: Final = r"A-Za-z0-9\-._~:/\[\]@!$&'()*+,;=%"
_URI: Final = re.compile(
    rf"((?:https?|HTTPS?)://{_HOST})(/[{_IN_PATH}]*)(?:\?([{_IN_PATH}?]*))?(?:#([{_IN_PATH}?#]*))?"
)
# One GTIN with a serial number and nothing else, on a bare host or behind our signature: what most links are.
_ITEM: Final = re.compile(
    rf"((?:https?|HTTPS?)://{_HOST}(?:/[0-9]+)?)/01/([0-9]{{14}})/21/([!&'()*+,.0-9:;=A-Z_a-z-]{{1,20}})"
)
_SCHEME: Final = re.compile("(?:https?|HTTPS?)://")
_ILLEGAL: Final = re.compile(rf"[^{_IN_PATH}?#]")
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
# 60 bits or more of the safe base64 alphabet, with all its kinds of characters.
_COMPRESSED: Final = re.compile("(?=[^/]*[0-9])(?=[^/]*[a-z])(?=[^/]*[A-Z])[A-Za-z0-9_-]{10,}")

Pair = tuple[str, str]
"""An AI and its value, decoded."""


class Reason(Enum):
    """Why a text is no Digital Link."""

    NOT_TEXT = "not-text"
    TOO_LONG = "too-long"
    ILLEGAL_CHARACTER = "illegal-character"
    SCHEME = "scheme"
    DOMAIN = "domain"
    NO_KEY = "no-key"
    COMPRESSED = "compressed"
    SEQUENCE = "sequence"
    EMPTY_VALUE = "empty-value"
    NUL = "nul"
    LENGTH = "length"
    CHARACTER = "character"
    CHECK = "check"
    CONTENT = "content"
    UNKNOWN_AI = "unknown-ai"
    NOT_AN_ATTRIBUTE = "not-an-attribute"
    BELONGS_IN_PATH = "belongs-in-path"
    REPEATED = "repeated"
    TOO_MANY_PARTS = "too-many-parts"


class DigitalLinkInvalid(Invalid):
    """The text is no GS1 Digital Link; `reason` tells why, the message where."""

    code = "DigitalLinkInvalid"

    def __init__(self, reason: Reason, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class DigitalLink(NamedTuple):
    """The identifiers that a Digital Link carries, each checked against the GS1 Syntax Dictionary."""

    stem: str
    """Scheme, host, port and whatever path stands before the key, as given."""
    elements: tuple[Pair, ...]
    """Key, qualifiers and attributes in the order given."""
    path_elements: int
    """How many of the elements stand in the path."""
    other_query: tuple[str, ...]
    """The query's other parts, undecoded, for a resolver to pass on."""
    fragment: str | None

    @property
    def key(self) -> Pair:
        return self.elements[0]

    @property
    def qualifiers(self) -> tuple[Pair, ...]:
        return self.elements[1 : self.path_elements]

    @property
    def attributes(self) -> tuple[Pair, ...]:
        return self.elements[self.path_elements :]

    def value(self, ai: str) -> str | None:
        """The value of this AI, None where the link has none."""
        return next((value for known, value in self.elements if known == ai), None)

    def canonical(self) -> str:
        """The link's one canonical form: on id.gs1.org, attributes in the order of their AIs, nothing else of GS1.

        Key and qualifiers keep their order, which the standard fixes; every character but RFC 3986's unreserved ones
        is escaped, in upper-case hexadecimal; other parts of the query and the fragment are left out.
        Source: GS1 Digital Link: URI Syntax, "Canonical GS1 Digital Link URIs" (4.11 in release 1.2).
        """
        uri = CANONICAL_STEM + "".join(
            [f"/{ai}/{_escaped(value)}" for ai, value in self.elements[: self.path_elements]]
        )
        if len(self.elements) == self.path_elements:
            return uri
        return f"{uri}?{'&'.join(f'{ai}={_escaped(value)}' for ai, value in sorted(self.attributes))}"

    def element_string(self) -> str:
        """The same as a GS1 element string, with ^ for FNC1 (General Specifications, 7.8): "^0109520123456788"."""
        text = ""
        fnc1 = FNC1
        for ai, value in self.elements:
            text += fnc1 + ai + value
            fnc1 = "" if ELEMENTS[ai].has_fixed_length else FNC1
        return text

    def missing_and_excluded(self) -> tuple[str, ...]:
        """What the dictionary says of its AIs' company that does not hold, a sentence each; empty when all is well.

        No ground to refuse a link: the dictionary wants such pairings judged over all the symbols of an item together.
        """
        return tuple(_pairings(tuple(ai for ai, _ in self.elements)))


def parse(uri: str) -> DigitalLink:
    """The identifiers in a Digital Link of at most 8,191 characters, on any host; DigitalLinkInvalid if it is none.

    Keys are read from the right, so what stands before the key may look like anything. Compressed links and the
    former words for AIs (/gtin/) are refused, and so are GTINs of fewer than 14 digits. AIs in the query must be
    attributes; other names there are left alone unless all digits.
    """
    if not isinstance(uri, str) or len(uri) > URI_CHARACTERS_MAX:
        _refuse(uri)
    if (item := _ITEM.fullmatch(uri)) is not None:
        stem, gtin, serial = item.groups()
        return DigitalLink(stem, (("01", _checked("01", gtin)), ("21", serial)), 2, (), None)
    if (match := _URI.fullmatch(uri)) is None:
        _refuse(uri)
    host, path, query, fragment = match.groups()
    parts = path.split("/")
    at = len(parts) - 2
    while at > 0 and (element := ELEMENTS.get(parts[at])) is not None and not element.is_key:
        at -= 2
    if at <= 0 or element is None:
        _refuse_keyless(parts[-1])
    names = tuple(parts[at::2])
    if names not in SEQUENCES:
        raise DigitalLinkInvalid(
            Reason.SEQUENCE,
            f"({names[0]}) in the path may not be followed by {' '.join(f'({ai})' for ai in names[1:])}, in this order",
            hint=_ways(ELEMENTS[names[0]]),
        )
    elements = tuple([(ai, _checked(ai, parts[at + 2 * i + 1])) for i, ai in enumerate(names)])
    stem = host + "/".join(parts[:at]) if at > 1 else host
    if not query:
        return DigitalLink(stem, elements, len(names), (), fragment)
    attributes, others = _read_query(query, names)
    return DigitalLink(stem, elements + attributes, len(names), others, fragment)


def _checked(ai: str, raw: str) -> str:
    """The value behind this AI, unescaped; a stray % stands for itself, as GS1's reader has it."""
    if not raw:
        raise DigitalLinkInvalid(Reason.EMPTY_VALUE, f"the value of AI ({ai}) is empty")
    if "%" in raw:
        raw = _ESCAPE.sub(_character, raw)
        if "\0" in raw:
            raise DigitalLinkInvalid(Reason.NUL, f"the value of AI ({ai}) has a NUL in it")
    fault = ELEMENTS[ai].fault(raw)
    if fault is not None:
        raise DigitalLinkInvalid(_REASONS[fault.kind], f"the value of AI ({ai}): {fault.what}")
    return raw


def _read_query(query: str, names: tuple[str, ...]) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    attributes: list[Pair] = []
    others: list[str] = []
    seen = set(names)
    for part in query.split("&"):
        ai, equals, raw = part.partition("=")
        if not part:
            continue
        if len(seen) + len(others) >= PARTS_MAX:
            raise DigitalLinkInvalid(Reason.TOO_MANY_PARTS, f"the link has more than {PARTS_MAX} parts")
        if not equals or (ai and not ai.isdigit()):
            others.append(part)
            continue
        _check_attribute(ai, seen, names)
        seen.add(ai)
        # A form's way of writing a space, which no AI may have.
        attributes.append((ai, _checked(ai, raw.replace("+", " "))))
    return tuple(attributes), tuple(others)


def _check_attribute(ai: str, seen: set[str], names: tuple[str, ...]) -> None:
    element = ELEMENTS.get(ai)
    if element is None:
        raise DigitalLinkInvalid(
            Reason.UNKNOWN_AI,
            f"the query has {ai[:5] or 'an empty name'}, which is no AI",
            hint="names of parameters that are not AIs need a character that is no digit",
        )
    if ai in seen:
        raise DigitalLinkInvalid(Reason.REPEATED, f"AI ({ai}) is there twice")
    if not element.is_attribute:
        raise DigitalLinkInvalid(Reason.NOT_AN_ATTRIBUTE, f"AI ({ai}) may not stand in the query")
    if any((*names[:i], ai, *names[i:]) in SEQUENCES for i in range(1, len(names) + 1)):
        raise DigitalLinkInvalid(
            Reason.BELONGS_IN_PATH, f"AI ({ai}) is a qualifier of ({names[0]}) here", hint="write it into the path"
        )


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))


def written(ai: str, value: str) -> str:
    """An AI and its value as they stand in a path, without the slash before them."""
    return f"{ai}/{_escaped(value)}"


def _escaped(value: str) -> str:
    return value if value.isalnum() else quote(value, safe="")


_REASONS: Final = {
    FaultKind.LENGTH: Reason.LENGTH,
    FaultKind.CHARACTER: Reason.CHARACTER,
    FaultKind.CHECK: Reason.CHECK,
    FaultKind.CONTENT: Reason.CONTENT,
}


def _refuse(uri: object) -> NoReturn:
    """Tell what keeps a text from being a web address of the right form; the quick way has found that it is not."""
    if not isinstance(uri, str):
        raise DigitalLinkInvalid(Reason.NOT_TEXT, "a Digital Link is text")
    if len(uri) > URI_CHARACTERS_MAX:
        raise DigitalLinkInvalid(Reason.TOO_LONG, f"the link has more than {URI_CHARACTERS_MAX} characters")
    if illegal := _ILLEGAL.search(uri):
        raise DigitalLinkInvalid(
            Reason.ILLEGAL_CHARACTER,
            f"character {illegal.start() + 1} may not stand in a URI",
            hint="percent-encode it, as RFC 3986 says",
        )
    if _SCHEME.match(uri) is None:
        raise DigitalLinkInvalid(Reason.SCHEME, "the link does not begin with https:// or http://")
    raise DigitalLinkInvalid(Reason.DOMAIN, "the link has no host that a path follows, or a character no host may have")


def _refuse_keyless(last: str) -> NoReturn:
    if _COMPRESSED.fullmatch(last):
        raise DigitalLinkInvalid(
            Reason.COMPRESSED,
            "the path has no GS1 key, and its last part reads like a compressed link",
            hint="decompress it first",
        )
    raise DigitalLinkInvalid(
        Reason.NO_KEY,
        "the path does not end in a GS1 key and its qualifiers, such as /01/GTIN/21/SERIAL",
        hint="AIs are written as digits, each followed by its value",
    )


def _ways(key: Element) -> str:
    if not key.qualifiers:
        return f"({key.ai}) has no qualifiers"
    return " or ".join(" ".join(f"({ai})" for ai in way) for way in key.qualifiers) + ", each at most once"


def _pairings(names: tuple[str, ...]) -> Iterator[str]:
    for ai in names:
        element = ELEMENTS[ai]
        for group in element.required:
            if not any(all(_present(pattern, ai, names) for pattern in way.split("+")) for way in group):
                yield f"AI ({ai}) needs {' or '.join(group)} beside it"
        for pattern in element.excluded:
            if _present(pattern, ai, names):
                yield f"AI ({ai}) may not stand beside {pattern}"


def _present(pattern: str, itself: str, names: tuple[str, ...]) -> bool:
    prefix = pattern.rstrip("n")
    return any(len(ai) == len(pattern) and ai.startswith(prefix) and ai != itself for ai in names)
