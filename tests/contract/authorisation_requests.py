"""What each route is asked in the authorisation matrix: a request that its owner would be granted.

A value that begins with $ is a thing of `belongings`. Whoever adds a route that takes more than a path without
parameters writes here what to ask it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.contract.asking import Request, form_request, json_request, page_request
from tests.contract.belongings import ADDRESS, EXPORT, LINK, Things
from tests.contract.inhabited import FACE, WEBHOOK_URL
from tests.scan_api.event_sender import CONTEXT, URN, document, seen
from tests.scan_api.test_earning import ENTROPY
from tests.stand import GTIN

# What a parameter of a path is, unless a route says otherwise.
_PARAMETERS = {
    "held_id": "coupon", "webhook_id": "webhook", "campaign_id": "campaign", "benefit_id": "benefit", "rule_id": "rule",
    "redemption_id": "redemption", "purchase_id": "purchase", "capture_id": "capture", "event_id": "event",
    "package_id": "package", "packet_id": "packet", "draw_id": "draw", "program_id": "task", "code": "referral_code",
    "link_id": "link", "query_name": "query", "subscription_id": "subscription", "recall_id": "recall",
    "export_id": "export", "share_id": "share",
}  # fmt: skip
_THING = re.compile(r"\$(\w+)")


@dataclass(frozen=True)
class Ask:
    """A request with things left open: a JSON body, or the fields of a form; `where` says what path parameters are."""

    body: Any = None
    form: Mapping[str, str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    own: bool = False
    """Whether it ends the caller's session or more: then he is a member who asks nothing else."""

    async def request(self, route: str, things: Things) -> Request:
        """The request to a route (`METHOD /path`), with these things."""
        method, path = route.split(" ", 1)
        for name in re.findall(r"{(\w+)}", path):
            thing = self.where.get(name, f"${_PARAMETERS.get(name, name)}")
            value = str(await _filled(thing, things))
            path = path.replace(f"{{{name}}}", quote(value, safe="/" if name.endswith("path") else ""))
        path += self.query
        if self.form is not None:
            return form_request(path, await _filled(dict(self.form), things))
        if method == "GET" and not path.startswith(("/v1/", "/epcis/")) and not path[1:2].isdigit():
            return page_request(path)
        return json_request(method, path, await _filled(self.body, things))


async def _filled(value: Any, things: Things) -> Any:
    if isinstance(value, dict):
        return {name: await _filled(one, things) for name, one in value.items()}
    if isinstance(value, list):
        return [await _filled(one, things) for one in value]
    if not isinstance(value, str):
        return value
    alone = _THING.fullmatch(value)
    if alone and alone[1] in _NUMBERS:
        return int(await things.get(alone[1]))
    for name in _THING.findall(value):
        value = value.replace(f"${name}", await things.get(name))
    return value


_NUMBERS = {"order_number"}
_HELD = {"held_id": "$coupon"}
_RULES = {
    "replaces": 0,
    "tiers": [{"slug": "member", "name_zh": "会员", "name_en": "Member", "card_face": FACE}],
}
_BASKET = {"coupon_code": "$new_coupon_code", "basket_id": "$new_id"}
_EVENT = {"@context": CONTEXT, **seen("A$new_serial")}
_CODE = {"phone": "$new_phone", "brand": "$brand"}
_PLACE = "urn:epc:id:sgln:9506000.00001.dock7"
_CONTAINER, _ITEM = "https://id.gs1.org/00/0950600000000000", f"https://id.gs1.org/01/{GTIN}/21/00014000000007"
_REPORT = {"report_id": "$new_id", "printed": "0-4"}

