"""Files of codes that come from elsewhere: one code a line, or a CSV column."""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.errors import Invalid
from loyalty.benefits.coupon_codes import POOL_CODE_CHARACTERS_MAX, POOL_CODE_CHARACTERS_MIN

COLUMN = "code"


class PoolFileInvalid(Invalid):
    """The file is not one of codes; the message says why."""

    code = "PoolFileInvalid"


@dataclass(frozen=True)
class Line:
    """A line of a file, counted from 1, and the text where its code should be."""

    number: int
    text: str


def digest(path: Path) -> bytes:
    """SHA-256 of the file's bytes, which names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file that hold something: one code each, or, in a file *.csv, the column `code`.

    UTF-8, with or without a byte order mark. Raises PoolFileInvalid.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() != ".csv":
                yield from (Line(number, line.strip()) for number, line in enumerate(file, 1) if line.strip())
                return
            rows = csv.reader(file, strict=True)
            heading = [name.strip().lower() for name in next(rows, [])]
            if COLUMN not in heading:
                raise PoolFileInvalid(f"the first line names no column {COLUMN!r}", hint="Add a heading line.")
            at = heading.index(COLUMN)
            for row in rows:
                if row:
                    yield Line(rows.line_num, row[at].strip() if at < len(row) else "")
    except UnicodeDecodeError:
        raise PoolFileInvalid("the file is not UTF-8 text") from None
    except csv.Error as error:
        raise PoolFileInvalid(f"the file is not CSV: {error}") from None


def acceptable(code: str) -> bool:
    """Whether a text can be a code: 4..64 printable ASCII characters without spaces."""
    within = POOL_CODE_CHARACTERS_MIN <= len(code) <= POOL_CODE_CHARACTERS_MAX
    return within and code.isascii() and code.isprintable() and " " not in code
