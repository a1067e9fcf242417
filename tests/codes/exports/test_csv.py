"""CSV exports: bytes that never change."""

import csv
import hashlib

import pytest

from codes.exports import ExportKind
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe, vectors
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)

# What may never change: header, column order, LF line ends, no quoting, no byte order mark, issue order; and, for given
# keys, every digit. Printers' machines are set up for this form, and an order exported again must give the same labels
# as those already on the goods.
GOLDEN_SHA256 = {
    "outer.csv": "3d7245e8943e8dc40d9c795e247d4322c5582995e2691fba2b8c3af0e2cb7eed",
    "inner.csv": "d1adb580d26d69fd6bc1e09ad30650a10fcbecef688839fbd94bded528524181",
}


def test_the_bytes_of_an_order_are_the_golden_ones(write: Write, make_recipe: MakeRecipe) -> None:
    files = write(ExportKind.CSV, make_recipe(1_000, BOTH))
    assert {path: hashlib.sha256(content).hexdigest() for path, content in files.items()} == GOLDEN_SHA256


def test_the_first_lines_are_the_published_vectors(write: Write, make_recipe: MakeRecipe) -> None:
    files = write(ExportKind.CSV, make_recipe(2, BOTH))
    first, first_inner, second = vectors()["valid"][:3]
    assert files["outer.csv"].decode() == (
        f"serial,code_text\n{first['serial']},{first['text']}\n{second['serial']},{second['text']}\n"
    )
    assert files["inner.csv"].decode().splitlines()[1] == f"{first_inner['serial']},{first_inner['text']}"


@pytest.mark.parametrize("items_max", [1, 3, 9, 10, 11])
def test_the_file_does_not_care_how_the_order_is_cut(write: Write, make_recipe: MakeRecipe, items_max: int) -> None:
    recipe = make_recipe(10, BOTH)
    assert write(ExportKind.CSV, recipe, items_max=items_max) == write(ExportKind.CSV, recipe)


def test_an_ordinary_reader_reads_every_code(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(20)
    (chunk,) = chunks(recipe)
    rows = list(csv.DictReader(write(ExportKind.CSV, recipe)["outer.csv"].decode("ascii").splitlines()))
    assert [(row["serial"], row["code_text"]) for row in rows] == list(zip(chunk.serials, chunk.texts, strict=True))
