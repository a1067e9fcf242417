"""Parquet exports: a data set that a data platform reads as one table."""

from pathlib import Path

import pyarrow.parquet

from codes.exports import ExportKind
from codes.exports.parquet import SCHEMA
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)


def test_a_section_is_a_file_and_a_face_is_a_folder(write: Write, make_recipe: MakeRecipe) -> None:
    assert list(write(ExportKind.PARQUET, make_recipe(7, BOTH), items_max=3)) == [
        f"{face}.parquet/part-0000{number}.parquet" for face in ("outer", "inner") for number in range(3)
    ]


def test_the_folder_is_one_table_of_every_code(
    tmp_path: Path, write: Write, make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    recipe = make_recipe(20)
    for path, content in write(ExportKind.PARQUET, recipe, items_max=6).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    table = pyarrow.parquet.read_table(tmp_path / "outer.parquet")
    (chunk,) = chunks(recipe)
    assert table.schema.equals(SCHEMA)
    assert table.to_pydict() == {
        "issue_index": list(range(20)),
        "serial": chunk.serials,
        "code_text": chunk.texts,
    }


def test_a_reader_learns_a_files_issue_indexes_from_its_footer(
    tmp_path: Path, write: Write, make_recipe: MakeRecipe
) -> None:
    content = write(ExportKind.PARQUET, make_recipe(20), items_max=6)["outer.parquet/part-00001.parquet"]
    (tmp_path / "part.parquet").write_bytes(content)
    group = pyarrow.parquet.read_metadata(tmp_path / "part.parquet").row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(3)}
    assert (columns["issue_index"].statistics.min, columns["issue_index"].statistics.max) == (6, 11)
    # A footer is read by programs that must not see codes.
    assert not columns["code_text"].is_stats_set
    assert {column.compression for column in columns.values()} == {"ZSTD"}
