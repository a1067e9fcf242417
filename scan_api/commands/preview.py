"""`fanxing order preview`: a picture of the first page before anything is ordered."""

from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from codes.catalogue import gtin14
from codes.exports.layout import Layout
from codes.orders import BaseUrlInvalid
from codes.pipeline import Recipe
from codes.qr import Size, measure
from kit import settings as environment
from kit.files import replacing
from offline_sdk.code_text import Profile, check_base_url
from offline_sdk.errors import Malformed
from scan_api.commands import terminal
from scan_api.commands.layouts import AskedLayout, layout_options
from scan_api.commands.terminal import Json, out


@layout_options
def preview(
    asked: AskedLayout,
    gtin: Annotated[str, typer.Option(help="The product's GTIN.")],
    path: Annotated[Path, typer.Option("--out", help="The picture, a PNG file.")] = Path("preview.png"),
    base_url: Annotated[str | None, typer.Option(help="Default: FANXING_BASE_URL.")] = None,
    upper_case: Annotated[
        bool, typer.Option("--upper-case", help="Scheme and host in upper case: a smaller symbol, for fewer phones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how codes will look on paper: the first page, with specimens that no verifier takes."""

    async def work() -> dict[str, Any]:
        from codes.exports import preview as previews  # noqa: PLC0415 - a PDF reader that no other command needs

        layout = asked.layout()
        url = base_url or environment.load().base_url
        recipe = Recipe(gtin14(gtin), 0, 1, (Profile.OUTER,), _checked(url.upper() if upper_case else url), 0)
        size = measure(recipe.base_url, layout.level, layout.printed_module_mm, layout.quiet_zone_modules)
        picture = BytesIO()
        previews.preview(recipe, layout).save(picture, format="PNG")
        with replacing(path) as file:
            file.write(picture.getvalue())
        return {"picture": str(path), **about(layout, size)}

    terminal.run(work, as_json=as_json, show=_show)


def _checked(base_url: str) -> str:
    try:
        return check_base_url(base_url)
    except Malformed as error:
        raise BaseUrlInvalid(error.message) from None


def about(layout: Layout, size: Size) -> dict[str, Any]:
    """What a layout comes to on paper. Raises LayoutInvalid."""
    sheet = layout.sheet(size.modules)
    return {
        "paper_mm": [layout.paper_width_mm, layout.paper_height_mm],
        "columns": sheet.columns,
        "rows": sheet.rows,
        "labels_a_page": sheet.labels,
        "label_mm": [round(layout.mm(sheet.label.width), 2), round(layout.mm(sheet.label.height), 2)],
        "qr_level": layout.level,
        "qr_version": size.version,
        "qr_width_mm": round(size.width_mm, 1),
        "module_mm": round(layout.printed_module_mm, 3),
        "warnings": [warning.message for warning in size.warnings],
    }


def _show(result: dict[str, Any]) -> None:
    terminal.fields({name: value for name, value in result.items() if name != "warnings"})
    for warning in result["warnings"]:
        out.print(f"warning: {warning}", soft_wrap=True)
