"""NDJSON exports: a JSON object a line."""

import json

import pytest

from codes.exports import ExportKind
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe, vectors
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)


def test_the_first_line_is_the_published_vector_without_a_space(write: Write, make_recipe: MakeRecipe) -> None:
    first = vectors()["valid"][0]
    assert write(ExportKind.NDJSON, make_recipe(1)) == {
        "outer.ndjson": f'{{"serial":"{first["serial"]}","code_text":"{first["text"]}"}}\n'.encode()
    }


def test_every_line_is_json_of_its_code(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(20, BOTH)
    files = write(ExportKind.NDJSON, recipe)
    for chunk in chunks(recipe):
        lines = files[f"{chunk.section.face.name.lower()}.ndjson"].decode("ascii").splitlines()
        assert [json.loads(line) for line in lines] == [
            {"serial": serial, "code_text": text} for serial, text in zip(chunk.serials, chunk.texts, strict=True)
        ]


@pytest.mark.parametrize("items_max", [1, 3, 9, 10, 11])
def test_the_file_does_not_care_how_the_order_is_cut(write: Write, make_recipe: MakeRecipe, items_max: int) -> None:
    recipe = make_recipe(10, BOTH)
    assert write(ExportKind.NDJSON, recipe, items_max=items_max) == write(ExportKind.NDJSON, recipe)
