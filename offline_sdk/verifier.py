"""Verifier: judges code texts by a trust bundle, with no network.

Genuine means: issued by this issuer for this GTIN, and not revoked as of the bundle's date. A signature stops forging,
never copying: a photographed code is as genuine as the printed one; only scan counts, places and times tell them apart.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from nacl._sodium import ffi, lib
from nacl.exceptions import BadSignatureError

from .algorithms import SIGNATURE_BYTES, Algorithm, opener
from .bundle import TIME_MAX, Bundle, BundleKey
from .code_text import MESSAGE_BYTES, ORDER_MAX, CodeText, parse
from .errors import (
    AlgorithmMissing,
    BadSignature,
    BundleExpired,
    BundleStale,
    ClockSuspect,
    CodeLabel,
    KeyOutOfScope,
    Revoked,
    UnknownKey,
    VerifyError,
)
from .revocation import RevocationIndex

STALE_AFTER_DEFAULT: Final = timedelta(days=3)
CLOCK_TOLERANCE_S: Final = 300
"""How far behind the greatest time seen a clock may be before it is suspect."""

GENUINE: Final = "genuine"
ASK: Final = "ask"
REFUSED: Final = "refused"

_SIGNED_BYTES: Final = SIGNATURE_BYTES + MESSAGE_BYTES
_NULL: Final = ffi.NULL
_open_ed25519: Final = lib.crypto_sign_open


class BundleState(StrEnum):
    """How old the trust bundle, and the root behind it, are at the time of the check."""

    FRESH = "fresh"
    STALE = "stale"
    """Older than the policy likes."""
    EXPIRED = "expired"
    """At or past the expiry of the bundle or of its root."""


class Action(StrEnum):
    """What to make of a code that passed every other check, under a condition that weakens what this says."""

    ACCEPT = "accept"
    """Genuine, with the flag."""
    ASK = "ask"
    """Neither genuine nor refused: a person decides."""
    REFUSE = "refuse"


_SEVERITY: Final = (Action.ACCEPT, Action.ASK, Action.REFUSE)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier makes of an old bundle and of a clock set back.

    `stale_after` counts from the bundle's issue, at least 0. Under several conditions the severest action counts.
    """

    stale_after: timedelta = STALE_AFTER_DEFAULT
    on_stale: Action = Action.ACCEPT
    on_expired: Action = Action.REFUSE
    on_clock_suspect: Action = Action.ASK

    def __post_init__(self) -> None:
        if self.stale_after < timedelta(0):
            raise ValueError("stale_after is negative; give the age from which a bundle counts as stale")
        if not all(type(action) is Action for action in (self.on_stale, self.on_expired, self.on_clock_suspect)):
            raise ValueError("on_stale, on_expired and on_clock_suspect are each an Action")


@dataclass(frozen=True, slots=True)
class Genuine:
    """A code that passed every check: what it says, who issued it, and how far the bundle and clock can be trusted."""

    code_text: CodeText
    issuer: str
    bundle_seq: int
    bundle_state: BundleState
    clock_suspect: bool


class Verdict(NamedTuple):
    """The outcome of one check, safe to log: it holds neither the text nor the signature.

    `verdict` is "genuine", "ask" or "refused"; `error` is the code of the error that asks or refuses (the class names
    in `offline_sdk.errors`), else None; `message` is for people. GTIN, serial, profile and key number are what the text
    says, believed or not, and None when it is malformed. `issuer` is given only when the signature was right.
    `bundle_state` and `clock_suspect` tell the conditions of the check, whatever came of it.
    """

    verdict: str
    error: str | None
    message: str
    gtin: str | None
    serial: str | None
    profile: int | None
    kid: int | None
    issuer: str | None
    bundle_seq: int
    bundle_state: BundleState
    clock_suspect: bool

    @property
    def is_genuine(self) -> bool:
        """Whether the code passed every check; False where a person is to decide."""
        return self.verdict == GENUINE

    def as_json(self) -> dict[str, Any]:
        """Return the fields for json.dumps, all but the message."""
        return {
            "verdict": self.verdict,
            "error": self.error,
            "gtin": self.gtin,
            "serial": self.serial,
            "profile": self.profile,
            "kid": self.kid,
            "issuer": self.issuer,
            "bundle_seq": self.bundle_seq,
            "bundle_state": self.bundle_state.value,
            "clock_suspect": self.clock_suspect,
        }


