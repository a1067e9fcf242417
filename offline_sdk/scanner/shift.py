"""Shift: the program at work, from the first scan to the signal that ends it."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from ..verifier import Policy
from .background import Background
from .counter import Counter
from .home import Home
from .lines import SerialPort, Source, StandardInput
from .show import NEED, Face, JsonFace, PlainFace, Standing, needs_of
from .sound import Bell, Silence, Sound, Tones, find_player
from .trust import POLICY, Trust
from .words import LIST_NEW, PORT_BACK, PORT_GONE, Language

TICK_S: Final = 1.0
SAY_EVERY_S: Final = 2.0
"""How often status.json is written while nothing else makes it."""
END_WAIT_S: Final = 3.0
"""How long the end waits for an exchange with the server; one that is cut is done again at the next start."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for."""

    as_json: bool = False
    is_plain: bool = False
    has_tones: bool = False
    language: Language = Language.ENGLISH
    serial_path: str | None = None
    baud: int = 9600
    policy: Policy = POLICY


class Ending:
    """Whether SIGTERM, SIGINT or SIGHUP came; `wake` is a descriptor that becomes readable then, and by `nudge`."""

    def __init__(self) -> None:
        self.has_come = False
        self.wake, self._nudge = os.pipe()
        self._lock = threading.RLock()  # a signal may come while its own thread holds it
        self._is_closed = False
        os.set_blocking(self.wake, False)
        os.set_blocking(self._nudge, False)

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal: a flag only, so that nothing is ended in the middle."""
        self.has_come = True
        self.nudge()

    def nudge(self) -> None:
        """Let whoever reads a source return early; from any thread."""
        with self._lock, suppress(BlockingIOError):  # which it is awake after already
            if not self._is_closed:
                os.write(self._nudge, b"\0")

    def calm(self) -> None:
        """Forget the nudges that were."""
        with suppress(BlockingIOError):
            os.read(self.wake, 4096)

    @contextmanager
    def listening(self) -> Iterator["Ending"]:
        """Take the signals for as long as this lasts, and then be closed."""
        names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {name: signal.signal(name, self.handle) for name in names}
        try:
            yield self
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
            with self._lock:
                self._is_closed = True
                os.close(self.wake)
                os.close(self._nudge)


def work(home: Home, wishes: Wishes) -> None:
    """Judge what is scanned until the input or the program is ended.

    Raises HomeBusy, HomeUnusable, NotEnrolled, the DeviceErrors of a journal that does not open, and OSError.
    """
    with ExitStack() as stack:
        stack.enter_context(home.held())
        ending = stack.enter_context(Ending().listening())
        trust = Trust(home.trust, home.pin(), wishes.policy)
        counter = Counter(home.journal, trust.judge)
        stack.callback(counter.close)
        face = _face(wishes)
        stack.callback(face.close)
        source = _source(wishes, ending, face)
        stack.callback(source.close)
        sound = _sound(wishes, stack)
        stack.callback(sound.close)
        background = Background(home, counter, trust, ending.nudge)
        background.start()
        stack.callback(background.end, END_WAIT_S)
        _Shift(home, wishes.language, trust, counter, face, sound, background).run(source, ending)


class _Shift:
    def __init__(
        self,
        home: Home,
        language: Language,
        trust: Trust,
        counter: Counter,
        face: Face,
        sound: Sound,
        background: Background,
    ) -> None:
        self._home = home
        self._language = language
        self._trust = trust
        self._counter = counter
        self._face = face
        self._sound = sound
        self._background = background
        self._seq = trust.seq
        self._needs: list[str] = []
        self._said_at = 0.0

    def run(self, source: Source, ending: Ending) -> None:
        if self._trust.problem is not None:
            self._face.notice(self._trust.problem.code, self._trust.problem.message)
        while not ending.has_come:
            self._look_around()
            texts = source.read(TICK_S)
            ending.calm()
            if texts is None:
                break
            for text in texts:
                # Even at its end the program answers what was scanned already.
                self._scan(text)
        self._say()

    def _scan(self, text: str) -> None:
        shown = self._counter.scan(text)
        self._face.scan(shown)
        self._sound.play(shown.judged.verdict)
        self._background.wake()

    def _look_around(self) -> None:
        """Tell what has changed without a scan: the list, the link, the clock."""
        for event, text in self._background.take_notes():
            self._face.notice(event, text)
        for damage in self._counter.take_damages():
            self._face.notice("JournalDamaged", damage)
        standing = self._standing()
        if standing.trust.seq != self._seq:
            self._seq = standing.trust.seq
            self._face.notice("TrustUpdated", LIST_NEW.says(self._language, seq=self._seq))
        needs = needs_of(standing.trust, self._language)
        for need in needs:
            if need not in self._needs:
                self._face.notice(NEED, need)
        self._needs = needs
        self._face.stand(standing)
        if time.monotonic() >= self._said_at + SAY_EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said_at = time.monotonic()
        self._home.say({"pid": os.getpid(), **self._standing().as_json()})

    def _standing(self) -> Standing:
        counter = self._counter
        return Standing(
            time.time(), counter.tally_today(), self._trust.state(), self._background.link, counter.journal.waiting
        )


def _face(wishes: Wishes) -> Face:
    if wishes.as_json:
        return JsonFace(sys.stdout, sys.stderr)
    if wishes.is_plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainFace(sys.stdout, sys.stderr, wishes.language)
    try:
        from rich.console import Console  # noqa: PLC0415

        from .panel import PanelFace  # noqa: PLC0415
    except ImportError:
        print('fanxing-scanner: the large screen needs the extra "scanner"; one line a scan instead', file=sys.stderr)
        return PlainFace(sys.stdout, sys.stderr, wishes.language)
    return PanelFace(Console(), wishes.language)


def _source(wishes: Wishes, ending: Ending, face: Face) -> Source:
    if wishes.serial_path is None:
        return StandardInput(sys.stdin.fileno(), ending.wake)
    port, language = wishes.serial_path, wishes.language

    def tell(is_there: bool) -> None:
        phrase = PORT_BACK if is_there else PORT_GONE
        face.notice("ScannerConnected" if is_there else "ScannerUnplugged", phrase.says(language, port=port))

    return SerialPort(port, wishes.baud, ending.wake, tell)


def _sound(wishes: Wishes, stack: ExitStack) -> Sound:
    if wishes.has_tones and (player := find_player()) is not None:
        return Tones(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanxing-scanner-"))), player)
    return Bell(sys.stdout.fileno()) if sys.stdout.isatty() and not wishes.as_json else Silence()
