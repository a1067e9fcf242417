"""Commands run inside the test's process; their tree is built once, which takes most of a short command's time."""

import functools
import shlex
from collections.abc import Mapping, Sequence

import typer.main
import typer.testing
from click.testing import Result

from scan_api.commands import main

typer.testing._get_command = functools.cache(typer.main.get_command)
_build = functools.cache(main.build)


def invoke(line: str | Sequence[str], environment: Mapping[str, str] | None = None) -> Result:
    """Run `fanxing` with these words."""
    words = shlex.split(line) if isinstance(line, str) else line
    return typer.testing.CliRunner().invoke(_build(), words, env=environment)
