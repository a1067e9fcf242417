"""PNG exports: one picture a code, which a decoder reads."""

import io
import zipfile

import pytest
from PIL import Image

from codes import qr
from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout, LayoutInvalid
from codes.exports.png import MODULE_PX_MAX
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe, decoded
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)
MODULES = 45


def pictures(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {entry.filename: opened.read(entry) for entry in opened.infolist()}


@pytest.mark.parametrize(("dpi", "module_px"), [(203, 3), (300, 4), (600, 8)])
def test_every_picture_is_one_bit_a_pixel_and_holds_its_code(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, dpi: int, module_px: int
) -> None:
    recipe = make_recipe(5, BOTH)
    archives = write(ExportKind.PNG, recipe, Layout(dpi=dpi))
    assert list(archives) == ["png/outer-00001.zip", "png/inner-00001.zip"]
    for chunk, archive in zip(chunks(recipe), archives.values(), strict=True):
        inside = pictures(archive)
        assert list(inside) == [f"{serial}.png" for serial in chunk.serials]
        for text, content in zip(chunk.texts, inside.values(), strict=True):
            with Image.open(io.BytesIO(content)) as picture:
                assert (picture.format, picture.mode) == ("PNG", "1")
                assert picture.size == ((MODULES + 8) * module_px,) * 2
                assert picture.info["dpi"] == pytest.approx((dpi, dpi), abs=0.02)
                assert [symbol.text for symbol in decoded(picture)] == [text]
            # IHDR, the bit depth (PNG specification, 11.2.2): printers' programs read it.
            assert content[24] == 1


@pytest.mark.parametrize("quiet", [2, 5])
def test_a_picture_is_pixel_for_pixel_that_of_pillow(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, quiet: int
) -> None:
    recipe = make_recipe(1)
    (chunk,) = chunks(recipe)
    (archive,) = write(ExportKind.PNG, recipe, Layout(quiet_zone_modules=quiet, level="H")).values()
    (content,) = pictures(archive).values()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.tobytes() == qr.image(qr.symbol(chunk.texts[0], "H"), 4, quiet).tobytes()


def test_a_section_is_an_archive(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(7)
    archives = write(ExportKind.PNG, recipe, items_max=3)
    assert list(archives) == [f"png/outer-0000{number}.zip" for number in (1, 2, 3)]
    (chunk,) = chunks(recipe)
    names = [name for archive in archives.values() for name in pictures(archive)]
    assert names == [f"{serial}.png" for serial in chunk.serials]


@pytest.mark.parametrize(("dpi", "module_px"), [(2_362, 31), (2_400, 32)])
def test_modules_may_be_as_wide_as_the_limit(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, dpi: int, module_px: int
) -> None:
    recipe = make_recipe(1)
    (archive,) = write(ExportKind.PNG, recipe, Layout(dpi=dpi, module_mm=module_px * 25.4 / dpi)).values()
    (content,) = pictures(archive).values()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == ((MODULES + 8) * module_px,) * 2


def test_modules_wider_than_the_limit_are_refused(make_recipe: MakeRecipe) -> None:
    too_wide = Layout(module_mm=(MODULE_PX_MAX + 1) * 25.4 / 300)
    with pytest.raises(LayoutInvalid, match="33 pixels"):
        open_export(ExportKind.PNG, make_recipe(1), too_wide)
