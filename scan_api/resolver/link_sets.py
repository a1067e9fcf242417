"""Link sets: all links of a Digital Link's levels, as RFC 9264 has them and with the members that GS1 prescribes.

An anchor is the level's address on this host. It has no signature in it, whatever the request had.
Source: RFC 9264, 4.1 and 4.2; GS1-Conformant Resolver Standard 1.2, 2.9 and 2.10 and its schema of link sets.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from scan_api.resolver import link_types
from scan_api.resolver.choices import Choice, Offered, Shelf

CONTEXT: Final = "https://ref.gs1.org/standards/resolver/linkset-context"
"""What makes JSON-LD of a link set."""
CONTEXT_LINK: Final = f'<{CONTEXT}>; rel="http://www.w3.org/ns/json-ld#context"; type="application/ld+json"'

Entry = dict[str, Any]


def link_set(base_url: str, shelves: Sequence[Shelf]) -> dict[str, list[Entry]]:
    """The link set of these levels, finest first; a level without links is left out."""
    return {"linkset": [_entry(base_url, shelf) for shelf in shelves if shelf.links]}


def choices(base_url: str, choice: Choice) -> dict[str, list[Entry]]:
    """The link set of those that fit a wish equally well."""
    links = [_link(link) for link in choice.links]
    return {"linkset": [{"anchor": base_url + choice.level.path, link_types.uri(choice.link_type): links}]}


def as_json_ld(links: dict[str, list[Entry]]) -> dict[str, Any]:
    """The same as a JSON-LD document."""
    return {"@context": CONTEXT, **links}


def as_text(links: dict[str, list[Entry]]) -> str:
    """The same in the form of a Link header, a link a line (RFC 9264, 4.1; RFC 8288, 3)."""
    lines = []
    for entry in links["linkset"]:
        anchor = entry["anchor"]
        for relation, targets in entry.items():
            if isinstance(targets, list):
                lines += [_as_field(anchor, relation, target) for target in targets]
    return ",\n".join(lines)


def _entry(base_url: str, shelf: Shelf) -> Entry:
    entry: Entry = {"anchor": base_url + shelf.level.path}
    if shelf.description is not None:
        # `description` is its newer name, which clients and tests of before 1.2 take for a link type.
        entry["itemDescription"] = shelf.description
    if (default := shelf.default) is not None:
        # Title and target and nothing else (2.5.8).
        entry[link_types.uri(link_types.DEFAULT)] = [{"href": default.href, "title": default.title}]
    if variants := shelf.variants:
        entry[link_types.uri(link_types.DEFAULT_MULTI)] = [_link(link) for link in variants]
    for link in shelf.links:
        entry.setdefault(link_types.uri(link.link_type), []).append(_link(link))
    return entry


def _link(link: Offered) -> Entry:
    entry: Entry = {"href": link.href, "title": link.title}
    if link.media_type is not None:
        entry["type"] = link.media_type
    if link.languages:
        entry["hreflang"] = list(link.languages)
    if link.contexts:
        entry["context"] = list(link.contexts)
    return entry


def _as_field(anchor: str, relation: str, target: Entry) -> str:
    parts = [f"<{target['href']}>", f'rel="{relation}"', f'anchor="{anchor}"']
    # RFC 8187, 3.2: a title is any text, which a header's parameter may not be.
    parts.append(f"title*=UTF-8''{quote(target['title'], safe='')}")
    if "type" in target:
        parts.append(f'type="{target["type"]}"')
    parts += [f'hreflang="{tag}"' for tag in target.get("hreflang", ())]
    return "; ".join(parts)
