"""The demonstration, as a person runs it, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "fanxing")
LEFT_BEHIND = (
    *("outer.csv", "inner.csv", "sheets/outer-00001.pdf", "page.png", "trust.cbor", "root.pin", "story.json"),
    *("crm.csv", "draw.ndjson", "receipts.ndjson", "history.txt"),
)


def fanxing(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FANXING_HOME": str(home)}
    return subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_demonstration_goes_well_and_its_data_can_be_worked_on(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    done = fanxing("demo", "--home", str(home), home=tmp_path / "unused")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in LEFT_BEHIND if not (home / name).is_file()] == []
    story = json.loads((home / "story.json").read_text(encoding="utf-8"))
    assert story["ok"]
    assert all(step["ok"] for step in story["steps"])

    orders = json.loads(fanxing("order", "list", "--json", home=home).stdout)
    assert [(order["order"], order["quantity"], order["state"]) for order in orders] == [(1, 1000, "active")]
    assert fanxing("ledger", "verify", "--against", str(home / "history.txt"), home=home).returncode == 0
    assert fanxing("draw", "verify", str(home / "draw.ndjson"), home=home).returncode == 0

    refused = fanxing("demo", "--home", str(tmp_path), home=home)
    assert refused.returncode == 1
    assert "FolderNotOurs" in refused.stderr
