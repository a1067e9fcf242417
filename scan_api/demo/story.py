"""The demonstration's story: steps with what was expected and what was seen, told and written down."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from kit.files import replacing


@dataclass(frozen=True, slots=True)
class Step:
    """One step. It went well when what was seen is what was expected."""

    act: str
    step: str
    expected: Any
    seen: Any

    @property
    def went_well(self) -> bool:
        return bool(self.expected == self.seen)


class Story:
    """Tells each step as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._act = ""
        self.steps: list[Step] = []

    def begin(self, act: str) -> None:
        """A new act: somebody else's turn."""
        self._act = act
        self._console.print(f"\n{act}", style="bold")

    def tell(self, text: str) -> None:
        """Something to know that is not checked."""
        self._console.print(f"    {text}", style="dim", soft_wrap=True)

    def expect(self, step: str, expected: Any, seen: Any) -> None:
        """A step with what should have come of it and what did."""
        taken = Step(self._act, step, expected, seen)
        self.steps.append(taken)
        mark = ("✓", "green") if taken.went_well else ("✗", "red")
        self._console.print(Text.assemble("  ", mark, f" {step}"), soft_wrap=True)
        if not taken.went_well:
            self._console.print(f"      expected {expected!r}\n      seen     {seen!r}", style="red", soft_wrap=True)

    @property
    def went_well(self) -> bool:
        return bool(self.steps) and all(step.went_well for step in self.steps)

    def write(self, path: Path) -> None:
        """The steps as JSON: act, step, expected, seen, ok."""
        told = [{**asdict(step), "ok": step.went_well} for step in self.steps]
        with replacing(path) as file:
            file.write(json.dumps({"ok": self.went_well, "steps": told}, ensure_ascii=False, indent=1).encode() + b"\n")
