"""The demonstration from the first act to the last."""

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import httpx2
from rich.console import Console
from sqlmodel import col, select

from kit import logging
from kit.clock import Clock, iso, system_clock
from kit.db import Database
from kit.errors import Conflict
from kit.files import replacing
from kit.settings import Settings
from scan_api import devices
from scan_api.app import create_app
from scan_api.commands import terminal
from scan_api.commands.setup import prepare as prepare_installation
from scan_api.commands.terminal import Workshop
from scan_api.demo import brand, group, members, stage, users
from scan_api.demo.story import Story
from scan_api.demo.users import World
from scan_api.device_scans import DeviceScan
from scan_api.services import build
from signer import keys, publication

Answer = TypeVar("Answer")

_MARK = ".fanxing-demo"
_REVOKED_S_MAX = 15
# Left behind for whoever looks at the demonstration's data later.
_BUNDLE_LIFETIME = timedelta(days=366)


class FolderNotOurs(Conflict):
    code = "FolderNotOurs"


def play(home: Path, console: Console) -> Story:
    """Do it all in a fresh data folder, which stays. Raises FolderNotOurs rather than clear anything else."""
    started = time.monotonic()
    _clear(home)
    logging.configure("ERROR")
    clock, story = brand.summer_clock(), Story(console)
    console.print("Fanxing 繁星: one item, one code", style="bold")
    with stage.carrier(home) as carrier_url:
        port = stage.free_port(8000)
        settings = Settings(
            home=home,
            database_url="",
            host="127.0.0.1",
            port=port,
            base_url=f"http://127.0.0.1:{port}",
            code_sender="development",
            carrier_url=carrier_url,
            vault_key_file=None,
            signer_passphrase_file=None,
        )
        _play(settings, clock, story, console)
    story.write(home / "story.json")
    good = sum(step.went_well for step in story.steps)
    console.print(f"\n{good} of {len(story.steps)} steps as expected, in {time.monotonic() - started:.0f} s.")
    return story


def _clear(home: Path) -> None:
    if home.exists() and any(home.iterdir()):
        if not (home / _MARK).exists():
            raise FolderNotOurs(
                f"{home} holds something else than a demonstration", hint="Name an empty folder: --home FOLDER."
            )
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / _MARK).touch()


def _play(settings: Settings, clock: Clock, story: Story, console: Console) -> None:
    story.begin("The brand orders codes")
    if clock is not system_clock:
        story.tell(f"The campaign runs from May to September, so the clock stands on {iso(clock())[:10]}.")
    made, sisters = asyncio.run(_brand(settings, clock, console))
    outer, inner = (brand.read_csv(settings.home / f"{face}.csv") for face in ("outer", "inner"))
    story.expect("1,000 items have two codes each, all different", 2 * brand.QUANTITY, len({*outer, *inner}))
    sheets = [settings.home / "sheets" / f"{face}-00001.pdf" for face in ("outer", "inner")]
    printed = [text for sheet in sheets for text in stage.read_sheet(sheet)]
    story.expect("a QR reader finds all of them on the printed sheets, in order", True, printed == outer + inner)
    with (
        stage.serving(create_app(build(settings, clock)), settings.port),
        httpx2.Client(base_url=settings.base_url, timeout=30) as http,
    ):
        world = World(http, story, made, sisters, printed[: brand.QUANTITY], printed[brand.QUANTITY :])
        _acts(world, settings, clock)
    story.begin("The books")
    _the_books(settings, story)


def _acts(world: World, settings: Settings, clock: Clock) -> None:
    story, home = world.story, settings.home
    users.the_goods_move(world)
    story.begin("A shopper scans, is paid and becomes a member")
    users.the_shopper_scans(world)
    if stage.photograph(world.outer[0], home / "page.png"):
        story.tell(f"This is what a phone shows: {home / 'page.png'}")
    else:
        story.tell("No Chromium here, so no picture of the page (apt-get install -y chromium fonts-noto-cjk).")
    token = users.the_shopper_is_paid(world)
    story.begin("Cheats get nothing")
    users.the_cheats_fail(world)
    story.begin("A shop redeems, and verifies without a network")
    users.the_shop_redeems(world, token)
    _the_shop_verifies(world, settings, clock)
    story.begin("Two brands, one balance")
    _the_members_come(world, settings, clock, token)
    story.begin("A till's scanner is let in, scans, and syncs")
    _the_till_scans(world, settings, clock)
    story.begin("A regulator asks")
    users.the_regulator_asks(world, world.inner[0][-14:])


def _the_shop_verifies(world: World, settings: Settings, clock: Clock) -> None:
    story, home = world.story, settings.home
    trust, root = home / "trust.cbor", settings.root_pin_path
    revoked = world.outer[9]
    asyncio.run(_revoke(settings, clock, revoked[-14:], trust))
    genuine = world.outer[10]
    forged = genuine[:60] + str((int(genuine[60]) + 1) % 10) + genuine[61:]
    seen = stage.verify_offline(trust, root, [genuine, forged, revoked, "https://example.com/"])
    story.expect(
        "offline: genuine, forged, revoked and no code at all are told apart",
        [None, "BadSignature", "Revoked", "Malformed"],
        [line["error"] for line in seen],
    )
    deadline = time.monotonic() + _REVOKED_S_MAX
    while (answer := world.scan(revoked))[0] != 410 and time.monotonic() < deadline:
        time.sleep(0.2)
    story.expect("online, the revoked item is refused too", [410, "Revoked"], [answer[0], answer[1]["error"]])


