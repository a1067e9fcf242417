"""A stand: a whole installation with brands, codes and campaigns, and its real server process, for tests over HTTP.

An installation is made once of either database and then copied, since keys and signatures cost time. Most tests share
one running server of either kind and take items and members that nobody else has; a test that kills its server, or
must be alone, asks for a stand of its own.
"""

import asyncio
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import create_engine, delete, event
from sqlalchemy.engine import make_url
from sqlmodel import Session as SyncSession
from sqlmodel import SQLModel, col, func, select

import migrations
from codes import catalogue, orders, pipeline
from codes.orders import CodeOrder
from codes.serials import SerialScheme, create_serial_key, scheme_of
from codes.signing import order_signer
from kit import procedures
from kit import vault as vaults
from kit.db import Database, Session
from kit.files import write_secret
from kit.outbox import OutboxMessage
from kit.vault import Vault
from loyalty import campaigns, fulfilment, ledger, members, news, sign_in
from loyalty.benefits import BenefitKind, NewBenefit, stock
from loyalty.benefits import catalogue as catalogue_of_benefits
from loyalty.campaigns import CampaignStatus, Face, Limits, NewCampaign, NewPrize
from loyalty.code_limits import CodeWindow
from loyalty.ledger import LedgerReport
from loyalty.prizes import Prize, PrizeKind
from offline_sdk.code_text import Profile, encode_message, encode_text
from offline_sdk.gtin import check_digit
from offline_sdk.root import format_pin, read_pin
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.procedures import PROCEDURES
from scan_api.provenance import events
from scan_api.provenance.events import Happening, Step
from signer import keys, publication, roots, service
from signer.keys import KeyState, SigningKey
from signer.service import SigningService
from tests import nursery

KINDS = ("sqlite", "postgresql")
ROOT = Path(__file__).parents[1]
PASSPHRASE = "a passphrase for tests alone"
TRUST_DOMAIN = "stand.example"
PREFIX = "9506000"  # GS1's prefix for examples
BRAND, OTHER_BRAND = "star-cream", "moon-tea"
GROUP = "Stand Group"
PLACED_AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ITEMS_ON_SALE = 5_100
START_DEADLINE_S = 90.0
WAIT_DEADLINE_S = 120.0
CODES_FORGOTTEN_EVERY_TESTS = 20
STOP_DEADLINE_S = 30.0

Model = TypeVar("Model", bound=SQLModel)
Answer = TypeVar("Answer")


def _gtin(number: int) -> str:
    body = f"0{PREFIX}{number:05d}"
    return f"{body}{check_digit(body)}"


GTIN, OTHER_GTIN = _gtin(13), _gtin(27)


@dataclass(frozen=True)
class Item:
    """An item's serial, and the paths of its codes; a face that its order lacks is empty."""

    gtin: str
    serial: str
    outer: str = ""
    inner: str = ""


@dataclass(frozen=True)
class PlacedOrder:
    """An order and all its items, in issue order."""

    gtin: str
    number: int
    order_id: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Installation:
    """What stands in the database and the data folder, the same in every copy."""

    home: Path
    database_url: str
    orders: Mapping[str, PlacedOrder]
    campaigns: Mapping[str, uuid.UUID]
    api_keys: Mapping[str, str]
    refused: Mapping[str, str]
    """Paths of codes that are signed by the right key, or nearly so, and must be refused all the same."""


@dataclass(frozen=True)
class SignedIn:
    """A member with an open session."""

    member_id: uuid.UUID
    phone: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@functools.cache  # each service derives the key anew from the passphrase, at the full cost of Argon2id
def signer_of(home: Path) -> SigningService:
    return service.with_file_custody(home / "keys", lambda: PASSPHRASE)


async def publish(session: Session, home: Path, signer: SigningService | None = None) -> None:
    """Publish the next trust bundle, as `fanxing bundle publish` does."""
    pin = read_pin((home / "root.pin").read_bytes())
    await publication.publish(session, signer or signer_of(home), pin, datetime.now(UTC))


