"""What the service of `inhabited` holds of Mei and of Star Cream: made by their owners when first asked for."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from codes import log_queue
from codes.catalogue import brand_named
from codes.log_queue import NewEntry, record_of
from kit.db import Session
from kit.ids import new_id
from loyalty import programs
from loyalty.benefits import BenefitKind, NewBenefit, stock
from loyalty.benefits import catalogue as catalogue_of_benefits
from loyalty.check_ins import CheckInRules
from loyalty.draws import catalogue as catalogue_of_draws
from loyalty.draws.terms import from_plan
from loyalty.prizes import Prize, PrizeKind
from loyalty.programs import NewProgram, Rules
from loyalty.red_packets import PacketRules
from loyalty.referrals import ReferralRules
from loyalty.tasks import Period, TaskEvent, TaskRules
from loyalty.webhooks import WebhookDelivery
from tests.contract.asking import json_request, public_text
from tests.contract.inhabited import BASE_URL, WEBHOOK_URL, World
from tests.scan_api.event_sender import URN, document, seen, serial
from tests.scan_api.test_earning import PLAN
from tests.stand import BRAND, GTIN, OTHER_BRAND

PUBLIC = frozenset(
    {
        "brand",
        "sister",
        "gtin",
        "task",
        "partner_id",
        "referral_code",
        "campaign",
        "packet",
        "draw",
        "benefit",
        "public_key",
    }
)
"""Things that anybody may know that they are there: short names, GTINs, what members are shown, links sent around."""

_NOBODYS = {
    "coupon_code": "0000-0000-0000-0000",
    "order_number": "98765",
    "order_number_5": "98765",
    "enrolment_code": "0000-0000-0000",
    "serial": "99999" + "0" * 9,
    "epc": URN + "NOBODY",
    "event": f"ni:///sha-256;{'0' * 64}?ver=CBV2.0",
}
"""Names that nothing has, where they are no UUIDs."""
LINK = {
    "href": "https://www.example.cn/ice/{01}",
    "identifier": f"/01/{GTIN}",
    "link_type": "gs1:pip",
    "languages": ["en"],
    "title": "Ice cream",
    "media_type": "text/html",
}
EXPORT = {
    "kind": "events",
    "format": "ndjson",
    "since": "2026-05-01T00:00:00.000Z",
    "until": "2026-06-01T00:00:00.000Z",
}
ADDRESS = {"name": "Mei", "phone": "+8613800138000", "region": "Qingdao", "line": "1 Hong Kong Road"}


class Things(Protocol):
    """Names of things to the values by which requests name them."""

    async def get(self, name: str) -> str: ...


class Ghosts:
    """The same names for things that there are not; what is public stays."""

    def __init__(self, real: "Belongings") -> None:
        self._real = real

    async def get(self, name: str) -> str:
        if name in PUBLIC or name.startswith("new_"):
            return await self._real.get(name)
        if name == "phone":
            return next(self._real.world.phones)
        return _NOBODYS.get(name) or str(uuid.uuid4())


class Belongings:
    """Mei's and Star Cream's. Each thing is made once; names that begin with `new_` are made anew each time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._made: dict[str, str] = {}

    async def get(self, name: str) -> str:
        if name not in self._made or name.startswith("new_"):
            maker: Callable[[], Awaitable[object]] = getattr(self, f"_{name}")
            self._made[name] = str(await maker())
        return self._made[name]

    def forget_used(self) -> None:
        """Let go what can be used once, so that it is made anew."""
        for name in USED_ONCE & self._made.keys():
            del self._made[name]

    @property
    def secrets(self) -> set[str]:
        """Values that nobody but their owners may be told."""
        return {value for name, value in self._made.items() if name in PRIVATE}

    # ---- what is public

    async def _brand(self) -> str:
        return BRAND

    async def _sister(self) -> str:
        return OTHER_BRAND

    async def _gtin(self) -> str:
        return GTIN

    # ---- of the catalogue

    async def _benefit(self, **changes: Any) -> uuid.UUID:
        async def work(session: Session) -> uuid.UUID:
            brand, now = await brand_named(session, BRAND), _now()
            plain: dict[str, Any] = {
                "brand_id": brand.brand_id,
                "group_id": brand.group_id,
                "kind": BenefitKind.COUPON,
                "name_zh": "满十减五",
                "name_en": "5 off 10",
                "starts_at": now - timedelta(days=1),
                "ends_at": now + timedelta(days=30),
                "value_fen": 500,
                "valid_days": 30,
                "prices": {0: 100},
            }
            made = await catalogue_of_benefits.create(session, NewBenefit(**(plain | changes)), now)
            await stock.procure(session, made, 50, procurement_id=new_id(), now=now)
            return made.benefit_id

        return await self.world.write(work)

    async def _program(self, rules: Rules) -> uuid.UUID:
        async def work(session: Session) -> uuid.UUID:
            brand, now = await brand_named(session, BRAND), _now()
            assert brand.brand_id is not None
            new = NewProgram(brand.brand_id, brand.group_id, "活动", "Program", rules, now - timedelta(days=1))
            return (await programs.create(session, new, now)).program_id

        return await self.world.write(work)

    async def _check_in_program(self) -> uuid.UUID:
        return await self._program(CheckInRules(5, {2: 50}))

    async def _task(self) -> uuid.UUID:
        return await self._program(TaskRules(TaskEvent.OTHER, Period.ONCE, Prize(PrizeKind.POINTS, 10)))

    async def _referral_program(self) -> uuid.UUID:
        prize = Prize(PrizeKind.POINTS, 10)
        return await self._program(ReferralRules(prize, prize, 24))

    async def _packet_program(self) -> uuid.UUID:
        return await self._program(PacketRules(PrizeKind.POINTS, 2_000, 50, 1, 24))

    async def _draw(self) -> uuid.UUID:
        async def work(session: Session) -> uuid.UUID:
            brand = await brand_named(session, BRAND)
            assert brand.brand_id is not None
            draw = await catalogue_of_draws.publish(
                session,
                self.world.services.vault,
                brand_id=brand.brand_id,
                group_id=brand.group_id,
                make_terms=lambda draw_id, seed_hash: from_plan(PLAN, draw_id, seed_hash),
                now=_now(),
            )
            await catalogue_of_draws.open_plays(session, draw.draw_id, _now())
            return draw.draw_id

        return await self.world.write(work)

    async def _rule(self) -> str:
        return str((await self._of_brand("/earn-rules", {"points_per_yuan_milli": 1_000}))["rule_id"])

    async def _campaign(self) -> uuid.UUID:
        return self.world.campaigns["points"]

    # ---- Mei's

    async def _member_id(self) -> uuid.UUID:
        return self.world.mei.member_id

    async def _phone(self) -> str:
        return self.world.mei.phone

    async def _held(self, **changes: Any) -> dict[str, Any]:
        told = await self._mine("/v1/me/benefits", {"benefit_id": str(await self._benefit(**changes))})
        assert isinstance(told, dict)
        return told

    async def _coupon(self) -> str:
        held = await self._held()
        self._made["coupon_code"] = held["code"]
        return str(held["held_id"])

    async def _coupon_code(self) -> str:
        await self.get("coupon")
        return self._made["coupon_code"]

    async def _new_coupon_code(self) -> str:
        return str((await self._held())["code"])

    async def _cash(self) -> str:
        return str((await self._held(kind=BenefitKind.CASH, amount=888, value_fen=888))["held_id"])

    async def _goods(self) -> str:
        return str((await self._held(kind=BenefitKind.GOODS))["held_id"])

    async def _parcel(self) -> str:
        """Goods with an address."""
        held_id = await self._goods()
        await self._mine(f"/v1/me/benefits/{held_id}/address", ADDRESS, "PUT")
        return held_id

    async def _reserved(self) -> str:
        """A coupon in a basket of Mei's."""
        held = await self._held()
        await self._mine(f"/v1/me/benefits/{held['held_id']}/reservation", {"basket_id": str(new_id())})
        return str(held["held_id"])

    async def _referral_code(self) -> str:
        asked = {"program_id": await self.get("referral_program")}
        return str((await self._mine("/v1/me/referral/links", asked))["code"])

    async def _packet(self) -> str:
        asked = {"program_id": await self.get("packet_program")}
        return str((await self._mine("/v1/me/packets", asked))["packet_id"])

    async def _code_text(self) -> str:
        return f"{BASE_URL}{next(self.world.items).inner}"

    async def _new_code_text(self) -> str:
        return await self._code_text()

    async def _code_path(self) -> str:
        return str(next(self.world.items).outer).removeprefix("/")

    async def _serial(self) -> str:
        return str(next(self.world.items).serial)

    async def _new_phone(self) -> str:
        return next(self.world.phones)

    async def _new_id(self) -> uuid.UUID:
        return new_id()

    # ---- Star Cream's

    async def _webhook(self) -> str:
        """In place of all others: a brand may have ten."""
        for old in (await self._asked("brand", f"/v1/brand/{BRAND}/webhooks", None, "GET"))["data"]:
            gone = json_request("DELETE", f"/v1/brand/{BRAND}/webhooks/{old['webhook_id']}")
            assert (await self.world.ask(gone, "brand")).status == 204
        return str((await self._of_brand("/webhooks", {"url": WEBHOOK_URL, "kinds": ["claim.made"]}))["webhook_id"])

    async def _delivery(self) -> uuid.UUID:
        """A message that one of its webhooks was sent."""
        endpoint_id, event_id = uuid.UUID(await self.get("webhook")), new_id()
        row = WebhookDelivery(
            endpoint_id=endpoint_id,
            event_id=event_id,
            kind="claim.made",
            body="{}",
            at=_now(),
            state="delivered",
            attempts=1,
            last_attempt_at=_now(),
        )

        async def work(session: Session) -> None:
            session.add(row)

        await self.world.write(work)
        return event_id

    async def _order_number(self) -> int:
        return self.world.order_number

    async def _order_number_5(self) -> str:
        return f"{self.world.order_number:05d}"

    async def _new_deadline(self) -> str:
        return (_now() + timedelta(days=9)).isoformat()

    async def _purchase(self) -> str:
        body = {"receipt": str(new_id()), "phone": self.world.mei.phone, "paid_fen": 10_000}
        return str((await self._asked("shop", "/v1/shop/purchases", body))["purchase_id"])

    async def _redemption(self) -> str:
        body = {"coupon_code": await self._new_coupon_code()}
        return str((await self._asked("shop", "/v1/shop/redemptions", body))["redemption_id"])

    async def _captured(self) -> dict[str, Any]:
        number = serial()
        told = await self._asked("brand", "/epcis/capture", document(seen(number)))
        self._made["capture"] = told["captureID"]
        self._made["event"] = told["events"][0]["eventID"]
        self._made["epc"] = URN + number
        return told

    async def _capture(self) -> str:
        return str((await self._captured())["captureID"])

    async def _event(self) -> str:
        return str((await self._captured())["events"][0]["eventID"])

    async def _epc(self) -> str:
        await self._captured()
        return self._made["epc"]

    async def _new_serial(self) -> str:
        return serial()

    async def _link(self) -> uuid.UUID:
        """A link of its Digital Links."""
        link_id = new_id()
        await self._asked("brand", f"/v1/brand/{BRAND}/links/{link_id}", LINK, "PUT")
        return link_id

    async def _query(self) -> str:
        name = f"q{new_id().hex}"
        await self._asked("brand", "/epcis/queries", {"name": name, "query": {"eventType": ["ObjectEvent"]}}, "POST")
        return name

    async def _subscription(self) -> str:
        path = f"/epcis/queries/{await self.get('query')}/subscriptions"
        body = {"dest": WEBHOOK_URL, "signatureToken": "0435ojtojt02", "stream": True}
        return str((await self._asked("brand", path, body))["subscriptionID"])

    async def _regulator_subscription(self) -> str:
        """In place of all others: an account may have twenty."""
        path = "/v1/regulator/subscriptions"
        for old in (await self._asked("regulator", path, None, "GET"))["data"]:
            await self.world.ask(json_request("DELETE", f"{path}/{old['subscription_id']}"), "regulator")
        body = {"dest": WEBHOOK_URL, "signature_token": "0435ojtojt02"}
        return str((await self._asked("regulator", path, body))["subscription_id"])

    async def _recall(self) -> str:
        """A regulator's order to recall an order of codes."""
        body = {
            "kind": "order",
            "subject": f"{GTIN}/{self.world.order_number:05d}",
            "reason": "Glass splinters.",
            "deadline": (_now() + timedelta(days=9)).isoformat(),
        }
        return str((await self._asked("regulator", "/v1/regulator/recall-orders", body))["recall_id"])

    async def _export(self) -> str:
        """In place of all others: a regulator may have three."""
        for old in (await self._asked("regulator", "/v1/regulator/exports", None, "GET"))["data"]:
            await self.world.ask(json_request("DELETE", f"/v1/regulator/exports/{old['export_id']}"), "regulator")
        return str((await self._asked("regulator", "/v1/regulator/exports", EXPORT))["export_id"])

    async def _share(self) -> str:
        body = {"partner_id": await self.get("partner_id"), "since": "2026-05-01T08:00:00Z"}
        return str((await self._of_brand("/partner-shares", body))["share_id"])

    async def _partner_id(self) -> uuid.UUID:
        return self.world.partner_ids["partner"]

    async def _entry_id(self) -> uuid.UUID:
        """An entry of the transparency log."""

        async def work(session: Session) -> uuid.UUID:
            brand = await brand_named(session, BRAND)
            new = NewEntry("act", new_id(), brand.brand_id, record_of({"type": "act"}))
            return (await log_queue.enqueue(session, [new], _now()))[0]

        entry_id = await self.world.write(work)
        await self.world.publish_log()
        return entry_id

    async def _package(self) -> uuid.UUID:
        return self.world.packages["print house"]

    async def _device_id(self) -> str:
        return self.world.device_ids["device"]

    async def _enrolment_code(self) -> str:
        return await self.world.invitation(BRAND)

    async def _public_key(self) -> str:
        """Of a device that was not let in yet."""
        return public_text(self.world.new_device)

    async def _fetch_code(self) -> str:
        return self.world.fetch_code

    async def _fulfilment_order(self) -> str:
        """Mobile data that the carrier was asked for."""
        body = {"code_text": await self._new_code_text(), "campaign_id": str(self.world.campaigns["data"])}
        return str((await self._mine("/v1/claims", body))["order_id"])

    async def _of_brand(self, path: str, body: Any) -> Any:
        return await self._asked("brand", f"/v1/brand/{BRAND}{path}", body)

    async def _mine(self, path: str, body: Any, method: str = "POST") -> Any:
        return await self._asked("member", path, body, method)

    async def _asked(self, caller: str, path: str, body: Any, method: str = "POST") -> Any:
        answer = await self.world.ask(json_request(method, path, body), caller)
        assert answer.status < 300, (path, answer.status, answer.body)
        return answer.json()


PRIVATE = frozenset(
    {
        "member_id", "phone", "coupon", "coupon_code", "cash", "goods", "parcel", "reserved", "webhook", "delivery",
        "link", "query", "subscription", "recall", "export", "share", "regulator_subscription",
        "purchase", "redemption", "capture", "event", "epc", "device_id", "fulfilment_order", "rule",
    }
)  # fmt: skip
"""Things that nobody but their owners may be told of."""
USED_ONCE = frozenset(
    {
        "coupon", "coupon_code", "cash", "goods", "parcel", "reserved", "webhook", "delivery", "redemption", "rule",
        "fulfilment_order", "draw", "enrolment_code", "link", "query", "subscription", "recall", "export", "share",
        "regulator_subscription",
    }
)  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC)
