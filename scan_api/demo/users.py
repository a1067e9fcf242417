"""The other users' parts of the demonstration, over real HTTP: shopper, shop, and regulator."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx2

from offline_sdk.code_text import PATH_CHARS
from scan_api.auth.api_keys import Role
from scan_api.demo.brand import BRAND, GTIN, MEGABYTES, POINTS, QUANTITY, Brand
from scan_api.demo.group import Group
from scan_api.demo.story import Story

SHOPPER = "13800138000"
_SETTLED_S_MAX = 60


@dataclass
class World:
    """What the users share: the API's address, the brand's handiwork, the codes as read from paper."""

    http: httpx2.Client
    story: Story
    brand: Brand
    group: Group
    outer: list[str]
    inner: list[str]

    def as_machine(self, role: Role) -> dict[str, str]:
        return {"authorization": f"Bearer {self.brand.keys[role]}"}

    def as_member(self, token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    def post(
        self, path: str, body: dict[str, Any], headers: dict[str, str], key: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Move value, under a key of its own unless one is given."""
        answer = self.http.post(path, json=body, headers={**headers, "idempotency-key": key or str(uuid.uuid4())})
        return answer.status_code, answer.json()

    def get(self, path: str, token: str) -> dict[str, Any]:
        """What a member is shown, in English."""
        answer = self.http.get(path, headers={**self.as_member(token), "accept-language": "en"})
        body: dict[str, Any] = answer.json()
        return body

    def scan(self, text: str) -> tuple[int, dict[str, Any]]:
        """Open a code's own URL, as a client that wants JSON."""
        answer = self.http.get(text, headers={"accept": "application/json"})
        return answer.status_code, answer.json()

    def claim(self, token: str, text: str, campaign_id: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        body = {"code_text": text, "campaign_id": campaign_id}
        return self.post("/v1/claims", body, self.as_member(token), key or "")

    def me(self, token: str) -> dict[str, Any]:
        return self.get("/v1/me", token)

    def sign_in(self, phone: str, *, err_first: bool = False) -> str:
        """A session's token, by phone number and one-time code."""
        asked = self.http.post("/v1/sign-in/codes", json={"phone": phone, "brand": BRAND}).json()
        body = {"phone": phone, "brand": BRAND, "one_time_code": asked["development_code"]}
        if err_first:
            wrong = {**body, "one_time_code": "000000" if body["one_time_code"] != "000000" else "111111"}
            refused = self.http.post("/v1/sign-in", json=wrong)
            self.story.expect(
                "a wrong one-time code is refused",
                [400, "OneTimeCodeWrong"],
                [refused.status_code, refused.json()["code"]],
            )
        token: str = self.http.post("/v1/sign-in", json=body).json()["token"]
        return token


def the_goods_move(world: World) -> None:
    """The brand puts the order on sale; the depot ships and receives it."""
    for step, role, place in (
        ("activated", Role.BRAND, "Plant Hangzhou"),
        ("shipped", Role.BRAND, "Plant Hangzhou"),
        ("received", Role.LOGISTICS, "Cold chain depot Hangzhou"),
    ):
        answer = world.http.post(
            "/v1/brand/events",
            json={"step": step, "gtin": GTIN, "order_number": 1, "place": place},
            headers=world.as_machine(role),
        )
        world.story.expect(
            f"the order is {step} at {place}", [201, QUANTITY], [answer.status_code, answer.json().get("items")]
        )


def the_shopper_scans(world: World) -> None:
    """A phone opens the outer code: first scan, then second."""
    status, seen = world.scan(world.outer[0])
    world.story.expect(
        "the outer code is genuine, and this is its first scan",
        [200, "genuine", 1, "Xiaxue Ice Cream Co. 夏雪冰品"],
        [status, seen["verdict"], seen["scan_count"], seen["issuer"]],
    )
    world.story.expect(
        "the page shows where the item comes from",
        ["commissioned", "activated", "shipped", "received", "scanned"],
        [entry["step"] for entry in seen["timeline"]],
    )
    _status, seen = world.scan(world.outer[0])
    world.story.expect("scanned again, the page says so", 2, seen["scan_count"])
    preview = world.http.get(world.outer[0], headers={"user-agent": "Slackbot-LinkExpanding 1.0"})
    _status, seen = world.scan(world.outer[0])
    world.story.expect(
        "a chat's link preview is answered but is no scan", [200, 3], [preview.status_code, seen["scan_count"]]
    )


def the_shopper_is_paid(world: World) -> str:
    """Sign in, claim mobile data three times and points once, and wait for the carrier. Returns the session's token."""
    token = world.sign_in(SHOPPER, err_first=True)
    brand, story = world.brand, world.story
    status, seen = world.scan(world.inner[0])
    open_for_him = sorted(offer["prizes"][0]["kind"] for offer in seen["offers"] if offer["state"] == "open")
    story.expect(
        "the code under the cap offers data and points; looking claims nothing",
        [200, ["mb", "points"]],
        [status, open_for_him],
    )
    statuses = [world.claim(token, text, brand.data_campaign)[0] for text in world.inner[:2]]
    story.expect(f"two inner codes pay {MEGABYTES} MB each", [201, 201], statuses)
    key = str(uuid.uuid4())
    first = world.claim(token, world.inner[2], brand.data_campaign, key)
    story.expect(
        "sent twice by a bad network, a claim is answered alike",
        first,
        world.claim(token, world.inner[2], brand.data_campaign, key),
    )
    status, granted = world.claim(token, world.inner[0], brand.points_campaign)
    story.expect(f"the same code also pays {POINTS} points, once", [201, POINTS], [status, granted.get("balance")])
    status, granted = world.claim(token, world.outer[0], brand.coupon_campaign)
    story.expect("the outer code welcomes with a coupon", [201, True], [status, bool(granted.get("coupon_code"))])
    status, refused = world.claim(token, world.outer[1], brand.data_campaign)
    story.expect("the outer code does not pay mobile data", [409, "ClaimNeedsInnerCode"], [status, refused["code"]])
    story.tell("The carrier loses every third answer and sends others twice; orders keep one id for ever.")
    wanted = {"pending": 0, "delivered": 3 * MEGABYTES}
    deadline = time.monotonic() + _SETTLED_S_MAX
    while (seen := world.me(token))["megabytes"] != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    story.expect("the carrier delivered, and repeats add up", wanted, seen["megabytes"])
    story.expect("one card at the brand, one points account", [1, POINTS], [len(seen["cards"]), seen["points"]])
    return token


def the_cheats_fail(world: World) -> None:
    """A second claim, a forgery, a mangled code, an outer code passed off as an inner one."""
    token, brand, story = world.sign_in("13900139000"), world.brand, world.story
    status, refused = world.claim(token, world.inner[0], brand.data_campaign)
    story.expect("a code that was claimed pays nobody else", [409, "AlreadyClaimed"], [status, refused["code"]])
    genuine = world.inner[5]
    at = len(genuine) - 60
    forged = genuine[:at] + str((int(genuine[at]) + 1) % 10) + genuine[at + 1 :]
    status, seen = world.scan(forged)
    story.expect("a forged code is unknown", [404, "BadSignature"], [status, seen["error"]])
    status, refused = world.claim(token, forged, brand.data_campaign)
    story.expect("a forged code pays nothing", [404, "BadSignature"], [status, refused["code"]])
    status, seen = world.scan(genuine[:-1])
    story.expect("a code that lost a digit is malformed", [400, "Malformed"], [status, seen["error"]])
    status, seen = world.scan(f"{genuine[:-PATH_CHARS]}/2{world.outer[5][-PATH_CHARS + 2 :]}")
    story.expect("an outer code does not become an inner one", [404, "BadSignature"], [status, seen["error"]])


def the_shop_redeems(world: World, token: str) -> None:
    """The shopper shows his coupon at the till, twice."""
    code = world.me(token)["coupons"][0]["code"]

    def redeem() -> tuple[int, dict[str, Any]]:
        return world.post("/v1/shop/redemptions", {"coupon_code": code}, world.as_machine(Role.SHOP))

    status, done = redeem()
    world.story.expect("the coupon is redeemed at the till", [201, 200], [status, done.get("value_fen")])
    status, refused = redeem()
    world.story.expect("shown again, it is refused", [409, "CouponAlreadyRedeemed"], [status, refused["code"]])


def the_regulator_asks(world: World, serial: str) -> None:
    """The history of an item in EPCIS terms, with the regulator's own key and with a shop's."""
    path = f"/v1/regulator/items/{GTIN}/{serial}"
    answer = world.http.get(path, headers=world.as_machine(Role.REGULATOR))
    body = answer.json()
    events = body["epcis"]["epcisBody"]["eventList"]
    world.story.expect(
        "the regulator reads the item's history in EPCIS 2.0",
        [200, ["commissioned", "activated", "shipped", "received", "scanned"]],
        [answer.status_code, [event["fanxing:step"] for event in events][:5]],
    )
    world.story.expect(
        "claims stand in it, without the person", True, any(e["fanxing:step"] == "claimed" for e in events)
    )
    refused = world.http.get(path, headers=world.as_machine(Role.SHOP))
    world.story.expect(
        "a shop's key does not open it", [403, "OutOfScope"], [refused.status_code, refused.json()["code"]]
    )
