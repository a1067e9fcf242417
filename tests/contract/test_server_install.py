"""The server, installed the way the Dockerfile does it, in an environment that has nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_steps(venv: Path) -> list[str]:
    """The Dockerfile's own pip commands, with its folder for the environment replaced by ours."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(/opt/fanxing/bin/python -m pip install [^&\n]+)", text)
    return [command.replace("/opt/fanxing", str(venv)) for command in commands]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_dockerfiles_steps_make_a_server_that_sets_itself_up(tmp_path: Path) -> None:
    venv, workplace = tmp_path / "venv", tmp_path / "work"
    workplace.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "src")], check=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    steps = run_steps(venv)
    assert len(steps) == 2
    for step in steps:
        subprocess.run(step, shell=True, cwd=tmp_path / "src", check=True, capture_output=True)  # noqa: S602
    environment = {**os.environ, "FANXING_HOME": str(workplace / "home")}
    for arguments in (["init", "--make-passphrase", "--json"], ["key", "list", "--json"], ["ledger", "verify"]):
        subprocess.run(
            [str(venv / "bin" / "fanxing"), *arguments], cwd=workplace, env=environment, check=True, capture_output=True
        )
