"""Panel: the counter's screen, one large verdict and the state below it, drawn with rich."""

from typing import Final

from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from .counter import Shown
from .show import (
    NEED,
    Standing,
    advice_of,
    label_lines,
    needs_of,
    seen_line,
    standing_lines,
    warnings_of,
)
from .words import NOT_RECORDED, READY, VERDICTS, Language, can_show_chinese

COLOURS: Final = {"genuine": "green", "ask": "yellow", "refused": "red", NOT_RECORDED: "red"}
SIGNS: Final = {"genuine": "✓ ", "ask": "? ", "refused": "✗ ", NOT_RECORDED: "✗ "}
"""Colour is never the only sign."""
NOTICES_MAX: Final = 3

_LETTERS: Final = {
    "A": (" ███ ", "█   █", "█████", "█   █", "█   █"),
    "C": (" ████", "█    ", "█    ", "█    ", " ████"),
    "D": ("████ ", "█   █", "█   █", "█   █", "████ "),
    "E": ("█████", "█    ", "████ ", "█    ", "█████"),
    "F": ("█████", "█    ", "████ ", "█    ", "█    "),
    "G": (" ████", "█    ", "█  ██", "█   █", " ████"),
    "I": ("███", " █ ", " █ ", " █ ", "███"),
    "K": ("█   █", "█  █ ", "███  ", "█  █ ", "█   █"),
    "N": ("█   █", "██  █", "█ █ █", "█  ██", "█   █"),
    "O": (" ███ ", "█   █", "█   █", "█   █", " ███ "),
    "R": ("████ ", "█   █", "████ ", "█  █ ", "█   █"),
    "S": (" ████", "█    ", " ███ ", "    █", "████ "),
    "T": ("█████", "  █  ", "  █  ", "  █  ", "  █  "),
    "U": ("█   █", "█   █", "█   █", "█   █", " ███ "),
    " ": ("   ",) * 5,
}
_ROWS: Final = 5
_SIDES_WIDTH: Final = 4
"""Columns that the panel's border and padding take."""


class PanelFace:
    """The screen of a terminal; other programs' output on it comes back when it is closed."""

    def __init__(self, console: Console, language: Language) -> None:
        self._console = console
        self._language = language
        self._has_chinese = can_show_chinese(console.encoding)
        self._shown: Shown | None = None
        self._standing: Standing | None = None
        self._notices: list[str] = []
        self._live = Live(
            console=console,
            screen=console.is_terminal,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def scan(self, shown: Shown) -> None:
        """Show a verdict till the next one comes; what was noticed before has been read by now."""
        self._shown = shown
        self._notices.clear()
        self._draw()

    def notice(self, event: str, text: str) -> None:
        """Add a line below the state, the newest last; what the trust list wants stands there anyway."""
        if event == NEED:
            return
        self._notices = [*self._notices, text][-NOTICES_MAX:]
        self._draw()

    def stand(self, standing: Standing) -> None:
        """Show how the scanner stands now."""
        self._standing = standing
        self._draw()

    def close(self) -> None:
        """Give the screen back."""
        self._live.stop()

    def _draw(self) -> None:
        self._live.update(self.picture(), refresh=True)

    def picture(self) -> RenderableType:
        """The whole screen."""
        return Group(self._verdict(), *self._below())

    def _verdict(self) -> Panel:
        shown, language = self._shown, self._language
        if shown is None:
            ready = Align.center(Text(READY.says(language), style="bold"))
            return Panel(ready, padding=(4, 1), title="fanxing-scanner")
        colour = COLOURS[shown.word]
        words = VERDICTS[shown.word]
        rows: list[RenderableType] = [self._large(words.en, colour)]
        if self._has_chinese:
            rows.append(Text(f"{SIGNS[shown.word]}{words.zh}  {words.en}", style=f"bold {colour}", justify="center"))
        rows += [Text(f"!! {line} !!", style="bold reverse", justify="center") for line in warnings_of(shown, language)]
        advice = advice_of(shown)
        code = f" ({shown.judged.error})" if shown.judged.error else ""
        rows += [Text(""), Text(f"{advice.why.says(language)}{code}")]
        rows += [Text(line) for line in label_lines(shown, language)]
        if shown.seen:
            rows.append(Text(f"!  {seen_line(shown, language)}", style="bold"))
        rows.append(Text(f"-> {advice.do.says(language)}", style=f"bold {colour}"))
        number = f"#{shown.recorded.number}" if shown.recorded else "#-"
        return Panel(Group(*rows), border_style=colour, title=f"fanxing-scanner {number}", padding=(1, 1))

    def _large(self, word: str, colour: str) -> RenderableType:
        rows = ["  ".join(_LETTERS[letter][row] for letter in word) for row in range(_ROWS)]
        if len(rows[0]) + _SIDES_WIDTH > self._console.width:
            rows = [" ".join(word)]
        elif not self._has_chinese:
            rows = [row.replace("█", "#") for row in rows]
        large = Text("\n".join(row.ljust(len(rows[0])) for row in rows), style=f"bold {colour}", no_wrap=True)
        return Align.center(large)

    def _below(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        if self._standing is not None:
            today, state = standing_lines(self._standing, self._language)
            lines += [Text(today, style="bold"), Text(state)]
            lines += [Text(f"! {need}", style="bold yellow") for need in needs_of(self._standing.trust, self._language)]
        return lines + [Text(f"- {notice}") for notice in self._notices]
