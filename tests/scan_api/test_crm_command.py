"""`fanxing crm import`: what it answers, what it refuses, and that a kill in the middle costs nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, func, select

from loyalty.crm_import import CrmImportChunk
from loyalty.crm_records import CrmRecord
from loyalty.members import Member
from tests.cli import invoke
from tests.stand import BRAND, Stand

ROWS_KILLED = 60_000


def _environment(stand: Stand) -> dict[str, str]:
    return {"FANXING_HOME": str(stand.home), "FANXING_DATABASE_URL": stand.database_url}


def _run(stand: Stand, *words: str) -> Any:
    done = invoke(["crm", "import", *words, "--json"], _environment(stand))
    assert done.exit_code in (0, 1), done.output + repr(done.exception)
    return json.loads(done.stdout)


def _file(folder: Path, first: int, count: int, *more: str) -> Path:
    path = folder / "crm.csv"
    rows = (f"1591{number:07d},{number % 900 + 1},2024-05-01" for number in range(first, first + count))
    path.write_text("\n".join(["手机号,积分,入会时间", *rows, *more]) + "\n", encoding="gb18030")
    return path


def test_an_import_says_what_it_did_and_lists_what_it_left_out(stand: Stand, tmp_path: Path) -> None:
    path = _file(tmp_path, 0, 30, "12345678901,1,", "15910000001,x,2024-05-01")
    rehearsed = _run(stand, str(path), "--brand", BRAND, "--dry-run")
    assert stand.rows(select(func.count()).select_from(CrmRecord).where(col(CrmRecord.points) > 900)) == [0]
    done = _run(stand, str(path), "--brand", BRAND)
    assert {**rehearsed, "dry_run": False} == done
    assert (done["rows"], done["new_members"], done["bad_rows"], done["points"]) == (32, 30, 2, 465)
    assert done["bad_rows_by_reason"] == {"phone": 1, "points": 1}
    with Path(done["report"]).open(encoding="utf-8", newline="") as report:
        listed = list(csv.DictReader(report))
    assert listed == [
        {"line": "32", "column": "phone", "reason": "phone", "last_digits": "8901"},
        {"line": "33", "column": "points", "reason": "points", "last_digits": "0001"},
    ]
    again = _run(stand, str(path), "--brand", BRAND)
    assert (again["already_imported"], again["resumed_rows"]) == (True, 32)
    assert stand.books().sound


def test_what_cannot_be_imported_is_refused(stand: Stand, tmp_path: Path) -> None:
    path = _file(tmp_path, 100, 1)
    assert _run(stand, str(path), "--brand", "no-such-brand")["error"]["code"] == "BrandUnknown"
    path.write_text("name,points\nx,1\n", encoding="utf-8")
    assert _run(stand, str(path), "--brand", BRAND)["error"]["code"] == "CrmFileInvalid"
    assert _run(stand, str(tmp_path / "missing.csv"), "--brand", BRAND)["error"]["code"] == "FileRefused"


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_brings_everything_once(stand: Stand, tmp_path: Path) -> None:
    path = _file(tmp_path, 10_000, ROWS_KILLED)
    command = [Path(sys.executable).with_name("fanxing"), "crm", "import", str(path), "--brand", BRAND, "--json"]
    members_before = stand.rows(select(func.count()).select_from(Member))[0]
    kills = 0
    while True:
        process = subprocess.Popen(
            command,
            env={**os.environ, **_environment(stand)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        told = process.stderr.readline() if kills < 3 else ""
        if told and json.loads(told)["done"] < ROWS_KILLED:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        answer, _ = process.communicate()
        break
    done = json.loads(answer)
    assert kills
    assert done["resumed_rows"] > 0
    assert (done["rows"], done["new_members"], done["bad_rows"]) == (ROWS_KILLED, ROWS_KILLED, 0)
    assert stand.rows(select(func.count()).select_from(Member))[0] == members_before + ROWS_KILLED
    imported = stand.rows(select(func.sum(CrmRecord.points)).where(CrmRecord.import_id == _import_id(stand)))
    assert imported[0] == done["points"]
    assert stand.books().sound


def _import_id(stand: Stand) -> Any:
    return stand.rows(select(CrmImportChunk.import_id).order_by(col(CrmImportChunk.at).desc()).limit(1))[0]
