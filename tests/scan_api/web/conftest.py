"""Every page in both languages, with awkward data: the material the tests of the shopper's pages look at."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from scan_api.web import pages, trace_page
from scan_api.web.rendering import Html
from scan_api.web.trace_page import ActView, MapView, PointView, StopView, TraceView
from scan_api.web.views import (
    CardView,
    ChanceView,
    ClaimedView,
    DocumentView,
    ErrorReason,
    FaceView,
    Language,
    MemberView,
    OfferState,
    OfferView,
    OneTimeCodeProblem,
    OneTimeCodeView,
    PackageProblem,
    PackageView,
    PhoneProblem,
    PhoneView,
    PrizeKind,
    ReportView,
    ScanState,
    ScanView,
    Step,
    TimelineEntry,
)
from tests.scan_api.web import member_faces

INNER_CODE_TEXT = "https://id.example.cn/200007" + "7" * 155 + "/01/06901234567892/21/00017482916350"
FIRST_SCAN_AT = datetime(2026, 6, 12, 1, 12, tzinfo=UTC)
LONG_NAME = "Überlangerproduktname" * 8
DOCUMENTS = {
    "zh": (
        DocumentView("privacy", "2026-05", "隐私政策", "https://brand.example.cn/privacy", True),
        DocumentView("marketing", "2", LONG_NAME, "https://brand.example.cn/news"),
    ),
    "en": (
        DocumentView("privacy", "2026-05", "Privacy policy", "https://brand.example.cn/privacy", True),
        DocumentView("marketing", "2", LONG_NAME, "https://brand.example.cn/news"),
    ),
}


@pytest.fixture(params=["zh", "en"])
def language(request: pytest.FixtureRequest) -> Language:
    language: Language = request.param
    return language


@pytest.fixture
def genuine(language: Language) -> ScanView:
    """A first scan of a genuine item with one open offer, by somebody who has not signed in."""
    return _genuine(language)


@pytest.fixture(scope="session")
def documents() -> dict[str, Html]:
    """A name and an HTML document for each face that each page can show."""
    return {f"{language}-{name}": html for language in get_args(Language) for name, html in _faces(language).items()}


def _genuine(language: Language) -> ScanView:
    return ScanView(
        language=language,
        state="genuine",
        brand_name="星河雪糕",
        product_name="海盐荔枝雪糕 75 克",
        gtin="06901234567892",
        serial="00017482916350",
        first_scan_at=FIRST_SCAN_AT,
        scan_count=1,
        timeline=tuple(
            TimelineEntry(
                step, FIRST_SCAN_AT - timedelta(days=9 - day), "浙江杭州" if day % 2 else None, "二厂" if day else None
            )
            for day, step in enumerate(get_args(Step))
        ),
        offers=(_offer("open"),),
        code_text=INNER_CODE_TEXT,
    )


def _offer(state: OfferState, kind: PrizeKind = "mb", amount: int = 5) -> OfferView:
    return OfferView(f"campaign-{state}-{kind}", "夏日扫码送流量", kind, amount, state, f"key-{state}-{kind}")


def _faces(language: Language) -> dict[str, Html]:
    genuine = _genuine(language)
    card = CardView("星河雪糕", "8801 2345 6789 0123", "金卡", FaceView(("#7a4300", "#945400"), "#ffffff", "waves"))
    member = MemberView(points=1_280, card=card)
    every_offer = tuple(_offer(state, kind) for state in get_args(OfferState) for kind in get_args(PrizeKind))
    drawn = replace(
        _offer("open", "benefit", 1),
        chances=(
            ChanceView("benefit", 1, 1, 1_000, "满 20 减 5 元", 500),
            ChanceView("points", 5, 99, 1_000),
            ChanceView("nothing", 0, 900, 1_000),
        ),
    )
    coupon = replace(_offer("open", "benefit", 1), prize_name="满 20 减 5 元", value_fen=500)
    code = OneTimeCodeView(language, "13800138000", INNER_CODE_TEXT, "campaign-1", "key-1")
    scans = {
        "first": genuine,
        "again": replace(genuine, scan_count=3),
        "careful": replace(genuine, scan_count=2_140, warnings=("scanned_often", "not_active", "expired")),
        "signed-in": replace(genuine, member=member),
        "without-card": replace(genuine, member=MemberView(points=0), offers=()),
        "every-offer": replace(genuine, offers=every_offer),
        "every-offer-signed-in": replace(genuine, offers=every_offer, member=member),
        "single": replace(genuine, offers=tuple(_offer("open", kind, 1) for kind in get_args(PrizeKind))),
        "draw": replace(genuine, offers=(drawn,)),
        "draw-signed-in": replace(genuine, offers=(drawn, replace(drawn, state="claimed", prize_kind="points"))),
        "benefit": replace(genuine, offers=(coupon,)),
        "no-names": replace(genuine, brand_name=None, product_name=None),
        "long-names": replace(genuine, brand_name=LONG_NAME, product_name=LONG_NAME, member=member),
        "recalled": replace(genuine, state="recalled", scan_count=4),
        "revoked": replace(genuine, state="revoked", scan_count=4),
        "voided": replace(genuine, state="voided", scan_count=4),
        "held": replace(genuine, state="held", scan_count=4),
    }
    bare: tuple[ScanState, ...] = ("unknown", "malformed", "error")
    scans |= {state: ScanView(language, state, code_text=INNER_CODE_TEXT) for state in bare}
    faces = {f"scan-{name}": pages.scan(view) for name, view in scans.items()}
    faces |= {
        "phone": pages.phone(PhoneView(language)),
        "phone-with-claim": pages.phone(PhoneView(language, code_text=INNER_CODE_TEXT, campaign_id="campaign-1")),
        "code-claim": pages.one_time_code(replace(code, development_code="482915")),
        "code-last-try": pages.one_time_code(replace(code, problem="wrong", tries_left=1)),
        "code-sign-in": pages.one_time_code(OneTimeCodeView(language, "13800138000")),
        "phone-back": pages.phone(PhoneView(language, brand="star-cream", then="/me/earn")),
        "code-consents": pages.one_time_code(replace(code, documents=DOCUMENTS[language], agreed=("privacy@2026-05",))),
    }
    faces |= member_faces.faces(language)
    for phone_problem in get_args(PhoneProblem):
        faces[f"phone-{phone_problem}"] = pages.phone(PhoneView(language, "13800138000", phone_problem))
    for code_problem in get_args(OneTimeCodeProblem):
        faces[f"code-{code_problem}"] = pages.one_time_code(replace(code, problem=code_problem, tries_left=2))
    for kind in get_args(PrizeKind):
        coupon_code, name = ("7Q4M-0ZKE-9XTB-3VHN", "满 20 减 5 元") if kind == "benefit" else (None, None)
        view = ClaimedView(language, "夏日", kind, 5, 1_280, coupon_code, card, name)
        faces[f"claimed-{kind}"] = pages.claimed(view)
    package = PackageView(language, "0199-package", "0199-report")
    faces["package"] = pages.package(package)
    faces["package-received"] = pages.package(replace(package, report=ReportView(received=(9_500, 100, 11))))
    for package_problem in get_args(PackageProblem):
        refused = replace(package, problem=package_problem, code="PackageUnknown", detail="range 2 runs backwards")
        faces[f"package-{package_problem}"] = pages.package(replace(refused, report=ReportView("0-9", LONG_NAME, "")))
    faces |= _traces(language)
    for reason in get_args(ErrorReason):
        faces[f"error-{reason}"] = pages.error(pages.error_view(language, reason, "web-9"))
    return faces


def _traces(language: Language) -> dict[str, Html]:
    item, pallet = "https://id.gs1.org/01/09506000134352/21/00001000000001", "https://id.gs1.org/00/095060000000000178"
    stop = StopView("2026-06-01 08:00", "装入" if language == "zh" else "packed", LONG_NAME, None, False, 1)
    stops = (stop, replace(stop, place=None, through=pallet, is_undone=True, number=None), replace(stop, number=2))
    drawn = MapView(320, 200, (PointView(1, 20, 150), PointView(2, 300, 30)), "M20 150L300 30")
    whole = TraceView(
        language,
        item,
        is_found=True,
        is_cut=True,
        stops=stops,
        map=drawn,
        around=(pallet,),
        up=(f"https://id.gs1.org/01/09506000134369/10/{'M' * 20}",),
        down=(item,),
        documents=(("po", "urn:epcglobal:cbv:bt:9506000000000:PO-7"), (None, "urn:x:1")),
        certificates=("https://certificates.example/7",),
        acts=(
            ActView("2026-06-02 08:00", "冻结" if language == "zh" else "held", "质量" * 4, LONG_NAME, item),
            ActView("2026-06-03 08:00", "解冻" if language == "zh" else "let go", None, None, None),
        ),
    )
    views = {
        "trace": TraceView(language),
        "trace-found": whole,
        "trace-empty": TraceView(language, item, is_found=True),
        "trace-refused": TraceView(language, item, problem="refused", code="ApiKeyRefused"),
    }
    return {name: trace_page.page(view) for name, view in views.items()}
