"""What every kind of export keeps to: the same bytes each time, room foretold, nothing imported in vain."""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from codes.exports import ExportKind, open_export, section_items
from codes.exports.layout import Layout, LayoutInvalid, preset
from codes.pipeline import CHUNK_ITEMS
from offline_sdk import Profile
from tests.codes.conftest import MakeRecipe
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)
ROOT = Path(__file__).parents[3]
LABELS_ON_A4 = 99
LONG_URL = f"https://{'a' * 60}.{'b' * 29}.example.com"


@pytest.mark.parametrize("kind", ExportKind)
def test_the_same_order_gives_the_same_bytes(write: Write, make_recipe: MakeRecipe, kind: ExportKind) -> None:
    recipe = make_recipe(150, BOTH)
    assert write(kind, recipe) == write(kind, recipe)


@pytest.mark.parametrize("kind", ExportKind)
def test_paths_lie_inside_the_folder_and_name_the_face(write: Write, make_recipe: MakeRecipe, kind: ExportKind) -> None:
    paths = list(map(PurePosixPath, write(kind, make_recipe(3, BOTH))))
    assert not any(path.is_absolute() or ".." in path.parts for path in paths)
    assert {"outer" in str(path) for path in paths} == {True, False}
    assert {"inner" in str(path) for path in paths} == {True, False}


@pytest.mark.parametrize("base_url", ["http://a.cn", "https://id.example.cn", LONG_URL])
@pytest.mark.parametrize("items", [1, 10, 1_000])
@pytest.mark.parametrize("kind", ExportKind)
def test_no_export_needs_more_room_than_foretold(
    write: Write, make_recipe: MakeRecipe, kind: ExportKind, items: int, base_url: str
) -> None:
    recipe = make_recipe(items, base_url=base_url)
    needed = sum(map(len, write(kind, recipe).values()))
    foretold = open_export(kind, recipe, Layout()).bytes_max(items)
    assert needed <= foretold
    if items >= 1_000:
        assert foretold <= 2 * needed


@pytest.mark.parametrize("name", ["compact", "roll-30"])
@pytest.mark.parametrize("dpi", [203, 300, 600])
@pytest.mark.parametrize("kind", [ExportKind.PDF, ExportKind.PNG, ExportKind.ZPL])
def test_no_layout_needs_more_room_than_foretold(
    write: Write, make_recipe: MakeRecipe, kind: ExportKind, name: str, dpi: int
) -> None:
    layout, recipe = preset(name).with_options(dpi=dpi), make_recipe(1_000)
    needed = sum(map(len, write(kind, recipe, layout).values()))
    assert needed <= open_export(kind, recipe, layout).bytes_max(1_000) <= 2 * needed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ExportKind)
def test_no_order_of_several_sections_needs_more_room_than_foretold(
    write: Write, make_recipe: MakeRecipe, kind: ExportKind
) -> None:
    recipe = make_recipe(2 * CHUNK_ITEMS + 1)
    needed = sum(map(len, write(kind, recipe).values()))
    assert needed <= open_export(kind, recipe, Layout()).bytes_max(recipe.quantity) <= 2 * needed


@pytest.mark.parametrize("kind", sorted(set(ExportKind) - {ExportKind.PDF}))
def test_a_section_is_a_chunk(make_recipe: MakeRecipe, kind: ExportKind) -> None:
    assert section_items([kind], make_recipe(1), Layout()) == CHUNK_ITEMS


def test_sections_that_are_printed_are_whole_pages(make_recipe: MakeRecipe) -> None:
    items = section_items([ExportKind.CSV, ExportKind.PDF], make_recipe(1), Layout())
    assert (items, items % LABELS_ON_A4) == (9_999, 0)


@pytest.mark.parametrize(("columns", "items"), [(99, 9_900), (100, 10_000)])
def test_a_section_is_a_page_at_least(make_recipe: MakeRecipe, columns: int, items: int) -> None:
    layout = Layout(paper_width_mm=2_050, paper_height_mm=2_350, columns=columns, rows=100)
    assert section_items([ExportKind.PDF], make_recipe(1), layout) == items


@pytest.mark.parametrize("kind", [ExportKind.PDF, ExportKind.ZPL])
def test_a_layout_that_cannot_be_printed_is_refused_before_anything_is_made(
    make_recipe: MakeRecipe, kind: ExportKind
) -> None:
    with pytest.raises(LayoutInvalid):
        open_export(kind, make_recipe(1), Layout(label_width_mm=15))


HEAVY = ("numpy", "PIL", "pyarrow", "zstandard", "numba", "qrcode", "sqlalchemy", "pypdfium2")
IMPORTED = """
import sys
from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout
from codes.pipeline import Recipe
from offline_sdk import Profile
open_export(ExportKind(sys.argv[1]), Recipe("0" * 14, 1, 1, (Profile.OUTER,), "https://a.cn", 1), Layout())
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("kind", "heavy"),
    [(ExportKind.CSV, set()), (ExportKind.NDJSON, set()), (ExportKind.CSV_ZST, {"zstandard"})],
)
def test_a_worker_imports_only_what_its_kind_needs(kind: ExportKind, heavy: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, kind, *HEAVY], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == heavy
