"""Finished exports and print houses' keys, as every test of packages needs them."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nacl.signing
import pyrage
import pytest

from codes import manifest, orders, packages
from codes.manifest import Manifest
from codes.orders import CodeOrder
from codes.packages import CodePackage
from codes.packages.sealing import Sealed
from kit.db import Database, Session
from kit.ids import new_id
from offline_sdk import Algorithm, Profile, Signer
from tests.codes.conftest import BASE_URL, GTIN, NOW, Market

KID = 7
RECIPIENT = "age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t3"
SEALED = Sealed(bytes(32), 1_000, 5)

MakeExport = Callable[..., "Export"]


@dataclass(frozen=True)
class Export:
    """A folder with files and their signed manifest."""

    folder: Path
    contents: Manifest


@dataclass(frozen=True)
class PrintHouse:
    """A key pair of age: what it tells everyone, and the file that it tells nobody."""

    recipient: str
    identity_file: Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="session")
def signing_key() -> nacl.signing.SigningKey:
    return nacl.signing.SigningKey(bytes(range(32)))


@pytest.fixture(scope="session")
def public_keys(signing_key: nacl.signing.SigningKey) -> dict[int, Signer]:
    return {KID: Signer(Algorithm.ED25519, bytes(signing_key.verify_key))}


@pytest.fixture
def make_export(tmp_path: Path, signing_key: nacl.signing.SigningKey, public_keys: dict[int, Signer]) -> MakeExport:
    """Write files and a signed manifest that speaks of them."""

    def make(files: Mapping[str, bytes], name: str = "export") -> Export:
        folder = tmp_path / name
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        told = [
            {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in files.items()
        ]
        document = json.dumps({"format": manifest.FORMAT, "kid": KID, "codes": 20, "files": told}).encode()
        folder.mkdir(exist_ok=True)
        manifest.write(folder, document, signing_key.sign(manifest.to_be_signed(document)).signature)
        return Export(folder, manifest.read(folder, public_keys))

    return make


@pytest.fixture
def export(make_export: MakeExport) -> Export:
    """A small export: a table, a sheet in a folder, and a file whose name and size are odd."""
    return make_export({"outer.csv": os.urandom(200_000), "sheets/00001.pdf": b"%PDF", "empty 空.txt": b""})


@pytest.fixture
def print_house(tmp_path: Path) -> PrintHouse:
    return new_print_house(tmp_path / "print-house.txt")


def new_print_house(path: Path) -> PrintHouse:
    """A new key pair, in a file as age-keygen writes it."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    path.write_text(f"# created: 2026-03-02T08:00:00Z\n# public key: {recipient}\n{identity}\n", encoding="ascii")
    return PrintHouse(recipient, path)


async def register(session: Session, order: CodeOrder, **changes: Any) -> CodePackage:
    """A package of the first hundred items, unless told otherwise."""
    plain: dict[str, Any] = {"name": "spring", "recipients": [RECIPIENT], "spans": [(0, 99)], "sealed": SEALED}
    return await packages.register(session, order, new_id(), **{**plain, **changes}, by="li", now=NOW)


@pytest.fixture
async def order(database: Database, market: Market) -> CodeOrder:
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, 1_000, (Profile.OUTER,), BASE_URL)
        return await orders.place(session, plan, NOW)


@pytest.fixture
async def package(database: Database, order: CodeOrder) -> CodePackage:
    async with database.writing() as session:
        return await register(session, order)
