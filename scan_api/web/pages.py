"""Renders the shopper's pages: one pure function a view, from frozen data to a whole HTML document."""

from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scan_api.web import wording
from scan_api.web.style import CONTENT_SECURITY_POLICY, STYLE
from scan_api.web.views import (
    ClaimedView,
    ErrorReason,
    ErrorView,
    Language,
    MeView,
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
    "claimed",
    "error",
    "error_view",
    "me",
    "one_time_code",
    "package",
    "phone",
    "scan",
]

SIGN_IN_ACTION = "/web/sign-in"
CLAIM_ACTION = "/web/claim"
CONFIRM_ACTION = "/web/confirm"
SIGN_OUT_ACTION = "/web/sign-out"
REPORT_ACTION = "/web/package-report"
ME_PATH = "/me"
PACKAGES_PATH = "/packages"

# The colour of the sky over a verdict; the icon and the words say the same for those who see no colours.
_TONES = {
    "genuine": "good",
    "caution": "caution",
    "unknown": "danger",
    "revoked": "danger",
    "recalled": "danger",
    "voided": "danger",
    "malformed": "neutral",
    "error": "neutral",
}

_ENVIRONMENT = Environment(
    loader=PackageLoader("scan_api.web", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals.update(
    style=Markup(STYLE),  # noqa: S704 -- our own file, and escaping would break the hash in the policy
    tones=_TONES,
    paths={
        "sign_in": SIGN_IN_ACTION,
        "claim": CLAIM_ACTION,
        "confirm": CONFIRM_ACTION,
        "sign_out": SIGN_OUT_ACTION,
        "report": REPORT_ACTION,
        "packages": PACKAGES_PATH,
        "me": ME_PATH,
    },
    number=wording.number,
    isolated=wording.isolated,
    named=wording.named,
)


def scan(view: ScanView) -> str:
    """The verdict on a scanned code, then everything that hangs on it."""
    first_open = next((index for index, offer in enumerate(view.offers) if offer.state == "open"), None)
    return _page("scan.html", view, todo=wording.todo(view.language, view.state), first_open=first_open)


def phone(view: PhoneView) -> str:
    """The form that asks for a phone number."""
    return _page("phone.html", view)


def one_time_code(view: OneTimeCodeView) -> str:
    """The form that asks for the one-time code."""
    return _page("one_time_code.html", view)


def claimed(view: ClaimedView) -> str:
    """The prize that was just won."""
    return _page("claimed.html", view)


def me(view: MeView) -> str:
    """The member's points, data, cards and coupons."""
    return _page("me.html", view)


def package(view: PackageView) -> str:
    """The print house's forms: fetch a package, report what was printed of it."""
    return _page("package.html", view)


def error(view: ErrorView) -> str:
    """A refusal or a failure."""
    return _page("error.html", view)


def error_view(language: Language, reason: ErrorReason, code: str) -> ErrorView:
    """The view of a known reason in the reader's words; `code` is the stable code of the error that caused it."""
    title, message, hint = wording.failure(language, reason)
    return ErrorView(language=language, title=title, message=message, hint=hint, code=code)


_View = ScanView | PhoneView | OneTimeCodeView | ClaimedView | MeView | PackageView | ErrorView


def _page(template: str, view: _View, **more: Any) -> str:
    language = view.language
    return _ENVIRONMENT.get_template(template).render(
        view=view,
        html_lang=wording.HTML_LANG[language],
        say=partial(wording.say, language),
        prize=partial(wording.prize, language),
        tries_left=partial(wording.tries_left, language),
        moment=partial(wording.moment, language),
        **more,
    )
