"""How a brand keeps its links: by its key, for its own products and company prefixes, within limits."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from scan_api.resolver.links import LINKS_PER_LEVEL_MAX, TITLE_CHARACTERS_MAX, ResolverLink
from scan_api.resolver.targets import HREF_CHARACTERS_MAX
from tests.scan_api.resolver.conftest import Shop
from tests.stand import BRAND, GTIN, OTHER_BRAND, OTHER_GTIN, Stand

ROOT = f"/v1/brand/{BRAND}/links"
SSCC = "/00/095060001343520109"


def listed(shop: Shop, **query: Any) -> dict[str, Any]:
    answer = shop.stand.http.get(ROOT, params={"limit": 100, **query}, headers=shop.stand.key("brand"))
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_a_link_is_kept_as_it_was_given(shop: Shop) -> None:
    link_id = str(uuid.uuid4())
    given = shop.give(
        "/10/L",
        link_id=link_id,
        link_type="https://gs1.org/voc/certificationInfo",
        title=" 有机认证 ",
        languages=["ZH-cn", "en", "en"],
        media_type="Application/PDF",
        contexts=["cn", "DE"],
        role="default",
        valid_from="2026-01-01T00:00:00+08:00",
        valid_until="2199-01-01T00:00:00Z",
    )
    created_at = given.pop("created_at")
    assert given == {
        "link_id": link_id,
        "digital_link": f"{shop.url}/10/L",
        "link_type": "gs1:certificationInfo",
        "title": "有机认证",
        "href": "https://www.example.cn/pip",
        "languages": ["zh-CN", "en"],
        "media_type": "application/pdf",
        "contexts": ["CN", "DE"],
        "role": "default",
        "valid_from": "2025-12-31T16:00:00.000Z",
        "valid_until": "2199-01-01T00:00:00.000Z",
    }
    assert listed(shop, identifier=f"{shop.path}/10/L")["data"] == [{**given, "created_at": created_at}]


def test_a_link_sent_twice_is_kept_once_and_may_be_replaced(shop: Shop) -> None:
    link_id = str(uuid.uuid4())
    first, again = shop.give(link_id=link_id), shop.give(link_id=link_id)
    assert first == again
    moved = shop.give("/21/S", link_id=link_id, title="Moved")
    assert (moved["created_at"], moved["title"]) == (first["created_at"], "Moved")
    assert [one["digital_link"] for one in listed(shop)["data"] if one["link_id"] == link_id] == [f"{shop.url}/21/S"]
    assert shop.get().headers["location"] == f"{shop.url}?linkType=linkset"


def test_a_removed_link_is_gone_at_once(shop: Shop) -> None:
    given = shop.give(role="default")
    path, key = f"{ROOT}/{given['link_id']}", shop.stand.key("brand")
    assert shop.get().headers["location"] == "https://www.example.cn/pip"
    assert shop.stand.http.delete(path, headers=key).status_code == 204
    assert shop.get().headers["location"] == f"{shop.url}?linkType=linkset"
    again = shop.stand.http.delete(path, headers=key)
    assert (again.status_code, again.json()["code"]) == (404, "LinkUnknown")


def test_links_are_listed_in_pages_newest_first(shop: Shop) -> None:
    titles = [shop.give(title=f"Link {number}")["title"] for number in range(3)]
    first = listed(shop, identifier=shop.path, limit=2)
    rest = listed(shop, identifier=shop.path, limit=2, cursor=first["next_cursor"])
    assert [one["title"] for one in first["data"] + rest["data"]] == titles[::-1]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("key", "brand", "status", "code"),
    [
        ("logistics", BRAND, 403, "OutOfScope"),
        ("shop", BRAND, 403, "OutOfScope"),
        ("regulator", BRAND, 403, "OutOfScope"),
        ("revoked", BRAND, 401, "ApiKeyRefused"),
        ("other brand", BRAND, 403, "OutOfScope"),
        ("brand, other GTINs", BRAND, 403, "OutOfScope"),
        ("brand", OTHER_BRAND, 403, "OutOfScope"),
        ("other brand", OTHER_BRAND, 403, "LevelNotYours"),
        ("brand", "no-such-brand", 404, "BrandUnknown"),
    ],
)
def test_only_the_products_own_brand_gives_links(stand: Stand, key: str, brand: str, status: int, code: str) -> None:
    shop = Shop(stand, GTIN)
    answer = shop.put("/10/NOBODYS", key=key, brand=brand)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert listed(shop, identifier=f"{shop.path}/10/NOBODYS")["data"] == []


def test_another_brands_link_is_neither_seen_nor_touched(shop: Shop) -> None:
    given = shop.give()
    path, key = f"/v1/brand/{OTHER_BRAND}/links", shop.stand.key("other brand")
    assert shop.stand.http.get(path, headers=key, params={"identifier": shop.path}).json()["data"] == []
    assert shop.stand.http.delete(f"{path}/{given['link_id']}", headers=key).status_code == 404
    # The same id is another link there.
    mine = {"identifier": f"/01/{OTHER_GTIN}", "link_type": "gs1:pip", "title": "Tea", "href": "https://tea.example/"}
    assert shop.stand.http.put(f"{path}/{given['link_id']}", json=mine, headers=key).status_code == 200
    assert listed(shop, identifier=shop.path)["data"] == [given]
    assert shop.stand.http.delete(f"{path}/{given['link_id']}", headers=key).status_code == 204


def test_a_key_of_some_gtins_touches_no_other_link(shop: Shop) -> None:
    given, key = shop.give(), shop.stand.key("brand, other GTINs")
    assert shop.stand.http.get(ROOT, headers=key).json()["data"] == []
    assert shop.stand.http.delete(f"{ROOT}/{given['link_id']}", headers=key).json()["code"] == "LinkUnknown"
    taking = {"identifier": f"/01/{OTHER_GTIN}", "link_type": "gs1:pip", "title": "x", "href": "https://tea.example/"}
    taken = shop.stand.http.put(f"{ROOT}/{given['link_id']}", json=taking, headers=key)
    assert taken.json()["code"] == "OutOfScope"


def test_other_keys_lie_under_the_companys_prefix_and_belong_to_who_came_first(shop: Shop) -> None:
    shop.give(SSCC)
    assert shop.put(SSCC, key="other brand", brand=OTHER_BRAND).json()["code"] == "LevelTaken"
    for foreign in ("/00/006141411234567890", "/414/4000001000005", "/8004/4012345ABC", "/8003/04012345111118"):
        assert shop.put(foreign).json()["code"] == "LevelNotYours"
    assert shop.put("/8006/012345678905120102").status_code in (400, 403)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"link_type": "pip"}, "LinkTypeInvalid"),
        ({"link_type": "gs1:defaultLink"}, "LinkTypeInvalid"),
        ({"title": ""}, "LinkInvalid"),
        ({"title": " "}, "LinkInvalid"),
        ({"title": "a\nb"}, "LinkInvalid"),
        ({"title": "a\u202eb"}, "LinkInvalid"),
        ({"title": "a\u0000b"}, "LinkInvalid"),
        ({"title": "x" * (TITLE_CHARACTERS_MAX + 1)}, "RequestInvalid"),
        ({"href": "http://www.example.cn/"}, "LinkTargetInvalid"),
        ({"href": "https://" + "x" * HREF_CHARACTERS_MAX}, "RequestInvalid"),
        ({"languages": ["zh-Hans"]}, "LinkInvalid"),
        ({"languages": ["e"]}, "LinkInvalid"),
        ({"languages": ["en\n"]}, "LinkInvalid"),
        ({"languages": ["en"] * 21}, "RequestInvalid"),
        ({"media_type": "text"}, "LinkInvalid"),
        ({"media_type": "text/html; charset=utf-8"}, "LinkInvalid"),
        ({"media_type": 'text/"html'}, "LinkInvalid"),
        ({"contexts": ["XX"]}, "LinkInvalid"),
        ({"contexts": ["China"]}, "LinkInvalid"),
        ({"role": "king"}, "RequestInvalid"),
        ({"valid_from": "2026-05-01T00:00:00Z", "valid_until": "2026-05-01T00:00:00Z"}, "LinkInvalid"),
        ({"valid_from": "2026-05-01T00:00:00"}, "RequestInvalid"),
        ({"identifier": "/17/261231"}, "DigitalLinkInvalid"),
        ({"identifier": "urn:epc:id:sgtin:1.2.3"}, "EpcUriInvalid"),
        ({"identifier": "/01/09506000134352/10/L/21/S"}, "LevelInvalid"),
        ({"another": 1}, "RequestInvalid"),
    ],
)
def test_what_is_no_link_is_refused(stand: Stand, change: dict[str, Any], code: str) -> None:
    answer = Shop(stand, GTIN).put(**change)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_level_has_at_most_100_links(shop: Shop) -> None:
    async def fill(session: Any) -> None:
        row = given | {"level": shop.path, "key": shop.path, "company_digits": shop.gtin[1:], "created_at": now}
        for _ in range(LINKS_PER_LEVEL_MAX - 2):
            session.add(ResolverLink(**row, link_id=uuid.uuid4()))

    now = datetime.now(UTC)
    [first] = [shop.give()]
    [kept] = shop.stand.rows(
        ResolverLink.__table__.select().where(col(ResolverLink.link_id) == uuid.UUID(first["link_id"]))  # type: ignore[attr-defined]
    )
    given = {name: kept._mapping[name] for name in ("brand_id", "link_type", "title", "href", "languages")}
    given |= {"contexts": [], "role": "plain"}
    shop.stand.run(fill)
    last = shop.give()
    answer = shop.put()
    assert (answer.status_code, answer.json()["code"]) == (409, "TooManyLinks")
    shop.give("/10/L")
    shop.give(link_id=last["link_id"], title="Changed")


def test_a_link_counts_in_its_time(shop: Shop) -> None:
    def at(days: float) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    def leads() -> str:
        return shop.get().headers["location"].rpartition("/")[2]

    shop.give(role="default", href="https://www.example.cn/always")
    assert leads() == "always"
    festival = shop.give(role="default", href="https://www.example.cn/festival", valid_from=at(-1), valid_until=at(1))
    shop.give(role="default", href="https://www.example.cn/later", valid_from=at(1))
    shop.give(role="default", href="https://www.example.cn/over", valid_from=at(-9), valid_until=at(-8))
    shop.give(role="default", href="https://www.example.cn/new-but-timeless")
    assert leads() == "festival"
    over = update(ResolverLink).where(col(ResolverLink.link_id) == uuid.UUID(festival["link_id"]))
    shop.stand.execute(over.values(valid_until=datetime.now(UTC)))
    assert leads() == "new-but-timeless"


def test_variables_take_the_requests_values(shop: Shop) -> None:
    shop.give(role="default", href="https://www.example.cn/{01}/{21}?lot={10}")
    later = {"valid_from": "2026-01-01T00:00:00Z", "link_type": "gs1:dpp"}
    shop.give(href="https://www.example.cn/{01}", role="default", **later)
    whole = shop.get("/10/a%2Fb/21/S%261?linkType=gs1:pip").headers["location"]
    assert whole == f"https://www.example.cn/{shop.gtin}/S%261?lot=a%2Fb&linkType=gs1:pip"
    assert shop.get("/10/L").headers["location"] == f"https://www.example.cn/{shop.gtin}"
    assert shop.get("?linkType=gs1:pip").status_code == 404
    [entry] = shop.link_set("/21/..")
    assert [link["href"] for links in entry.values() if isinstance(links, list) for link in links] == [
        f"https://www.example.cn/{shop.gtin}"
    ] * 2


def test_two_who_put_at_once_leave_one_link(new_shop: Callable[[], Shop], stand: Stand) -> None:
    shop, link_id = new_shop(), uuid.uuid4()
    body = {"identifier": shop.path, "link_type": "gs1:pip", "title": "One", "href": "https://www.example.cn/"}
    request = {"url": f"{ROOT}/{link_id}", "json": body, "headers": stand.key("brand")}
    answers = stand.at_once([request] * 8, method="PUT")
    assert {answer.status_code for answer in answers} == {200}
    assert len(listed(shop, identifier=shop.path)["data"]) == 1
