"""A service with two groups of brands and everybody who may call it, asked in this process, without a socket.

Things that callers ask for all belong to one owner: the member Mei, and the brand Star Cream. They are made over HTTP
by their owner, when they are first asked for.
"""

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlmodel import select

from codes import catalogue, packages
from codes.catalogue import Brand, brand_named
from codes.orders import CodeOrder
from codes.packages import links
from codes.packages.sealing import Sealed
from codes.serials import create_serial_key
from kit.clock import system_clock
from kit.db import Session
from kit.ids import new_id
from kit.settings import Settings
from loyalty import ledger, members, sign_in
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from scan_api import devices, playground
from scan_api.app import create_app
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.regulators import partners
from scan_api.services import build
from scan_api.transparency import log_key
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.witnesses import Publisher
from signer import keys
from tests.contract.asking import (
    Answer,
    Proof,
    Request,
    ask,
    bearer,
    provider_signature,
    public_text,
    session_of,
    signature_of,
)
from tests.stand import BRAND, GTIN, OTHER_BRAND, TRUST_DOMAIN, Installation, Stands

BASE_URL = "https://id.example.cn"
FAR_BRAND, SANDBOX_BRAND = "far-bakery", "authorisation"
POINTS_OF_MEI = 1_000_000
SECRETS = {"carrier": "a-secret-of-the-carrier-that-is-long", "cash": "a-secret-of-the-cashier-that-is-long"}
RECIPIENT = "age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t3"
WEBHOOK_URL = "http://127.0.0.1:9/only-star-cream-knows"
FACE = {"colours": ["#334155", "#0f172a"], "text_colour": "#ffffff", "pattern": "stars"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Member:
    member_id: uuid.UUID
    phone: str
    token: str


class World:
    """The service in this process, on a PostgreSQL of its own, with everybody who may call it."""

    def __init__(self, home: Path, database_url: str, original: Installation) -> None:
        settings = Settings(
            home=home,
            database_url=database_url,
            base_url=BASE_URL,
            trust_domain=TRUST_DOMAIN,
            code_sender="development",
            carrier_url="http://127.0.0.1:9",
            cash_url="http://127.0.0.1:9",
            carrier_callback_secret=SecretStr(SECRETS["carrier"]),
            cash_callback_secret=SecretStr(SECRETS["cash"]),
            webhook_targets="private",
        )
        self.database_url, self.home = database_url, home
        on_sale = original.orders["on sale"]
        self.items, self.order_number = iter(on_sale.items[10:]), on_sale.number
        self.campaigns = original.campaigns
        self.device_ids: dict[str, str] = {}
        self.packages: dict[str, uuid.UUID] = {}
        self.partner_ids: dict[str, uuid.UUID] = {}
        self.fetch_code = ""
        self._sequencer: Sequencer | None = None
        self.new_device = Ed25519PrivateKey.generate()
        self._runner = asyncio.Runner()
        self.services = build(settings)
        self.app = create_app(self.services)
        self.run(self.services.trust.refresh())
        self.phones = (f"+86139{number:08d}" for number in range(10_000_000, 99_999_999))
        self.proofs: dict[str, Proof] = {"nobody": lambda _request: {}}
        self.run(self.write(lambda session: log_key.begin(session, settings, _now())))
        self.mei, self.lan, self.tom = self.run(self._settle(original.api_keys))

    def close(self) -> None:
        async def away() -> None:
            await self.services.caller.close()
            await self.services.sender.close()
            await self.services.database.close()

        self.run(away())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    async def write(self, work: Callable[[Session], Awaitable[Result]]) -> Result:
        async with self.services.database.writing() as session:
            return await work(session)

    async def ask(self, request: Request, caller: str | Proof = "nobody") -> Answer:
        """Send a request as one of the callers, or with a proof of its own."""
        proof = self.proofs[caller] if isinstance(caller, str) else caller
        return await ask(self.app, dataclasses.replace(request, headers={**request.headers, **proof(request)}))

    def fingerprints(self) -> dict[str, str]:
        """What each table holds, as a hash of its rows."""
        url = make_url(self.database_url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            filled = " UNION ALL ".join(
                f"SELECT '{name}', md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) FROM {name} t"  # noqa: S608
                for (name,) in tables
            )
            return dict(connection.execute(filled).fetchall())  # type: ignore[arg-type]

    async def publish_log(self) -> None:
        """Put into the transparency log what waits for it, and publish its head."""
        if self._sequencer is None:
            signing = log_key.access(self.services.settings).open()
            heads = HeadMemory(self.home)
            self._sequencer = Sequencer(self.services.database, signing, heads, system_clock)
        await self._sequencer.turn()
        async with httpx2.AsyncClient() as client:
            await Publisher(self.services.database, client, system_clock).turn()

    async def enrol(self, brand: str) -> Member:
        """A new member of a brand's group, signed in just now."""

        async def work(session: Session) -> Member:
            group_id, phone = (await brand_named(session, brand)).group_id, next(self.phones)
            member, _is_new = await members.find_or_enrol(session, self.services.vault, group_id, phone, _now())
            token = await sign_in.open_session(session, member.member_id, _now())
            return Member(member.member_id, phone, token)

        return await self.write(work)

    async def _settle(self, stand_keys: Mapping[str, str]) -> tuple[Member, Member, Member]:
        """Let everybody in, and remember how each proves who he is."""

        async def brands(session: Session) -> dict[str, str]:
            issuer = await keys.create_issuer(session, "Far Bakery", ["950611"], _now())
            create_serial_key(session, self.services.vault, issuer.issuer_id or 0)
            far = await catalogue.create_brand(
                session, issuer, "Far Group", FAR_BRAND, "远方面包", "Far Bakery", _now()
            )
            star, moon = await brand_named(session, BRAND), await brand_named(session, OTHER_BRAND)
            play = await playground.create(session, self.services.vault, SANDBOX_BRAND, _now())
            wanted: dict[str, tuple[Role, Brand | None, tuple[str, ...]]] = {
                "far brand": (Role.BRAND, far, ()),
                "far logistics": (Role.LOGISTICS, far, ()),
                "far shop": (Role.SHOP, far, ()),
                "far crm": (Role.CRM, far, ()),
                "far regulator": (Role.REGULATOR, far, ()),
                "sister logistics": (Role.LOGISTICS, moon, ()),
                "auditor": (Role.AUDITOR, star, ()),
                "far auditor": (Role.AUDITOR, far, ()),
                "crm": (Role.CRM, star, ()),
                "sister crm": (Role.CRM, moon, ()),
                "withdrawn brand": (Role.BRAND, star, ()),
            }
            texts = {f"sandbox {role}": text for role, text in play.keys.items()}
            for label, (role, brand, prefixes) in wanted.items():
                brand_id = brand.brand_id if brand else None
                key, texts[label] = await api_keys.create(
                    session, role, label, _now(), brand_id=brand_id, gtin_prefixes=prefixes
                )
                if label == "withdrawn brand":
                    await api_keys.revoke(session, key.key_id, _now())
            for label in ("partner", "other partner"):
                partner = await partners.create(session, label, [f"https://{label.split()[0]}.example"], _now())
                self.partner_ids[label] = partner.partner_id
                _key, texts[label] = await partners.create_key(session, partner.partner_id, label, _now())
            return texts

        texts = await self.write(brands) | {
            mine: stand_keys[theirs]
            for mine, theirs in {
                "brand": "brand",
                "narrow brand": "brand, other GTINs",
                "sister brand": "other brand",
                "logistics": "logistics",
                "narrow logistics": "logistics, other GTINs",
                "shop": "shop",
                "sister shop": "other shop",
                "regulator": "regulator",
                "narrow regulator": "regulator, other GTINs",
            }.items()
        }
        self.proofs |= {label: bearer(text) for label, text in texts.items()}
        mei, lan, tom = await self.enrol(BRAND), await self.enrol(BRAND), await self.enrol(FAR_BRAND)
        await self.write(lambda session: _give_points(session, mei.member_id))
        self.proofs |= {"member": session_of(mei.token), "fellow": session_of(lan.token)}
        self.proofs |= {"stranger": session_of(tom.token)}
        gone = await self.enrol(BRAND)
        await self.write(lambda session: sign_in.close_sessions(session, [gone.member_id]))
        self.proofs["signed-out member"] = session_of(gone.token)
        for name, brand in {"device": BRAND, "other device": FAR_BRAND}.items():
            self.device_ids[name], self.proofs[name] = await self.device(brand)
        self.proofs |= {name: provider_signature(secret) for name, secret in SECRETS.items()}
        for name in ("print house", "other print house"):
            self.packages[name], code = await self.package()
            self.proofs[name] = bearer(code)
            self.fetch_code = self.fetch_code or code
        return mei, lan, tom

    async def device(self, brand: str) -> tuple[str, Proof]:
        """A new device: its id, and how it proves that it is the one."""
        key = Ed25519PrivateKey.generate()
        code = await self.invitation(brand)
        body = json.dumps({"code": code, "public_key": public_text(key), "name": "till 3"}).encode()
        request = Request("POST", "/v1/devices", {"content-type": "application/json", "accept": "*/*"}, body)
        answer = await self.ask(request, signature_of(key))
        assert answer.status == 201, answer.body
        device_id = str(answer.json()["device_id"])
        return device_id, signature_of(key, device_id)

    async def invitation(self, brand: str) -> str:
        async def work(session: Session) -> str:
            brand_id = (await brand_named(session, brand)).brand_id
            made = await devices.invite(session, self.services.vault, brand_id, "till 3", timedelta(hours=1), _now())
            return made[1]

        return await self.write(work)

    async def package(self) -> tuple[uuid.UUID, str]:
        """A code package on the shelf, and the fetch code of a link to it."""
        content = os.urandom(100)

        async def work(session: Session) -> tuple[Any, str]:
            order = (await session.exec(select(CodeOrder).where(CodeOrder.gtin == GTIN).limit(1))).one()
            sealed = Sealed(hashlib.sha256(content).digest(), len(content), 3)
            made = await packages.register(
                session, order, new_id(), f"print {new_id()}", [RECIPIENT], [(0, 4)], sealed, None, _now()
            )
            _link, code = await links.create(session, made, "Sun Press", timedelta(days=7), 5, _now())
            return made, code

        made, code = await self.write(work)
        path = made.path(self.home)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return made.package_id, code


async def _give_points(session: Session, member_id: uuid.UUID) -> None:
    account = AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE)
    issued = Leg(ledger.issuance(1, ledger.POINTS, 0), -POINTS_OF_MEI)
    await ledger.post(session, Transfer(new_id(), "test", (issued, Leg(account, POINTS_OF_MEI))), _now())


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def world(stands: Stands, postgres_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service, on a copy of the stands' installation."""
    original = stands.installation("postgresql", postgres_server)
    home = tmp_path_factory.mktemp("world") / "home"
    shutil.copytree(original.home, home)
    name = postgres_server.create()
    postgres_server.replace(name, make_url(original.database_url).database)
    made = World(home, postgres_server.url(name), original)
    yield made
    made.close()
    postgres_server.drop(name)
