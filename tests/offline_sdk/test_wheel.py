import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offline_sdk import Bundle, Signer, format_pin
from tests.offline_sdk.trust_domain import root, root_document

ROOT_FOLDER = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, given: str = "") -> str:
    outcome = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        input=given,
        env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.mark.slow
def test_wheel_verifies_in_an_empty_environment_with_its_own_dependencies_only(
    tmp_path: Path, vectors: dict[str, Any], bundle: Bundle, publisher: Signer, publish: Callable[[bytes], bytes]
) -> None:
    package = ROOT_FOLDER / "offline_sdk"
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, package, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)

    installed = run(binaries / "pip", "list", "--format=freeze", "--disable-pip-version-check", cwd=tmp_path)
    names = {line.partition("==")[0].partition(" ")[0].lower() for line in installed.splitlines()}
    # cffi and pycparser are what PyNaCl itself needs; pip and setuptools come with the environment.
    assert names - {"pip", "setuptools"} <= {"fanxing-offline-sdk", "pynacl", "cbor2", "cffi", "pycparser"}

    empty = tmp_path / "empty"
    empty.mkdir()
    anchor = dataclasses.replace(root(), publishers=(publisher,), issued=0, expires=4_000_000_000)
    (tmp_path / "root.txt").write_bytes(format_pin(anchor.fingerprint))
    lasting = Bundle(bundle.domain, 1, bundle.issued, 4_000_000_000, bundle.keys)
    (tmp_path / "trust.cbor").write_bytes(root_document(anchor) + publish(lasting.payload()))
    texts = [case["text"] for case in vectors["valid"]]
    files: list[str | Path] = ["--trust", tmp_path / "trust.cbor", "--root", tmp_path / "root.txt"]
    assert run(binaries / "fanxing-verify", *files, *texts, cwd=empty).count("GENUINE") == len(texts)
    home = tmp_path / "scanner"
    home.mkdir()
    (home / "root.txt").write_bytes(format_pin(anchor.fingerprint))
    scanner = [binaries / "fanxing-scanner", "--home", home]
    assert "trust list 0 -> 1" in run(*scanner, "update", tmp_path / "trust.cbor", cwd=empty)
    shown = run(*scanner, cwd=empty, given="".join(f"{text}\n" for text in texts))
    assert shown.count(" GENUINE ") == len(texts)
    assert len(list((tmp_path / "venv").rglob("offline_sdk/scanner/fanxing-scanner.service"))) == 1
    typed = "import offline_sdk, pathlib; print((pathlib.Path(offline_sdk.__file__).parent / 'py.typed').exists())"
    assert run(binaries / "python", "-c", typed, cwd=empty) == "True\n"
