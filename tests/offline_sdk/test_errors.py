import pickle

from offline_sdk import errors
from offline_sdk.errors import CodeLabel, VerifyError


def tree(of: type[VerifyError]) -> list[type[VerifyError]]:
    return [of, *(below for child in of.__subclasses__() for below in tree(child))]


def test_error_codes_are_these_and_no_others() -> None:
    # Scanners and servers compare these strings. Never change or remove one; a new error gets a new code.
    assert [error.code for error in tree(VerifyError)] == [
        "VerifyError",
        "Malformed",
        "UnknownKey",
        "BadSignature",
        "KeyOutOfScope",
        "Revoked",
        "BundleStale",
        "BundleExpired",
        "ClockSuspect",
        "AlgorithmMissing",
        "TrustError",
        "TrustMalformed",
        "TrustTruncated",
        "TrustMissing",
        "ForeignRoot",
        "ThresholdMissed",
        "RootExpired",
        "BundleUntrusted",
        "BundleRollback",
        "BundleFrozen",
        "BundleMismatch",
        "LogError",
        "LogMalformed",
        "TileMissing",
        "ProofWrong",
        "CheckpointUntrusted",
        "WitnessesMissed",
        "EvidenceRefused",
        "WitnessUnusable",
    ]


def test_error_code_is_the_class_name() -> None:
    for error in tree(VerifyError):
        assert error.code == error.__name__
        assert getattr(errors, error.code) is error


def test_error_survives_a_process_border() -> None:
    error = errors.Revoked("revoked", CodeLabel(1, 7, "06901234567892", "00001000000001"), "Dairy")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), copy.message, copy.label, copy.issuer) == (errors.Revoked, "revoked", error.label, "Dairy")
