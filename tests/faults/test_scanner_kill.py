"""`kill -9` of the scanner at random moments, on a link that drops, delays and duplicates: no shown scan is lost.

In the end the scanner's journal and the server's database hold every scan that was shown, each once, and each as it was
shown; and every genuine one counts once at its item.
"""

import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from offline_sdk.scanner.home import Home
from scan_api.device_scans import DeviceScan
from scan_api.scans import Item, Scan
from tests.faults.flaky_link import ODDS_OF_A_BAD_DAY, Fault, FlakyLink
from tests.offline_sdk.scanner.shop import Program
from tests.scan_api.shop_scanner import invite
from tests.stand import Item as IssuedItem
from tests.stand import Stand, forged

FIELDS = ("verdict", "error", "gtin", "serial", "profile", "kid", "bundle_seq", "bundle_state", "clock_suspect")
TYPED_AT_ONCE = 4
SYNC_ROUNDS_MAX = 40


@dataclass
class Shown:
    """What the scanner has shown over all its lives."""

    by_number: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, line: str) -> None:
        # The line that a kill cut in two was not shown.
        if line.endswith("\n"):
            shown = json.loads(line)
            assert shown["number"] not in self.by_number, "two scans were shown under one number"
            self.by_number[shown["number"]] = shown


class Till:
    """A scanner that is killed, the hand that scans, and the items in front of it."""

    def __init__(self, stand: Stand, folder: Path, link: FlakyLink, seed: int, items: list[IssuedItem]) -> None:
        self.home = Home(folder / "scanner")
        self.shown = Shown()
        self.typed = 0
        self._stand = stand
        self._chance = random.Random(seed)
        self._items = items
        self._enrol(link, invite(stand))
        self._fetch_trust()

    def _enrol(self, link: FlakyLink, code: str) -> None:
        """Enrol over the bad link: with the same code, as often as it takes."""
        for _ in range(SYNC_ROUNDS_MAX):
            status, out, err = self.command("enrol", "--server", link.url, "--code", code, "--name", "till 3")
            if status == 0:
                self.device_id = uuid.UUID(json.loads(out)["device_id"])
                return
            assert json.loads(err)["error"]["code"] == "SyncFailed", err
        raise AssertionError(f"the scanner was never enrolled: {err}")

    def _fetch_trust(self) -> None:
        for _ in range(SYNC_ROUNDS_MAX):
            _status, out, err = self.command("sync")
            if json.loads(out)["bundle_seq"] is not None:
                return
        raise AssertionError(f"the trust list was never fetched: {out} {err}")

    def command(self, *arguments: str) -> tuple[int, str, str]:
        return Program(self.home.folder, *arguments, "--json").finish()

    def live_and_die(self) -> None:
        """One life: scan, or sync alone, until the kill."""
        if self._chance.randrange(5) == 0:
            program = Program(self.home.folder, "sync", "--json")
            time.sleep(self._chance.uniform(0.3, 2.0))
            program.process.kill()
            program.finish()
            return
        program = Program(self.home.folder, "run", "--json")
        reader = threading.Thread(target=self._read, args=(program,))
        reader.start()
        killer = threading.Timer(self._chance.uniform(0.3, 3.0), program.process.kill)
        killer.start()
        self._scan_till_it_dies(program)
        killer.join()
        reader.join()
        program.end()

    def _read(self, program: Program) -> None:
        while line := program.line():
            self.shown.add(line)

    def _scan_till_it_dies(self, program: Program) -> None:
        # A hand scans a few in a row and then looks; a kill between two scans must be as harmless as one in a scan.
        while program.process.poll() is None:
            try:
                program.type(*(self._text() for _ in range(self._chance.randint(1, TYPED_AT_ONCE))))
            except BrokenPipeError:
                return
            self.typed += 1
            time.sleep(self._chance.uniform(0, 0.15))

    def _text(self) -> str:
        path = self._chance.choice(self._items).outer
        kind = self._chance.randrange(10)
        if kind == 0:
            return self._stand.text(forged(path))
        return "not a code" if kind == 1 else self._stand.text(path)

    def sync_all(self) -> None:
        """Sync, over the bad link still, till nothing waits."""
        for _ in range(SYNC_ROUNDS_MAX):
            status, out, err = self.command("sync")
            assert status in (0, 1), err
            if json.loads(out)["waiting"] == 0:
                return
        raise AssertionError("scans still wait")

    def journal(self) -> dict[int, dict[str, Any]]:
        status, out, err = self.command("export", "-")
        assert status == 0, err
        records = [json.loads(line) for line in out.splitlines()]
        by_number = {record["number"]: record for record in records}
        assert len(by_number) == len(records)
        return by_number


def play(stand: Stand, folder: Path, kills: int, seed: int) -> tuple[Till, Counter[Fault]]:
    items = stand.take_items(60)
    with FlakyLink(stand.server.port, seed, ODDS_OF_A_BAD_DAY) as link:
        till = Till(stand, folder, link, seed, items)
        for _ in range(kills):
            till.live_and_die()
        till.sync_all()
        agree(stand, till, items)
        return till, link.done


def agree(stand: Stand, till: Till, items: list[IssuedItem]) -> None:
    """What was shown, the journal and the server say the same, and each scan once."""
    shown, journal = till.shown.by_number, till.journal()
    kept = {row.number: row for row in stand.rows(select(DeviceScan).where(DeviceScan.device_id == till.device_id))}
    assert shown
    assert set(shown) <= set(journal)
    assert set(kept) == set(journal) == set(range(1, max(journal) + 1))
    assert {row.journal for row in kept.values()} == {record["journal"] for record in journal.values()}
    for number, record in journal.items():
        row = kept[number]
        assert (row.at_ms, row.refusal) == (record["at_ms"], None)
        assert record["status"] in ("accepted", "duplicate")
        for name in FIELDS:
            assert getattr(row, name) == record[name] == shown.get(number, record)[name], (number, name)
    genuine = Counter(record["serial"] for record in journal.values() if record["verdict"] == "genuine")
    assert genuine.keys() <= {item.serial for item in items}
    keys = item_keys(stand, items)
    counted = dict(stand.rows(select(Item.item_key, Item.scan_count).where(col(Item.item_key).in_(keys))))
    assert {keys[key]: count for key, count in counted.items()} == dict(genuine)
    scans = stand.rows(select(Scan.item_key).where(col(Scan.item_key).in_(keys), Scan.channel == "device"))
    assert Counter(keys[key] for key in scans) == genuine


def item_keys(stand: Stand, items: list[IssuedItem]) -> dict[int, str]:
    """Serials by the keys of their items."""
    order_id = stand.order("on sale").order_id
    return {order_id * 10**9 + int(item.serial[5:]): item.serial for item in items}


@pytest.mark.parametrize("stand_kind", ["sqlite"])
def test_scanner_killed_five_times_loses_no_scan_that_it_showed(stand: Stand, tmp_path: Path) -> None:
    till, _done = play(stand, tmp_path, kills=5, seed=5)
    assert {one["verdict"] for one in till.shown.by_number.values()} == {"genuine", "refused"}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("stand_kind", ["postgresql"])
def test_scanner_killed_two_hundred_times_loses_no_scan_that_it_showed(
    stand: Stand, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    till, done = play(stand, tmp_path, kills=200, seed=200)
    assert set(done) == set(Fault), "the link was kinder than the test wants"
    for name, value in (("shown", len(till.shown.by_number)), ("exchanges", done.total()), ("faults", dict(done))):
        record_property(name, value)
        print(name, value)
