"""Layouts: numbers within their limits, geometry that fits the paper, refusals that say what is missing."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codes.exports.layout import (
    CAPTION_EMS,
    LABELS_A_PAGE_MAX,
    PRESETS,
    Layout,
    LayoutInvalid,
    PresetUnknown,
    Sheet,
    preset,
)

MODULES = 45
SQUARE_DOTS = (45 + 2 * 4) * 4
ONE_DOT_MM = 25.4 / 300
FINE: dict[str, Any] = {"dpi": 2_400}

LIMITS = [
    ("paper_width_mm", 10, 5_000, 0.001),
    ("paper_height_mm", 10, 5_000, 0.001),
    ("margin_mm", 0, 100, 0.001),
    ("label_width_mm", 5, 1_000, 0.001),
    ("label_height_mm", 5, 1_000, 0.001),
    ("columns", 1, 1_000, 1),
    ("rows", 1, 1_000, 1),
    ("gutter_mm", 0, 50, 0.001),
    ("module_mm", 0.1, 5, 0.001),
    ("quiet_zone_modules", 2, 16, 1),
    ("dpi", 150, 2_400, 1),
]
MAY_BE_ZERO = {"label_width_mm", "label_height_mm", "columns", "rows"}
WHOLE = {"columns", "rows", "quiet_zone_modules", "dpi"}


@pytest.mark.parametrize(("name", "least", "most", "step"), LIMITS)
def test_a_number_is_within_its_limits(name: str, least: float, most: float, step: float) -> None:
    for value in (least, least + step, most - step, most):
        assert getattr(Layout(**{name: value}), name) == value
    below = [] if name in MAY_BE_ZERO and least == step else [least - step]
    for value in (*below, most + step, -1, math.nan, math.inf):
        with pytest.raises(LayoutInvalid, match=f"^{name} "):
            Layout(**{name: value})


@pytest.mark.parametrize("name", [name for name, *_ in LIMITS])
@pytest.mark.parametrize("value", [None, "10", True, [10]])
def test_a_number_is_a_number(name: str, value: object) -> None:
    with pytest.raises(LayoutInvalid, match=f"^{name} "):
        Layout(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_counts_are_whole(name: str) -> None:
    with pytest.raises(LayoutInvalid, match="whole number"):
        Layout(**{name: 4.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["label_width_mm", "label_height_mm", "columns", "rows", "margin_mm", "gutter_mm"])
def test_zero_is_no_limit_where_it_stands_for_as_fits(name: str) -> None:
    assert getattr(Layout(**{name: 0}), name) == 0


@pytest.mark.parametrize("options", [{"caption": 1}, {"header": None}, {"crop_marks": "no"}, {"level": "X"}])
def test_switches_and_levels_are_what_they_are(options: dict[str, Any]) -> None:
    with pytest.raises(LayoutInvalid):
        Layout(**options)


@pytest.mark.parametrize("name", PRESETS)
def test_a_layout_travels_as_json(name: str) -> None:
    layout = preset(name).with_options(caption=False, level="Q", margin_mm=0)
    assert Layout.from_json(json.loads(json.dumps(layout.as_json()))) == layout


def test_a_name_that_no_layout_has_is_refused() -> None:
    with pytest.raises(LayoutInvalid, match="colums"):
        Layout.from_json({"colums": 3})
    with pytest.raises(LayoutInvalid, match="colums"):
        Layout().with_options(colums=3)


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert Layout().with_options(caption=None, dpi=None) == Layout()
    assert Layout().with_options(caption=False, dpi=None) == Layout(caption=False)


def test_a_preset_that_does_not_exist_is_refused_and_the_others_are_named() -> None:
    with pytest.raises(PresetUnknown) as refused:
        preset("a5")
    assert refused.value.hint == "There are a4, a3, letter, compact, roll-30."


@pytest.mark.parametrize(
    ("name", "columns", "rows"), [("a4", 9, 11), ("a3", 13, 17), ("letter", 9, 11), ("compact", 13, 19)]
)
def test_presets_hold_what_they_promise(name: str, columns: int, rows: int) -> None:
    sheet = preset(name).sheet(MODULES)
    assert (sheet.columns, sheet.rows) == (columns, rows)


@pytest.mark.parametrize("dpi", [203, 300, 600])
@pytest.mark.parametrize("modules", [41, 45, 49])
def test_a_roll_has_one_label_a_page(modules: int, dpi: int) -> None:
    assert preset("roll-30").with_options(dpi=dpi).sheet(modules).labels == 1


@pytest.mark.parametrize(("missing_dots", "fits"), [(-1, True), (0, True), (1, False), (2, False)])
def test_a_label_is_as_wide_as_its_symbol_and_quiet_zone(missing_dots: int, fits: bool) -> None:
    layout = Layout(label_width_mm=(SQUARE_DOTS - missing_dots) * ONE_DOT_MM)
    if fits:
        assert layout.label(MODULES).width == SQUARE_DOTS - missing_dots
    else:
        with pytest.raises(LayoutInvalid) as refused:
            layout.label(MODULES)
        assert f"{missing_dots * ONE_DOT_MM:.2f} mm are missing" in refused.value.message
        assert "smaller module" in refused.value.hint


@pytest.mark.parametrize("caption", [True, False])
@pytest.mark.parametrize(("missing_dots", "fits"), [(-1, True), (0, True), (1, False), (2, False)])
def test_a_label_is_as_high_as_its_symbol_and_caption(missing_dots: int, fits: bool, caption: bool) -> None:
    need = SQUARE_DOTS + (round(3 / ONE_DOT_MM) if caption else 0)
    layout = Layout(label_height_mm=(need - missing_dots) * ONE_DOT_MM, caption=caption)
    if fits:
        assert layout.label(MODULES).height == need - missing_dots
    else:
        with pytest.raises(LayoutInvalid, match=f"{missing_dots * ONE_DOT_MM:.2f} mm are missing"):
            layout.label(MODULES)


@pytest.mark.parametrize(
    ("label_dots", "letters"),
    # The smallest letters are 1 mm, 12 dots: 12 × 8.4 is 100.8.
    [(100, None), (101, 12), (210, 25), (211, 25)],
)
def test_a_serial_that_nobody_could_read_is_refused(label_dots: int, letters: int | None) -> None:
    # The quiet zone of 2 modules and modules of 2 dots keep the symbol narrower than its serial.
    layout = Layout(module_mm=0.17, quiet_zone_modules=2, label_width_mm=label_dots * ONE_DOT_MM)
    if letters is None:
        with pytest.raises(LayoutInvalid, match="too small to read"):
            layout.label(MODULES)
        assert layout.with_options(caption=False).label(MODULES).letters == 0
    else:
        label = layout.label(MODULES)
        assert label.letters == letters
        assert label.letters * CAPTION_EMS <= label.width


@pytest.mark.parametrize(("line", "side", "way"), [("columns", "width", "wide"), ("rows", "height", "high")])
@pytest.mark.parametrize(("missing_dots", "fits"), [(-1, True), (0, True), (1, False), (2, False)])
def test_columns_and_rows_fit_the_paper_or_are_refused(
    line: str, side: str, way: str, missing_dots: int, fits: bool
) -> None:
    gutter, margin, count = 24, 118, 3
    label = Layout().label(MODULES)
    size = label.width if side == "width" else label.height
    need = count * size + (count - 1) * gutter + 2 * margin
    paper = (need - missing_dots) * ONE_DOT_MM
    layout = Layout(header=False).with_options(**{f"paper_{side}_mm": paper, line: count})
    if fits:
        assert getattr(layout.sheet(MODULES), line) == count
        assert getattr(layout.with_options(**{line: 0}).sheet(MODULES), line) == count
    else:
        with pytest.raises(LayoutInvalid, match=f"3 {line} are {missing_dots * ONE_DOT_MM:.2f} mm too {way}"):
            layout.sheet(MODULES)
        assert getattr(layout.with_options(**{line: 0}).sheet(MODULES), line) == count - 1


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_label_larger_than_the_paper_is_refused(side: str) -> None:
    layout = Layout().with_options(**{f"paper_{side}_mm": 30})
    with pytest.raises(LayoutInvalid, match=r"the label is [0-9.]+ mm too (wide|high)"):
        layout.sheet(MODULES)


@pytest.mark.parametrize(("columns", "fits"), [(99, True), (100, True), (101, False)])
def test_a_page_holds_no_more_labels_than_a_section(columns: int, fits: bool) -> None:
    layout = Layout(paper_width_mm=2_100, paper_height_mm=2_350, columns=columns, rows=100)
    if fits:
        assert layout.sheet(MODULES).labels == columns * 100 <= LABELS_A_PAGE_MAX
    else:
        with pytest.raises(LayoutInvalid, match="more than 10,000"):
            layout.sheet(MODULES)


@pytest.mark.parametrize(
    ("dpi", "module_mm", "dots"), [(203, 0.34, 3), (300, 0.34, 4), (300, 0.38, 4), (300, 0.382, 5), (150, 0.1, 1)]
)
def test_a_module_is_whole_dots(dpi: int, module_mm: float, dots: int) -> None:
    layout = Layout(dpi=dpi, module_mm=module_mm)
    assert layout.module_dots == dots
    assert layout.printed_module_mm == pytest.approx(dots * 25.4 / dpi)


options = st.fixed_dictionaries(
    {},
    optional={
        "paper_width_mm": st.floats(10, 500),
        "paper_height_mm": st.floats(10, 500),
        "margin_mm": st.floats(0, 20),
        "label_width_mm": st.just(0) | st.floats(5, 60),
        "label_height_mm": st.just(0) | st.floats(5, 60),
        "columns": st.integers(0, 5),
        "rows": st.integers(0, 5),
        "gutter_mm": st.floats(0, 10),
        "module_mm": st.floats(0.1, 1),
        "quiet_zone_modules": st.integers(2, 8),
        "caption": st.booleans(),
        "header": st.booleans(),
        "dpi": st.sampled_from([150, 203, 300, 600, 1_200]),
    },
)


@given(options, st.sampled_from([37, 45, 61]))
def test_whatever_is_not_refused_lies_on_the_paper_and_overlaps_nothing(chosen: dict[str, Any], modules: int) -> None:
    layout = Layout(**chosen)
    try:
        sheet: Sheet = layout.sheet(modules)
    except LayoutInvalid:
        return
    label, margin = sheet.label, layout.dots(layout.margin_mm)
    quiet = layout.quiet_zone_modules * layout.module_dots
    assert label.symbol == modules * layout.module_dots
    assert quiet <= label.symbol_left <= label.width - label.symbol - quiet
    below = label.caption_top if layout.caption else label.height
    assert quiet <= label.symbol_top <= below - label.symbol - quiet
    assert label.caption_top + label.letters <= label.height
    last_left, last_top = sheet.corner(sheet.labels - 1)
    assert sheet.corner(0) >= (margin, margin)
    assert last_left + label.width <= layout.dots(layout.paper_width_mm) - margin
    assert last_top + label.height <= layout.dots(layout.paper_height_mm) - margin
    assert sheet.pitch_across >= label.width
    assert sheet.pitch_down >= label.height
