"""Trust: the scanner's trust store and the verifier made of it, shared by the counter and the background thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..bundle import Bundle
from ..code_text import parse
from ..errors import Malformed, TrustMissing, VerifyError
from ..trust_store import CACHE_FILE, TrustStore, Update
from ..verifier import ASK, CLOCK_TOLERANCE_S, REFUSED, Action, Policy, Verdict, Verifier
from .home import timestamp

POLICY: Final = Policy(on_stale=Action.ACCEPT, on_expired=Action.ASK, on_clock_suspect=Action.ASK)

Clock = Callable[[], datetime]


def read_wall_clock() -> datetime:
    """The time that this device's clock shows."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is made of one text: the fields of a Verdict, and `bundle_issued` in unix seconds.

    All of the bundle is None when there is none; then a text that is a code gives "ask" and TrustMissing.
    """

    verdict: str
    error: str | None
    message: str
    gtin: str | None = None
    serial: str | None = None
    profile: int | None = None
    kid: int | None = None
    issuer: str | None = None
    bundle_seq: int | None = None
    bundle_state: str | None = None
    bundle_issued: int | None = None
    clock_suspect: bool = False

    @classmethod
    def of(cls, verdict: Verdict, bundle: Bundle) -> "Judgement":
        """A verdict by this bundle."""
        return cls(
            verdict.verdict, verdict.error, verdict.message,
            verdict.gtin, verdict.serial, verdict.profile, verdict.kid, verdict.issuer,
            verdict.bundle_seq, verdict.bundle_state.value, bundle.issued, verdict.clock_suspect,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrustState:
    """How far verdicts can be believed now; times in unix seconds, None where there is no bundle.

    `problem` is the code of the error with which the store opened, None when it opened well.
    """

    domain: str | None = None
    root_version: int | None = None
    seq: int | None = None
    issued: int | None = None
    expires: int | None = None
    state: str | None = None
    clock_suspect: bool = False
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps."""
        return {
            "domain": self.domain,
            "root_version": self.root_version,
            "seq": self.seq,
            "issued": None if self.issued is None else timestamp(self.issued),
            "expires": None if self.expires is None else timestamp(self.expires),
            "state": self.state,
            "clock_suspect": self.clock_suspect,
            "problem": self.problem,
        }


class _Held(NamedTuple):
    """What the store holds, in one piece, so that a thread never sees half of an update."""

    verifier: Verifier | None
    root_version: int | None
    expires: int | None
    floor: float


class Trust:
    """A trust store that threads may share, and its verifier under one policy; judging never waits for an update."""

    def __init__(self, folder: Path, pin: bytes, policy: Policy = POLICY, clock: Clock = read_wall_clock) -> None:
        self._folder = folder
        self._store = TrustStore(folder, pin)
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self.problem: VerifyError | None = None
        """What was wrong with the store when it was opened: it holds nothing until an update repairs it."""
        stamp = self._stamp()
        try:
            self._store.open()
        except VerifyError as error:
            self.problem = error
        self._held = self._look()
        self._loaded = stamp

    @property
    def seq(self) -> int | None:
        """The bundle's sequence number."""
        verifier = self._held.verifier
        return None if verifier is None else verifier.bundle.seq

    @property
    def root_version(self) -> int | None:
        """The root's version."""
        return self._held.root_version

    @property
    def floor(self) -> float:
        """The time that it is at least, unix seconds."""
        held = self._held
        return held.floor if held.verifier is None else max(held.floor, held.verifier.seen)

    def judge(self, text: str) -> Judgement:
        """Judge a text by the bundle held; never raises because of it."""
        verifier = self._held.verifier
        if verifier is not None:
            return Judgement.of(verifier.check(text), verifier.bundle)
        suspect = self._is_clock_suspect()
        try:
            code = parse(text)
        except Malformed as error:
            return Judgement(REFUSED, error.code, error.message, clock_suspect=suspect)
        message = "there is no trust bundle here, so nothing can be said of this code; fetch one, and check again"
        return Judgement(
            ASK, TrustMissing.code, message, code.gtin, code.serial, code.profile, code.kid, clock_suspect=suspect
        )

    def update(self, content: bytes) -> Update:
        """Take a trust file wholly or not at all; raises as TrustStore.update does."""
        with self._lock:
            self._remember()
            update = self._store.update(content, self._clock())
            self.problem = None
            self._held = self._look()
            self._loaded = self._stamp()
            return update

    def remember(self) -> None:
        """Have the time that went by remembered, against clocks that are set back. Raises OSError, VerifyError."""
        with self._lock:
            self._remember()

    def reload(self) -> None:
        """Take over what `fanxing-scanner update` has put into the store meanwhile. Raises OSError, VerifyError."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._loaded:
                self._loaded = stamp
                self._remember()
                self._store.open()
                self.problem = None
                self._held = self._look()

    def correct_clock(self) -> None:
        """Believe this device's clock again, since an operator says that it is right. Raises OSError, VerifyError."""
        with self._lock:
            self._store.correct_clock(self._clock())
            self._held = self._look()

    def state(self) -> TrustState:
        """How things stand now."""
        held = self._held
        problem = None if self.problem is None else self.problem.code
        suspect = self._is_clock_suspect()
        if held.verifier is None:
            return TrustState(root_version=held.root_version, clock_suspect=suspect, problem=problem)
        return TrustState(
            domain=held.verifier.bundle.domain,
            root_version=held.root_version,
            seq=held.verifier.bundle.seq,
            issued=held.verifier.bundle.issued,
            expires=held.expires,
            state=held.verifier.bundle_state().value,
            clock_suspect=suspect,
            problem=problem,
        )

    def _stamp(self) -> tuple[int, int] | None:
        """What another content of the cache has another of: it is replaced, never written into."""
        try:
            found = (self._folder / CACHE_FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _is_clock_suspect(self) -> bool:
        return self._clock().timestamp() < self.floor - CLOCK_TOLERANCE_S

    def _remember(self) -> None:
        verifier = self._held.verifier
        seen = max(self._clock().timestamp(), 0 if verifier is None else verifier.seen)
        self._store.remember(datetime.fromtimestamp(seen, UTC))

    def _look(self) -> _Held:
        try:
            root = self._store.root
        except TrustMissing:
            return _Held(None, None, None, self._store.floor)
        try:
            verifier = self._store.verifier(self._policy, self._clock)
        except TrustMissing:
            return _Held(None, root.version, None, self._store.floor)
        return _Held(verifier, root.version, min(verifier.bundle.expires, root.expires), self._store.floor)
