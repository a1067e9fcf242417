"""Sound: one, two or three beeps for genuine, ask and refused, so that nobody needs to look at the screen.

Nothing here ever makes a scan wait: beeps are made by a thread or by a player of the system's, and the newest wins.
"""

import math
import os
import shutil
import struct
import subprocess
import threading
import wave
from pathlib import Path
from typing import Final, Protocol

PLAYERS: Final = (("paplay",), ("pw-play",), ("aplay", "-q"))
RATE_HZ: Final = 22_050
BEEP_S: Final = 0.12
PAUSE_S: Final = 0.08
BEEPS: Final = {"genuine": 1, "ask": 2, "refused": 3}
PITCHES_HZ: Final = {"genuine": 1_320.0, "ask": 660.0, "refused": 330.0}
_LOUDNESS: Final = 0.5
_FADE_S: Final = 0.01
_BELL_EVERY_S: Final = 0.25


class Sound(Protocol):
    """What sounds at a verdict."""

    def play(self, verdict: str) -> None:
        """Sound "genuine", "ask" or "refused" and return at once."""

    def close(self) -> None:
        """Fall silent."""


class Silence:
    """No sound."""

    def play(self, verdict: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Bell:
    """The bell of the terminal behind a descriptor."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._changed = threading.Condition()
        self._beeps = 0
        self._is_closed = False
        threading.Thread(target=self._ring, name="bell", daemon=True).start()

    def play(self, verdict: str) -> None:
        """Ring once, twice or three times; what still rings of the verdict before is dropped."""
        with self._changed:
            self._beeps = BEEPS[verdict]
            self._changed.notify()

    def close(self) -> None:
        """Fall silent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _ring(self) -> None:
        with self._changed:
            while not self._is_closed:
                if not self._beeps:
                    self._changed.wait()
                    continue
                self._beeps -= 1
                try:
                    os.write(self._terminal, b"\a")
                except OSError:  # the terminal is gone
                    return
                # A terminal melts bells that come too close into one.
                self._changed.wait(_BELL_EVERY_S)


class Tones:
    """Tones of their own pitch, played by the system's player from files in `folder`."""

    def __init__(self, folder: Path, player: tuple[str, ...]) -> None:
        self._player = player
        self._process: subprocess.Popen[bytes] | None = None
        self._files = {verdict: folder / f"{verdict}.wav" for verdict in BEEPS}
        for verdict, path in self._files.items():
            write_beeps(path, PITCHES_HZ[verdict], BEEPS[verdict])

    def play(self, verdict: str) -> None:
        """Start the player; one that still plays is stopped."""
        self.close()
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [*self._player, str(self._files[verdict])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:  # a sound is never worth a scan
            self._process = None

    def close(self) -> None:
        """Stop the player."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def find_player() -> tuple[str, ...] | None:
    """The first player that this system has, with its arguments."""
    return next((player for player in PLAYERS if shutil.which(player[0])), None)


def write_beeps(path: Path, pitch_hz: float, beeps: int) -> None:
    """Write a mono WAV file of 16-bit samples."""
    tone = [_sample(at, pitch_hz) for at in range(int(BEEP_S * RATE_HZ))]
    pause = [0] * int(PAUSE_S * RATE_HZ)
    samples = (tone + pause) * beeps
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def _sample(at: int, pitch_hz: float) -> int:
    # Fading in and out: a tone that is cut off clicks.
    edge_s = min(at, int(BEEP_S * RATE_HZ) - at) / RATE_HZ
    loudness = _LOUDNESS * min(1.0, edge_s / _FADE_S)
    return int(32_767 * loudness * math.sin(2 * math.pi * pitch_hz * at / RATE_HZ))
