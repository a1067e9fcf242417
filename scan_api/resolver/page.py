"""The list of links as a page: what a browser sees of a thing whose brand gave no page of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from scan_api.resolver.choices import Shelf
from scan_api.resolver.link_sets import as_json_ld
from scan_api.resolver.shelves import OWN_PAGE_QUERY
from scan_api.web.rendering import Html, render
from scan_api.web.views import Language

_WORDS: Final[dict[Language, dict[str, str]]] = {
    "zh": {
        "title": "商品信息",
        "lead": "品牌方为它提供的页面。",
        "none": "品牌方还没有提供更多页面。",
        "unproven": "本页不判断真假。要验证一件商品，请扫它包装上的码。",
    },
    "en": {
        "title": "Product information",
        "lead": "Pages that the brand gives for it.",
        "none": "The brand has given no further pages yet.",
        "unproven": "This page says nothing of whether an item is genuine. To check one, scan the code on its pack.",
    },
}
# What may end the element, and what browsers' readers of HTML take for the beginning of a comment or a script in it.
_ESCAPES: Final = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True)
class LinksView:
    """The page of a thing's links: name and number if known, and (address, title, languages) of each."""

    language: Language
    title: str
    key: str
    links: tuple[tuple[str, str, str], ...]
    words: dict[str, str]


def links_page(link_set: dict[str, Any], shelves: Sequence[Shelf], language: Language) -> Html:
    """The page, with the same link set as JSON-LD in it (GS1-Conformant Resolver Standard 1.2, 2.10)."""
    name = next((shelf.description for shelf in shelves if shelf.description is not None), None)
    words = _WORDS[language]
    shown = {
        link.href: (link.href, link.title, ", ".join(link.languages))
        for shelf in shelves
        for link in shelf.links
        if not link.href.endswith(OWN_PAGE_QUERY)
    }
    ai, value = shelves[-1].level.key
    view = LinksView(language, name or words["title"], f"({ai}) {value}", tuple(shown.values()), words)
    data = json.dumps(as_json_ld(link_set), ensure_ascii=False).translate(_ESCAPES)
    return render("links.html", view, data=Markup(data))  # noqa: S704 -- escaped for where it stands, just now