class Verifier:
    """Judges code texts by one trust bundle; build it once and use it for many, from any thread.

    `now` is the time of the checks: an aware datetime, or a callable that returns one, by default the system's clock.
    Raises ValueError for a naive datetime, at once or, from a callable, at the check. `seen` is the greatest time that
    the device has seen so far and `root_expires` the expiry of the bundle's root, both in unix seconds: `TrustStore`
    knows them.
    """

    def __init__(
        self,
        bundle: Bundle,
        policy: Policy | None = None,
        now: datetime | Callable[[], datetime] | None = None,
        *,
        seen: float = 0,
        root_expires: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.policy = policy or Policy()
        self._clock = _clock(now)
        self._scopes = {key.kid: _Scope(key) for key in bundle.keys}
        self._revocations = RevocationIndex(bundle.revocations)
        self._expires = bundle.expires if root_expires is None else min(bundle.expires, root_expires)
        self._stale_from = min(bundle.issued + self.policy.stale_after.total_seconds(), self._expires)
        self._seen = seen
        self._floor = max(seen, bundle.issued)
        self._outcomes = {
            (state, suspect): _outcome(self.policy, state, suspect=suspect)
            for state in BundleState
            for suspect in (False, True)
        }

    @property
    def seen(self) -> float:
        """The greatest time seen, in unix seconds: give it to `TrustStore.remember`, or keep it for the next start."""
        return self._seen

    def bundle_state(self) -> BundleState:
        """Tell how old the bundle is now."""
        return self._time()[1]

    def verify(self, text: str) -> Genuine:
        """Return what a genuine code says, or raise the VerifyError that tells why it is not taken for that.

        The checks go in this order and the first that fails decides: Malformed, UnknownKey, AlgorithmMissing,
        BadSignature, KeyOutOfScope, Revoked; then, as the policy has it, BundleExpired, BundleStale, ClockSuspect. So a
        forged code is never called anything milder than that.
        """
        now, state, suspect = self._time()
        code, issuer = self._judge(text, now)
        _verdict, error, message = self._outcomes[state, suspect]
        if error is not None:
            raise error(message, code.label, issuer)
        return Genuine(code, issuer, self.bundle.seq, state, suspect)

    def check(self, text: object) -> Verdict:
        """Judge anything that a scanner or a stranger may hand over; never raises because of it."""
        now, state, suspect = self._time()
        try:
            code, issuer = self._judge(text, now)
        except VerifyError as error:
            gtin, serial, profile, kid = _label_fields(error.label)
            return Verdict(
                REFUSED, error.code, error.message,
                gtin, serial, profile, kid, error.issuer, self.bundle.seq, state, suspect,
            )  # fmt: skip
        verdict, error_class, message = self._outcomes[state, suspect]
        return Verdict(
            verdict, None if error_class is None else error_class.code, message,
            code.gtin, code.serial, code.profile, code.kid, issuer, self.bundle.seq, state, suspect,
        )  # fmt: skip

    def _judge(self, text: Any, now: float) -> tuple[CodeText, str]:
        code = parse(text)
        scope = self._scopes.get(code.kid)
        if scope is None:
            raise UnknownKey(
                f"key number {code.kid:05d} is not in trust bundle {self.bundle.seq} of {self.bundle.domain}; "
                "fetch the newest bundle and check again",
                code.label,
            )
        # Straight to libsodium: a wrapper's call per code is what a scanner of thousands a second can feel.
        if (
            _open_ed25519(_NULL, _NULL, code.signature + code.message(), _SIGNED_BYTES, scope.ed25519) != 0
            if scope.ed25519
            else not scope.signature_is_right(code)
        ):
            raise BadSignature(
                "the signature does not belong to these numbers; the code is forged or was altered", code.label
            )
        complaint = scope.complaint(code, now)
        if complaint is not None:
            raise KeyOutOfScope(complaint, code.label, scope.issuer)
        revoked = self._revocations.what_is_revoked(code)
        if revoked is not None:
            raise Revoked(f"the {revoked} was revoked by its issuer; do not sell the item", code.label, scope.issuer)
        return code, scope.issuer

    def _time(self) -> tuple[float, BundleState, bool]:
        """The effective time of a check, the bundle's state then, and whether the clock is suspect."""
        now = self._clock()
        suspect = False
        if now >= self._floor:
            self._seen = self._floor = now
        else:
            self._seen = max(self._seen, now)
            suspect = now < self._floor - CLOCK_TOLERANCE_S
            now = self._floor
        if now < self._stale_from:
            return now, BundleState.FRESH, suspect
        return now, BundleState.STALE if now < self._expires else BundleState.EXPIRED, suspect


_Outcome = tuple[str, type[VerifyError] | None, str]

_AS_OF: Final = {
    BundleState.FRESH: "issued by this issuer and not revoked",
    BundleState.STALE: "issued by this issuer and not revoked as of an old trust bundle",
    BundleState.EXPIRED: "issued by this issuer and not revoked as of an expired trust bundle",
}
_REMEDIES: Final = {
    BundleState.FRESH: "",
    BundleState.STALE: "; fetch the newest bundle soon",
    BundleState.EXPIRED: "; fetch the newest bundle now, a newer revocation may be missing",
}
_CLOCK_REMEDY: Final = "; this device's clock is behind a time that was seen before: set it right"
_VERDICTS: Final = {Action.ACCEPT: GENUINE, Action.ASK: ASK, Action.REFUSE: REFUSED}


def _outcome(policy: Policy, state: BundleState, *, suspect: bool) -> _Outcome:
    """What becomes of a code that passed every other check: verdict, error and message."""
    conditions: list[tuple[Action, type[VerifyError]]] = []
    if state is BundleState.EXPIRED:
        conditions.append((policy.on_expired, BundleExpired))
    if state is BundleState.STALE:
        conditions.append((policy.on_stale, BundleStale))
    if suspect:
        conditions.append((policy.on_clock_suspect, ClockSuspect))
    # Of equal severity the first: an expired bundle tells more than the clock.
    action, error = max(conditions, key=lambda one: _SEVERITY.index(one[0]), default=(Action.ACCEPT, None))
    message = f"{_AS_OF[state]}{_REMEDIES[state]}{_CLOCK_REMEDY if suspect else ''}"
    if action is Action.ASK:
        message += "; till then do not take it for certain: decide by hand"
    elif action is Action.REFUSE:
        message += "; till then it is refused"
    return _VERDICTS[action], None if action is Action.ACCEPT else error, message


class _Scope:
    """A bundle key made ready for judging many codes."""

    __slots__ = ("_key", "_open", "ed25519", "issuer", "not_after", "not_before", "orders", "prefixes")

    def __init__(self, key: BundleKey) -> None:
        self._key = key
        self._open: Callable[[bytes, bytes], Any] | None = None
        self.ed25519 = key.public if key.algorithm is Algorithm.ED25519 else b""
        self.issuer = key.issuer
        self.prefixes = key.gtin_prefixes
        self.not_before = -math.inf if key.not_before is None else key.not_before
        self.not_after = math.inf if key.not_after is None else key.not_after
        self.orders = (
            None if key.order_min == 0 and key.order_max == ORDER_MAX else range(key.order_min, key.order_max + 1)
        )

    def signature_is_right(self, code: CodeText) -> bool:
        """Verify by the key's own algorithm; raises AlgorithmMissing where its package is not installed."""
        try:
            if self._open is None:
                self._open = opener(self._key.algorithm, self._key.public)
            self._open(code.signature, code.message())
        except BadSignatureError:
            return False
        except AlgorithmMissing as error:
            raise AlgorithmMissing(error.message, code.label) from None
        return True

    def complaint(self, code: CodeText, now: float) -> str | None:
        """Say what of this code the key was not entitled to, or None."""
        # A GS1 company prefix begins after the indicator digit of a GTIN-14 (GS1 General Specifications, 2.1).
        if not code.gtin.startswith(self.prefixes, 1):
            return f"key {code.kid:05d} may not sign for this GTIN; treat the code as not issued by its owner"
        if not self.not_before <= now <= self.not_after:
            return f"key {code.kid:05d} is outside its validity period; check this device's clock"
        if self.orders is not None and code.order not in self.orders:
            return f"key {code.kid:05d} may not sign for this order; treat the code as not issued by its owner"
        return None


def _label_fields(label: CodeLabel | None) -> tuple[str | None, str | None, int | None, int | None]:
    return (None, None, None, None) if label is None else (label.gtin, label.serial, label.profile, label.kid)


def _clock(now: datetime | Callable[[], datetime] | None) -> Callable[[], float]:
    """Turn what a caller gave for the time into a function of unix seconds."""
    if now is None:
        return time.time
    if isinstance(now, datetime):
        fixed = unix_seconds(now)
        return lambda: fixed
    return lambda: unix_seconds(now())


def unix_seconds(moment: datetime) -> float:
    """Unix seconds of an aware datetime, at most TIME_MAX; raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("the time is a naive datetime; give one with a time zone")
    # West of Greenwich the calendar of `datetime` goes on for some hours after TIME_MAX.
    return min(moment.timestamp(), TIME_MAX)
