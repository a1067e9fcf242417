"""Lines: the code texts that a hand scanner types into a terminal or a pipe, or sends over a serial port."""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

LINE_BYTES_MAX: Final = 4096
"""What is kept of one line; no code text is nearly as long, so what is left of a longer one is still refused."""
READ_BYTES: Final = 65_536
PLUG_WAIT_S: Final = 1.0
"""How often a serial port that is gone is looked for."""

_CONTROL_D: Final = b"\x04"


class Splitter:
    """Cuts a stream of bytes into lines that end with LF, CR or CRLF; empty ones are left out.

    Bytes that are not UTF-8 become lone surrogates, which no code text holds.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, content: bytes) -> list[str]:
        """The lines that these bytes complete."""
        *whole, rest = content.replace(b"\r", b"\n").split(b"\n")
        texts = []
        for piece in whole:
            texts += self._line(piece)
        self._keep(rest)
        return texts

    def finish(self) -> list[str]:
        """The line that the end of the stream completes, if one was begun."""
        return self._line(b"")

    def forget(self) -> None:
        """Drop a line that was begun and will not be completed."""
        self._begun.clear()

    def _line(self, piece: bytes) -> list[str]:
        self._keep(piece)
        line = bytes(self._begun)
        self._begun.clear()
        return [line.decode("utf-8", "surrogateescape")] if line else []

    def _keep(self, piece: bytes) -> None:
        self._begun += piece[: LINE_BYTES_MAX - len(self._begun)]


class Source(Protocol):
    """Where code texts come from."""

    def read(self, wait_s: float) -> list[str] | None:
        """The texts that came within `wait_s` seconds, at once when there are any; None after the last one."""

    def close(self) -> None:
        """Give back what was taken; nothing happens the second time."""


class StandardInput:
    """Code texts from a pipe, or from a terminal into which the hand scanner types.

    A terminal is switched to show nothing of what is typed: an inner code is a secret. `wake` is a descriptor that
    becomes readable when somebody wants the reading to return early.
    """

    def __init__(self, descriptor: int, wake: int) -> None:
        self._descriptor = descriptor
        self._wake = wake
        self._splitter = Splitter()
        self._has_ended = False
        self._is_terminal = os.isatty(descriptor)
        self._settings = _hush(descriptor) if self._is_terminal else None

    def read(self, wait_s: float) -> list[str] | None:
        """The texts that came within `wait_s` seconds; None after the last one."""
        if self._has_ended:
            return None
        ready, _, _ = select.select([self._descriptor, self._wake], [], [], wait_s)
        if self._descriptor not in ready:
            return []
        try:
            content = os.read(self._descriptor, READ_BYTES)
        except OSError:  # the terminal is gone
            content = b""
        if self._is_terminal and _CONTROL_D in content:
            content, self._has_ended = content.partition(_CONTROL_D)[0], True
        if not content:
            self._has_ended = True
            return self._splitter.finish()
        return self._splitter.feed(content)

    def close(self) -> None:
        """Put the terminal back as it was."""
        if self._settings is not None:
            import termios  # noqa: PLC0415

            with suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._settings)
            self._settings = None


def _hush(descriptor: int) -> list[Any]:
    """Show nothing of what is typed and hand it over at once, and return the settings from before."""
    import termios  # noqa: PLC0415

    before = termios.tcgetattr(descriptor)
    silent = termios.tcgetattr(descriptor)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    return before


class SerialPort:
    """Code texts from a serial port, for as long as the program runs: a port that is gone is opened when it is back.

    `tell(True)` is called when it is there, `tell(False)` when it is gone; `wake` is as for StandardInput.
    """

    def __init__(self, path: str, baud: int, wake: int, tell: Callable[[bool], None]) -> None:
        import serial  # noqa: PLC0415

        self._serial = serial
        self._path = path
        self._baud = baud
        self._wake = wake
        self._tell = tell
        self._port: Any = None
        self._was_told: bool | None = None
        self._splitter = Splitter()

    def read(self, wait_s: float) -> list[str]:
        """The texts that came within `wait_s` seconds."""
        until = time.monotonic() + wait_s
        if self._port is None and not self._plug():
            select.select([self._wake], [], [], min(PLUG_WAIT_S, wait_s))
            return []
        try:
            ready, _, _ = select.select([self._port, self._wake], [], [], max(0.0, until - time.monotonic()))
            if self._port not in ready:
                return []
            content = os.read(self._port.fileno(), READ_BYTES)
        except OSError:
            content = b""
        if not content:  # pulled out: what was begun is not a code
            self._splitter.forget()
            self.close()
            self._say(False)
            return []
        return self._splitter.feed(content)

    def close(self) -> None:
        """Let go of the port."""
        if self._port is not None:
            with suppress(OSError):
                self._port.close()
            self._port = None

    def _plug(self) -> bool:
        try:
            self._port = self._serial.Serial(self._path, self._baud, timeout=0, exclusive=True)
        except (OSError, ValueError):  # SerialException is an OSError
            self._say(False)
            return False
        self._say(True)
        return True

    def _say(self, is_there: bool) -> None:
        if is_there is not self._was_told:
            self._was_told = is_there
            self._tell(is_there)
