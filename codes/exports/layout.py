"""Layout: how codes stand on paper, in millimetres as people say them and in dots as printers print them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from kit.errors import Invalid, NotFound

Level = Literal["L", "M", "Q", "H"]

MM_PER_INCH = 25.4
QUIET_ZONE_MODULES = 4  # ISO/IEC 18004, 5.3.8
LABELS_A_PAGE_MAX = 10_000
HEADER_MM = 8
CAPTION_MM = 3
"""Height of the strip for the serial, letters and air."""
CAPTION_LETTERS_MM_MAX = 2.1  # 6 points
CAPTION_LETTERS_MM_MIN = 1.0  # about 3 points: what people with good eyes and good light still read
CAPTION_EMS = 8.4
"""Width of a serial, 5 digits, a space and 9 digits, in heights of its letters."""

# Least and most of each number, both included; a label's size and a count may also be 0 for "as fits".
_RANGES: Mapping[str, tuple[float, float]] = {
    "paper_width_mm": (10, 5_000),  # PDF 1.4, appendix C: a page is 14,400 units at most, which is 5,080 mm
    "paper_height_mm": (10, 5_000),
    "margin_mm": (0, 100),
    "label_width_mm": (5, 1_000),
    "label_height_mm": (5, 1_000),
    "columns": (1, 1_000),
    "rows": (1, 1_000),
    "gutter_mm": (0, 50),
    "module_mm": (0.1, 5),
    "quiet_zone_modules": (2, 16),
    "dpi": (150, 2_400),
}
_MAY_BE_ZERO = ("label_width_mm", "label_height_mm", "columns", "rows")
_WHOLE = ("columns", "rows", "quiet_zone_modules", "dpi")
_SWITCHES = ("caption", "crop_marks", "header")


class LayoutInvalid(Invalid):
    code = "LayoutInvalid"


class PresetUnknown(NotFound):
    code = "PresetUnknown"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a customer chooses. Raises LayoutInvalid for a number out of range.

    A module is printed as the whole number of dots nearest to `module_mm`, so that every module is as wide as the next;
    `dpi` is the printer's resolution. 0 stands for "as the symbol needs" (label) and "as many as fit" (columns, rows).
    """

    paper_width_mm: float = 210
    paper_height_mm: float = 297
    margin_mm: float = 10
    label_width_mm: float = 0
    label_height_mm: float = 0
    columns: int = 0
    rows: int = 0
    gutter_mm: float = 2
    module_mm: float = 0.34  # the smallest module that ordinary presses and label printers keep apart
    quiet_zone_modules: int = QUIET_ZONE_MODULES
    level: Level = "M"
    caption: bool = True
    crop_marks: bool = True
    header: bool = True
    dpi: int = 300

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _check_number(name, getattr(self, name), least, most)
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise LayoutInvalid(f"{name} is neither true nor false")
        if self.level not in get_args(Level):
            raise LayoutInvalid("level is not L, M, Q or H")

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The layout that `as_json` told. Raises LayoutInvalid, also for a name that it does not know."""
        _check_names(stored)
        return cls(**stored)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def with_options(self, **options: Any) -> Self:
        """This layout with some fields changed; None leaves a field as it is. Raises LayoutInvalid."""
        _check_names(options)
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    @property
    def module_dots(self) -> int:
        return max(1, self.dots(self.module_mm))

    @property
    def printed_module_mm(self) -> float:
        """What a module measures on paper."""
        return self.mm(self.module_dots)

    def dots(self, mm: float) -> int:
        return round(mm * self.dpi / MM_PER_INCH)

    def mm(self, dots: float) -> float:
        return dots * MM_PER_INCH / self.dpi

    def label(self, symbol_modules: int) -> "Label":
        """A label with a symbol of so many modules a side. Raises LayoutInvalid when it does not fit."""
        symbol = symbol_modules * self.module_dots
        square = symbol + 2 * self.quiet_zone_modules * self.module_dots
        strip = self.dots(CAPTION_MM) if self.caption else 0
        width, height = self.dots(self.label_width_mm) or square, self.dots(self.label_height_mm) or square + strip
        smaller = "take a smaller module, a lower level or a shorter base URL, or leave the caption out"
        for side, room, need in (("wide", width, square), ("high", height, square + strip)):
            if room < need:
                raise LayoutInvalid(
                    f"the symbol with its quiet zone{' and caption' if strip and side == 'high' else ''} is "
                    f"{self.mm(need):.2f} mm {side} and the label {self.mm(room):.2f} mm: "
                    f"{self.mm(need - room):.2f} mm are missing",
                    hint=f"Make the label larger, or {smaller}.",
                )
        letters = min(self.dots(CAPTION_LETTERS_MM_MAX), int(width / CAPTION_EMS)) if self.caption else 0
        if self.caption and letters < self.dots(CAPTION_LETTERS_MM_MIN):
            missing = self.mm(self.dots(CAPTION_LETTERS_MM_MIN) * CAPTION_EMS - width)
            raise LayoutInvalid(
                f"the serial would be too small to read: the label is {missing:.2f} mm too narrow for it",
                hint="Make the label wider, or leave the caption out.",
            )
        top = (height - square - strip) // 2
        return Label(width, height, symbol, (width - symbol) // 2, top + (square - symbol) // 2, letters, top + square)

    def sheet(self, symbol_modules: int) -> "Sheet":
        """A page of labels with symbols of so many modules a side. Raises LayoutInvalid when they do not fit."""
        label, gutter, margin = self.label(symbol_modules), self.dots(self.gutter_mm), self.dots(self.margin_mm)
        header = self.dots(HEADER_MM) if self.header else 0
        across = self.dots(self.paper_width_mm) - 2 * margin
        down = self.dots(self.paper_height_mm) - 2 * margin - header
        columns = self._fitting("column", self.columns, across, label.width, gutter)
        rows = self._fitting("row", self.rows, down, label.height, gutter)
        if columns * rows > LABELS_A_PAGE_MAX:
            raise LayoutInvalid(
                f"{columns} columns of {rows} labels are more than {LABELS_A_PAGE_MAX:,} on a page",
                hint="Take a smaller paper, or say fewer columns or rows.",
            )
        return Sheet(label, columns, rows, margin, margin + header, label.width + gutter, label.height + gutter)

    def _fitting(self, line: str, asked: int, room: int, size: int, gutter: int) -> int:
        """Columns or rows: as asked, or as many as fit."""
        count = asked or max(1, (room + gutter) // (size + gutter))
        missing = count * (size + gutter) - gutter - room
        if missing > 0:
            what = "label is" if count == 1 else f"{count} {line}s are"
            raise LayoutInvalid(
                f"the {what} {self.mm(missing):.2f} mm too {'wide' if line == 'column' else 'high'} "
                f"for the paper inside its margins{' and under its header' if self.header and line == 'row' else ''}",
                hint=f"Take a larger paper, a smaller margin, gutter, label or module, or fewer {line}s.",
            )
        return count


@dataclass(frozen=True, slots=True)
class Label:
    """One label, in dots from its top left corner: the symbol without its quiet zone, and the strip for the serial."""

    width: int
    height: int
    symbol: int
    symbol_left: int
    symbol_top: int
    letters: int
    """Height of the serial's letters; 0 without a caption."""
    caption_top: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """One page, in dots from the paper's top left corner: labels stand row by row, each row from the left."""

    label: Label
    columns: int
    rows: int
    left: int
    top: int
    pitch_across: int
    pitch_down: int

    @property
    def labels(self) -> int:
        return self.columns * self.rows

    def corner(self, place: int) -> tuple[int, int]:
        """Left and top of the label at a place, counted from 0."""
        row, column = divmod(place, self.columns)
        return self.left + column * self.pitch_across, self.top + row * self.pitch_down


