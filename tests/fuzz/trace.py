"""Trace: by which lines an error came, which tells inputs apart that go different ways; and which lines were run."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

_DEPTH_MAX: Final = 12


def path_of(error: BaseException) -> str:
    """The error's class and the lines that it came by, from the outside in."""
    lines: list[str] = []
    at = error.__traceback__
    while at is not None and len(lines) < _DEPTH_MAX:
        lines.append(str(at.tb_lineno))
        at = at.tb_next
    return f"{type(error).__name__} {'>'.join(lines)}"


def lines_run(work: Callable[[], Any], modules: Iterable[ModuleType]) -> dict[str, tuple[int, int, list[int]]]:
    """For each module its lines of functions that `work` ran, how many there are, and those not run."""
    files = {module.__file__: module.__name__.rpartition(".")[2] for module in modules}
    seen: set[tuple[str, int]] = set()

    def line(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return line if frame.f_code.co_filename in files else None

    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(None)
    found = {}
    for file, name in files.items():
        assert file is not None
        code = compile(Path(file).read_text("utf-8"), file, "exec")
        lines = {(file, number) for number in _lines_of_functions(code)}
        found[name] = (len(lines & seen), len(lines), sorted(number for _file, number in lines - seen))
    return found


def _lines_of_functions(code: CodeType) -> set[int]:
    lines: set[int] = set()
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 0x2:  # a function's body: it has local variables of its own, which a class's has not
                lines |= {
                    number for _start, _end, number in inner.co_lines() if number and number != inner.co_firstlineno
                }
            lines |= _lines_of_functions(inner)
    return lines