async def install(home: Path, database_url: str) -> Installation:
    """Set up an installation with everything that tests ask for."""
    home.mkdir(parents=True)
    write_secret(home / "signer.passphrase", PASSPHRASE.encode())
    write_secret(home / "vault.key", vaults.new_key().hex().encode())
    signer = signer_of(home)
    database = Database(database_url)
    try:
        await migrations.upgrade(database)
        await procedures.install(database, PROCEDURES)
        async with database.writing() as session:
            root = await roots.establish(session, signer, TRUST_DOMAIN, datetime.now(UTC))
            (home / "root.pin").write_bytes(format_pin(root.fingerprint))
            made = await _populate(session, home, signer, vaults.load(home / "vault.key"))
    finally:
        await database.close()
    return Installation(home, database_url, *made)


@dataclass
class _Maker:
    session: Session
    signer: SigningService
    scheme: SerialScheme
    made: dict[str, PlacedOrder] = field(default_factory=dict)

    async def order(self, name: str, gtin: str, quantity: int, *faces: Profile, on_sale: bool = True) -> CodeOrder:
        plan = await orders.plan(self.session, gtin, quantity, faces or tuple(Profile), "https://id.example.cn")
        placed = await orders.place(self.session, plan, PLACED_AT)
        await events.record_for_order(
            self.session, placed, Happening(Step.COMMISSIONED, PLACED_AT, None, "the stand"), PLACED_AT
        )
        if on_sale:
            await orders.activate(self.session, placed)
        key = await self.session.get_one(SigningKey, placed.kid)
        assert placed.order_id is not None
        codes: dict[str, dict[str, str]] = {}
        sign = order_signer(placed.recipe, self.scheme, partial(self.signer.sign_many, key))
        for section in pipeline.sections(placed.faces, [(0, quantity - 1)]):
            chunk = pipeline.make(placed.recipe, sign, section)
            for serial, text in zip(chunk.serials, chunk.texts, strict=True):
                codes.setdefault(serial, {})[section.face.name.lower()] = text.removeprefix(placed.base_url)
        items = tuple(Item(gtin, serial, **faces) for serial, faces in codes.items())
        self.made[name] = PlacedOrder(gtin, placed.order_number, placed.order_id, items)
        return placed

    async def signed(self, placed: CodeOrder, serial: str, face: Profile) -> str:
        """The path of a code that the order's own key signs, whether or not the item was issued."""
        key = await self.session.get_one(SigningKey, placed.kid)
        [signature] = self.signer.sign_many(key, [encode_message(int(face), key.kid, placed.gtin, serial)])
        return encode_text("", face, key.kid, signature, placed.gtin, serial)


