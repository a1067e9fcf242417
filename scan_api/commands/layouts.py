"""Options of a layout, which every command that prints or previews codes takes alike."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from codes.exports.layout import Layout, LayoutInvalid, Level, preset

PARAMETER = "asked"
_PAPER = re.compile(r"([0-9]+(?:\.[0-9]+)?)x([0-9]+(?:\.[0-9]+)?)")

_Mm = float | None
_Count = int | None
_Switch = bool | None

# Named as the fields of a layout, save `layout_name` and `paper`.
_OPTIONS: Mapping[str, Any] = {
    "layout_name": Annotated[str, typer.Option("--preset", help="a4, a3, letter, compact or roll-30.")],
    "paper": Annotated[str | None, typer.Option("--paper", metavar="WxH", help="Paper in mm, such as 320x450.")],
    "margin_mm": Annotated[_Mm, typer.Option("--margin", help="Paper's margin, mm.")],
    "label_width_mm": Annotated[_Mm, typer.Option("--label-width", help="mm; 0: as the symbol needs.")],
    "label_height_mm": Annotated[_Mm, typer.Option("--label-height", help="mm; 0: as the symbol needs.")],
    "columns": Annotated[_Count, typer.Option("--columns", help="Labels across; 0: as many as fit.")],
    "rows": Annotated[_Count, typer.Option("--rows", help="Labels down; 0: as many as fit.")],
    "gutter_mm": Annotated[_Mm, typer.Option("--gutter", help="Between labels, mm.")],
    "module_mm": Annotated[_Mm, typer.Option("--module-mm", help="A symbol's module, mm; rounded to whole dots.")],
    "quiet_zone_modules": Annotated[_Count, typer.Option("--quiet-zone", help="Around a symbol, modules.")],
    "level": Annotated[Level | None, typer.Option("--level", help="Error correction.")],
    "caption": Annotated[_Switch, typer.Option("--caption/--no-caption", help="The serial under its symbol.")],
    "crop_marks": Annotated[_Switch, typer.Option("--crop-marks/--no-crop-marks", help="Crosses where to cut.")],
    "header": Annotated[_Switch, typer.Option("--header/--no-header", help="A line on top of each page.")],
    "dpi": Annotated[_Count, typer.Option("--dpi", help="The printer's dots an inch.")],
}


@dataclass(frozen=True, slots=True)
class AskedLayout:
    """What was said about a layout at the command line."""

    preset: str
    paper: str | None
    options: Mapping[str, Any]

    def layout(self) -> Layout:
        """Raises PresetUnknown and LayoutInvalid."""
        return preset(self.preset).with_options(**self.options, **self._paper())

    def _paper(self) -> dict[str, float]:
        if self.paper is None:
            return {}
        found = _PAPER.fullmatch(self.paper)
        if found is None:
            raise LayoutInvalid("paper is not its width and height in mm", hint="Write it like 210x297.")
        return {"paper_width_mm": float(found[1]), "paper_height_mm": float(found[2])}


def layout_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of a layout in place of its parameter `asked: AskedLayout`."""

    @wraps(command)
    def taking(**given: Any) -> None:
        options = {name: given.pop(name) for name in _OPTIONS}
        asked = AskedLayout(options.pop("layout_name"), options.pop("paper"), options)
        command(**given, **{PARAMETER: asked})

    own = inspect.signature(command)
    kept = [parameter.replace(kind=_BY_NAME) for name, parameter in own.parameters.items() if name != PARAMETER]
    added = [
        inspect.Parameter(name, _BY_NAME, default="a4" if name == "layout_name" else None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    # Typer reads both; an order of names does not matter to options.
    taking.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    taking.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    return taking


_BY_NAME = inspect.Parameter.KEYWORD_ONLY
