"""The `fanxing link` commands: a brand's links are given, listed and removed."""

import uuid

from tests.scan_api.test_commands import BASE_URL, ON_SQLITE, Terminal, bare, shop
from tests.stand import GTIN

__all__ = ["bare", "shop"]


@ON_SQLITE
def test_links_are_given_listed_and_removed(shop: Terminal) -> None:
    add = f"link add --brand ice /01/{GTIN}/10/L1 https://www.example.cn/{{10}} --title Recall --type gs1:recallStatus"
    given = shop.ask(
        f"{add} --language zh-cn --language en --media-type text/html --context cn --role default "
        "--starts 2026-05-01 --ends 2026-06-01T12:00:00"
    )
    link_id = given["link_id"]
    assert given == {
        "link_id": link_id,
        "digital_link": f"{BASE_URL}/01/{GTIN}/10/L1",
        "type": "gs1:recallStatus",
        "title": "Recall",
        "href": "https://www.example.cn/{10}",
        "languages": ["zh-CN", "en"],
        "media_type": "text/html",
        "contexts": ["CN"],
        "role": "default",
        "valid_from": "2026-05-01T00:00:00.000Z",
        "valid_until": "2026-06-01T12:00:00.000Z",
    }
    again = shop.ask(f"{add} --id {link_id}")
    assert (again["link_id"], again["role"], again["valid_from"]) == (link_id, "plain", None)
    other = shop.ask(f"link add --brand ice urn:epc:id:sgtin:{GTIN[1:8]}.0{GTIN[8:13]}.7 https://a.example/ --title A")
    assert [one["link_id"] for one in shop.ask("link list --brand ice")] == [other["link_id"], link_id]
    assert shop.ask(f"link list --brand ice /01/{GTIN}/21/7") == [other]
    shop.ask(f"link remove --brand ice {link_id}")
    assert shop.ask("link list --brand ice") == [other]
    for line, code in (
        (f"link remove --brand ice {link_id}", "LinkUnknown"),
        (f"link remove --brand ice {uuid.uuid4()}", "LinkUnknown"),
        ("link add --brand ice /01/09501101530003 https://a.example/ --title A", "LevelNotYours"),
        (f"link add --brand ice /01/{GTIN} {BASE_URL}/ --title A", "LinkTargetInvalid"),
        (f"link add --brand ice /01/{GTIN} https://a.example/ --title A --type gs1:nosuch", "LinkTypeInvalid"),
        (f"link add --brand no-such /01/{GTIN} https://a.example/ --title A", "BrandUnknown"),
    ):
        assert shop.refusal(line) == code