async def _populate(session: Session, home: Path, signer: SigningService, vault: Vault) -> tuple[Any, Any, Any, Any]:
    issuer = await keys.create_issuer(session, "Stand Dairy", [PREFIX], PLACED_AT)
    assert issuer.issuer_id is not None
    create_serial_key(session, vault, issuer.issuer_id)
    await session.flush()
    first_key = await signer.create_key(session, issuer, PLACED_AT)
    brand = await catalogue.create_brand(session, issuer, GROUP, BRAND, "星河雪糕", "Star Cream", PLACED_AT)
    other = await catalogue.create_brand(session, issuer, GROUP, OTHER_BRAND, "月亮茶", "Moon Tea", PLACED_AT)
    await catalogue.create_product(session, brand, GTIN, "海盐荔枝雪糕", "Sea salt lychee ice cream", PLACED_AT)
    await catalogue.create_product(session, other, OTHER_GTIN, "桂花乌龙", "Osmanthus oolong", PLACED_AT)

    maker = _Maker(session, signer, await scheme_of(session, vault, issuer.issuer_id))
    await maker.order("key revoked", GTIN, 5)
    _retired, second_key = await signer.rotate_key(session, issuer, PLACED_AT)
    on_sale = await maker.order("on sale", GTIN, ITEMS_ON_SALE)
    for name in ("dormant", "to be activated", "to be activated too"):
        await maker.order(name, GTIN, 20, on_sale=False)
    recalled = await maker.order("recalled", GTIN, 5)
    outer_only = await maker.order("outer only", GTIN, 5, Profile.OUTER)
    await maker.order("other brand", OTHER_GTIN, 500)
    await maker.order("order revoked", GTIN, 5)
    await maker.order("items revoked", GTIN, 5)

    await orders.recall(session, recalled, "Glass splinters were found in this batch.")
    await events.record_for_order(session, recalled, Happening(Step.RECALLED, PLACED_AT, None, "the stand"), PLACED_AT)
    await keys.end_key(session, first_key.kid, KeyState.REVOKED, PLACED_AT)
    number = maker.made["order revoked"].number
    await keys.revoke_orders(session, GTIN, number, number, "stolen", PLACED_AT)
    await keys.revoke_item(session, GTIN, maker.made["items revoked"].items[0].serial, "stolen", PLACED_AT)
    await publish(session, home, signer)

    refused = {
        "NeverIssued serial": await maker.signed(on_sale, _unissued(maker.scheme, on_sale), Profile.INNER),
        "NeverIssued order": await maker.signed(on_sale, "98765" + "0" * 9, Profile.INNER),
        "NeverIssued face": await maker.signed(outer_only, maker.made["outer only"].items[0].serial, Profile.INNER),
        "BadSignature": forged(maker.made["on sale"].items[0].inner),
        "UnknownKey": maker.made["on sale"].items[0].inner.replace(f"/2{second_key.kid:05d}", "/299999", 1),
        "Malformed": maker.made["on sale"].items[0].inner + "0",
        "Revoked item": maker.made["items revoked"].items[0].inner,
        "Revoked order": maker.made["order revoked"].items[0].inner,
        "Revoked key": maker.made["key revoked"].items[0].inner,
        "Recalled": maker.made["recalled"].items[0].inner,
    }
    made_campaigns = await _campaigns(session, vault, brand, other)
    return maker.made, made_campaigns, await _api_keys(session, brand.brand_id, other.brand_id), refused


def _unissued(scheme: SerialScheme, placed: CodeOrder) -> str:
    return placed.serial(int(scheme.item_numbers(placed.gtin, placed.order_number, placed.quantity, 1)[0]))


async def _campaigns(
    session: Session, vault: Vault, brand: catalogue.Brand, other: catalogue.Brand
) -> dict[str, uuid.UUID]:
    now = datetime.now(UTC)
    assert brand.brand_id is not None
    coupon = await catalogue_of_benefits.create(
        session,
        NewBenefit(
            brand_id=brand.brand_id,
            group_id=brand.group_id,
            kind=BenefitKind.COUPON,
            name_zh="满十减五",
            name_en="5 off 10",
            starts_at=now - timedelta(days=1),
            ends_at=now + timedelta(days=30),
            value_fen=500,
            valid_days=30,
        ),
        now,
    )
    await stock.procure(session, coupon, 5_000, procurement_id=coupon.benefit_id, now=now)
    coupon_prize = NewPrize(Prize(PrizeKind.BENEFIT, 1, coupon.benefit_id), 5_000)
    plain_prize = NewPrize(Prize(PrizeKind.POINTS, 100), 10_000_000)
    asked: dict[str, dict[str, Any]] = {
        "points": {},
        "data": {"prizes": (NewPrize(Prize(PrizeKind.MEGABYTES, 5), 500_000),)},
        "coupon": {"prizes": (coupon_prize,), "face": Face.OUTER, "limits": Limits(member=1)},
        "not started": {"starts_at": now + timedelta(days=5)},
        "ended": {"starts_at": now - timedelta(days=20), "ends_at": now - timedelta(days=1)},
        "paused": {},
        "scarce": {"prizes": (NewPrize(Prize(PrizeKind.POINTS, 100), 100),)},
        "other brand": {"brand_id": other.brand_id, "title_zh": "茶礼", "title_en": "Tea gift"},
    }
    made = {}
    for name, changes in asked.items():
        plain: dict[str, Any] = {
            "brand_id": brand.brand_id,
            "group_id": brand.group_id,
            "title_zh": f"活动 {name}",
            "title_en": f"Campaign {name}",
            "face": Face.INNER,
            "prizes": (plain_prize,),
            "starts_at": now - timedelta(days=1),
            "ends_at": now + timedelta(days=30),
        }
        campaign = await campaigns.create(session, vault, NewCampaign(**(plain | changes)), now - timedelta(days=30))
        made[name] = campaign.campaign_id
    await campaigns.set_status(session, made["paused"], CampaignStatus.PAUSED)
    return made


