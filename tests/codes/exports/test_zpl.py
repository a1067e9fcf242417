"""ZPL exports: labels, drawn here as a label printer draws them."""

import re

import numpy as np
import pytest
from PIL import Image

from codes import qr
from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout, LayoutInvalid, preset
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeRecipe, decoded
from tests.codes.exports.conftest import Write

BOTH = (Profile.OUTER, Profile.INNER)
LABEL = re.compile(
    r"\^XA\^PW(?P<width>\d+)\^LL(?P<height>\d+)\^LH0,0"
    r"\^FO(?P<left>\d+),(?P<top>\d+)\^GFA,(?P<sent>\d+),(?P<bytes>\d+),(?P<row_bytes>\d+),(?P<data>[0-9A-F:]+)"
    r"(?:\^FS\^FO0,(?P<caption_top>\d+)\^A0N,(?P<letters>\d+),\d+\^FB(?P<block>\d+),1,0,C\^FD(?P<caption>[0-9 ]+))?"
    r"\^FS\^XZ"
)


def printed(line: str) -> tuple[Image.Image, str | None]:
    """The label as a printer draws it, and the text under its symbol (ZPL II Programming Guide, ^GF)."""
    found = LABEL.fullmatch(line)
    assert found is not None
    row_bytes = int(found["row_bytes"])
    rows: list[bytes] = []
    rest = found["data"]
    while rest:
        if rest[0] == ":":
            rows.append(rows[-1])
            rest = rest[1:]
        else:
            rows.append(bytes.fromhex(rest[: 2 * row_bytes]))
            rest = rest[2 * row_bytes :]
    assert len(rows) * row_bytes == int(found["bytes"]) == int(found["sent"])
    dark = np.unpackbits(np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1), axis=1)
    label = Image.new("1", (int(found["width"]), int(found["height"])), 1)
    label.paste(Image.fromarray(dark == 0), (int(found["left"]), int(found["top"])))
    if found["caption"] is not None:
        assert int(found["block"]) == label.width
        assert int(found["caption_top"]) + int(found["letters"]) <= label.height
    return label, found["caption"]


@pytest.mark.parametrize("name", ["a4", "roll-30"])
@pytest.mark.parametrize("dpi", [203, 300, 600])
def test_every_label_holds_its_code_and_serial(
    write: Write, make_recipe: MakeRecipe, chunks: Chunks, name: str, dpi: int
) -> None:
    recipe = make_recipe(3, BOTH)
    layout = preset(name).with_options(dpi=dpi)
    files = write(ExportKind.ZPL, recipe, layout, items_max=2)
    assert list(files) == ["outer.zpl", "inner.zpl"]
    for chunk, content in zip(chunks(recipe), files.values(), strict=True):
        for serial, text, line in zip(chunk.serials, chunk.texts, content.decode("ascii").splitlines(), strict=True):
            label, caption = printed(line)
            assert caption == f"{serial[:5]} {serial[5:]}"
            (symbol,) = decoded(label)
            assert symbol.text == text
            side = symbol.position.top_right.x - symbol.position.top_left.x
            assert side == pytest.approx(45 * layout.module_dots, abs=3)


def test_the_symbol_is_ours_dot_for_dot(write: Write, make_recipe: MakeRecipe, chunks: Chunks) -> None:
    recipe = make_recipe(1)
    (chunk,) = chunks(recipe)
    (content,) = write(ExportKind.ZPL, recipe, Layout(caption=False)).values()
    label, caption = printed(content.decode("ascii").strip())
    assert caption is None
    assert label.tobytes() == qr.image(qr.symbol(chunk.texts[0]), 4).tobytes()


@pytest.mark.parametrize("dpi", [202, 204, 299, 301, 599, 601])
def test_resolutions_that_label_printers_lack_are_refused(make_recipe: MakeRecipe, dpi: int) -> None:
    with pytest.raises(LayoutInvalid, match="203, 300 or 600"):
        open_export(ExportKind.ZPL, make_recipe(1), Layout(dpi=dpi))


@pytest.mark.parametrize(("module_dots", "fits"), [(19, True), (20, False)])
def test_a_picture_is_no_larger_than_a_printer_takes(make_recipe: MakeRecipe, module_dots: int, fits: bool) -> None:
    # 45 modules of 19 dots are 855 rows of 107 bytes, 91,485; of 20 dots 900 rows of 113 bytes, 101,700.
    layout = Layout(dpi=600, module_mm=module_dots * 25.4 / 600)
    if fits:
        open_export(ExportKind.ZPL, make_recipe(1), layout)
    else:
        with pytest.raises(LayoutInvalid, match="900 dots"):
            open_export(ExportKind.ZPL, make_recipe(1), layout)
