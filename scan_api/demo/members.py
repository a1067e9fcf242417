"""The members' part of the demonstration, over real HTTP: one balance at two brands, tiers, goods, a draw, a refund."""

import secrets
import uuid
from pathlib import Path
from typing import Any

from loyalty.crm_import import Outcome
from scan_api.auth.api_keys import Role
from scan_api.demo.brand import BRAND, POINTS
from scan_api.demo.group import CHECK_IN_POINTS, OLD_MEMBER, OLD_POINTS, PLAYS, PRICE, SILVER_FEN, TEA
from scan_api.demo.users import SHOPPER, World

_PAID_FEN, _TEA_PAID_FEN = SILVER_FEN + 2_000, 8_000
_EARNED, _TEA_EARNED = _PAID_FEN // 100, _TEA_PAID_FEN // 100


def the_old_members_come(world: World, outcome: Outcome) -> str:
    """The brand's old CRM comes along. Returns the session's token of one of its members."""
    counts = outcome.counts
    world.story.expect(
        "the old CRM brings two members, and tells of the row that is wrong",
        [2, 1, {"phone": 1}],
        [counts.new_members, counts.bad, dict(outcome.reasons)],
    )
    token = world.sign_in(OLD_MEMBER)
    me = world.me(token)
    world.story.expect(
        "one of them signs in: points and tier are there at once",
        [OLD_POINTS, [[BRAND, "gold"]]],
        [me["points"], [[card["brand"], card["tier"]] for card in me["cards"]]],
    )
    return token


def the_tier_rises(world: World, token: str) -> str:
    """The shopper buys at both brands. Returns the id of his first purchase."""
    story = world.story
    shop = world.as_machine(Role.SHOP)
    status, bought = world.post(
        "/v1/shop/purchases", {"phone": SHOPPER, "receipt": "S88-0001", "paid_fen": _PAID_FEN}, shop
    )
    story.expect(
        f"a purchase of ¥{_EARNED} earns {_EARNED} points and the silver tier",
        [201, _EARNED, "silver"],
        [status, bought.get("points"), bought.get("tier")],
    )
    cards = world.get("/v1/me/cards", token)["cards"]
    story.tell(f"Why: {cards[0]['explanation']}.")
    tea = {"authorization": f"Bearer {world.group.tea_shop_key}"}
    body = {"phone": SHOPPER, "receipt": "T3-0001", "paid_fen": _TEA_PAID_FEN}
    status, _bought = world.post("/v1/shop/purchases", body, tea)
    me = world.me(token)
    story.expect(
        "tea of the sister brand: a card of its own, the same points",
        [201, POINTS + _EARNED + _TEA_EARNED, [BRAND, TEA]],
        [status, me["points"], [card["brand"] for card in me["cards"]]],
    )
    return str(bought["purchase_id"])


def points_buy_by_tier(world: World, token: str, gold_token: str) -> None:
    """The same points buy other goods at another tier."""
    story, group = world.story, world.group

    def obtain(whose: str, benefit: uuid.UUID, key: str = "") -> tuple[int, dict[str, Any]]:
        body = {"benefit_id": str(benefit), "points_expected": PRICE}
        return world.post("/v1/me/benefits", body, world.as_member(whose), key)

    status, refused = obtain(token, group.box)
    story.expect(
        f"{PRICE} points do not buy the ¥200 box at silver", [409, "BenefitNotForTier"], [status, refused["code"]]
    )
    key = str(uuid.uuid4())
    status, held = obtain(token, group.coupon, key)
    again = obtain(token, group.coupon, key)
    story.expect(
        "they buy a ¥10 coupon, and asked twice, once",
        [201, PRICE, True],
        [status, held.get("points_paid"), again[1].get("held_id") == held["held_id"]],
    )
    status, box = obtain(gold_token, group.box)
    story.expect(f"{PRICE} points buy the ¥200 box at gold", [201, PRICE], [status, box.get("points_paid")])
    address = {"name": "李雷", "phone": OLD_MEMBER, "region": "浙江省杭州市", "line": "文一西路 1 号"}
    sent = world.http.put(
        f"/v1/me/benefits/{box['held_id']}/address", json=address, headers=world.as_member(gold_token)
    )
    story.expect("it is sent to his address", "reserved", sent.json().get("state"))
    status, done = world.post("/v1/shop/redemptions", {"coupon_code": held["code"]}, world.as_machine(Role.SHOP))
    story.expect("the coupon is checked off at the till", [201, 1_000], [status, done.get("value_fen")])


def she_comes_back(world: World, token: str) -> None:
    """A check-in, and the same day again."""
    body = {"program_id": str(world.group.check_in)}
    answers = [world.post("/v1/me/check-ins", body, world.as_member(token))[1] for _ in range(2)]
    world.story.expect(
        "a check-in pays once a day",
        [[CHECK_IN_POINTS, True], [CHECK_IN_POINTS, False]],
        [[answer.get("points"), answer.get("is_new")] for answer in answers],
    )


def the_draw_is_played(world: World, token: str, receipts: Path) -> str:
    """All plays that a member has; the receipts are kept. Returns the commitment as it was published beforehand."""
    path = f"/v1/draws/{world.group.draw}"
    notice = world.http.get(path).json()
    world.story.expect(
        "quantities, odds and a commitment stand in public before anybody plays",
        [["25", "75"], 64],
        [[prize["percent"] for prize in notice["odds"]], len(notice["commitment"])],
    )
    plays = [
        world.post(f"/v1/me/draws/{world.group.draw}/plays", {"entropy": secrets.token_hex(16)}, world.as_member(token))
        for _ in range(PLAYS + 1)
    ]
    world.story.expect(
        f"a member plays {PLAYS} times and no more",
        [201] * PLAYS + ["AllowanceUsedUp"],
        [status if status == 201 else answer["code"] for status, answer in plays],
    )
    receipts.write_text("".join(answer["receipt"] + "\n" for _status, answer in plays[:PLAYS]), encoding="utf-8")
    return str(notice["commitment"])


def the_draw_is_published(world: World, record: Path) -> str:
    """Fetch the record of the ended draw. Returns the digest of its closing."""
    notice = world.http.get(f"/v1/draws/{world.group.draw}").json()
    record.write_bytes(world.http.get(f"/v1/draws/{world.group.draw}/record").content)
    return str(notice["closing_digest"])


def the_goods_come_back(world: World, token: str, purchase_id: str) -> None:
    """A refund takes back what the purchase earned, although it was spent."""
    before = world.me(token)["points"]
    status, refund = world.post(
        f"/v1/shop/purchases/{purchase_id}/refunds", {"refund": "S88-R-0001"}, world.as_machine(Role.SHOP)
    )
    after = world.me(token)["points"]
    world.story.expect(
        "a refund takes the points back, the spent ones too, and the tier with them",
        [201, _EARNED, before - _EARNED, "member"],
        [status, refund.get("points_taken"), after, refund.get("tier")],
    )
