"""What a stolen database does not give: private keys, passphrases, serial keys."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from sqlmodel import SQLModel, select

import signer.custody.file
from codes import orders
from codes.serials import SerialKey, scheme_of
from kit.db import Database
from offline_sdk import Profile
from signer import keys, publication, roots
from signer.keys import KeyState
from tests.codes.conftest import BASE_URL, GTIN, NOW, PASSPHRASE, Market, open_market
from tests.codes.factory import SmallFactory


def seed_in(path: Path) -> bytes:
    record = json.loads(path.read_bytes())
    kdf = record["kdf"]
    opening = Argon2id(
        salt=bytes.fromhex(kdf["salt"]),
        length=32,
        iterations=kdf["passes"],
        lanes=kdf["lanes"],
        memory_cost=kdf["memory_kib"],
    ).derive(PASSPHRASE.encode())
    sealed, name = bytes.fromhex(record["sealed"]), path.name.removesuffix(".key.json")
    context = b"\x00".join(
        (b"fanxing/custody/file/2", name.encode(), record["algorithm"].encode(), bytes.fromhex(record["public"]))
    )
    return AESGCM(opening).decrypt(sealed[:12], sealed[12:], context)


async def whole_flow(database: Database, keys_folder: Path, exports_folder: Path) -> tuple[Market, list[bytes]]:
    """A domain's life, from its root to a recall; the market, and every secret that it has."""
    market = await open_market(database, keys_folder)
    assert market.issuer.issuer_id is not None
    async with database.writing() as session:
        plan = await orders.plan(session, GTIN, 50, (Profile.OUTER, Profile.INNER), BASE_URL)
        order = await orders.place(session, plan, NOW)
        scheme = await scheme_of(session, market.vault, market.issuer.issuer_id)
    factory = SmallFactory(database, market, order, scheme, exports_folder)
    await factory.carry_through(await factory.begin(factory.spec()))
    serial = (exports_folder / "outer.csv").read_text().splitlines()[1].split(",")[0]
    async with database.writing() as session:
        await orders.activate(session, order)
        await keys.revoke_item(session, GTIN, serial, "lost", NOW)
        await market.service.rotate_key(session, market.issuer, NOW)
        await keys.end_key(session, market.key.kid, KeyState.REVOKED, NOW)
        await orders.recall(session, order, "glass")
        root = await roots.establish(session, market.service, "test.example", NOW)
        await publication.publish(session, market.service, root.fingerprint, NOW)
    async with database.reading() as session:
        stored = await session.get_one(SerialKey, market.issuer.issuer_id)
    serial_key = market.vault.unseal(stored.sealed, f"serial_key/{market.issuer.issuer_id}".encode())
    seeds = [seed_in(path) for path in sorted(keys_folder.iterdir())]
    assert len(seeds) == 4  # two keys, a root, a publisher
    return market, [*seeds, serial_key, market.vault_key, PASSPHRASE.encode()]


def forms(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), secret.hex().upper().encode()]


async def test_no_private_key_passphrase_or_serial_key_is_in_the_database_file(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)
    path = tmp_path / "fanxing.db"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    market, secrets = await whole_flow(database, tmp_path / "keys", tmp_path / "exports")
    # While it is open the newest pages are in the write-ahead log.
    wal = tmp_path / "fanxing.db-wal"
    everything = path.read_bytes() + wal.read_bytes()
    await database.close()
    everything += path.read_bytes()
    assert market.key.public in everything, "this looks for bytes where there are none"
    for secret in secrets:
        for form in forms(secret):
            assert form not in everything


async def test_no_private_key_passphrase_or_serial_key_is_in_any_row(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer.custody.file, "_PASSES", 1)
    monkeypatch.setattr(signer.custody.file, "_MEMORY_KIB", 64)
    market, secrets = await whole_flow(database, tmp_path / "keys", tmp_path / "exports")
    cells: list[bytes] = []
    async with database.reading() as session:
        for table in SQLModel.metadata.sorted_tables:
            for row in await (await session.connection()).execute(select(table)):
                cells += [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
    assert market.key.public in cells
    for secret in secrets:
        for form in forms(secret):
            assert not any(form in cell for cell in cells)


async def test_errors_and_reprs_do_not_show_keys(database: Database, market: Market) -> None:
    (seed,) = [seed_in(path) for path in market.keys_folder.iterdir()]
    market.service.sign_many(market.key, [b"x"])
    for shown in (repr(market.service), repr(market.key), str(vars(market.service))):
        assert seed.hex() not in shown
        assert repr(seed)[2:-1] not in shown
