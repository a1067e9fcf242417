"""SVG exports: one drawing a code, in millimetres."""

import io
import re
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest

from codes import qr
from codes.exports import ExportKind
from codes.exports.layout import Layout, Level
from codes.qr import Modules
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe, decoded
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)
SVG = "{http://www.w3.org/2000/svg}"
STEP = re.compile(r"([Mmhvz])(-?\d+)?(?: (-?\d+))?")


def drawings(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {entry.filename: opened.read(entry) for entry in opened.infolist()}


def painted(path: str, side: int) -> Modules:
    """The modules that a path of boxes covers, each at most once."""
    canvas = np.zeros((side, side), np.uint8)
    assert "".join(found[0] for found in STEP.finditer(path)) == path
    x = y = 0
    steps = [(found[1], *(int(number or 0) for number in found.groups()[1:])) for found in STEP.finditer(path)]
    for at in range(0, len(steps), 5):
        (move, dx, dy), (across, width, _), (down, height, _), (back, left, _), (end, *_) = steps[at : at + 5]
        assert (move in "Mm", across, down, back, end) == (True, "h", "v", "h", "z")
        assert (height, left) == (1, -width)
        x, y = (dx, dy) if move == "M" else (x + dx, y + dy)
        canvas[y, x : x + width] += 1
    assert canvas.max() == 1
    return canvas.astype(np.bool_)


@pytest.mark.parametrize("level", ["L", "M", "H"])
@pytest.mark.parametrize("quiet", [2, 4])
def test_a_drawing_covers_exactly_its_symbols_dark_modules(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, level: Level, quiet: int
) -> None:
    recipe = make_recipe(20)
    (chunk,) = chunks(recipe)
    (archive,) = write(ExportKind.SVG, recipe, Layout(level=level, quiet_zone_modules=quiet)).values()
    for text, content in zip(chunk.texts, drawings(archive).values(), strict=True):
        root = ElementTree.fromstring(content)  # noqa: S314 - our own
        _, _, side, _ = map(int, root.attrib["viewBox"].split())
        white, black = root.findall(f"{SVG}path")
        assert white.attrib == {"fill": "#fff", "d": f"M0 0h{side}v{side}H0z"}
        modules = painted(black.attrib["d"], side)
        assert np.array_equal(modules, np.pad(qr.symbol(text, level), quiet))
        assert [symbol.text for symbol in decoded(qr.image(modules, 4, 2))] == [text]


def test_a_drawing_measures_what_it_prints(write: Write, make_recipe: MakeRecipe) -> None:
    (archive,) = write(ExportKind.SVG, make_recipe(1), Layout(module_mm=0.5, dpi=508)).values()
    (content,) = drawings(archive).values()
    root = ElementTree.fromstring(content)  # noqa: S314 - our own
    assert (root.attrib["width"], root.attrib["height"], root.attrib["viewBox"]) == (
        "26.5000mm",
        "26.5000mm",
        "0 0 53 53",
    )


def test_sections_are_archives_and_drawings_are_named_by_their_serials(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks
) -> None:
    recipe = make_recipe(4, BOTH)
    archives = write(ExportKind.SVG, recipe, items_max=3)
    assert list(archives) == [f"svg/{face}-0000{number}.zip" for face in ("outer", "inner") for number in (1, 2)]
    for chunk, archive in zip(chunks(recipe, 3), archives.values(), strict=True):
        assert list(drawings(archive)) == [f"{serial}.svg" for serial in chunk.serials]
