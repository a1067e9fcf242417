import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "offline_sdk"


def test_package_imports_only_the_standard_library_pynacl_and_cbor2() -> None:
    allowed = set(sys.stdlib_module_names) | {"nacl", "cbor2"}
    for source in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            assert {name.partition(".")[0] for name in names} <= allowed, source.name


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