def _the_members_come(world: World, settings: Settings, clock: Clock, token: str) -> None:
    home = settings.home
    outcome = asyncio.run(_with_shop(settings, lambda shop: group.bring_customers(shop, home / "crm.csv", clock)))
    gold_token = members.the_old_members_come(world, outcome)
    purchase_id = members.the_tier_rises(world, token)
    members.points_buy_by_tier(world, token, gold_token)
    members.she_comes_back(world, token)
    commitment = members.the_draw_is_played(world, token, home / "receipts.ndjson")
    asyncio.run(_with_shop(settings, lambda shop: group.end_draw(shop, world.group.draw, clock)))
    record = home / "draw.ndjson"
    closing = members.the_draw_is_published(world, record)
    proofs = ("--commitment", commitment, "--closing", closing, "--receipt", str(home / "receipts.ndjson"))
    code, checked = stage.fanxing(home, "draw", "verify", str(record), *proofs)
    world.story.expect(
        "a stranger recomputes the draw from its record, and finds the receipts in it",
        [0, group.PLAYS, group.PLAYS],
        [code, checked.get("plays"), checked.get("receipts_found")],
    )
    members.the_goods_come_back(world, token, purchase_id)


def _the_books(settings: Settings, story: Story) -> None:
    """Verified, kept, compared, and verified again after somebody helped himself."""
    home, kept = settings.home, settings.home / "history.txt"
    saved = stage.fanxing(home, "ledger", "verify", "--save", str(kept))
    story.expect("every link, balance and lot is that of the entries", 0, saved[0])
    again = stage.fanxing(home, "ledger", "verify", "--against", str(kept))
    story.expect("the history is the one that was kept elsewhere", [0, True], [again[0], "agrees_before" in again[1]])
    forged = home / "forged.db"
    shutil.copyfile(settings.database.removeprefix("sqlite:///"), forged)
    with contextlib.closing(sqlite3.connect(forged)) as database:
        database.execute("UPDATE ledger_account SET balance = balance + 1000 WHERE asset = 'points' AND balance > 0")
        database.commit()
    code, fault = stage.fanxing(home, "ledger", "verify", database=forged)
    forged.unlink()
    told = fault.get("error", {}).get("code")
    story.expect("of a copy in which points were added it says so", [1, "LedgerBroken"], [code, told])


def _the_till_scans(world: World, settings: Settings, clock: Clock) -> None:
    story, home = world.story, settings.home / "scanner"
    code, pin = asyncio.run(_invite(settings, clock))
    enrol = ("enrol", "--server", settings.base_url, "--code", code, "--pin", pin, "--name", "Till 3")
    stage.scanner(home, *enrol)
    seen = stage.scanner(home, "run", texts=[world.outer[11], world.outer[9], world.outer[11], "4006381333931"])
    story.expect(
        "the scanner tells genuine, revoked, seen before and no code at all, and numbers its scans",
        [
            (1, "genuine", None, False),
            (2, "refused", "Revoked", False),
            (3, "genuine", None, True),
            (4, "refused", "Malformed", False),
        ],
        [(line["number"], line["verdict"], line["error"], line["seen"] is not None) for line in seen],
    )
    (synced,) = stage.scanner(home, "sync")
    story.expect("nothing waits on it after it has met the server", 0, synced["waiting"])
    kept = asyncio.run(_device_scans(settings))
    story.expect("the server has each of its scans once", [1, 2, 3, 4], kept)


async def _invite(settings: Settings, clock: Clock) -> tuple[str, str]:
    """A code that lets a scanner in, and the root's pin."""
    shop = Workshop(settings, Database(settings.database))
    async with shop.database.writing() as session:
        _, code = await devices.invite(session, shop.vault, None, "Till 3", timedelta(hours=1), clock())
    await shop.database.close()
    return code, shop.pin.hex()


async def _device_scans(settings: Settings) -> list[int]:
    database = Database(settings.database)
    async with database.reading() as session:
        numbers = (await session.exec(select(DeviceScan.number).order_by(col(DeviceScan.number)))).all()
    await database.close()
    return list(numbers)


async def _brand(settings: Settings, clock: Clock, console: Console) -> tuple[brand.Brand, group.Group]:
    database = Database(settings.database)
    shop = Workshop(settings, database)
    await prepare_installation(shop, make_passphrase=True)
    made = await brand.prepare(shop, clock, settings.base_url)
    sisters = await group.prepare(shop, clock)
    with terminal.progress("  signing and drawing", "codes", 2 * brand.QUANTITY, as_json=False) as advance:
        await brand.print_codes(shop, made.order, settings.home, clock, advance)
    await database.close()
    return made, sisters


async def _with_shop(settings: Settings, work: Callable[[Workshop], Awaitable[Answer]]) -> Answer:
    shop = Workshop(settings, Database(settings.database))
    try:
        return await work(shop)
    finally:
        await shop.database.close()


async def _revoke(settings: Settings, clock: Clock, serial: str, trust: Path) -> None:
    """Revoke an item, and write the trust file that says so: dated today, since the scanner's clock is the real one."""
    database = Database(settings.database)
    shop = Workshop(settings, database)
    async with database.writing() as session:
        await keys.revoke_item(session, brand.GTIN, serial, "demonstration", clock())
        await shop.publish(session, system_clock(), _BUNDLE_LIFETIME)
        content = await publication.trust_file(session)
    with replacing(trust) as file:
        file.write(content)
    await database.close()
