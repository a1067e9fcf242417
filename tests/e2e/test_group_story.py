"""The case that this project was founded on, told through what everybody may use: the API and the `fanxing` command.

A group has an ice cream, a tea and a bakery. Points are the group's; cards, tiers and benefits are each brand's.
Everybody here does only what he could do in earnest: customers hold a phone, tills and brands a key of their own, the
group's office the command line.
"""

import csv
import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from offline_sdk.gtin import check_digit
from tests.cli import invoke
from tests.stand import PREFIX, MakeStand, Stand

GROUP = "Northern Larder"
ICE, TEA, BREAD = "aurora", "lotus", "harvest"
NAMES = {ICE: ("极光雪糕", "Aurora"), TEA: ("莲叶茶", "Lotus"), BREAD: ("丰收面包", "Harvest")}
NIGHT = {"colours": ["#1e1b4b", "#312e81"], "text_colour": "#ffffff", "pattern": "stars"}
GOLD = {"colours": ["#713f12"], "text_colour": "#ffffff", "pattern": "lattice"}
LEAF = {"colours": ["#14532d"], "text_colour": "#ffffff", "pattern": "waves"}
JADE = {"colours": ["#134e4a"], "text_colour": "#ffffff", "pattern": "plain"}
ITEMS, CROWD = 10, 10
"""Fewer than ten members are nobody's business: flows would not show them."""
ADDRESS = {
    "name": "梅",
    "phone": "+8613800138000",
    "region": "山东省青岛市",
    "line": "香港中路 1 号",
    "postcode": "266000",
}


