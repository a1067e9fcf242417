"""`fanxing device`: invitations as text and QR, the list of devices, revocation."""

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zxingcpp
from PIL import Image
from sqlalchemy import create_engine
from sqlmodel import Session as SyncSession

from kit import vault as vaults
from kit.db import Database, driver_url
from scan_api import devices
from scan_api.devices import Device
from tests.scan_api.test_commands import ON_SQLITE, Terminal, bare, shop
from tests.stand import run

__all__ = ["bare", "shop"]

NOBODY = uuid.UUID(int=0)
PUBLIC = bytes(range(1, 33))


def enrol(terminal: Terminal, code: str, public: bytes = PUBLIC) -> str:
    """Let a device in, as the server does; its id."""

    async def work() -> str:
        database = Database(terminal.database_url, 1)
        vault = vaults.load(terminal.home / "vault.key")
        let_in = partial(devices.enrol, vault=vault, domain="fanxing", code=code, public=public, own_name="pi-4")
        try:
            async with database.writing() as session:
                return str((await let_in(session, now=datetime.now(UTC))).device_id)
        finally:
            await database.close()

    device_id: str = run(work())
    return device_id


def told(terminal: Terminal, device_id: str, **values: Any) -> None:
    """What a device said of itself when it last synced."""
    engine = create_engine(driver_url(terminal.database_url).replace("+aiosqlite", ""))
    with SyncSession(engine) as session:
        device = session.get_one(Device, uuid.UUID(device_id))
        for name, value in values.items():
            setattr(device, name, value)
        session.commit()
    engine.dispose()


def test_invitation_lets_a_device_in_and_its_picture_says_the_same(shop: Terminal, tmp_path: Path) -> None:
    picture = tmp_path / "code.png"
    made = shop.ask(f"device invite --brand ice --name 'till 3' --out {picture}")
    code = made["code"].replace("-", "")
    pin = (shop.home / "root.pin").read_text().strip()
    assert made["text"] == f"fanxing-enrol:1?server=https%3A%2F%2Fid.example.cn&code={code}&pin={pin}"
    assert [found.text for found in zxingcpp.read_barcodes(Image.open(picture))] == [made["text"]]
    assert picture.stat().st_mode & 0o777 == 0o600
    lives = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=55) < lives <= timedelta(hours=24)
    device_id = enrol(shop, made["code"])
    [device] = shop.ask("device list")
    assert (device["device_id"], device["name"], device["own_name"]) == (device_id, "till 3", "pi-4")
    assert (device["brand"], device["last_sync_at"], device["bundle_age_hours"]) == ("ice", None, None)


@ON_SQLITE
def test_people_see_code_pin_and_a_symbol_that_a_scanner_reads(shop: Terminal) -> None:
    done = shop.run("device invite --all-brands --name 'till 3' --hours 0.5")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    drawn = [line for line in lines if set(line) & set("█▀▄")]
    # Half blocks: two rows of modules a line, light modules drawn.
    rows = []
    for line in drawn:
        cells = line.replace("\xa0", " ")
        rows.append([255 if cell in "█▀" else 0 for cell in cells])
        rows.append([255 if cell in "█▄" else 0 for cell in cells])
    width = max(map(len, rows))
    image = Image.new("L", (width, len(rows)), 255)
    image.putdata([pixel for row in rows for pixel in row + [255] * (width - len(row))])
    [found] = zxingcpp.read_barcodes(image.resize((width * 4, len(rows) * 4), Image.Resampling.NEAREST))
    code = found.text.split("code=")[1].split("&")[0]
    assert devices.grouped(code) in done.stdout
    assert found.text.split("pin=")[1] in done.stdout


@ON_SQLITE
def test_no_code_is_left_behind_where_its_picture_cannot_be_written(shop: Terminal, tmp_path: Path) -> None:
    (tmp_path / "code.png").write_bytes(b"somebody's")
    assert shop.refusal(f"device invite --all-brands --name x --out {tmp_path / 'code.png'}") == "FileRefused"
    assert (tmp_path / "code.png").read_bytes() == b"somebody's"
    assert shop.rows()["device_invitation"] == 0


@ON_SQLITE
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--name x", "ArgumentInvalid"),
        ("--name x --brand ice --all-brands", "ArgumentInvalid"),
        ("--name x --brand tea", "BrandUnknown"),
        ("--name '' --all-brands", "InvitationInvalid"),
        ("--name x --all-brands --hours 0", "InvitationInvalid"),
        ("--name x --all-brands --hours 168.01", "InvitationInvalid"),
        ("--name x --all-brands --hours 1e300", "InvitationInvalid"),
        ("--name x --all-brands --hours nan", "InvitationInvalid"),
    ],
)
def test_invitations_that_make_no_sense_are_refused(shop: Terminal, arguments: str, code: str) -> None:
    assert shop.refusal(f"device invite {arguments}") == code
    assert shop.rows()["device_invitation"] == 0


def test_list_tells_how_old_a_devices_bundle_is_and_what_waits(shop: Terminal) -> None:
    assert shop.ask("device list") == []
    assert "No device yet." in shop.run("device list").stdout
    published = shop.ask("bundle publish")
    device_id = enrol(shop, shop.ask("device invite --all-brands --name 'till 3'")["code"])
    told(
        shop,
        device_id,
        last_sync_at=datetime.now(UTC),
        bundle_seq=published["bundle_seq"],
        root_version=1,
        waiting=12,
        clock_offset_ms=-1_500,
    )
    [device] = shop.ask("device list")
    assert (device["bundle_seq"], device["bundle_age_hours"]) == (published["bundle_seq"], 0.0)
    assert (device["waiting"], device["clock_offset_s"], device["brand"]) == (12, -1.5, None)
    told(shop, device_id, bundle_seq=published["bundle_seq"] + 1)
    [device] = shop.ask("device list")
    assert device["bundle_age_hours"] is None, "a bundle that this server never published has no age here"
    assert device_id in shop.run("device list").stdout


def test_revocation_needs_a_yes_and_stays(shop: Terminal) -> None:
    device_id = enrol(shop, shop.ask("device invite --brand ice --name 'till 3'")["code"])
    told(shop, device_id, waiting=1_200)
    dry = shop.ask(f"device revoke {device_id}")
    assert (dry["dry_run"], dry["revoked_at"], dry["waiting"]) == (True, None, 1_200)
    assert "1,200 records wait" in shop.run(f"device revoke {device_id}").stdout
    assert shop.ask("device list")[0]["revoked_at"] is None
    done = shop.ask(f"device revoke {device_id} --yes")
    assert done["revoked_at"] is not None
    assert "dry_run" not in done
    assert shop.ask(f"device revoke {device_id} --yes")["revoked_at"] == done["revoked_at"]
    assert shop.ask("device list")[0]["revoked_at"] == done["revoked_at"]
    assert "Revoked since" in shop.run(f"device revoke {device_id} --yes").stdout


@ON_SQLITE
def test_unknown_device_is_not_revoked(shop: Terminal) -> None:
    for yes in ("", " --yes"):
        assert shop.refusal(f"device revoke {NOBODY}{yes}") == "DeviceUnknown"
