"""What the code tests share: the published vectors, orders signed by their key, a small market in a database."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nacl.signing
import pytest
import zxingcpp
from PIL import Image

import signer.custody.file
from codes.catalogue import Brand, Product, create_brand, create_product
from codes.orders import CodeOrder
from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, make, sections
from codes.serials import SerialScheme, create_serial_key
from codes.signing import SignMany, order_signer
from kit.db import Database
from kit.vault import Vault
from offline_sdk import Bundle, BundleKey, Profile, Verifier
from signer import service
from signer.keys import Issuer, SigningKey, create_issuer
from signer.service import SigningService

VECTORS = Path(__file__).parents[1] / "vectors" / "code-text-v1.json"
NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
PASSPHRASE = "correct horse battery staple"
GTIN = "06901234567892"
BASE_URL = "https://id.example.cn"

MakeOrder = Callable[..., CodeOrder]
MakeRecipe = Callable[..., Recipe]
Chunks = Callable[..., Iterator[Chunk]]
"""The pipeline's chunks of a recipe, under the keys of the published vectors."""


def vectors() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return content


def vector_id(vector: dict[str, Any]) -> str:
    return f"{vector['order']}-{vector['index']}-{vector['profile']}"


def decoded(image: Image.Image) -> list[zxingcpp.Barcode]:
    """The QR symbols in a picture, read by a decoder that shares nothing with the encoder."""
    return list(zxingcpp.read_barcodes(image.convert("L"), formats=zxingcpp.BarcodeFormat.QRCode))


@pytest.fixture(scope="session")
def vector_key() -> nacl.signing.SigningKey:
    """The private key behind all key numbers of the vectors."""
    return nacl.signing.SigningKey(bytes.fromhex(vectors()["keys"][0]["seed_hex"]))


@pytest.fixture(scope="session")
def scheme() -> SerialScheme:
    """The permutation under the vectors' serial key."""
    return SerialScheme(bytes.fromhex(vectors()["serial_key_hex"]))


@pytest.fixture(scope="session")
def sign(vector_key: nacl.signing.SigningKey) -> SignMany:
    return lambda messages: [vector_key.sign(message).signature for message in messages]


@pytest.fixture(scope="session")
def verifier(vector_key: nacl.signing.SigningKey) -> Verifier:
    """A scanner that knows the vectors' keys."""
    public = bytes(vector_key.verify_key)
    keys = tuple(BundleKey(key["kid"], public, "Demo Dairy", ("690123456", "9506000")) for key in vectors()["keys"])
    issued = int(NOW.timestamp())
    return Verifier(Bundle("test.example", 1, issued, issued + 86_400, keys), now=NOW)


@pytest.fixture(scope="session")
def make_order() -> MakeOrder:
    """An order that needs no database."""

    def make(quantity: int, faces: Sequence[Profile] = (Profile.OUTER,), **fields: Any) -> CodeOrder:
        known = {"order_id": 7, "gtin": GTIN, "order_number": 1, "base_url": BASE_URL, "kid": 1, "created_at": NOW}
        return CodeOrder(
            quantity=quantity,
            outer_face=Profile.OUTER in faces,
            inner_face=Profile.INNER in faces,
            **known | fields,
        )

    return make


@pytest.fixture(scope="session")
def make_recipe() -> MakeRecipe:
    """The recipe of an order."""

    def recipe(quantity: int, faces: Sequence[Profile] = (Profile.OUTER,), **fields: Any) -> Recipe:
        known = {"gtin": GTIN, "order_number": 1, "base_url": BASE_URL, "kid": 1}
        return Recipe(quantity=quantity, faces=tuple(faces), **known | fields)

    return recipe


@pytest.fixture(scope="session")
def chunks(scheme: SerialScheme, sign: SignMany) -> Chunks:
    """Every chunk of a recipe: (recipe, items_max=CHUNK_ITEMS)."""

    def generate(recipe: Recipe, items_max: int = CHUNK_ITEMS) -> Iterator[Chunk]:
        signer = order_signer(recipe, scheme, sign)
        for section in sections(recipe.faces, [(0, recipe.quantity - 1)], items_max):
            yield make(recipe, signer, section)

    return generate


@dataclass(frozen=True)
class Market:
    """An issuer with a key and a serial key, a brand and a product, all stored."""

    service: SigningService
    vault: Vault
    vault_key: bytes
    keys_folder: Path
    issuer: Issuer
    key: SigningKey
    brand: Brand
    product: Product


@pytest.fixture
async def market(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Market:
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)
    return await open_market(database, tmp_path / "keys")


async def open_market(database: Database, keys_folder: Path) -> Market:
    vault_key = bytes(range(32))
    vault = Vault(vault_key)
    signing = service.with_file_custody(keys_folder, lambda: PASSPHRASE)
    async with database.writing() as session:
        issuer = await create_issuer(session, "Demo Dairy", ["690123456", "9506000"], NOW)
        assert issuer.issuer_id is not None
        create_serial_key(session, vault, issuer.issuer_id)
        key = await signing.create_key(session, issuer, NOW)
        brand = await create_brand(session, issuer, "Demo Group", "demo-dairy", "示范乳业", "Demo Dairy", NOW)
        product = await create_product(session, brand, GTIN, "鲜奶", "Milk", NOW)
    return Market(signing, vault, vault_key, keys_folder, issuer, key, brand, product)