@dataclass
class Shopper:
    """A customer with a phone; `token` once signed in."""

    stand: Stand
    phone: str
    token: str = ""

    def sign_in(self, brand: str) -> dict[str, Any]:
        sent = self.stand.http.post("/v1/sign-in/codes", json={"phone": self.phone, "brand": brand})
        assert sent.status_code == 202, sent.text
        proof = {"phone": self.phone, "brand": brand, "one_time_code": sent.json()["development_code"]}
        answer: dict[str, Any] = self.stand.http.post("/v1/sign-in", json=proof).json()
        self.token = answer["token"]
        return answer

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept-Language": "en"}

    def get(self, path: str) -> dict[str, Any]:
        answer = self.stand.http.get(f"/v1/me{path}", headers=self._headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ask(self, path: str, body: dict[str, Any], method: str = "POST") -> httpx2.Response:
        headers = {**self._headers, "Idempotency-Key": str(uuid.uuid4())}
        return self.stand.http.request(method, path, json=body, headers=headers)

    def claim(self, code_path: str, campaign_id: str) -> httpx2.Response:
        return self.ask("/v1/claims", {"code_text": self.stand.text(code_path), "campaign_id": campaign_id})

    def buy_benefit(self, benefit_id: str) -> httpx2.Response:
        return self.ask("/v1/me/benefits", {"benefit_id": benefit_id, "points_expected": 100})

    @property
    def points(self) -> int:
        return int(self.get("")["points"])

    def card(self, brand: str) -> dict[str, Any]:
        return next(card for card in self.get("/cards")["cards"] if card["brand"] == brand)


@dataclass
class House:
    """The group: its office at the command line, its tills and brands with their keys."""

    stand: Stand
    folder: Path
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    codes: dict[tuple[str, str], Iterator[str]] = field(default_factory=dict)
    """Paths of the codes of each brand, by face, in one order of items."""
    made: dict[str, str] = field(default_factory=dict)
    """Ids of campaigns, benefits and programs."""
    _receipts: Iterator[int] = field(default_factory=itertools.count)

    def fanxing(self, *words: str) -> dict[str, Any]:
        """A command of the office."""
        settings = {"HOME": str(self.stand.home), "DATABASE_URL": self.stand.database_url}
        environment = {f"FANXING_{name}": value for name, value in settings.items()}
        done = invoke([*words, "--json"], environment)
        assert done.exit_code == 0, done.output + repr(done.exception)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def call(self, role: str, brand: str, path: str, body: dict[str, Any], method: str = "POST") -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.keys[role, brand]}", "Idempotency-Key": str(uuid.uuid4())}
        return self.stand.http.request(method, path, json=body, headers=headers)

    def look(self, brand: str, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.keys['brand', brand]}"}
        answer = self.stand.http.get(f"/v1/brand/{brand}/{path}", headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def sell(self, brand: str, phone: str, paid_fen: int) -> dict[str, Any]:
        """A till rings up a purchase."""
        body = {"receipt": f"{brand}-{next(self._receipts):04d}", "phone": phone, "paid_fen": paid_fen}
        answer = self.call("shop", brand, "/v1/shop/purchases", body)
        assert answer.status_code == 201, answer.text
        sold: dict[str, Any] = answer.json()
        return sold

    def shopper(self) -> Shopper:
        return Shopper(self.stand, self.stand.new_phone())

    def item(self, brand: str) -> tuple[str, str]:
        """The outer and the inner code of an item from the shelf."""
        return next(self.codes[brand, "outer"]), next(self.codes[brand, "inner"])


@pytest.fixture
def house(make_stand: MakeStand, tmp_path: Path) -> House:
    """The group with its brands, before any customer has come; with a second group, `/me` must ask for which."""
    stand = make_stand()
    stand.server.start()
    made = House(stand, tmp_path)
    for number, (brand, (name_zh, name_en)) in enumerate(NAMES.items()):
        names = ("--name-zh", name_zh, "--name-en", name_en)
        made.fanxing("brand", "create", "--slug", brand, "--issuer", "Stand Dairy", "--group", GROUP, *names)
        for role in ("shop", "brand"):
            key = made.fanxing("api-key", "create", "--role", role, "--label", f"{brand} {role}", "--brand", brand)
            made.keys[role, brand] = key["api_key"]
        if brand != TEA:  # which is poured, not packed
            _order_codes(made, brand, number, names)
    _set_tiers_and_earning(made)
    _offer_benefits(made)
    return made


def _order_codes(house: House, brand: str, number: int, names: tuple[str, ...]) -> None:
    body = f"0{PREFIX}{70_000 + number:05d}"
    gtin = f"{body}{check_digit(body)}"
    out = house.folder / brand
    house.fanxing("product", "create", "--brand", brand, "--gtin", gtin, *names)
    faces = ("--face", "outer", "--face", "inner", "--export", "csv", "--out", str(out), "--workers", "1")
    house.fanxing("order", "create", "--gtin", gtin, "--quantity", str(ITEMS), *faces)
    house.fanxing("order", "activate", "--gtin", gtin, "--order", "1")
    for face in ("outer", "inner"):
        with (out / f"{face}.csv").open(encoding="ascii", newline="") as file:
            texts = [row["code_text"] for row in csv.DictReader(file)]
        house.codes[brand, face] = (text[text.index("/", len("https://")) :] for text in texts)


def _set_tiers_and_earning(house: House) -> None:
    """Each brand has a ladder and faces of its own, and gives points at a rate of its own."""
    ladders = {
        ICE: [
            _tier("member", "会员", NIGHT),
            _tier("silver", "银卡", NIGHT, experience=500),
            _tier("gold", "金卡", GOLD, experience=2_000),
        ],
        TEA: [_tier("guest", "茶客", LEAF), _tier("friend", "茶友", JADE, purchases=2)],
    }
    for brand, tiers in ladders.items():
        rules = {"replaces": 0, "window_months": 12, "experience_per_purchase": 10, "experience_per_yuan": 1}
        made = house.call("brand", brand, f"/v1/brand/{brand}/tiers", {**rules, "tiers": tiers}, "PUT")
        assert made.status_code == 200, made.text
        house.fanxing("tier", "earn-add", "--brand", brand, "--points-per-yuan-milli", "1000")
    house.fanxing("ledger", "policy", "--group", GROUP, "--debt", "1000")


def _tier(slug: str, name_zh: str, face: dict[str, Any], **needs: int) -> dict[str, Any]:
    return {"slug": slug, "name_zh": name_zh, "name_en": slug.title(), "card_face": face, "needs": needs}


def _offer_benefits(house: House) -> None:
    today = datetime.now(UTC).date()
    period = ("--starts", str(today - timedelta(days=1)), "--ends", str(today + timedelta(days=60)))

    def benefit(name: str, brand: str, kind: str, name_zh: str, *words: str) -> None:
        names = ("--name-zh", name_zh, "--name-en", name, "--stock", "50")
        made = house.fanxing("benefit", "create", "--brand", brand, "--kind", kind, *names, *period, *words)
        house.made[name] = made["benefit_id"]

    def campaign(name: str, brand: str, *words: str) -> None:
        made = house.fanxing(
            *("campaign", "create", "--brand", brand, "--title-zh", name, "--title-en", name, *period, *words)
        )
        house.made[name] = made["campaign_id"]

    # The same 100 points: ¥10 for everybody, ¥200 from gold (the third tier) up.
    month = ("--valid-days", "30")
    coupon = ("--value-fen", "1000", "--cost-fen", "600", *month, "--price", "0:100")
    benefit("¥10 off", ICE, "coupon", "十元券", *coupon)
    goods = ("--value-fen", "20000", "--cost-fen", "9000", *month, "--price", "2:100")
    benefit("Ice cream set", ICE, "goods", "雪糕礼盒", *goods)
    online = ("--value-fen", "500", "--cost-fen", "300", *month)
    benefit("Online coupon", BREAD, "coupon", "线上券", *online)
    campaign("Scan for points", ICE, "--face", "inner", "--prize", "points", "--amount", "20", "--budget", "2000")
    gift = ("--prize", "benefit", "--benefit", house.made["Online coupon"], "--amount", "1", "--budget", "20")
    campaign("Welcome", BREAD, "--face", "outer", *gift, "--member-limit", "1")
    rules = json.dumps({"points": 10, "bonuses": {}, "cycle_days": None, "device_day": None})
    daily = ("--kind", "check_in", "--title-zh", "签到", "--title-en", "Daily", *period[:2])
    house.made["Daily"] = house.fanxing("earning", "create", "--brand", ICE, *daily, "--rules", rules)["program_id"]


def test_the_story_of_a_group_and_its_three_brands(house: House) -> None:
    mei, bo = house.shopper(), house.shopper()
    _an_old_customer_is_known_at_once(house, mei)
    _a_new_one_is_not_and_joins(house, bo)
    _an_item_pays_once(house, bo)
    _the_till_pays_and_lifts_him_at_its_own_brand_alone(house, bo)
    _the_same_points_are_worth_what_the_tier_makes_of_them(house, mei, bo)
    _who_scans_in_the_shop_takes_a_coupon_home(house)
    _a_coupon_is_checked_off_at_the_till_and_counted(house, bo)
    _who_never_signed_in_finds_what_he_bought(house)
    _the_group_sees_where_points_go(house)
    _who_sends_it_back_gives_back_what_it_brought(house, bo)
    # It would end with 1, and say what contradicts what.
    assert house.fanxing("ledger", "verify")["entries"] > 0


def _an_old_customer_is_known_at_once(house: House, mei: Shopper) -> None:
    """The ice cream brings its offline CRM. Mei is in it, and does not even begin at the ice cream."""
    file = house.folder / "crm.csv"
    file.write_text(f"手机号,姓名,积分,经验值,等级\n{mei.phone},梅,300,2600,金卡\n", encoding="utf-8")
    brought = house.fanxing("crm", "import", str(file), "--brand", ICE)
    assert (brought["new_members"], brought["bad_rows"], brought["points"]) == (1, 0, 300)
    assert mei.sign_in(TEA)["is_new"] is False
    assert mei.points == 300  # the group's, so the tea house sees them
    assert mei.card(ICE)["tier"]["slug"] == "gold"
    assert mei.card(ICE)["counted"]["experience"] == 2_600
    # The same file once more, as it happens to people, brings nothing.
    assert house.fanxing("crm", "import", str(file), "--brand", ICE)["already_imported"] is True
    assert mei.points == 300


def _a_new_one_is_not_and_joins(house: House, bo: Shopper) -> None:
    assert bo.sign_in(ICE)["is_new"] is True
    assert (bo.points, bo.get("")["coupons"]) == (0, [])


def _an_item_pays_once(house: House, bo: Shopper) -> None:
    """Outside the code proves the item; the one under the lid pays."""
    outer, inner = house.item(ICE)
    seen = house.stand.scan(outer).json()
    assert (seen["verdict"], seen["product"]["brand"]) == ("genuine", ICE)
    [offer] = seen["offers"]
    assert (offer["state"], offer["campaign_id"]) == ("needs_inner_code", house.made["Scan for points"])
    paid = bo.claim(inner, offer["campaign_id"]).json()
    assert (paid["prize"], paid["balance"]) == ({"kind": "points", "amount": 20}, 20)
    again = bo.claim(inner, offer["campaign_id"])
    assert (again.status_code, again.json()["code"], again.json()["by_you"]) == (409, "AlreadyClaimed", True)
    # Points come from more than purchases: he also checks in for the day.
    assert bo.ask("/v1/me/check-ins", {"program_id": house.made["Daily"]}).json()["balance"] == 30


def _the_till_pays_and_lifts_him_at_its_own_brand_alone(house: House, bo: Shopper) -> None:
    """Two cups of tea: points into the one balance, experience and a tier at the tea house only."""
    first = house.sell(TEA, bo.phone, 3_500)
    assert (first["points"], first["balance"], first["tier"], first["is_new"]) == (35, 65, "guest", True)
    second = house.sell(TEA, bo.phone, 3_500)
    assert (second["balance"], second["tier"]) == (100, "friend")
    house.made["second cup"] = second["purchase_id"]
    tea, ice = bo.card(TEA), bo.card(ICE)
    assert (tea["tier"]["slug"], ice["tier"]["slug"]) == ("friend", "member")
    assert tea["counted"] == {"purchases": 2, "fen": 7_000, "experience": 90}
    assert ice["counted"]["purchases"] == 0
    # Cards look different from brand to brand, and from tier to tier.
    assert (tea["tier"]["card_face"], ice["tier"]["card_face"]) == (JADE, NIGHT)
    came = [(row["reason"], row["brand"], row["amount"]) for row in bo.get("/points")["data"]]
    assert came[:2] == [("purchase", TEA, 35)] * 2
    assert sum(amount for _reason, _brand, amount in came) == bo.points == 100


def _the_same_points_are_worth_what_the_tier_makes_of_them(house: House, mei: Shopper, bo: Shopper) -> None:
    """100 points: a set worth ¥200 for gold, a coupon worth ¥10 for everybody else."""
    refused = bo.buy_benefit(house.made["Ice cream set"])
    assert (refused.status_code, refused.json()["code"]) == (409, "BenefitNotForTier")
    assert bo.points == 100
    ten_off = bo.buy_benefit(house.made["¥10 off"]).json()
    assert (ten_off["points_paid"], ten_off["value_fen"], bo.points) == (100, 1_000, 0)
    house.made["Bo's coupon"] = ten_off["code"]
    the_set = mei.buy_benefit(house.made["Ice cream set"]).json()
    assert (the_set["points_paid"], the_set["value_fen"], mei.points) == (100, 20_000, 200)
    # Points that she was given as an ice cream's customer bought it; a thing goes to an address.
    sent = mei.ask(f"/v1/me/benefits/{the_set['held_id']}/address", ADDRESS, "PUT")
    assert sent.json()["state"] == "reserved"
    parcel = {"state": "shipped", "carrier": "SF", "tracking": "SF1"}
    for step in (parcel, {"state": "delivered"}):
        moved = house.call("brand", ICE, f"/v1/brand/{ICE}/deliveries/{the_set['held_id']}", step)
        assert moved.status_code == 200, moved.text
    [mine] = [held for held in mei.get("/benefits")["data"] if held["held_id"] == the_set["held_id"]]
    assert mine["state"] == "redeemed"
    # Nothing of the tea's or the bakery's is for points: what is on offer differs from brand to brand.
    offered = {
        brand: [one["name"]["en"] for one in house.stand.http.get(f"/v1/brands/{brand}/benefits").json()["data"]]
        for brand in NAMES
    }
    assert offered == {ICE: ["Ice cream set", "¥10 off"], TEA: [], BREAD: []}


def _who_scans_in_the_shop_takes_a_coupon_home(house: House) -> None:
    """Scan at the shelf, join, and have a coupon for the online shop at once; the online shop takes it."""
    dai = house.shopper()
    outer, _inner = house.item(BREAD)
    [offer] = house.stand.scan(outer).json()["offers"]
    assert (offer["state"], offer["prizes"][0]["kind"]) == ("open", "benefit")
    assert dai.sign_in(BREAD)["is_new"] is True
    given = dai.claim(outer, offer["campaign_id"])
    assert given.status_code == 201, given.text
    assert dai.card(BREAD)["card_number"] == given.json()["card_number"]
    basket, code = str(uuid.uuid4()), given.json()["coupon_code"]
    [coupon] = dai.get("")["coupons"]
    assert (coupon["code"], coupon["value_fen"]) == (code, 500)
    kept = house.call("shop", BREAD, "/v1/shop/reservations", {"coupon_code": code, "basket_id": basket})
    assert (kept.status_code, kept.json()["state"]) == (200, "reserved")
    paid = house.call("shop", BREAD, "/v1/shop/redemptions", {"coupon_code": code, "basket_id": basket})
    assert paid.status_code == 201, paid.text
    # One welcome a member: the next item has none for her.
    other, _ = house.item(BREAD)
    assert dai.claim(other, offer["campaign_id"]).json()["code"] == "MemberLimitReached"


def _a_coupon_is_checked_off_at_the_till_and_counted(house: House, bo: Shopper) -> None:
    """核销: looked at, redeemed once, and every step counted, from the stock to the return visit."""
    code = house.made["Bo's coupon"]
    foreign = house.call("shop", TEA, "/v1/shop/redemptions", {"coupon_code": code})
    assert foreign.status_code == 404  # the tea house knows no coupons of the ice cream
    [seen] = house.call("shop", ICE, "/v1/shop/redemptions/validate", {"coupon_codes": [code]}).json()["coupons"]
    assert (seen["refusal"], seen["value_fen"]) == (None, 1_000)
    assert house.call("shop", ICE, "/v1/shop/redemptions", {"coupon_code": code}).status_code == 201
    again = house.call("shop", ICE, "/v1/shop/redemptions", {"coupon_code": code})
    assert (again.status_code, again.json()["code"]) == (409, "CouponAlreadyRedeemed")
    deal = house.sell(ICE, bo.phone, 2_600)
    assert (deal["points"], deal["balance"], deal["tier"]) == (26, 26, "member")
    counted = house.look(ICE, f"benefits/{house.made['¥10 off']}/report")
    life = ("procured", "stock", "issued", "claimed", "redeemed", "visits", "deals", "deal_fen", "points_spent")
    assert [counted[step] for step in life] == [50, 49, 1, 1, 1, 1, 1, 2_600, 100]
    # A return visit is one on another day, and this day is not over.
    assert (counted["return_visits"], counted["cost_fen"]) == (0, 600)


def _who_never_signed_in_finds_what_he_bought(house: House) -> None:
    """A till knows no more than a number. Whoever proves later that it is his has all that was bought under it."""
    lin = house.shopper()
    assert house.sell(TEA, lin.phone, 5_000)["balance"] == 50
    assert house.sell(ICE, lin.phone, 4_000)["balance"] == 90
    assert lin.sign_in(TEA)["is_new"] is False
    assert lin.points == 90
    assert lin.card(TEA)["counted"]["fen"] == 5_000
    assert lin.card(ICE)["counted"]["fen"] == 4_000


def _the_group_sees_where_points_go(house: House) -> None:
    """Points that the tea house gave are spent on ice cream: one balance moves across brands, and leaves a path."""
    for _ in range(CROWD):
        one = house.shopper()
        house.sell(TEA, one.phone, 10_000)
        house.sell(ICE, one.phone, 100)
        one.sign_in(ICE)
        assert one.buy_benefit(house.made["¥10 off"]).status_code == 201
    seen = house.look(ICE, "flows")
    # The crowd, and Bo, of whose 100 points 70 came from the tea house.
    assert {"earned_at": TEA, "spent_at": ICE, "points": CROWD * 100 + 70, "members": CROWD + 1} in seen["flows"]
    # Two members are too few to be shown: what Mei and Bo got from the ice cream itself.
    assert {"earned_at": ICE, "spent_at": ICE, "points": None, "members": None} in seen["flows"]
    [both] = [row for row in seen["shared"] if set(row["brands"]) == {ICE, TEA}]
    assert both["members"] >= CROWD
    assert house.fanxing("tier", "flows", "--group", GROUP)["flows"] == seen["flows"]


def _who_sends_it_back_gives_back_what_it_brought(house: House, bo: Shopper) -> None:
    """Bo returns the second cup, whose points he has spent: he owes them, and is a friend of the house no longer."""
    path = f"/v1/shop/purchases/{house.made['second cup']}/refunds"
    back = house.call("shop", TEA, path, {"refund": "R-1"})
    assert back.status_code == 201, back.text
    assert (back.json()["points_taken"], back.json()["points_short"], back.json()["tier"]) == (35, 0, "guest")
    assert bo.points == 26 - 35
    assert bo.card(TEA)["tier"]["card_face"] == LEAF
    assert bo.card(ICE)["tier"]["slug"] == "member"
    # What he buys next, at whichever brand, makes up for it first.
    assert house.sell(ICE, bo.phone, 1_000)["balance"] == 1
