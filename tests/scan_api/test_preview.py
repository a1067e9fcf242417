"""`fanxing order preview` and the layout options that commands share, as people and machines use them."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from codes.exports.layout import Layout, preset
from scan_api.commands.layouts import AskedLayout, layout_options
from scan_api.commands.preview import preview

GTIN = "6901234567892"


def run(folder: Path, line: str) -> Result:
    app = typer.Typer()
    app.command()(preview)
    environment = {"FANXING_HOME": str(folder), "FANXING_BASE_URL": "https://id.example.cn"}
    return CliRunner().invoke(app, shlex.split(f"--out {folder / 'preview.png'} {line}"), env=environment)


def ask(folder: Path, line: str) -> Any:
    done = run(folder, f"--gtin {GTIN} {line} --json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refusal(folder: Path, line: str) -> dict[str, str]:
    done = run(folder, f"{line} --json")
    assert done.exit_code == 1, done.output
    error: dict[str, str] = json.loads(done.stdout)["error"]
    return error


def test_a_picture_is_written_and_its_page_described(tmp_path: Path) -> None:
    assert ask(tmp_path, "--preset roll-30") == {
        "picture": str(tmp_path / "preview.png"),
        "paper_mm": [30, 30],
        "columns": 1,
        "rows": 1,
        "labels_a_page": 1,
        "label_mm": [29.97, 29.97],
        "qr_level": "M",
        "qr_version": 7,
        "qr_width_mm": 22.4,
        "module_mm": 0.423,
        "warnings": [],
    }
    with Image.open(tmp_path / "preview.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (354, 354))


def test_options_change_the_preset(tmp_path: Path) -> None:
    told = ask(
        tmp_path,
        "--paper 100x150.5 --margin 5 --label-width 40 --label-height 45 --columns 2 --rows 3 --gutter 1 --level Q "
        "--module-mm 0.25 --quiet-zone 3 --no-caption --no-crop-marks --no-header --dpi 600",
    )
    assert told["paper_mm"] == [100, 150.5]
    assert (told["columns"], told["rows"], told["qr_level"], told["module_mm"]) == (2, 3, "Q", 0.254)
    assert [warning.partition(" ")[0] for warning in told["warnings"]] == ["Modules", "A"]


def test_an_upper_case_host_makes_a_smaller_symbol(tmp_path: Path) -> None:
    lower, upper = (ask(tmp_path, f"--preset roll-30 --no-caption --level Q {case}") for case in ("", "--upper-case"))
    assert upper["qr_width_mm"] < lower["qr_width_mm"]
    assert any("upper case" in warning for warning in upper["warnings"])


def test_people_are_told_in_lines(tmp_path: Path) -> None:
    done = run(tmp_path, f"--gtin {GTIN} --preset compact")
    assert done.exit_code == 0, done.output
    assert "labels a page: 280" in done.stdout
    assert "Level L bears little damage" in done.stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"--gtin {GTIN} --preset a5", "PresetUnknown"),
        (f"--gtin {GTIN} --label-width 15", "LayoutInvalid"),
        (f"--gtin {GTIN} --paper 210", "LayoutInvalid"),
        (f"--gtin {GTIN} --paper 210x", "LayoutInvalid"),
        (f"--gtin {GTIN} --paper 9x297", "LayoutInvalid"),
        (f"--gtin {GTIN} --dpi 149", "LayoutInvalid"),
        (f"--gtin {GTIN} --base-url https://id.example.cn/", "BaseUrlInvalid"),
        ("--gtin 6901234567893", "GtinInvalid"),
    ],
)
def test_what_cannot_be_printed_is_refused_and_no_picture_is_left(tmp_path: Path, line: str, code: str) -> None:
    refused = refusal(tmp_path, line)
    assert refused["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_a_command_gets_its_own_arguments_and_the_layout() -> None:
    heard: list[tuple[str, Layout]] = []

    @layout_options
    def command(name: str, asked: AskedLayout, loud: bool = False) -> None:
        """Say it."""
        heard.append((name.upper() if loud else name, asked.layout()))

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["ice", "--loud", "--preset", "a3", "--no-header"]).exit_code == 0
    assert CliRunner().invoke(app, ["ice"]).exit_code == 0
    assert heard == [("ICE", preset("a3").with_options(header=False)), ("ice", preset("a4"))]
    assert "Say it." in CliRunner().invoke(app, ["--help"]).stdout
