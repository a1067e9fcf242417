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
from typing import Any, Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from .bundle import Bundle, BundleKey
from .code_text import CodeText, parse
from .errors import BadSignature, BundleExpired, CodeLabel, KeyOutOfScope, Revoked, UnknownKey, VerifyError
from .revocation import RevocationIndex

STALE_AFTER_DEFAULT: Final = timedelta(days=3)

GENUINE: Final = "genuine"
REFUSED: Final = "refused"


class BundleState(StrEnum):
    """How old the trust bundle is at the time of the check."""

    FRESH = "fresh"
    STALE = "stale"
    """Older than the policy likes: accepted, with this flag."""
    EXPIRED = "expired"
    """At or past its expiry: refused unless the policy accepts it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier makes of an old bundle: `stale_after` counts from the bundle's issue, at least 0."""

    stale_after: timedelta = STALE_AFTER_DEFAULT
    accept_expired: bool = False

    def __post_init__(self) -> None:
        if self.stale_after < timedelta(0):
            raise ValueError("stale_after is negative; give the age from which a bundle counts as stale")


@dataclass(frozen=True, slots=True)
class Genuine:
    """A code that passed every check: what it says, who issued it, and how old the bundle is that says so."""

    code_text: CodeText
    issuer: str
    bundle_seq: int
    bundle_state: BundleState


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check, genuine or refused, safe to log: it holds neither the text nor the signature.

    `verdict` is "genuine" or "refused"; `error` is the code of the error that refused it (the class names in
    `offline_sdk.errors`), else None; `message` is for people. GTIN, serial, profile and key number are what the text
    says, believed or not, and None when it is malformed. `issuer` is given only when the signature was right.
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

    @property
    def is_genuine(self) -> bool:
        """Whether the code passed every check."""
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
        }


class Verifier:
    """Judges code texts by one trust bundle; build it once and use it for many, from any thread.

    `now` is the time of the checks: an aware datetime, or a callable that returns one, by default the system's clock.
    Raises ValueError for a naive datetime, at once or, from a callable, at the check.
    """

    def __init__(
        self, bundle: Bundle, policy: Policy | None = None, now: datetime | Callable[[], datetime] | None = None
    ) -> None:
        self.bundle = bundle
        self.policy = policy or Policy()
        self._clock = _clock(now)
        self._scopes = {key.kid: _Scope(key) for key in bundle.keys}
        self._revocations = RevocationIndex(bundle.revocations)
        self._stale_from = bundle.issued + self.policy.stale_after.total_seconds()

    def bundle_state(self) -> BundleState:
        """Tell how old the bundle is now."""
        return self._state(self._clock())

    def verify(self, text: str) -> Genuine:
        """Return what a genuine code says, or raise the VerifyError that tells why it is refused.

        The checks go in this order and the first that fails decides: Malformed, UnknownKey, BadSignature,
        KeyOutOfScope, Revoked, BundleExpired. So a forged code is never called anything milder than that.
        """
        now = self._clock()
        state = self._state(now)
        code, issuer = self._judge(text, now, state)
        return Genuine(code, issuer, self.bundle.seq, state)

    def check(self, text: object) -> Verdict:
        """Judge anything that a scanner or a stranger may hand over; never raises because of it."""
        now = self._clock()
        state = self._state(now)
        try:
            code, issuer = self._judge(text, now, state)
        except VerifyError as error:
            return self._refused(error, state)
        return Verdict(
            GENUINE, None, _GENUINE_MESSAGES[state],
            code.gtin, code.serial, code.profile, code.kid, issuer, self.bundle.seq, state,
        )  # fmt: skip

    def _judge(self, text: Any, now: float, state: BundleState) -> tuple[CodeText, str]:
        code = parse(text)
        scope = self._scopes.get(code.kid)
        if scope is None:
            raise UnknownKey(
                f"key number {code.kid:05d} is not in trust bundle {self.bundle.seq} of {self.bundle.domain}; "
                "fetch the newest bundle and check again",
                code.label,
            )
        # Straight to libsodium: a wrapper's call per code is what a scanner of thousands a second can feel.
        try:
            crypto_sign_open(code.signature + code.message(), scope.public)
        except BadSignatureError:
            raise BadSignature(
                "the signature does not belong to these numbers; the code is forged or was altered", code.label
            ) from None
        complaint = scope.complaint(code, now)
        if complaint is not None:
            raise KeyOutOfScope(complaint, code.label, scope.issuer)
        revoked = self._revocations.what_is_revoked(code)
        if revoked is not None:
            raise Revoked(f"the {revoked} was revoked by its issuer; do not sell the item", code.label, scope.issuer)
        if state is BundleState.EXPIRED and not self.policy.accept_expired:
            raise BundleExpired(
                "the trust bundle has expired, so a newer revocation may be missing; fetch the newest bundle",
                code.label,
                scope.issuer,
            )
        return code, scope.issuer

    def _refused(self, error: VerifyError, state: BundleState) -> Verdict:
        gtin, serial, profile, kid = _label_fields(error.label)
        return Verdict(
            REFUSED, error.code, error.message, gtin, serial, profile, kid, error.issuer, self.bundle.seq, state
        )

    def _state(self, now: float) -> BundleState:
        if now >= self.bundle.expires:
            return BundleState.EXPIRED
        return BundleState.STALE if now >= self._stale_from else BundleState.FRESH


_GENUINE_MESSAGES: Final = {
    BundleState.FRESH: "issued by this issuer and not revoked",
    BundleState.STALE: "issued by this issuer and not revoked as of an old trust bundle; fetch the newest one soon",
    BundleState.EXPIRED: "issued by this issuer and not revoked as of an expired trust bundle; fetch a new one now",
}


class _Scope:
    """A bundle key made ready for judging many codes."""

    __slots__ = ("issuer", "not_after", "not_before", "order_max", "order_min", "prefixes", "public")

    def __init__(self, key: BundleKey) -> None:
        self.public = key.public
        self.issuer = key.issuer
        self.prefixes = key.gtin_prefixes
        self.not_before = -math.inf if key.not_before is None else key.not_before
        self.not_after = math.inf if key.not_after is None else key.not_after
        self.order_min = key.order_min
        self.order_max = key.order_max

    def complaint(self, code: CodeText, now: float) -> str | None:
        """Say what of this code the key was not entitled to, or None."""
        # A GS1 company prefix begins after the indicator digit of a GTIN-14 (GS1 General Specifications, 2.1).
        if not code.gtin.startswith(self.prefixes, 1):
            return f"key {code.kid:05d} may not sign for this GTIN; treat the code as not issued by its owner"
        if not self.not_before <= now <= self.not_after:
            return f"key {code.kid:05d} is outside its validity period; check this device's clock"
        if not self.order_min <= code.order <= self.order_max:
            return f"key {code.kid:05d} may not sign for this order; treat the code as not issued by its owner"
        return None


def _label_fields(label: CodeLabel | None) -> tuple[str | None, str | None, int | None, int | None]:
    return (None, None, None, None) if label is None else (label.gtin, label.serial, label.profile, label.kid)


def _clock(now: datetime | Callable[[], datetime] | None) -> Callable[[], float]:
    """Turn what a caller gave for the time into a function of unix seconds."""
    if now is None:
        return time.time
    if isinstance(now, datetime):
        fixed = _unix_seconds(now)
        return lambda: fixed
    return lambda: _unix_seconds(now())


def _unix_seconds(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ValueError("the verifier's time is a naive datetime; give one with a time zone")
    return moment.timestamp()
