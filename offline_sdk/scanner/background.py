"""Background: the thread that brings scans to the server and fetches news of trust, and never stops the counter."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ..errors import DeviceRevoked, NotEnrolled, SyncFailed, VerifyError
from .counter import Counter
from .home import Home, timestamp
from .trust import Trust

if TYPE_CHECKING:  # signing and TLS take a while to import: this thread does it, not the start of the program
    from ..sync import Backoff, Sync

TRUST_EVERY_S: Final = 15 * 60.0
PUSH_AFTER_S: Final = 0.3
"""How long a scan waits for others, so that they travel together."""
BACKOFF_MOST_S: Final = 60.0
"""Somebody who plugs the network in looks at the screen."""
IDLE_S: Final = 60.0
LOOK_EVERY_S: Final = 2.0
"""How often the trust store is looked at for an update by another process, and the time is remembered."""
NOTES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class LinkState:
    """How the scanner stands with its server; `word` is a key of `words.LINK`, `error` the last failure's code."""

    word: str = "starting"
    last_sync_at: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, said: object) -> "LinkState":
        """How it was left by a scanner that has ended, from the `sync` of its status: offline, or shut out."""
        fields = said if isinstance(said, dict) else {}
        word = "revoked" if fields.get("link") == "revoked" else "offline"
        try:
            last = datetime.fromisoformat(fields["last_sync_at"]).timestamp()
        except (KeyError, TypeError, ValueError):
            last = None
        error = fields.get("error")
        return cls(word, last, error if isinstance(error, str) else None)

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps."""
        last = None if self.last_sync_at is None else timestamp(self.last_sync_at)
        return {"link": self.word, "last_sync_at": last, "error": self.error}


class _Errand:
    """Something done again and again, later each time that it fails."""

    def __init__(self, do: Callable[[], float], backoff: "Backoff") -> None:
        self.do = do
        self.backoff = backoff
        self.due = 0.0
        self.is_failing = False


class Background:
    """The thread and what it found; `changed` is called from the thread after everything that a face may show."""

    def __init__(self, home: Home, counter: Counter, trust: Trust, changed: Callable[[], None]) -> None:
        self._home = home
        self._counter = counter
        self._trust = trust
        self._changed = changed
        self._condition = threading.Condition()
        self._is_ending = False
        self._has_scans = True
        self._sync: Sync | None = None
        self._synced_journal: object = None
        self._thread = threading.Thread(target=self._work, name="background", daemon=True)
        self.link = LinkState()
        self._notes: list[tuple[str, str]] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a scan to bring."""
        with self._condition:
            self._has_scans = True
            self._condition.notify()

    def end(self, wait_s: float) -> None:
        """Stop, and wait so long for what is under way; what is cut is done again at the next start."""
        with self._condition:
            self._is_ending = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def take_notes(self) -> list[tuple[str, str]]:
        """What happened since the last call, as event and sentence."""
        with self._condition:
            notes, self._notes = self._notes, []
        return notes

    def _work(self) -> None:
        try:
            from ..sync import Backoff  # noqa: PLC0415
        except ImportError:
            self._note("ExtraMissing", 'nothing is synced: the server is reached by what the extra "scanner" installs')
            self.link = LinkState("offline", error="ExtraMissing")
            self._changed()
            self._work_alone()
            return
        works = (self._push, self._fetch, self._look_after)
        push, *others = (_Errand(do, Backoff(most_s=BACKOFF_MOST_S)) for do in works)
        errands = (push, *others)
        while not self._is_ending:
            for errand in errands:
                if time.monotonic() >= errand.due and not self._is_ending:
                    self._attempt(errand)
            self._rest(push, min(errand.due for errand in errands))

    def _work_alone(self) -> None:
        while not self._is_ending:
            with suppress(OSError, VerifyError):
                self._look_after()
            with self._condition:
                if not self._is_ending:
                    self._condition.wait(LOOK_EVERY_S)

    def _attempt(self, errand: _Errand) -> None:
        try:
            errand.due = time.monotonic() + errand.do()
            errand.backoff.succeeded()
            errand.is_failing = False
        except Exception as error:
            # Whatever it is, the counter goes on; and an errand that failed is run again.
            errand.is_failing = True
            errand.due = time.monotonic() + errand.backoff.failed(getattr(error, "retry_after_s", None))
            self._failed(error)
        self._changed()

    def _failed(self, error: Exception) -> None:
        code = getattr(error, "code", type(error).__name__)
        message = getattr(error, "message", str(error))
        word = self.link.word
        if isinstance(error, NotEnrolled | DeviceRevoked):
            word = "not enrolled" if isinstance(error, NotEnrolled) else "revoked"
        elif isinstance(error, SyncFailed) and word != "revoked":
            word = "offline"
        if code != self.link.error:
            self._note(code, message)
        self.link = replace(self.link, word=word, error=code)

    def _reached(self) -> None:
        word = "revoked" if self.link.word == "revoked" else "online"
        self.link = LinkState(word, time.time(), self.link.error if word == "revoked" else None)

    def _push(self) -> float:
        sync = self._current_sync()
        while not self._is_ending:
            pushed = sync.push(self._trust.seq, self._trust.root_version)
            if not pushed.sent:
                break
            self._reached()
            for refusal, times in pushed.refusals.items():
                self._note("refused", f"the server refused {times} records: {refusal}")
            self._changed()
        return IDLE_S

    def _fetch(self) -> float:
        from ..sync import fetch_trust  # noqa: PLC0415

        content = fetch_trust(self._current_sync().link, self._trust.root_version, self._trust.seq)
        self._reached()
        if content is not None:
            self._take(content)
        # So that the server knows what a scanner trusts that has had no customer.
        self._current_sync().push(self._trust.seq, self._trust.root_version, also_empty=True)
        return TRUST_EVERY_S

    def _look_after(self) -> float:
        self._trust.remember()
        self._trust.reload()
        return LOOK_EVERY_S

    def _take(self, content: bytes) -> None:
        try:
            self._trust.update(content)
        except VerifyError as error:  # what came is refused, and what is held stays: no reason to ask more often
            self.link = replace(self.link, error=error.code)
            self._note(error.code, error.message)

    def _current_sync(self) -> "Sync":
        """The sync of the journal that is open: a damaged one has a successor."""
        if self._sync is None or self._synced_journal is not self._counter.journal:
            from ..device import Device  # noqa: PLC0415
            from ..sync import Sync  # noqa: PLC0415

            journal = self._counter.journal
            self._sync, self._synced_journal = Sync(Device.open(self._home.device), journal), journal
        return self._sync

    def _rest(self, push: _Errand, until: float) -> None:
        """Wait till something is due, or till scans have come that may be brought at once."""
        with self._condition:
            while not self._is_ending and (left_s := until - time.monotonic()) > 0:
                if self._has_scans and not push.is_failing:
                    self._has_scans = False
                    until = push.due = min(push.due, time.monotonic() + PUSH_AFTER_S)
                    continue
                self._condition.wait(left_s)

    def _note(self, event: str, text: str) -> None:
        with self._condition:
            self._notes.append((event, text))
            del self._notes[:-NOTES_MAX]
