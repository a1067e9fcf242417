import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "offline_sdk"


CORE = set(sys.stdlib_module_names) | {"nacl", "cbor2"}
P256 = {"cryptography"}
SCANNER = P256 | {"http_message_signatures", "rich", "serial"}
EXTRAS = {"p256.py": P256, "device.py": P256, "sync.py": P256 | {"http_message_signatures"}}
"""Modules that need an extra of the distribution; `scanner/` may need all of its extra."""


def test_core_imports_only_the_standard_library_pynacl_and_cbor2() -> None:
    for source in PACKAGE.rglob("*.py"):
        name = source.relative_to(PACKAGE)
        allowed = CORE | (SCANNER if name.parts[0] == "scanner" else EXTRAS.get(str(name), set()))
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            # The scanner names the package by its whole name, as applications do.
            assert {name.partition(".")[0] for name in names} <= allowed | {"offline_sdk"}, source.name


def test_importing_the_package_loads_no_extra_and_no_database() -> None:
    loading = "import sys, offline_sdk; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", loading], cwd=PACKAGE.parent, capture_output=True, check=True)
    assert not set(loaded.stdout.decode().split()) & (SCANNER | {"sqlite3", "http", "ssl"})


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
