"""A packing line's file: read in batches, refused with the row where it is wrong, and taken in."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.db import Database
from kit.errors import FanxingError
from scan_api.provenance import line, line_file, packed
from scan_api.provenance.line import CHILDREN_PER_SCAN_MAX, LineAction, LineScan
from scan_api.provenance.line_file import CHILDREN_PER_BATCH_MAX, ROW_CHARACTERS_MAX, PackingFileInvalid

NOW = datetime(2026, 6, 10, 8, 0, tzinfo=UTC)
BOX = "urn:epc:id:sscc:9506000.0000000007"


def sgtin(number: int) -> str:
    return f"urn:epc:id:sgtin:9506000.013435.{number}"


def scans_in(path: Path, text: str) -> list[LineScan]:
    path.write_text(text, encoding="utf-8", newline="")
    return [scan for batch in line_file.batches(path, NOW) for scan in batch.scans]


def test_rows_of_one_container_that_follow_each_other_are_one_scan(tmp_path: Path) -> None:
    text = (
        "﻿Child,Parent,action,at\r\n1,a,,\r\n2,a,add,\r\n\r\n3,b,add,2026-06-01T08:00:00+08:00\r\n"
        '"4",b,remove,2026-06-01T08:00:00+08:00\r\n5,a,,\r\n'
    )
    at = datetime(2026, 6, 1, tzinfo=UTC)
    assert scans_in(tmp_path / "line.csv", text) == [
        LineScan(LineAction.ADD, "a", ["1", "2"], NOW),
        LineScan(LineAction.ADD, "b", ["3"], at),
        LineScan(LineAction.REMOVE, "b", ["4"], at),
        LineScan(LineAction.ADD, "a", ["5"], NOW),
    ]


def test_long_files_come_in_batches_and_full_containers_in_several_scans(tmp_path: Path) -> None:
    path, rows = tmp_path / "line.csv", 2 * CHILDREN_PER_BATCH_MAX + 1
    path.write_text("parent,child\n" + "".join(f"a,{number}\n" for number in range(rows)))
    found = list(line_file.batches(path, NOW))
    assert [batch.rows for batch in found] == [CHILDREN_PER_BATCH_MAX, CHILDREN_PER_BATCH_MAX, 1]
    assert max(len(scan.children) for batch in found for scan in batch.scans) == CHILDREN_PER_SCAN_MAX
    assert line_file.count_rows(path) == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "first row"),
        ("parent\na\n", "first row"),
        ("parent,child,colour\na,b,c\n", "first row"),
        ("parent,child,child\na,b,c\n", "first row"),
        ("parent,child\na,b\na\n", "row 3"),
        ("parent,child\na,\n", "row 2"),
        ("parent,child,action\na,b,paint\n", "row 2"),
        ("parent,child,at\na,b,2026-06-01\n", "row 2"),
        ("parent,child,at\na,b,2026-02-30T08:00:00Z\n", "row 2"),
        ('parent,child\na,"b" c\n', "row 2"),
        (f"parent,child\na,{'b' * ROW_CHARACTERS_MAX}\n", "characters"),
    ],
    ids=range(11),
)
def test_a_wrong_row_is_told_by_its_number(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PackingFileInvalid, match=told):
        scans_in(tmp_path / "line.csv", text)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=120) | st.text(max_size=80).map(lambda text: b"parent,child,at\n" + text.encode()))
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "line.csv"
    path.write_bytes(body)
    try:
        for batch in line_file.batches(path, NOW):
            for scan in batch.scans:
                line.check(scan, NOW)
                list(line.events_of(scan))
    except FanxingError:
        pass


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_file_is_taken_in_and_again_changes_nothing(tmp_path: Path, database: Database) -> None:
    path = tmp_path / "line.csv"
    path.write_text("parent,child,at\n" + "".join(f"{BOX},{sgtin(n)},2026-06-01T08:00:00Z\n" for n in range(3)))
    for expected in ((1, 0), (0, 1)):
        for batch in line_file.batches(path, NOW):
            async with database.writing() as session:
                told = await line.record(session, 1, uuid.UUID(int=1), batch.scans, NOW)
            assert (told.accepted, told.duplicates) == expected
    async with database.reading() as session:
        contents = await packed.contents_of(session, 1, line.name(BOX, "the box"), NOW)
    assert [one.child for one in contents.things] == [line.name(sgtin(n), "it") for n in range(3)]
