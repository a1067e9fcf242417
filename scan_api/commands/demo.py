"""The demonstration as a command."""

from pathlib import Path
from typing import Annotated

import typer

from kit.errors import FanxingError
from scan_api.commands import terminal
from scan_api.commands.terminal import Json

HOME_DEFAULT = Path("var/demo")


def demo(
    home: Annotated[Path, typer.Option(help="Data folder of the demonstration; cleared first.")] = HOME_DEFAULT,
    as_json: Json = False,
) -> None:
    """The main job, end to end, on SQLite: a brand, shoppers, a shop, a regulator. Exits with 0 if all went well."""
    try:
        from scan_api.demo.play import play  # noqa: PLC0415 - its PDF and QR readers are an extra of the distribution
    except ModuleNotFoundError as error:
        terminal.refuse(
            terminal.ExtraMissing(f"the demonstration needs {error.name}", hint="pip install 'fanxing[demo]'"),
            as_json=as_json,
        )
    try:
        story = play(home, terminal.err if as_json else terminal.out)
    except FanxingError as error:
        terminal.refuse(error, as_json=as_json)
    if as_json:
        terminal.print_json({"ok": story.went_well, "steps": len(story.steps), "home": str(home)})
    else:
        terminal.out.print(f"The data stays: FANXING_HOME={home} fanxing …  and {home}/story.json")
    raise typer.Exit(0 if story.went_well else 1)