ASKS: dict[str, Ask] = {
    "GET /metrics": Ask(),
    "GET /{path}": Ask(where={"path": "nothing-is-here"}),
    "HEAD /{path}": Ask(where={"path": "nothing-is-here"}),
    "POST /v1/sign-in/codes": Ask(_CODE),
    "POST /v1/sign-in": Ask(_CODE | {"one_time_code": "000000"}),
    "GET /v1/consent-documents": Ask(query="?brand=star-cream"),
    "DELETE /v1/session": Ask(own=True),
    "POST /v1/claims": Ask({"code_text": "$new_code_text", "campaign_id": "$campaign"}),
    "DELETE /v1/me": Ask({}, own=True),
    "POST /v1/me/sign-out-everywhere": Ask(own=True),
    "POST /v1/me/consents": Ask({"kind": "privacy", "version": "2026-05", "given": True}),
    "PUT /v1/me/birthday": Ask({"month": 5, "day": 4}, own=True),
    "POST /v1/me/merge": Ask({"phone": "$new_phone", "phone_code": "000000"}),
    "POST /v1/me/unmerge": Ask({"merge_id": "$new_id"}),
    "POST /v1/me/benefits": Ask({"benefit_id": "$benefit"}),
    "POST /v1/me/benefits/{held_id}/open": Ask(where={"held_id": "$cash"}),
    "PUT /v1/me/benefits/{held_id}/address": Ask(ADDRESS, where={"held_id": "$goods"}),
    "POST /v1/me/benefits/{held_id}/reservation": Ask({"basket_id": "$new_id"}),
    "DELETE /v1/me/benefits/{held_id}/reservation": Ask(where={"held_id": "$reserved"}),
    "POST /v1/me/check-ins": Ask({"program_id": "$check_in_program"}),
    "POST /v1/me/referral": Ask({"code": "$referral_code"}, own=True),
    "POST /v1/me/referral/links": Ask({"program_id": "$referral_program"}),
    "POST /v1/me/packets": Ask({"program_id": "$packet_program"}),
    "POST /v1/me/draws/{draw_id}/plays": Ask({"entropy": ENTROPY}),
    "POST /v1/brand/events": Ask(
        {"step": "shipped", "gtin": "$gtin", "order_number": "$order_number", "place": "Plant Hangzhou"}
    ),
    "POST /v1/brand/{brand}/deliveries/{held_id}": Ask(
        {"state": "shipped", "carrier": "SF", "tracking": "SF1"}, where={"held_id": "$parcel"}
    ),
    "POST /v1/brand/{brand}/reversals": Ask({"member_id": "$member_id", "held_id": "$coupon"}),
    "PUT /v1/brand/{brand}/tiers": Ask(_RULES),
    "POST /v1/brand/{brand}/earn-rules": Ask({"points_per_yuan_milli": 1_000}),
    "POST /v1/brand/{brand}/webhooks": Ask({"url": WEBHOOK_URL, "kinds": ["claim.made"]}),
    "POST /v1/brand/{brand}/webhooks/{webhook_id}/deliveries/{event_id}/resend": Ask(where={"event_id": "$delivery"}),
    "POST /v1/crm/tasks/{program_id}/completions": Ask({"member_id": "$member_id", "subject": "survey-1"}),
    "POST /v1/shop/redemptions/validate": Ask({"coupon_codes": ["$coupon_code"]}),
    "POST /v1/shop/redemptions": Ask({"coupon_code": "$new_coupon_code"}),
    "POST /v1/shop/redemptions/offline": Ask(
        {
            "redemptions": [
                {"redemption_id": "$new_id", "coupon_code": "$coupon_code", "at": "2026-05-01T08:00:00Z"},
            ]
        }
    ),
    "POST /v1/shop/reservations": Ask(_BASKET),
    "POST /v1/shop/reservations/release": Ask(_BASKET),
    "POST /v1/shop/purchases": Ask({"receipt": "$new_id", "phone": "$phone", "paid_fen": 1_000}),
    "POST /v1/shop/purchases/quote": Ask({"receipt": "$new_id", "phone": "$phone", "paid_fen": 1_000}),
    "POST /v1/shop/purchases/{purchase_id}/refunds": Ask({"refund": "$new_id", "fen": 100}),
    "POST /v1/shop/members/lookup": Ask({"phone": "$phone"}),
    "POST /epcis/capture": Ask(document(seen("A$new_serial"))),
    "POST /epcis/events": Ask(_EVENT),
    "GET /epcis/events": Ask(query="?MATCH_anyEPC=" + quote(URN + "*", safe="")),
    "POST /v1/devices": Ask({"code": "$enrolment_code", "public_key": "$public_key", "name": "till 9"}),
    "POST /v1/devices/{device_id}/scans": Ask(
        {
            "journal": "0123456789abcdef",
            "device_time_ms": 1_780_000_000_000,
            "bundle_seq": 1,
            "root_version": 1,
            "waiting": 0,
            "records": [],
        }
    ),
    "POST /packages/{package_id}/report": Ask(_REPORT),
    "POST /web/package-report": Ask(form=_REPORT | {"package_id": "$package", "fetch_code": "$fetch_code"}),
    "POST /v1/callbacks/{provider}": Ask(
        {"order_id": "$fulfilment_order", "state": "completed", "revision": 1}, where={"provider": "carrier"}
    ),
    "POST /web/sign-in": Ask(form=_CODE),
    "POST /web/confirm": Ask(form=_CODE | {"one_time_code": "000000"}),
    "POST /web/claim": Ask(
        form={"code_text": "$new_code_text", "campaign_id": "$campaign", "idempotency_key": "$new_id"}
    ),
    "POST /web/sign-out": Ask(form={}, own=True),
    "POST /web/show-code": Ask(form=_HELD),
    "POST /web/open": Ask(form={"held_id": "$cash"}),
    "POST /web/address": Ask(form=ADDRESS | {"held_id": "$goods"}),
    "POST /web/obtain": Ask(form={"benefit_id": "$benefit", "points_expected": "100", "idempotency_key": "$new_id"}),
    "POST /web/check-in": Ask(form={"program_id": "$check_in_program"}),
    "POST /web/play": Ask(form={"draw_id": "$draw", "entropy": ENTROPY, "idempotency_key": "$new_id"}),
    "POST /web/share": Ask(form={"program_id": "$referral_program"}),
    "POST /web/join": Ask(form={"code": "$referral_code"}, own=True),
    "POST /web/packet": Ask(form={"program_id": "$packet_program", "idempotency_key": "$new_id"}),
    "POST /web/packet-share": Ask(form={"packet_id": "$packet"}),
    "POST /web/consent": Ask(form={"kind": "privacy", "version": "2026-05", "given": "yes"}),
    "POST /web/sign-out-everywhere": Ask(form={}, own=True),
    "POST /web/prove": Ask(form={"purpose": "erase"}),
    "POST /web/erase": Ask(form={"one_time_code": "000000", "idempotency_key": "$new_id"}),
    "POST /web/merge": Ask(form={"phone": "$new_phone", "phone_code": "000000", "idempotency_key": "$new_id"}),
    "PUT /v1/brand/{brand}/links/{link_id}": Ask(LINK),
    "OPTIONS /epcis/{path}": Ask(where={"path": "events"}),
    "GET /epcis/{resource}": Ask(where={"resource": "bizSteps"}),
    "GET /epcis/{resource}/{name}/events": Ask(where={"resource": "bizSteps", "name": "shipping"}),
    "GET /epcis/{resource}/{name}": Ask(where={"resource": "bizSteps", "name": "shipping"}),
    "POST /epcis/queries": Ask({"name": "q$new_id", "query": {"eventType": ["ObjectEvent"]}}),
    "POST /epcis/queries/{query_name}/subscriptions": Ask(
        {"dest": WEBHOOK_URL, "signatureToken": "0435ojtojt02", "stream": True}
    ),
    "WEBSOCKET /epcis/queries/{query_name}/events": Ask(query="?stream=true"),
    "PUT /epcis/locations": Ask({"locations": [{"location": _PLACE, "attributes": {}}]}),
    "DELETE /epcis/locations/{location}": Ask(where={"location": _PLACE}),
    "GET /log/tile/{path}": Ask(where={"path": "0/000.p/1"}),
    "HEAD /log/tile/{path}": Ask(where={"path": "0/000.p/1"}),
    "GET /log/consistency": Ask(query="?old=1&new=1"),
    "POST /v1/packing": Ask({"action": "add", "parent": _CONTAINER + "77", "children": [_ITEM]}),
    "GET /v1/packing/contents": Ask(query="?thing=" + quote(_CONTAINER + "77", safe="")),
    "GET /v1/packing/containers": Ask(query="?thing=" + quote(_ITEM, safe="")),
    "POST /v1/brand/life": Ask({"act": "hold", "gtin": "$gtin", "order_number": "$order_number", "ranges": "0-1"}),
    "POST /v1/brand/lots": Ask({"gtin": "$gtin", "order_number": "$order_number", "ranges": "0-4", "lot": "L1"}),
    "PUT /v1/brand/sales-regions": Ask({"holder": "North Trade", "regions": ["11"]}),
    "GET /v1/packing/holding": Ask(query="?thing=" + quote(_ITEM, safe="")),
    "GET /v1/packing/present": Ask(query="?place=" + quote(_PLACE, safe="")),
    "GET /v1/trace/{thing}": Ask(where={"thing": "$epc"}),
    "GET /v1/regulator/trace/{thing}": Ask(where={"thing": "$epc"}),
    "GET /v1/regulator/evidence/{thing}": Ask(where={"thing": "$epc"}),
    "GET /v1/evidence/{thing}": Ask(where={"thing": "$epc"}),
    "POST /trace": Ask(form={"thing": "$epc", "key": "fx_nobody"}),
    "GET /v1/regulator/audit": Ask(query="?brand=star-cream"),
    "GET /v1/regulator/statistics": Ask(query="?first=2026-05&last=2026-06"),
    "POST /v1/regulator/recall-orders": Ask(
        {"kind": "order", "subject": "$gtin/$order_number_5", "reason": "Glass.", "deadline": "$new_deadline"}
    ),
    "POST /v1/regulator/exports": Ask(EXPORT),
    "POST /v1/regulator/subscriptions": Ask({"dest": WEBHOOK_URL, "signature_token": "0435ojtojt02"}),
    "DELETE /v1/regulator/subscriptions/{subscription_id}": Ask(where={"subscription_id": "$regulator_subscription"}),
    "GET /v1/regulator/exports/{export_id}/parts/{number}": Ask(where={"number": "1"}),
    "POST /v1/brand/{brand}/recall-orders/{recall_id}/execute": Ask({"already_done": True}),
    "POST /v1/brand/{brand}/recall-orders/{recall_id}/report": Ask({"text": "All are back."}),
    "PUT /v1/brand/{brand}/seats": Ask({"regions": ["6101"]}),
    "PUT /v1/brand/{brand}/places": Ask({"places": [{"place": _PLACE, "region": "610113"}]}),
    "PUT /v1/brand/{brand}/products/{gtin}/categories": Ask({"categories": ["own:food/ice-cream"]}),
    "POST /v1/brand/{brand}/partner-shares": Ask({"partner_id": "$partner_id", "since": "2026-05-01T08:00:00Z"}),
}
