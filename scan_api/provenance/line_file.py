"""A line's file: which thing went into which container, a row each, in one CSV of any length.

    parent,child,action,at
    urn:epc:id:sscc:9506000.0000000007,https://id.example.com/1…/01/09506000134352/21/00014000000007,add,2026-05-01T08:00:00Z

`action` (add or remove) and `at` may be left out or empty: then it is added, at the time that is given for the file.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from kit.clock import YEAR_END, YEAR_MIN
from kit.errors import Invalid
from scan_api.provenance.documents import is_moment
from scan_api.provenance.line import CHILDREN_PER_SCAN_MAX, LineAction, LineScan

ROW_CHARACTERS_MAX = 4_096
CHILDREN_PER_BATCH_MAX = 10_000
SCANS_PER_BATCH_MAX = 500

_COLUMNS = ("parent", "child", "action", "at")


class PackingFileInvalid(Invalid):
    """The file, or a row of it, is not of the form that `line_file` tells."""

    code = "PackingFileInvalid"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some scans, and how many rows of the file they are."""

    scans: Sequence[LineScan]
    rows: int


@dataclass(frozen=True, slots=True)
class _Row:
    parent: str
    child: str
    action: LineAction
    at: datetime


def count_rows(path: Path) -> int:
    """How many lines the file has without its heading, for progress."""
    with path.open("rb") as file:
        return max(sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1, 1)


def batches(path: Path, default_at: datetime) -> Iterator[Batch]:
    """The file's scans, rows of one container that follow each other as one. Raises PackingFileInvalid."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        scans: list[LineScan] = []
        rows = 0
        for group in _groups(_rows(file, default_at)):
            first = group[0]
            scans.append(LineScan(first.action, first.parent, [row.child for row in group], first.at))
            rows += len(group)
            if rows >= CHILDREN_PER_BATCH_MAX or len(scans) >= SCANS_PER_BATCH_MAX:
                yield Batch(scans, rows)
                scans, rows = [], 0
        if scans:
            yield Batch(scans, rows)


def _groups(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    group: list[_Row] = []
    for row in rows:
        if group and (
            len(group) == CHILDREN_PER_SCAN_MAX
            or (row.parent, row.action, row.at) != (group[0].parent, group[0].action, group[0].at)
        ):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _rows(file: TextIO, default_at: datetime) -> Iterator[_Row]:
    reader = csv.reader(_bounded(file), strict=True)
    number = 1
    try:
        heading = [name.strip().lower() for name in next(reader, [])]
        if not {"parent", "child"} <= set(heading) <= set(_COLUMNS) or len(set(heading)) != len(heading):
            raise PackingFileInvalid(f"the first row names the columns: {', '.join(_COLUMNS)}, the last two optional")
        for fields in reader:
            number += 1
            if not fields:
                continue
            if len(fields) != len(heading):
                raise PackingFileInvalid(f"row {number} has {len(fields)} fields, its heading {len(heading)}")
            yield _row(dict(zip(heading, fields, strict=True)), number, default_at)
    except UnicodeDecodeError:
        raise PackingFileInvalid(f"row {number + 1} or one soon after it is not UTF-8") from None
    except csv.Error:
        raise PackingFileInvalid(f"row {number + 1} is no CSV: look for an odd quotation mark") from None


def _bounded(file: TextIO) -> Iterator[str]:
    while text := file.readline(ROW_CHARACTERS_MAX + 1):
        if len(text) > ROW_CHARACTERS_MAX:
            raise PackingFileInvalid(f"a row has more than {ROW_CHARACTERS_MAX:,} characters")
        yield text


def _row(fields: dict[str, str], number: int, default_at: datetime) -> _Row:
    parent, child = fields["parent"].strip(), fields["child"].strip()
    action, at = fields.get("action", "").strip().lower() or "add", fields.get("at", "").strip()
    if not parent or not child:
        raise PackingFileInvalid(f"row {number} names no container or no thing")
    if action not in (LineAction.ADD, LineAction.REMOVE):
        raise PackingFileInvalid(f"row {number}: the action is add or remove")
    if at and not is_moment(at):
        raise PackingFileInvalid(
            f"row {number}: a time is written 2026-05-01T08:00:00Z, in the years {YEAR_MIN} to {YEAR_END - 1}"
        )
    return _Row(parent, child, LineAction(action), datetime.fromisoformat(at) if at else default_at)