async def _api_keys(session: Session, brand_id: int | None, other_id: int | None) -> dict[str, str]:
    asked: dict[str, tuple[Role, int | None, tuple[str, ...]]] = {
        "brand": (Role.BRAND, brand_id, ()),
        "logistics": (Role.LOGISTICS, brand_id, ()),
        "shop": (Role.SHOP, brand_id, ()),
        "regulator": (Role.REGULATOR, None, ()),
        "other brand": (Role.BRAND, other_id, ()),
        "other shop": (Role.SHOP, other_id, ()),
        "brand, other GTINs": (Role.BRAND, brand_id, (OTHER_GTIN[1:13],)),
        "logistics, other GTINs": (Role.LOGISTICS, brand_id, (OTHER_GTIN[1:13],)),
        "regulator, these GTINs": (Role.REGULATOR, None, (GTIN[1:13],)),
        "regulator, other GTINs": (Role.REGULATOR, None, (OTHER_GTIN[1:13],)),
        "regulator, other brand": (Role.REGULATOR, other_id, ()),
        "revoked": (Role.REGULATOR, None, ()),
    }
    texts = {}
    for label, (role, for_brand, prefixes) in asked.items():
        key, texts[label] = await api_keys.create(
            session, role, label, PLACED_AT, brand_id=for_brand, gtin_prefixes=prefixes
        )
        if label == "revoked":
            await api_keys.revoke(session, key.key_id, PLACED_AT)
    return texts


