"""Which HTTP status a refusal becomes, in one table, and the refusal's form: a problem of RFC 9457."""

import re
import uuid
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from kit.clock import iso
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
from scan_api.provenance.event_query import QueryTooComplex, TooManyEvents
from scan_api.scans import CodeRefused

MEDIA_TYPE: Final = "application/problem+json"  # RFC 9457, 6.1
TYPE_PREFIX: Final = "urn:fanxing:problem:"
CHALLENGE: Final = 'Bearer realm="fanxing"'
"""What a 401 must tell (RFC 9110, 11.6.1): session tokens and API keys both come as bearer tokens (RFC 6750)."""
RETRY_AFTER_S: Final = {429: 60, 503: 5}
"""When to come back, where the refusal itself does not know: a database that starts anew is there within seconds."""

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
    "Held": 409,
}

# Attributes of errors that callers are told. A list, since an error may also hold what is nobody's business.
_EXTENSIONS: Final = ("retry_after_s", "tries_left", "by_you", "redeemed_at", "until", "state", "points")


class BodyTooLarge(Invalid):
    code = "BodyTooLarge"


class RequestInvalid(Invalid):
    code = "RequestInvalid"


class PageUnknown(NotFound):
    code = "PageUnknown"


class SignInNeeded(Unauthenticated):
    code = "SignInNeeded"


class DatabaseUnavailable(Unavailable):
    code = "DatabaseUnavailable"


class Problem(BaseModel):
    """A refusal (RFC 9457): what was wrong, what to do, and a code that never changes."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:fanxing:problem:OneTimeCodeTooSoon",
                "title": "One time code too soon",
                "status": 429,
                "detail": "the next code can be sent in 42 s",
                "code": "OneTimeCodeTooSoon",
                "hint": "Use the code that was sent, or wait.",
                "retry_after_s": 42,
            }
        },
    )

    type: str = Field(description="urn:fanxing:problem: and the code")
    title: str = Field(description="The code in words; the same at every occurrence")
    status: int = Field(ge=400, le=599, description="The HTTP status")
    detail: str = Field(description="What was wrong this time")
    code: str = Field(description="What callers branch on; never changes")
    hint: str | None = Field(default=None, description="What to do next, where something can be done")
    retry_after_s: int | None = Field(default=None, description="Seconds after which the same call may succeed")
    tries_left: int | None = Field(default=None, description="How often the one-time code may still be tried")
    by_you: bool | None = Field(default=None, description="Whether the earlier claim was the caller's own")
    redeemed_at: datetime | None = Field(default=None, description="When the coupon was redeemed before")
    until: datetime | None = Field(default=None, description="Till when another basket holds the coupon")
    state: str | None = Field(default=None, description="The state that forbids it")
    points: int | None = Field(default=None, description="The price in points, where it is another than expected")


def status_of(error: FanxingError) -> int:
    """The HTTP status (RFC 9110, 15) for a refusal, by its kind."""
    if isinstance(error, BodyTooLarge | TooManyEvents | QueryTooComplex):
        return 413
    if isinstance(error, CodeRefused):
        return STATUS_BY_VERDICT[error.code]
    return next((status for kind, status in _STATUS_BY_KIND.items() if isinstance(error, kind)), 500)


def as_json(error: FanxingError) -> dict[str, Any]:
    """The refusal as every JSON endpoint gives it; absent members are left out."""
    body = _problem(error.code, _in_words(error.code), status_of(error), error.message)
    body["type"] = getattr(error, "problem_type", body["type"])  # the standard's own, where one prescribes it
    if error.hint:
        body["hint"] = error.hint
    for name in _EXTENSIONS:
        if (value := getattr(error, name, None)) is not None:
            body[name] = _plain(value)
    return body


def headers_of(error: FanxingError) -> dict[str, str]:
    """The headers that belong to a refusal, as JSON or as page: who should prove himself how, and when to come back."""
    status = status_of(error)
    headers = {"www-authenticate": CHALLENGE} if status == 401 else {}
    retry_after = getattr(error, "retry_after_s", RETRY_AFTER_S.get(status))
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return headers


def problem_response(error: FanxingError) -> JSONResponse:
    """The answer to a client that is no browser."""
    return JSONResponse(as_json(error), status_of(error), headers_of(error), MEDIA_TYPE)


def unrouted_response(status: int, detail: str, headers: dict[str, str]) -> JSONResponse:
    """The same for what HTTP itself forbids, such as a method that a path does not have."""
    title = HTTPStatus(status).phrase.capitalize()
    return JSONResponse(_problem(f"Http{status}", title, status, detail), status, headers, MEDIA_TYPE)


def _problem(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    return {"type": TYPE_PREFIX + code, "title": title, "status": status, "detail": detail, "code": code}


def _in_words(code: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", code).capitalize()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return iso(value)
    return str(value) if isinstance(value, uuid.UUID | str) else value
