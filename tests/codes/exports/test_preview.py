"""Previews: the first page as it will be printed, of codes that are worth nothing."""

import pytest
from PIL import Image

from codes.exports.layout import Layout, LayoutInvalid, preset
from codes.exports.preview import SIDE_PX_MAX, preview
from offline_sdk import Profile, Verifier, VerifyError, parse
from tests.codes.conftest import MakeRecipe, decoded


def test_a_preview_is_the_first_page_with_every_label_in_its_place(make_recipe: MakeRecipe) -> None:
    layout = Layout(paper_width_mm=60, paper_height_mm=72)
    picture = preview(make_recipe(1), layout)
    assert (picture.mode, picture.size) == ("RGB", (layout.dots(60), layout.dots(72)))
    # Without the red word: over paper it is much lighter than over ink.
    page = picture.getchannel("R").point(lambda red: 255 * (red > 150))
    sheet = layout.sheet(45)
    corners = [sheet.corner(place) for place in range(sheet.labels)]
    labels = [page.crop((x, y, x + sheet.label.width, y + sheet.label.width)) for x, y in corners]
    found = [parse(symbol.text) for label in labels for symbol in decoded(label)]
    assert [(code.gtin, code.profile, code.serial) for code in found] == [
        ("06901234567892", Profile.OUTER, f"00000{item:09d}") for item in range(4)
    ]


def test_no_verifier_takes_a_specimen(make_recipe: MakeRecipe, verifier: Verifier) -> None:
    picture = preview(make_recipe(1), preset("roll-30").with_options(module_mm=0.25))
    (symbol,) = decoded(picture.getchannel("R").point(lambda red: 255 * (red > 150)))
    with pytest.raises(VerifyError):
        verifier.verify(symbol.text)


@pytest.mark.parametrize("name", ["a4", "roll-30"])
def test_a_red_word_stands_across_the_page(make_recipe: MakeRecipe, name: str) -> None:
    picture = preview(make_recipe(1), preset(name).with_options(dpi=150))
    small = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BOX)
    red = [
        (at % small.width / small.width, at // small.width / small.height)
        for at, (r, g, _) in enumerate(small.get_flattened_data())
        if r - g > 60
    ]
    across = [x for x, _ in red]
    assert min(across) < 0.3
    assert max(across) > 0.7


@pytest.mark.parametrize(("dpi", "side"), [(342, 3_999), (343, 4_000)])
def test_a_preview_is_no_larger_than_a_screen_shows(make_recipe: MakeRecipe, dpi: int, side: int) -> None:
    assert max(preview(make_recipe(1), Layout(dpi=dpi)).size) == pytest.approx(side, abs=1)
    assert side <= SIDE_PX_MAX


def test_a_layout_that_cannot_be_printed_has_no_preview(make_recipe: MakeRecipe) -> None:
    with pytest.raises(LayoutInvalid):
        preview(make_recipe(1), Layout(label_width_mm=15))