def forged(path: str) -> str:
    """The code with another digit in the middle of its signature."""
    at = 90
    return f"{path[:at]}{(int(path[at]) + 1) % 10}{path[at + 1 :]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(
    condition: Callable[[], Answer], what: str, deadline_s: float = WAIT_DEADLINE_S, pause_s: float = 0.05
) -> Answer:
    """Poll till the condition is true, and return what it gave."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(pause_s)
    raise AssertionError(f"waited {deadline_s} s for {what}")


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine in a thread of its own, since a browser's test may have a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Environment:
    """The environment of child processes: ours, without its FANXING_* variables."""

    def __init__(self, bytecode: Path) -> None:
        self._variables = {name: value for name, value in os.environ.items() if not name.startswith("FANXING_")}
        if sys.dont_write_bytecode:
            # Where nothing is kept, compiling all imports anew at each start would cost more than all else here.
            del self._variables["PYTHONDONTWRITEBYTECODE"]
            self._variables["PYTHONPYCACHEPREFIX"] = str(bytecode)

    def with_settings(self, settings: Mapping[str, str]) -> dict[str, str]:
        return {**self._variables, **{f"FANXING_{name}": value for name, value in settings.items()}}


class Server:
    """`fanxing serve` as a process of its own, on a port that stays the same after a restart."""

    def __init__(self, environment: Environment, home: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = home / "server.log"
        self._environment = environment.with_settings(
            {
                "HOME": str(home),
                "PORT": str(self.port),
                "BASE_URL": self.url,
                "TRUST_DOMAIN": TRUST_DOMAIN,
                "CODE_SENDER": "development",
                **settings,
            }
        )
        self._process: BaseProcess | None = None

    @property
    def log(self) -> str:
        """All that the server wrote, over all its lives."""
        return self.log_path.read_text(encoding="utf-8")

    def start(self) -> None:
        """Start the process and wait till it answers."""
        self.log_path.touch()
        self._process = nursery.serve(self._environment, self.log_path)
        wait_until(self._answers, f"the server to start; it said:\n{self.log[-4000:]}", START_DEADLINE_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.is_alive(), f"the server ended:\n{self.log[-4000:]}"
        try:
            return httpx2.get(f"{self.url}/healthz", trust_env=False, verify=False).status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, with_signal)
        process.join(STOP_DEADLINE_S)
        if process.is_alive():
            process.kill()
            process.join()
            raise AssertionError(f"the server did not end in {STOP_DEADLINE_S} s; it said:\n{self.log[-4000:]}")


class CarrierProcess:
    """`python -m loadtest.carrier` as a process of its own."""

    def __init__(self, environment: Environment, state: Path, *misbehaviour: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.carrier", "--port", "0", "--state", state, *misbehaviour],
            env=environment.with_settings({}),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def statistics(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx2.get(f"{self.url}/statistics", trust_env=False, verify=False).json()
        return answer

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


@dataclass
class Stand:
    """A copy of the installation, and the server that runs on it."""

    # Its thousands of codes would bury every report of a failure.
    installation: Installation = field(repr=False)
    home: Path
    database_url: str
    server: Server = field(repr=False)
    carrier: CarrierProcess = field(repr=False)
    _items: Iterator[Item] = field(init=False, repr=False)
    _phones: Iterator[str] = field(init=False, repr=False)
    http: httpx2.Client = field(init=False, repr=False)
    """For requests that leave no cookies behind."""
    tests: int = field(init=False, default=0, repr=False)
    """That used it so far, if it is shared."""

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of every field

    def __post_init__(self) -> None:
        # The first ones stay for tests that name them.
        self._items = iter(self.order("on sale").items[10:])
        self._phones = (f"+86138{number:08d}" for number in itertools.count(10_000_000))
        self.http = self.client()
        dialect = "postgresql+psycopg" if self.database_url.startswith("postgresql") else "sqlite"
        self._engine = create_engine(
            dialect + self.database_url[self.database_url.index("://") :], pool_size=1, pool_pre_ping=True
        )
        if dialect == "sqlite":
            event.listen(self._engine, "connect", lambda raw, _record: raw.execute("PRAGMA busy_timeout=20000"))

    @property
    def vault(self) -> Vault:
        return vaults.load(self.home / "vault.key")

    def end(self) -> None:
        """End the processes."""
        self.http.close()
        self._engine.dispose()
        self.server.stop()
        self.carrier.stop()

    def order(self, name: str) -> PlacedOrder:
        return self.installation.orders[name]

    def campaign(self, name: str) -> str:
        return str(self.installation.campaigns[name])

    def key(self, label: str) -> dict[str, str]:
        """The headers of a request with this API key."""
        return {"Authorization": f"Bearer {self.installation.api_keys[label]}"}

    def text(self, path: str) -> str:
        """The code text of a path, as this server's codes have it."""
        return self.server.url + path

    def take_item(self) -> Item:
        """An item on sale that no other test has."""
        return next(self._items)

    def take_items(self, count: int) -> list[Item]:
        return list(itertools.islice(self._items, count))

    def new_phone(self) -> str:
        return next(self._phones)

    def members(self, count: int) -> list[SignedIn]:
        """New members, each with an open session, made in the database."""
        return self.run(partial(self._enrol, count))

    def member(self) -> SignedIn:
        return self.members(1)[0]

    async def _enrol(self, count: int, session: Session) -> list[SignedIn]:
        now, vault = datetime.now(UTC), self.vault
        group_id = (
            await session.exec(select(catalogue.BrandGroup.group_id).where(catalogue.BrandGroup.name == GROUP))
        ).one()
        assert group_id is not None
        signed_in = []
        for phone in itertools.islice(self._phones, count):
            member, _is_new = await members.find_or_enrol(session, vault, group_id, phone, now)
            token = await sign_in.open_session(session, member.member_id, now)
            signed_in.append(SignedIn(member.member_id, phone, token))
        return signed_in

    def run(self, work: Callable[[Session], Any]) -> Any:
        """Call a domain function in a transaction of its own, beside the server."""

        async def in_transaction() -> Any:
            database = Database(self.database_url, 1)
            try:
                async with database.writing() as session:
                    return await work(session)
            finally:
                await database.close()

        return run(in_transaction())

    def rows(self, query: Any) -> list[Any]:
        """What the database holds now."""
        with SyncSession(self._engine) as session:
            return list(session.exec(query).all())

    def execute(self, statement: Any) -> None:
        """Change the database behind the server's back."""
        with SyncSession(self._engine) as session:
            session.exec(statement)
            session.commit()

    def counts(self, without: Collection[str] = ()) -> dict[str, int]:
        """The number of rows of every table, when no work is left in the outbox."""
        self.wait_for_fulfilment()
        # What the server fills in its own time.
        hidden = {*without, "tally", "tally_source", "log_head", "log_leaf", "log_pending", "log_tile"}
        tables = [table for table in SQLModel.metadata.sorted_tables if table.name not in hidden]
        counted = [select(func.count()).select_from(table).scalar_subquery().label(table.name) for table in tables]
        with self._engine.connect() as connection:
            return dict(connection.execute(sqlalchemy.select(*counted)).one()._mapping)

    def wait_for_fulfilment(self) -> None:
        """Wait till the server has done all that claims leave behind: orders at the carrier, and news of them.

        Other work may wait for ever: for a receiver of webhooks that is gone, or a provider that the stand lacks.
        """
        topics = (fulfilment.topic_of("carrier"), *news.TOPICS)
        unfinished = (
            select(OutboxMessage.message_id)
            .where(col(OutboxMessage.done_at).is_(None), col(OutboxMessage.topic).in_(topics))
            .limit(1)
        )
        wait_until(lambda: not self.rows(unfinished), "the orders of claims to be done")

    def books(self) -> LedgerReport:
        report: LedgerReport = self.run(ledger.verify)
        return report

    def asset_totals(self) -> dict[str, int]:
        """The sum of all entries by asset."""
        total: Any = func.sum(ledger.Entry.amount)
        return dict(self.rows(select(ledger.Entry.asset, total).group_by(ledger.Entry.asset)))

    def client(self, **options: Any) -> httpx2.Client:
        """A client of its own, which keeps cookies as a browser does and follows no redirects."""
        # Without `verify` it would read all certificate authorities of the world, to speak plain HTTP.
        return httpx2.Client(base_url=self.server.url, trust_env=False, verify=False, timeout=30, **options)

    def at_once(self, requests: Sequence[Mapping[str, Any]], method: str = "POST") -> list[httpx2.Response]:
        """Send requests all at the same time, each on a connection of its own."""

        async def send() -> list[httpx2.Response]:
            limits = httpx2.Limits(max_connections=len(requests))
            async with httpx2.AsyncClient(
                base_url=self.server.url, trust_env=False, verify=False, timeout=60, limits=limits
            ) as client:
                return list(await asyncio.gather(*(client.request(method, **request) for request in requests)))

        return run(send())

    def claim_request(
        self, member: SignedIn, path: str, campaign: str = "points", *, key: str | None = None, **changes: Any
    ) -> dict[str, Any]:
        """A claim as arguments of `client.post`, with a new key unless one is given; `changes` go into the body."""
        return {
            "url": "/v1/claims",
            "json": {"code_text": self.text(path), "campaign_id": self.campaign(campaign)} | changes,
            "headers": {**member.headers, "Idempotency-Key": key or str(uuid.uuid4())},
        }

    def claim(
        self, member: SignedIn, path: str, campaign: str = "points", *, key: str | None = None, **changes: Any
    ) -> httpx2.Response:
        """Send a claim, see `claim_request`."""
        return self.http.post(**self.claim_request(member, path, campaign, key=key, **changes))

    def scan(self, path: str, **headers: str) -> httpx2.Response:
        """GET the code's URL as a client that takes JSON unless it says otherwise."""
        given = {"accept": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.http.get(path, headers=given)

    def metric(self, name: str, **labels: str) -> float:
        """A counter's value; 0 when it was never counted."""
        lines = self.http.get("/metrics").text.splitlines()
        for line in lines:
            if line.startswith(name) and all(f'{label}="{value}"' in line for label, value in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


class Stands:
    """Makes stands, and ends their processes."""

    def __init__(self, folder: Path) -> None:
        self.environment = Environment(folder / "bytecode")
        self._folder = folder
        self._numbers = itertools.count()
        self._installations: dict[str, Installation] = {}
        self._shared: dict[str, Stand] = {}
        self._databases: list[tuple[Any, str]] = []

    def installation(self, kind: str, postgres: Any) -> Installation:
        """The installation that stands are copies of."""
        if kind not in self._installations:
            home = self._folder / f"installation-{kind}"
            url = self._new_database(kind, home, postgres)
            self._installations[kind] = run(install(home, url))
        return self._installations[kind]

    def _new_database(self, kind: str, home: Path, postgres: Any, template: str | None = None) -> str:
        if kind == "sqlite":
            return f"sqlite:///{home / 'fanxing.db'}"
        if template is None:
            name = postgres.create()
        else:
            name = f"stand_{next(self._numbers)}"
            with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._databases.append((postgres, name))
        url: str = postgres.url(name)
        return url

    def copy(self, kind: str, postgres: Any, misbehaviour: Sequence[str] = (), **settings: str) -> Stand:
        """A copy of the installation with a server that is not running yet. `settings` are FANXING_* variables."""
        original = self.installation(kind, postgres)
        home = self._folder / f"stand-{next(self._numbers)}"
        shutil.copytree(original.home, home)
        url = self._new_database(kind, home, postgres, make_url(original.database_url).database)
        carrier = CarrierProcess(self.environment, home / "carrier.db", *misbehaviour)
        server = Server(self.environment, home, {"DATABASE_URL": url, "CARRIER_URL": carrier.url, **settings})
        return Stand(original, home, url, server, carrier)

    def shared(self, kind: str, postgres: Any) -> Stand:
        """The running stand that tests share."""
        if kind not in self._shared:
            self._shared[kind] = stand = self.copy(kind, postgres, ("--queries-until-settled", "0"))
            stand.server.start()
        return self._shared[kind]

    def close(self) -> None:
        """End what is still running. May be called more than once."""
        while self._shared:
            _kind, stand = self._shared.popitem()
            stand.end()
        while self._databases:
            postgres, name = self._databases.pop()
            postgres.drop(name)


_STANDS = pytest.StashKey[Stands]()


@pytest.fixture(scope="session")
def stands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stands]:
    # Several conftests import this fixture, and each import is a fixture of its own to pytest: they share one object.
    if _STANDS not in request.config.stash:
        request.config.stash[_STANDS] = Stands(tmp_path_factory.mktemp("stands"))
    request.getfixturevalue("postgres_server")  # which must outlive the stands
    yield request.config.stash[_STANDS]
    request.config.stash[_STANDS].close()


@pytest.fixture(params=KINDS)
def stand_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def stand(stands: Stands, stand_kind: str, postgres_server: Any) -> Stand:
    """The running stand that tests share, of either kind."""
    shared = stands.shared(stand_kind, postgres_server)
    shared.tests += 1
    if shared.tests % CODES_FORGOTTEN_EVERY_TESTS == 0:
        # All tests come from one address, and together they ask for more codes than one may in an hour.
        shared.execute(delete(CodeWindow))
    return shared


MakeStand = Callable[..., Stand]


@pytest.fixture
def make_stand(stands: Stands, stand_kind: str, postgres_server: Any) -> Iterator[MakeStand]:
    """Makes stands of a test's own, their servers not yet started."""
    made: list[Stand] = []

    def make(*misbehaviour: str, **settings: str) -> Stand:
        made.append(stands.copy(stand_kind, postgres_server, misbehaviour, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()
