"""For whoever follows a GS1 Digital Link on this host: a redirect, a list of links, and what this resolver is.

The routes of paths themselves are those of `consumer`, which asks here first. A code's signature stands before the key
and is left out of everything that is answered.
Source: GS1-Conformant Resolver Standard 1.2. docs/resolver.md tells what it does here.
"""

import json
import re
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from codes.digital_link import CANONICAL_STEM, parse
from kit.errors import FanxingError
from offline_sdk.verifier import Verdict
from scan_api import page_answers
from scan_api.errors import headers_of, problem_response
from scan_api.resolver import choices, link_sets, link_types, shelves, targets, wishes
from scan_api.resolver.choices import Choice, Shelf
from scan_api.resolver.levels import KEYS, Level, levels_of
from scan_api.resolver.page import links_page
from scan_api.resolver.wishes import Form, Wish
from scan_api.routers import example_of
from scan_api.services import Serve, Services
from scan_api.web.views import Language

DESCRIPTION_PATH: Final = "/.well-known/gs1resolver"
NAME: Final = "Fanxing 繁星"
_SIGNED: Final = re.compile("/[12][0-9]{160}/01/")
_METHODS: Final = "GET, HEAD, OPTIONS"
CORS: Final = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": _METHODS,
    "access-control-expose-headers": "Link, Location",
}
"""Everything here is public, and cookies stay out: browsers send none to where any origin is welcome."""
_PREFLIGHT: Final = {
    **CORS,
    "access-control-allow-headers": "Accept, Accept-Language",
    "access-control-max-age": "86400",
    "allow": _METHODS,
}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {form.value: {} for form in Form}},
    300: {"description": "Links that fit equally well", "content": {form.value: {} for form in Form}},
    307: {"description": "The link that fits best: Location; Link leads to all of them"},
}
"""What the description of a path that may be a Digital Link says besides of a code's verdict."""
_VARY: Final = {"vary": "accept, accept-language"}

router = APIRouter(tags=["resolver"])


def asked(request: Request, path: str) -> bool:
    """Whether a path that begins with a digit is the resolver's to answer, as far as can be told at no cost."""
    if path[1 : path.find("/", 1)] in KEYS:
        return True
    return (
        wishes.asks_for_links(request.scope["query_string"], request.headers.get("accept", ""))
        and _SIGNED.match(path) is not None
    )


async def answer(request: Request, services: Services, path: str) -> Response | None:
    """The answer to a Digital Link, or None where a signed code's verdict is what is asked for.

    307 with the link that fits best, 300 with those that fit alike, 200 with the link set, 400 where the path is no
    Digital Link, 404 where there is no link, or none of the type that is asked for.
    """
    query = request.scope["query_string"].decode("latin-1")
    header = request.headers.get
    wish = wishes.wish_of(query, header("accept", ""), header("accept-language", ""))
    if wish.form is None and wish.link_type in {None, link_types.DEFAULT} and path[1 : path.find("/", 1)] not in KEYS:
        return None
    try:
        response = await _resolved(request, services, path, query, wish)
    except FanxingError as error:
        # Not left to the application, since scripts of other sites may read this refusal, too.
        page = page_answers.wants_page(request)
        response = page_answers.error_page(request, error) if page else problem_response(error)
        response.headers.update(headers_of(error) | _VARY)
    response.headers.update(CORS)
    return response


async def _resolved(request: Request, services: Services, path: str, query: str, wish: Wish) -> Response:
    uri = CANONICAL_STEM + path.removesuffix("/") + (f"?{query}" if query else "")
    link = parse(uri)
    base_url, language = services.settings.base_url, page_answers.language_of(request)
    async with services.database.reading() as session:
        found = await shelves.shelves_of(session, base_url, link, language, services.clock())
    to_links = {"link": _link_to_links(base_url, levels_of(link)[0])}
    if wish.form is not None:
        if not any(shelf.links for shelf in found):
            raise choices.NothingLinked("nothing is linked to this")
        return _listed(link_sets.link_set(base_url, found), found, wish.form, language)
    choice = choices.choose(found, wish)
    if len(choice.links) > 1:
        return _several(base_url, choice, wish, language, to_links)
    location = targets.with_query(choice.links[0].href, query.split("&"))
    return Response(status_code=307, headers={"location": location, **to_links, **_VARY})


def _listed(
    link_set: dict[str, Any], found: tuple[Shelf, ...], form: Form, language: Language, status: int = 200
) -> Response:
    if form is Form.HTML:
        page = page_answers.html_response(links_page(link_set, found, language), language, status)
        page.headers["vary"] = _VARY["vary"]
        return page
    headers = {**_VARY, "content-language": language}
    if form is Form.LINK_SET:
        return Response(link_sets.as_text(link_set), status, headers, form.value)
    content = link_sets.as_json_ld(link_set) if form is Form.JSON_LD else link_set
    if form is not Form.JSON_LD:
        headers["link"] = link_sets.CONTEXT_LINK
    return Response(json.dumps(content, ensure_ascii=False), status, headers, form.value)


def _several(base_url: str, choice: Choice, wish: Wish, language: Language, to_links: dict[str, str]) -> Response:
    form = Form.HTML if wish.page else Form.LINK_SET_JSON
    shelf = Shelf(choice.level, choice.links)
    response = _listed(link_sets.choices(base_url, choice), (shelf,), form, language, 300)
    response.headers.append("link", to_links["link"])
    return response


def _link_to_links(base_url: str, level: Level) -> str:
    """The field that leads to the link set (RFC 8288): of the level, so without anything else that the request had."""
    return f'<{base_url}{level.path}?linkType=linkset>; rel="linkset"; type="application/linkset+json"'


def headers_of_code(services: Services, verdict: Verdict) -> dict[str, str]:
    """What a verdict's answer tells of the links of its item: nothing where the code could not be read."""
    if verdict.gtin is None or verdict.serial is None:
        return CORS
    level = Level((("01", verdict.gtin), ("21", verdict.serial)))
    return {"link": _link_to_links(services.settings.base_url, level), **CORS}


def preflight() -> Response:
    """The answer to OPTIONS, for any path that may be a Digital Link."""
    return Response(status_code=204, headers=_PREFLIGHT)


@router.get(
    DESCRIPTION_PATH,
    summary="Describe the resolver",
    responses=example_of(200, {"resolverRoot": "https://id.example.cn", "supportedPrimaryKeys": ["01"]}),
)
@router.head(DESCRIPTION_PATH, include_in_schema=False)
async def describe(services: Serve) -> JSONResponse:
    """What this resolver can do (GS1-Conformant Resolver Standard 1.2, 3)."""
    return JSONResponse(
        {
            "name": NAME,
            "resolverRoot": services.settings.base_url,
            "supportedPrimaryKeys": sorted(KEYS),
            "supportedLinkType": [{"namespace": link_types.NAMESPACE, "prefix": link_types.PREFIX}],
            "linkTypeDefaultCanBeLinkset": False,
            "supportedContextValuesExternal": [
                {"nameOfList": "ISO 3166-1 alpha-2", "url": "https://www.iso.org/iso-3166-country-codes.html"}
            ],
            "jsonLdContextLocation": link_sets.CONTEXT,
        },
        headers={**CORS, "cache-control": "public, max-age=60"},
    )


@router.options(DESCRIPTION_PATH, include_in_schema=False)
async def describe_preflight() -> Response:
    return preflight()
