"""Renders the pages behind a code: one pure function a view, from frozen data to a whole HTML document."""

from scan_api.web import wording
from scan_api.web.paths import (
    CLAIM_ACTION,
    CONFIRM_ACTION,
    ME_PATH,
    PACKAGES_PATH,
    REPORT_ACTION,
    SIGN_IN_ACTION,
    SIGN_OUT_ACTION,
)
from scan_api.web.rendering import Html, render
from scan_api.web.style import CONTENT_SECURITY_POLICY
from scan_api.web.views import (
    CardView,
    ClaimedView,
    ErrorReason,
    ErrorView,
    FaceView,
    Language,
    OneTimeCodeView,
    PackageView,
    PhoneView,
    ScanView,
)

__all__ = [
    "CLAIM_ACTION",
    "CONFIRM_ACTION",
    "CONTENT_SECURITY_POLICY",
    "ME_PATH",
    "PACKAGES_PATH",
    "REPORT_ACTION",
    "SIGN_IN_ACTION",
    "SIGN_OUT_ACTION",
    "Html",
    "claimed",
    "error",
    "error_view",
    "one_time_code",
    "package",
    "phone",
    "scan",
]


def scan(view: ScanView) -> Html:
    """The verdict on a scanned code, then everything that hangs on it."""
    first_open = next((index for index, offer in enumerate(view.offers) if offer.state == "open"), None)
    faces = _faces(view.member.card if view.member else None)
    return render("scan.html", view, faces, todo=wording.todo(view.language, view.state), first_open=first_open)


def phone(view: PhoneView) -> Html:
    """The form that asks for a phone number."""
    return render("phone.html", view)


def one_time_code(view: OneTimeCodeView) -> Html:
    """The form that asks for the one-time code."""
    return render("one_time_code.html", view)


def claimed(view: ClaimedView) -> Html:
    """The prize that was just won."""
    return render("claimed.html", view, _faces(view.card))


def package(view: PackageView) -> Html:
    """The print house's forms: fetch a package, report what was printed of it."""
    return render("package.html", view)


def error(view: ErrorView) -> Html:
    """A refusal or a failure."""
    return render("error.html", view)


def error_view(language: Language, reason: ErrorReason, code: str) -> ErrorView:
    """The view of a known reason in the reader's words; `code` is the stable code of the error that caused it."""
    title, message, hint = wording.failure(language, reason)
    return ErrorView(language=language, title=title, message=message, hint=hint, code=code)


def _faces(card: CardView | None) -> tuple[FaceView, ...]:
    return (card.face,) if card is not None else ()
