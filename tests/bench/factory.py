"""A factory on SQLite with one key in file custody, and orders of any size for it to make."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import migrations
from codes import orders, pipeline, runs
from codes.catalogue import create_brand, create_product
from codes.engines import Engine
from codes.engines.inline import InlineEngine
from codes.engines.local import LocalEngine
from codes.exports import ExportKind, section_items
from codes.exports.layout import Layout
from codes.orders import CodeOrder
from codes.production import Production
from codes.rendering import Job
from codes.runs import RunSpec
from codes.serials import SerialScheme, create_serial_key, scheme_of
from codes.signing import CustodyAccess, order_signer
from kit.clock import system_clock
from kit.db import Database
from kit.vault import Vault
from offline_sdk.algorithms import Algorithm
from offline_sdk.code_text import Profile, encode_messages
from signer import service
from signer.custody.file import FileCustody
from signer.keys import SigningKey, create_issuer
from signer.service import FileCustodyAccess

GTIN = "09506000134352"
BASE_URL = "https://id.example.cn"
KID = 1
_KEY_NAME = "key-00001"
_PASSPHRASE = "a passphrase for measurements alone"


class Factory:
    """Signs codes without any database."""

    def __init__(self, folder: Path) -> None:
        custody = FileCustody(folder, lambda: _PASSPHRASE)
        self.public = custody.create(_KEY_NAME, Algorithm.ED25519)
        self._signer = service.SigningService(custody)
        now = datetime.now(UTC)
        self._key = SigningKey(kid=KID, issuer_id=1, public=self.public, custody_name=_KEY_NAME, created_at=now)
        self.scheme = SerialScheme(os.urandom(32))
        self._signer.open_key(self._key)

    def recipe(self, quantity: int) -> pipeline.Recipe:
        """An order of outer codes."""
        return pipeline.Recipe(GTIN, 1, quantity, (Profile.OUTER,), BASE_URL, KID)

    def sign(self, messages: Sequence[bytes]) -> list[bytes]:
        return self._signer.sign_many(self._key, messages)

    def texts(self, quantity: int) -> list[str]:
        """So many code texts."""
        recipe = self.recipe(quantity)
        sign = order_signer(recipe, self.scheme, self.sign)
        cut = pipeline.sections(recipe.faces, [(0, quantity - 1)])
        return [text for section in cut for text in pipeline.make(recipe, sign, section).texts]


class Works:
    """Everything that `fanxing order create` works with: orders, runs, chunks and their leases are rows."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'works.db'}")
        self._access = FileCustodyAccess(folder / "keys", _PASSPHRASE)
        self._service = self._access.open()
        self._folder = folder
        self._numbers = iter(range(1_000_000))

    async def open(self) -> None:
        """Make database, issuer, keys and a product."""
        await migrations.upgrade(self.database)
        vault, now = Vault(os.urandom(32)), system_clock()
        async with self.database.writing() as session:
            issuer = await create_issuer(session, "Bench", ["9506000"], now)
            assert issuer.issuer_id is not None
            create_serial_key(session, vault, issuer.issuer_id)
            self._key = await self._service.create_key(session, issuer, now)
            brand = await create_brand(session, issuer, "Bench", "bench", "测", "Bench", now)
            await create_product(session, brand, GTIN, "测", "Bench", now)
            self._scheme = await scheme_of(session, vault, issuer.issuer_id)
        self._service.open_key(self._key)

    async def order(self, quantity: int) -> CodeOrder:
        """Place an order of outer codes."""
        async with self.database.writing() as session:
            plan = await orders.plan(session, GTIN, quantity, (Profile.OUTER,), BASE_URL)
            return await orders.place(session, plan, system_clock())

    def messages(self, order: CodeOrder, count: int) -> list[bytes]:
        """What is signed for the order's first codes."""
        numbers = self._scheme.item_numbers(order.gtin, order.order_number, 0, count).tolist()
        return encode_messages(Profile.OUTER, order.kid, order.gtin, [order.serial(number) for number in numbers])

    async def production(
        self, order: CodeOrder, workers: int, kinds: tuple[ExportKind, ...] = (ExportKind.CSV,)
    ) -> tuple[Production, Engine]:
        """A run of the order, and an engine for it that is not open yet."""
        layout = Layout()
        spec = RunSpec(
            order.faces, ((0, order.quantity - 1),), kinds, layout, section_items(kinds, order.recipe, layout)
        )
        folder = self._folder / f"run-{next(self._numbers)}"
        async with self.database.writing() as session:
            run = await runs.begin(session, order, spec, str(folder), os.urandom(32), system_clock())
        sign = partial(self._service.sign_many, self._key)
        work = Production(self.database, order, run, lambda message: sign([message])[0], system_clock)
        job, access = Job(order.recipe, kinds, layout), CustodyAccess(self._access, self._key, self._scheme)
        return work, InlineEngine(job, access.signer(job.recipe)) if workers == 1 else LocalEngine(job, access, workers)
