"""Where links may lead: what a brand may give as a link's address, and what becomes of it in a redirect."""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from codes.gs1.dictionary import ELEMENTS
from kit.errors import Invalid

HREF_CHARACTERS_MAX: Final = 2_000

_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# RFC 3986 without user information, on a named host: an address of numbers is nobody's in particular.
_HREF: Final = re.compile(
    rf"https://((?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?)(:[1-9][0-9]{{0,4}})?"
    r"((?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/{}]*)?(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?{}]*)?"
    r"(?:#[A-Za-z0-9\-._~!$&'()*+,;=:@%/?{}]*)?)"
)
_HOST_CHARACTERS_MAX: Final = 253
_PORT_MAX: Final = 65_535
_VARIABLE: Final = re.compile(r"\{([0-9]{2,4})\}")
_BRACE: Final = re.compile(r"[{}]")
_HALF_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_CODE_LIKE: Final = re.compile("[0-9]{100}")
"""What could be the signature in a code text, 155 digits, or most of it."""
_DECODED_TIMES_MAX: Final = 3


class LinkTargetInvalid(Invalid):
    code = "LinkTargetInvalid"


def check(href: str, base_url: str) -> None:
    """Raises LinkTargetInvalid unless the address is https, on a named host that is not ours, and at most 2,000 long.

    `{AI}` in path, query or fragment stands for the value of that AI in the request. `base_url` is this resolver's:
    a link that leads back to its host could lead in a circle, and the product's own page is there without one.
    Source: GS1-Conformant Resolver Standard 1.2, 2.5.1.
    """
    if len(href) > HREF_CHARACTERS_MAX:
        raise LinkTargetInvalid(f"a link's address has at most {HREF_CHARACTERS_MAX} characters")
    match = _HREF.fullmatch(href)
    if match is None or len(match[1]) > _HOST_CHARACTERS_MAX or int((match[2] or ":1")[1:]) > _PORT_MAX:
        raise LinkTargetInvalid(
            "a link's address is https://, a host's name in lower case, and path, query and fragment as RFC 3986 has "
            "them, without a user's name",
            hint="Percent-encode other characters; write international names of hosts as xn--….",
        )
    if match[1] == urlsplit(base_url).hostname:
        raise LinkTargetInvalid("a link may not lead back to this resolver", hint="Leave it out: products have a page.")
    if _HALF_ESCAPE.search(href):
        raise LinkTargetInvalid("a % in a link's address is followed by two hexadecimal digits")
    variables = _VARIABLE.findall(href)
    if _BRACE.search(_VARIABLE.sub("", href)) or not all(ai in ELEMENTS for ai in variables):
        raise LinkTargetInvalid("braces in a link's address hold an AI, as in {01} or {21}")
    if _holds_signature(href):
        raise LinkTargetInvalid("a link's address may not hold a code's signature")


def filled(href: str, values: Mapping[str, str]) -> str | None:
    """The address with the request's values in the places of its variables; None where the request lacks one.

    Values are escaped whole, and those that browsers would read as steps in a path (`.`, `..`) count as lacking.
    """
    if "{" not in href:
        return href
    for ai in _VARIABLE.findall(href):
        if values.get(ai, ".") in {".", ".."}:
            return None
    return _VARIABLE.sub(lambda match: quote(values[match[1]], safe=""), href)


def with_query(href: str, parts: Iterable[str]) -> str:
    """The address with the parts of the request's query after its own, as they came, before its fragment.

    What might hold a code's signature is left behind. The parts are those of a Digital Link that was read, so they have
    no other characters than a URI's.
    Source: GS1-Conformant Resolver Standard 1.2, 2.12.
    """
    passed = "&".join([part for part in parts if not _holds_signature(part)])
    if not passed:
        return href
    before, hash_mark, fragment = href.partition("#")
    joint = "" if before.endswith(("?", "&")) else "&" if "?" in before else "?"
    return f"{before}{joint}{passed}{hash_mark}{fragment}"


def _holds_signature(text: str) -> bool:
    """Whether a run of digits as long as a signature is in it, plain or escaped, also more than once."""
    for _ in range(_DECODED_TIMES_MAX):
        if _CODE_LIKE.search(text) or "%" not in text:
            break
        text = unquote(text, errors="replace")
    return _CODE_LIKE.search(text) is not None
