"""`kill -9` of the factory at random moments: in the end the files are those of a run that nobody disturbed."""

import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scan_api.test_commands import BASE_URL, Terminal, set_up
from tests.stand import GTIN, Environment

FANXING = Path(sys.executable).with_name("fanxing")


class Works:
    """An installation whose order is made by processes that are killed. What nobody kills runs in this process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        settings = {
            "HOME": str(folder),
            "DATABASE_URL": f"sqlite:///{folder.parent / 'works.db'}",
            "BASE_URL": BASE_URL,
        }
        self._environment = Environment(folder.parent / "bytecode").with_settings(settings)
        self.terminal = set_up(Terminal(folder, settings["DATABASE_URL"]))

    def start(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [FANXING, *shlex.split(line), "--json"],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def kill_at_random(self, process: subprocess.Popen[bytes], s_min: float, s_max: float) -> None:
        """Kill the command after some time, and in every third case its whole family at the same moment."""
        time.sleep(self._chance.uniform(s_min, s_max))
        if self._chance.randrange(3) == 0:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the order was done before the last kill: make it larger"

    def run_id(self) -> str | None:
        """The first run, if the command lived long enough to begin one."""
        runs = self.terminal.ask("order runs")
        return runs[0]["run"] if runs else None


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def play(folder: Path, quantity: int, kills: int, s_min: float, s_max: float, seed: int) -> None:
    works = Works(folder / "home", seed)
    broken, whole = folder / "broken", folder / "whole"
    kinds = "--export csv --export ndjson.zst --out"
    create = f"order create --gtin {GTIN} --quantity {quantity} --face outer {kinds} {broken}"
    process = works.start(f"{create} --workers 2")
    assert process.stderr is not None
    json.loads(process.stderr.readline())  # its first progress: from now on there is something to lose
    done = 1
    works.kill_at_random(process, 0, 1)
    run = works.run_id()
    assert run is not None
    while done < kills:
        works.kill_at_random(works.start(f"order resume --run {run} --workers 2"), s_min, s_max)
        done += 1
    answer = works.terminal.ask(f"order resume --run {run} --workers 1")
    assert answer["codes"] == quantity
    works.terminal.ask(f"order export --gtin {GTIN} --order 1 {kinds} {whole} --workers 1")
    for name in ("outer.csv", "outer.ndjson.zst"):
        assert digest(broken / name) == digest(whole / name)
    checked = works.terminal.ask(f"order verify {broken}")
    assert checked["codes"] == quantity
    serials = (broken / "outer.csv").read_bytes().split(b"\n")[1:-1]
    assert len({line[:14] for line in serials}) == quantity
    assert sorted(path.name for path in broken.iterdir()) == [
        "manifest.json",
        "manifest.sig",
        "outer.csv",
        "outer.ndjson.zst",
    ]


@pytest.mark.slow
def test_a_factory_killed_twice_makes_the_same_files(tmp_path: Path) -> None:
    # Under this seed one kill ends the command alone, the other its whole family.
    play(tmp_path, quantity=60_000, kills=2, s_min=1.5, s_max=2.5, seed=18)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_factory_killed_fifty_times_makes_the_same_two_million_codes(tmp_path: Path) -> None:
    play(tmp_path, quantity=2_000_000, kills=50, s_min=0.5, s_max=5, seed=50)
