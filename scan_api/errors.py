"""Which HTTP status a refusal becomes, in one table, and the refusal's form as JSON."""

from typing import Any

from pydantic import BaseModel

from kit.errors import (
    Conflict,
    FanxingError,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from scan_api.scans import CodeRefused

_STATUS_BY_KIND: dict[type[FanxingError], int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooMany: 429,
    Unavailable: 503,
}

# The verdict on a scanned code, by the error that refused it.
STATUS_BY_VERDICT = {
    "Malformed": 400,
    "UnknownKey": 404,
    "BadSignature": 404,
    "KeyOutOfScope": 404,
    "NeverIssued": 404,
    "Revoked": 410,
    "Recalled": 410,
    "Voided": 410,
}


class BodyTooLarge(Invalid):
    code = "BodyTooLarge"


class RequestInvalid(Invalid):
    code = "RequestInvalid"


class PageUnknown(NotFound):
    code = "PageUnknown"


class DatabaseUnavailable(Unavailable):
    code = "DatabaseUnavailable"


class RefusalBody(BaseModel):
    """What was wrong, what to do, and a code that never changes."""

    code: str
    message: str
    hint: str = ""


class Refusal(BaseModel):
    """The form of every refusal, for the description of the API."""

    error: RefusalBody


def status_of(error: FanxingError) -> int:
    """The HTTP status (RFC 9110, 15) for a refusal, by its kind."""
    if isinstance(error, BodyTooLarge):
        return 413
    if isinstance(error, CodeRefused):
        return STATUS_BY_VERDICT[error.code]
    return next((status for kind, status in _STATUS_BY_KIND.items() if isinstance(error, kind)), 500)


def as_json(error: FanxingError) -> dict[str, Any]:
    """The refusal as every JSON endpoint gives it."""
    body = {"code": error.code, "message": error.message}
    if error.hint:
        body["hint"] = error.hint
    return {"error": body}