def _check_names(options: Mapping[str, Any]) -> None:
    if unknown := set(options) - {field.name for field in fields(Layout)}:
        raise LayoutInvalid(f"a layout has no {', '.join(sorted(unknown))}")


def _check_number(name: str, value: object, least: float, most: float) -> None:
    zero_too = name in _MAY_BE_ZERO
    # True is a number to Python, but nobody means it as one.
    is_number = isinstance(value, (int,) if name in _WHOLE else (int, float)) and not isinstance(value, bool)
    # NaN fails both comparisons.
    if not is_number or not (least <= value <= most or (zero_too and value == 0)):  # type: ignore[operator]
        raise LayoutInvalid(
            f"{name} is not a {'whole ' if name in _WHOLE else ''}number from {least:g} to {most:g}"
            f"{', or 0 for as fits' if zero_too else ''}"
        )


PRESETS: Mapping[str, Layout] = {
    "a4": Layout(),
    "a3": Layout(paper_width_mm=297, paper_height_mm=420),
    "letter": Layout(paper_width_mm=215.9, paper_height_mm=279.4),
    "compact": Layout(margin_mm=5, gutter_mm=1, module_mm=0.254, level="L", caption=False),
    "roll-30": Layout(
        paper_width_mm=30,
        paper_height_mm=30,
        margin_mm=0,
        label_width_mm=30,
        label_height_mm=30,
        columns=1,
        rows=1,
        gutter_mm=0,
        module_mm=0.42,
        crop_marks=False,
        header=False,
    ),
}


def preset(name: str) -> Layout:
    """A layout by its name. Raises PresetUnknown."""
    try:
        return PRESETS[name]
    except KeyError:
        raise PresetUnknown("no layout of that name", hint=f"There are {', '.join(PRESETS)}.") from None
