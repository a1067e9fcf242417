"""Earning over real HTTP: check-ins, tasks, referrals, red packets, and a draw from its notice to its record."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlmodel import select

from codes.catalogue import Brand
from kit import vault as vaults
from kit.clock import china_day
from kit.db import Session
from loyalty import members, programs
from loyalty.birthdays import BirthdayRules
from loyalty.check_ins import CheckInRules
from loyalty.draws import catalogue, fair, record
from loyalty.draws.terms import from_plan
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram, Rules
from loyalty.red_packets import PacketRules
from loyalty.referrals import ReferralRules
from loyalty.tasks import Period, TaskEvent, TaskRules
from tests.stand import BRAND, MakeStand, SignedIn, Stand, wait_until

NOW = datetime.now(UTC)
POINTS = Prize(PrizeKind.POINTS, 10)
ENTROPY = "9f86d081884c7d659a2feaa0c55ad015"
PLAN: dict[str, Any] = {
    "form": "deck",
    "title": {"zh": "夏日盲盒", "en": "Summer box"},
    "opens_at": (NOW - timedelta(days=1)).isoformat(),
    "closes_at": (NOW + timedelta(days=1)).isoformat(),
    "stripes": 2,
    "prizes": [
        {"name": {"zh": "一等奖", "en": "First"}, "kind": "points", "amount": 500, "value_fen": 500, "quantity": 1},
        {"name": {"zh": "谢谢参与", "en": "None"}, "kind": "nothing", "amount": 0, "quantity": 3},
    ],
}


def make_program(stand: Stand, rules: Rules) -> str:
    async def work(session: Session) -> str:
        brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
        assert brand.brand_id is not None
        new = NewProgram(brand.brand_id, brand.group_id, "活动", "Program", rules, NOW - timedelta(days=1))
        return str((await programs.create(session, new, NOW)).program_id)

    made: str = stand.run(work)
    return made


def make_draw(stand: Stand, **changes: Any) -> str:
    vault = vaults.load(stand.home / "vault.key")

    async def work(session: Session) -> str:
        brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
        assert brand.brand_id is not None
        draw = await catalogue.publish(
            session,
            vault,
            brand_id=brand.brand_id,
            group_id=brand.group_id,
            make_terms=lambda draw_id, seed_hash: from_plan(PLAN | changes, draw_id, seed_hash),
            now=NOW,
        )
        await catalogue.open_plays(session, draw.draw_id, NOW)
        return str(draw.draw_id)

    made: str = stand.run(work)
    return made


def post(stand: Stand, member: SignedIn, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    given = {**member.headers, "Idempotency-Key": str(uuid.uuid4()), **headers}
    return stand.http.post(path, json=body, headers=given)


def get(stand: Stand, member: SignedIn, path: str) -> Any:
    answer = stand.http.get(path, headers=member.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_member_checks_in(stand: Stand) -> None:
    program, member = make_program(stand, CheckInRules(5, {2: 50})), stand.member()
    first = post(stand, member, "/v1/me/check-ins", {"program_id": program}, **{"Idempotency-Key": "the-same-key"})
    again = post(stand, member, "/v1/me/check-ins", {"program_id": program}, **{"Idempotency-Key": "the-same-key"})
    later = post(stand, member, "/v1/me/check-ins", {"program_id": program})
    assert first.status_code == 201
    assert first.json() == again.json()
    assert (first.json()["points"], first.json()["next_bonus"]) == (5, {"in_days": 1, "points": 50})
    assert (later.json()["is_new"], later.json()["balance"]) == (False, 5)
    [standing] = [row for row in get(stand, member, "/v1/me/check-ins")["data"] if row["program_id"] == program]
    assert (standing["checked_in"], standing["streak"], standing["earns"]) == (True, 1, 55)


def test_the_brands_systems_tell_of_a_task(stand: Stand) -> None:
    program, member = make_program(stand, TaskRules(TaskEvent.OTHER, Period.ONCE, POINTS)), stand.member()
    path, body = f"/v1/crm/tasks/{program}/completions", {"member_id": str(member.member_id), "subject": "survey-1"}
    keys = {"Idempotency-Key": str(uuid.uuid4())}
    done = stand.http.post(path, json=body, headers={**stand.key("brand"), **keys})
    assert (done.status_code, done.json()["prize"]["amount"], done.json()["is_new"]) == (201, 10, True)
    again = stand.http.post(path, json=body, headers={**stand.key("brand"), "Idempotency-Key": str(uuid.uuid4())})
    assert again.json()["is_new"] is False
    [task] = [row for row in get(stand, member, "/v1/me/tasks")["data"] if row["program_id"] == program]
    assert task["done_at"] is not None
    stranger = stand.http.post(path, json=body, headers={**stand.key("other brand"), **keys})
    assert stranger.status_code == 403


def test_a_friend_comes_by_a_link(stand: Stand) -> None:
    program, sharer = make_program(stand, ReferralRules(POINTS, POINTS, 24)), stand.member()
    shared = post(stand, sharer, "/v1/me/referral/links", {"program_id": program}).json()
    friend = stand.member()
    joined = post(stand, friend, "/v1/me/referral", {"code": shared["code"]})
    assert (joined.status_code, joined.json()["prize"]["amount"]) == (201, 10)
    assert post(stand, sharer, "/v1/me/referral/links", {"program_id": program}).json()["friends"] == 1
    assert code(post(stand, sharer, "/v1/me/referral", {"code": shared["code"]})) == (409, "ReferralRefused")
    assert code(post(stand, friend, "/v1/me/referral", {"code": "0" * 16})) == (404, "ReferralUnknown")
    [offered] = [row for row in get(stand, sharer, "/v1/me/referral")["data"] if row["program_id"] == program]
    assert (offered["you_get"]["amount"], offered["your_friend_gets"]["amount"]) == (10, 10)


def test_friends_open_a_red_packet(stand: Stand) -> None:
    program, sharer = make_program(stand, PacketRules(PrizeKind.POINTS, 20, 2, 1, 24)), stand.member()
    packet = post(stand, sharer, "/v1/me/packets", {"program_id": program}).json()
    path = f"/v1/packets/{packet['packet_id']}"
    friends = [stand.member() for _ in range(3)]
    assert stand.http.get(path).json()["seed"] is None
    amounts = [post(stand, friend, f"{path}/shares").json()["prize"]["amount"] for friend in friends[:2]]
    assert sum(amounts) == 20
    assert code(post(stand, friends[2], f"{path}/shares")) == (409, "PacketEmpty")
    assert code(post(stand, sharer, f"{path}/shares")) == (409, "PacketRefused")
    shown = stand.http.get(path).json()
    seed, packet_id = bytes.fromhex(shown["seed"]), uuid.UUID(packet["packet_id"])
    assert [share["amount"] for share in shown["opened"]] == amounts == fair.split(seed, packet_id, 20, 2, 1)


class TestDraw:
    def test_from_its_notice_to_its_record(self, stand: Stand) -> None:
        draw_id, member = make_draw(stand), stand.member()
        path = f"/v1/draws/{draw_id}"
        notice = stand.http.get(path).json()
        assert notice["odds"][0] == {
            "name": {"zh": "一等奖", "en": "First"},
            "value_fen": 500,
            "quantity": 1,
            "odds": {"of": 1, "in": 4},
            "percent": "25",
        }
        assert "概率 25%" in "".join(notice["notice"]["zh"])
        assert "odds 25%" in "".join(notice["notice"]["en"])
        assert (notice["seed"], notice["closing"]) == (None, None)
        assert fair.commitment(notice["terms"]).hex() == notice["commitment"]
        assert code(stand.http.get(f"{path}/record")) == (409, "DrawNotOpen")

        played = [post(stand, member, f"/v1/me{path[3:]}/plays", {"entropy": ENTROPY}) for _ in range(5)]
        assert [answer.status_code for answer in played] == [201] * 4 + [409]
        assert code(played[4])[1] == "DrawUsedUp"
        receipts = [answer.json()["receipt"] for answer in played[:4]]
        mine = get(stand, member, f"/v1/me{path[3:]}")
        assert [play["receipt"] for play in mine["plays"]] == receipts[::-1]
        assert all(json.loads(receipt)["ticket"].startswith(mine["player"]) for receipt in receipts)
        assert get(stand, member, "/v1/me")["points"] == 500

        self.finish(stand, draw_id)
        shown, lines = stand.http.get(path).json(), stand.http.get(f"{path}/record")
        assert lines.headers["content-type"] == "application/x-ndjson"
        checked = record.check(
            lines.content.splitlines(keepends=True),
            commitment=bytes.fromhex(notice["commitment"]),
            closing=bytes.fromhex(shown["closing_digest"]),
            receipts=[receipt.encode() for receipt in receipts],
        )
        assert [count.left for count in checked.prizes] == [0, 0]
        assert stand.books().sound

    def finish(self, stand: Stand, draw_id: str) -> None:
        vault = vaults.load(stand.home / "vault.key")

        async def work(session: Session) -> None:
            await catalogue.close(session, uuid.UUID(draw_id), NOW)
            await catalogue.reveal(session, vault, uuid.UUID(draw_id), NOW)

        stand.run(work)

    def test_a_play_is_repeated_under_its_key(self, stand: Stand) -> None:
        draw_id, member = make_draw(stand), stand.member()
        path = f"/v1/me/draws/{draw_id}/plays"
        keys = {"Idempotency-Key": "a-key-of-this-test"}
        first, again = [post(stand, member, path, {"entropy": ENTROPY}, **keys) for _ in range(2)]
        assert first.json() == again.json()
        assert again.headers["idempotent-replayed"] == "true"
        other = post(stand, member, path, {"entropy": ENTROPY[::-1]}, **keys)
        assert code(other) == (409, "IdempotencyKeyReused")
        assert len(get(stand, member, f"/v1/me/draws/{draw_id}")["plays"]) == 1

    @pytest.mark.parametrize("entropy", ["", "00" * 15, "00" * 65, "0" * 33, "g" * 32, "A" * 32], ids=len)
    def test_entropy_is_hex_of_16_to_64_bytes(self, stand: Stand, entropy: str) -> None:
        answer = post(stand, stand.member(), f"/v1/me/draws/{uuid.uuid4()}/plays", {"entropy": entropy})
        assert code(answer) == (400, "RequestInvalid")

    def test_a_device_plays_so_often_a_day(self, stand: Stand) -> None:
        draw_id = make_draw(stand, limits={"device_day": 1})
        path, device = f"/v1/me/draws/{draw_id}/plays", {"fanxing-device": "device-of-this-test"}
        assert post(stand, stand.member(), path, {"entropy": ENTROPY}, **device).status_code == 201
        assert code(post(stand, stand.member(), path, {"entropy": ENTROPY}, **device)) == (409, "AllowanceUsedUp")

    def test_an_unknown_draw(self, stand: Stand) -> None:
        unknown = uuid.uuid4()
        assert code(stand.http.get(f"/v1/draws/{unknown}")) == (404, "DrawUnknown")
        assert code(stand.http.get(f"/v1/draws/{unknown}/record")) == (404, "DrawUnknown")
        answer = post(stand, stand.member(), f"/v1/me/draws/{unknown}/plays", {"entropy": ENTROPY})
        assert code(answer) == (404, "DrawUnknown")


@pytest.mark.parametrize(
    "path", ["check-ins", "referral", "referral/links", "packets", f"draws/{uuid.UUID(int=1)}/plays"], ids=str
)
def test_earning_needs_a_sign_in(stand: Stand, path: str) -> None:
    body = (
        {"entropy": ENTROPY}
        if "plays" in path
        else {"code": "x"}
        if path == "referral"
        else {"program_id": str(uuid.uuid4())}
    )
    answer = stand.http.post(f"/v1/me/{path}", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    assert code(answer) == (401, "SignInNeeded")


def test_who_tells_his_birthday_on_the_day_is_paid_for_it_and_greeted_at_his_next_sign_in(
    make_stand: MakeStand,
) -> None:
    stand = make_stand()
    stand.server.start()
    make_program(stand, TaskRules(TaskEvent.PROFILE, Period.ONCE, Prize(PrizeKind.POINTS, 9)))
    member, today = stand.member(), china_day(datetime.now(UTC))

    async def join(session: Session) -> None:
        brand = (await session.exec(select(Brand).where(Brand.slug == BRAND))).one()
        await members.join_brand(session, member.member_id, brand.brand_id or 0, NOW)

    def points() -> int:
        return int(stand.http.get("/v1/me", headers=member.headers).json()["points"])

    stand.run(join)
    born = {"month": today.month, "day": today.day}
    assert stand.http.put("/v1/me/birthday", json=born, headers=member.headers).status_code == 204
    wait_until(lambda: points() == 9, "the task to be paid")
    # Only now: the server's first sweep, which may come late, would congratulate him before he signs in.
    make_program(stand, BirthdayRules(Prize(PrizeKind.POINTS, 66)))
    code = stand.http.post("/v1/sign-in/codes", json={"phone": member.phone}).json()["development_code"]
    signed_in = stand.http.post("/v1/sign-in", json={"phone": member.phone, "one_time_code": code})
    assert signed_in.status_code == 200
    assert points() == 75
