"""Errors: one tree, each class with a stable code, each message saying what was wrong and what to do.

An error never carries a signature or a whole code text: the text of an inner code is a secret that pays a reward,
and errors end up in logs.
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class CodeLabel:
    """What a code text says about itself, without its signature: safe to log and to show."""

    profile: int
    kid: int
    gtin: str
    serial: str


class VerifyError(Exception):
    """Base of everything this package raises on purpose.

    `label` is what could still be read from the code text (None where nothing could).
    `issuer` is the issuer named by the trust bundle, given only when the signature was right.
    """

    code: ClassVar[str] = "VerifyError"

    def __init__(self, message: str, label: CodeLabel | None = None, issuer: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.label = label
        self.issuer = issuer


class Malformed(VerifyError):
    """The text is not a code text in its one canonical form."""

    code: ClassVar[str] = "Malformed"


class UnknownKey(VerifyError):
    """The key number is not in the trust bundle."""

    code: ClassVar[str] = "UnknownKey"


class BadSignature(VerifyError):
    """The signature was not made by the key of that number over these fields."""

    code: ClassVar[str] = "BadSignature"


class KeyOutOfScope(VerifyError):
    """The signature is right, but the key was not entitled to sign for this GTIN, order or time."""

    code: ClassVar[str] = "KeyOutOfScope"


class Revoked(VerifyError):
    """The signature is right, but the key, the order or the item has been revoked."""

    code: ClassVar[str] = "Revoked"


class BundleStale(VerifyError):
    """The code is right as of the trust bundle's date, but the bundle is old and the policy does not just accept it."""

    code: ClassVar[str] = "BundleStale"


class BundleExpired(VerifyError):
    """The code is right as of the trust bundle's date, but bundle or root are past their expiry."""

    code: ClassVar[str] = "BundleExpired"


class ClockSuspect(VerifyError):
    """The time supplied lies before one that was seen already, or before the bundle was issued."""

    code: ClassVar[str] = "ClockSuspect"


class AlgorithmMissing(VerifyError):
    """The key's algorithm is registered, but this installation lacks the package that computes it."""

    code: ClassVar[str] = "AlgorithmMissing"


class TrustError(VerifyError):
    """Base of what is wrong with a root document, a trust bundle, a delta, or the file that holds them."""

    code: ClassVar[str] = "TrustError"


class TrustMalformed(TrustError):
    """The document or a field of it is not in its one canonical form."""

    code: ClassVar[str] = "TrustMalformed"


class TrustTruncated(TrustError):
    """The bytes end before their own lengths say."""

    code: ClassVar[str] = "TrustTruncated"


class TrustMissing(TrustError):
    """There is no trust bundle, or none that the current root still stands for."""

    code: ClassVar[str] = "TrustMissing"


class ForeignRoot(TrustError):
    """The root document is neither the pinned one nor signed by the roots before it."""

    code: ClassVar[str] = "ForeignRoot"


class ThresholdMissed(TrustError):
    """A root document has right signatures, but fewer than the roots ask for."""

    code: ClassVar[str] = "ThresholdMissed"


class RootExpired(TrustError):
    """The last root document is at or past its expiry."""

    code: ClassVar[str] = "RootExpired"


class BundleUntrusted(TrustError):
    """The trust bundle or delta was not signed by a publisher of the current root."""

    code: ClassVar[str] = "BundleUntrusted"


class BundleRollback(TrustError):
    """The trust bundle is older than one that was held already."""

    code: ClassVar[str] = "BundleRollback"


class BundleFrozen(TrustError):
    """The trust bundle offered as news is at or past its expiry: somebody holds newer ones back."""

    code: ClassVar[str] = "BundleFrozen"


class BundleMismatch(TrustError):
    """Pieces of different origin: another domain, another history, or a delta of another bundle."""

    code: ClassVar[str] = "BundleMismatch"


class LogError(VerifyError):
    """Base of what is wrong with a transparency log: its formats, its proofs, its checkpoints and its witnesses."""

    code: ClassVar[str] = "LogError"


class LogMalformed(LogError):
    """A key, note, checkpoint, tile, proof or request is not in its one form, or a number is out of range."""

    code: ClassVar[str] = "LogMalformed"


class TileMissing(LogError):
    """A tile that a root or a proof needs is not there, or is not as wide as the tree is."""

    code: ClassVar[str] = "TileMissing"


class ProofWrong(LogError):
    """An inclusion or consistency proof does not lead to the root that was signed."""

    code: ClassVar[str] = "ProofWrong"


class CheckpointUntrusted(LogError):
    """A checkpoint is of another log, or the log's key did not sign it."""

    code: ClassVar[str] = "CheckpointUntrusted"


class WitnessesMissed(LogError):
    """A checkpoint is the log's, but fewer witnesses cosigned it than the policy asks for."""

    code: ClassVar[str] = "WitnessesMissed"


class EvidenceRefused(LogError):
    """A file is no evidence bundle, or has more files or bytes than are read of one; nothing of it was looked at."""

    code: ClassVar[str] = "EvidenceRefused"


class WitnessUnusable(LogError):
    """A witness's folder, key or record cannot be read, is not whole, is open to other users, or is in use."""

    code: ClassVar[str] = "WitnessUnusable"


class DeviceError(Exception):
    """Base of what a scanning device's journal, identity and sync raise; the message says what to do next."""

    code: ClassVar[str] = "DeviceError"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class JournalBusy(DeviceError):
    """Another process has the journal open."""

    code: ClassVar[str] = "JournalBusy"


class JournalFull(DeviceError):
    """There is no room for one more record, and no record that may go: nothing was recorded."""

    code: ClassVar[str] = "JournalFull"


class JournalDamaged(DeviceError):
    """The journal file is damaged; it was renamed, never deleted."""

    code: ClassVar[str] = "JournalDamaged"


class JournalUnknown(DeviceError):
    """The file is no scan journal, or one of a newer version; it was left as it is."""

    code: ClassVar[str] = "JournalUnknown"


class JournalUnwritable(DeviceError):
    """The system does not let the journal be opened, read or written."""

    code: ClassVar[str] = "JournalUnwritable"


class DeviceUnusable(DeviceError):
    """The device's key or enrolment cannot be read, is not whole, or is open to other users."""

    code: ClassVar[str] = "DeviceUnusable"


class NotEnrolled(DeviceError):
    """The device is not enrolled at a server yet."""

    code: ClassVar[str] = "NotEnrolled"


class EnrolmentInvalid(DeviceError):
    """The enrolment text, code, server or name is not one."""

    code: ClassVar[str] = "EnrolmentInvalid"


class PinMismatch(DeviceError):
    """The server answered an enrolment with another root than the enrolment text named."""

    code: ClassVar[str] = "PinMismatch"


class SyncFailed(DeviceError):
    """The server was not reached, or its answer was not usable; nothing changed here, so try again later.

    `server_code` is the error code the server gave, `retry_after_s` the wait it asked for, where it did.
    """

    code: ClassVar[str] = "SyncFailed"

    def __init__(self, message: str, server_code: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.server_code = server_code
        self.retry_after_s = retry_after_s


class DeviceRevoked(DeviceError):
    """The server has revoked this device: it takes nothing from it any more."""

    code: ClassVar[str] = "DeviceRevoked"
