"""Every face of the member's own pages, with awkward data."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from scan_api.web import member_pages as pages
from scan_api.web import qr
from scan_api.web.member_views import (
    BrandChoice,
    CheckInView,
    ConfirmView,
    ConsentView,
    DoneView,
    DrawLink,
    DrawState,
    DrawView,
    EarnView,
    ExpiryView,
    HeldKind,
    HeldListView,
    HeldPageView,
    HeldStatus,
    HeldView,
    InvitationView,
    MeView,
    MovementView,
    OfferedView,
    OrderKind,
    OrderStatus,
    OrderView,
    PacketOffer,
    PacketState,
    PacketView,
    PlayView,
    PointsView,
    PriceView,
    PrivacyView,
    PrizeView,
    ProofView,
    Purpose,
    Reason,
    ReferralView,
    ShareOpened,
    ShareView,
    ShopView,
    StandingView,
    TaskPeriod,
    TaskView,
)
from scan_api.web.rendering import Html
from scan_api.web.views import CardView, DocumentView, FaceView, Language, OneTimeCodeProblem, Pattern, PhoneProblem

AT = datetime(2026, 6, 12, 1, 12, tzinfo=UTC)
LONG = "Überlangerproduktname" * 4
COUPON = "7Q4M-0ZKE-9XTB-3VHN"
URL = "https://id.example.cn/r/0123456789abcdef"
DIGEST = "6d1c0f0b7f0c5f3c8a1ac6c3bd4c5f4f6f6fb2d7e2c4c6d3f0a9b8c7d6e5f4a3"


def face(pattern: Pattern = "dots", *colours: str, text: str = "#ffffff") -> FaceView:
    return FaceView(colours or ("#6b0f14", "#8e1c22"), text, pattern)


def _me(language: Language) -> dict[str, Html]:
    light = face("lattice", "#fff8e8", "#e8cf94", "#f5f3ee", text="#161d31")
    cards = [CardView("星河雪糕", "8801 2345 6789 0123", "金卡", face(pattern)) for pattern in get_args(Pattern)]
    cards += [CardView(LONG, "1", LONG, light), CardView("繁星", "2", "会员")]
    standings = tuple(StandingView(card, "3 purchases and ¥420 in 12 months; Gold needs 6 purchases") for card in cards)
    held = tuple(
        HeldView("0197", "满 20 减 5 元", "coupon", status, 500, AT, COUPON) for status in get_args(HeldStatus)
    )
    orders = tuple(
        OrderView(kind, 1_050, status, AT) for kind in get_args(OrderKind) for status in get_args(OrderStatus)
    )
    view = MeView(language, "138****8000", 12_480, 35, ExpiryView(50, AT), standings, held, 1_234, orders)
    falling = replace(standings[0], falls_to="银卡", falls_at=AT)
    return {
        "me": pages.me(replace(view, cards=(falling, standings[5]))),
        "me-cards": pages.me(replace(view, held=(), orders=())),
        "me-empty": pages.me(MeView(language, "138****8000", 0, 0)),
    }


def _points(language: Language) -> dict[str, Html]:
    movements = tuple(
        MovementView(AT, reason, 1_200 if reason == "purchase" else -5, 12_480, "星河雪糕" if len(reason) % 2 else None)
        for reason in get_args(Reason)
    )
    return {
        "points": pages.points(PointsView(language, 12_480, ExpiryView(50, AT), movements, "WyJwb2ludHMiLDRd")),
        "points-empty": pages.points(PointsView(language, 0)),
    }


def _benefits(language: Language) -> dict[str, Html]:
    held = HeldView("0197", LONG, "coupon", "usable", 500, AT, COUPON)
    page = HeldPageView(language, held, "星河雪糕")
    made = {
        "benefits": pages.benefits(HeldListView(language, (held, replace(held, code=None, expires_at=None)) * 10, 2)),
        "benefits-empty": pages.benefits(HeldListView(language)),
        "benefit-code": pages.benefit(replace(page, is_new=True, qr=qr.symbol(COUPON))),
        "benefit-sent": pages.benefit(replace(page, held=replace(held, kind="goods", status="reserved", code=None))),
    }
    for kind in get_args(HeldKind):
        made[f"benefit-{kind}"] = pages.benefit(replace(page, held=replace(held, kind=kind, code=None)))
    return made


def _shop(language: Language) -> dict[str, Html]:
    prices = (PriceView("会员", 1_000), PriceView("金卡", 50), PriceView("钻石", 0))
    offered = OfferedView("0197", "满 20 减 5 元", "", "coupon", 500, 1_000, prices)
    rows = (
        offered,
        replace(offered, title=LONG, price=0, value_fen=0),
        replace(offered, price=None, prices=prices[1:]),
        replace(offered, in_stock=False),
    )
    brands = (BrandChoice("a", "星河雪糕", is_chosen=True), BrandChoice("b", LONG))
    ask = ConfirmView(language, replace(offered, text="全国门店通用"), "星河雪糕", "会员", 1_280, "key-1", 30, AT)
    return {
        "shop": pages.shop(ShopView(language, 1_280, brands, "会员", rows, "WyJzaG9wIiwxXQ")),
        "shop-nothing": pages.shop(ShopView(language, 0, brands, "会员")),
        "shop-no-brands": pages.shop(ShopView(language, 0, ())),
        "confirm": pages.confirm(ask),
        "confirm-free": pages.confirm(replace(ask, offered=replace(offered, price=0, kind="goods"))),
        "confirm-short": pages.confirm(replace(ask, points=3)),
        "confirm-sold-out": pages.confirm(replace(ask, offered=rows[3])),
        "confirm-not-for-tier": pages.confirm(replace(ask, offered=rows[2])),
    }


def _earn(language: Language) -> dict[str, Html]:
    points, coupon = PrizeView("points", 20), PrizeView("benefit", 1, "满 20 减 5 元", 500)
    check_in = CheckInView("0197", "每日签到", False, 6, 5)
    tasks = tuple(TaskView("完善资料", period, points, 2) for period in get_args(TaskPeriod))
    tasks += (TaskView(LONG, "once", PrizeView("nothing", 0), 1), TaskView("首次扫码", "once", coupon, 0, True))
    view = EarnView(
        language,
        1_280,
        (check_in, replace(check_in, is_done=True)),
        tasks,
        (DrawLink("0197", "夏日抽奖", AT),),
        (ReferralView("0197", "邀请有礼", points, coupon),),
        (PacketOffer("0197", "分享红包", PrizeView("fen", 1_000), 5, "key-1"),),
    )
    return {"earn": pages.earn(view), "earn-nothing": pages.earn(EarnView(language, 0))}


def _draw(language: Language) -> dict[str, Html]:
    receipt = '{"at":"2026-06-12T01:12:00.000Z","drawn":1,"link":"' + DIGEST + '","position":0,"stripe":0}'
    plays = (PlayView(2, "20 积分", True, AT, receipt), PlayView(1, "谢谢参与", False, AT, receipt))
    notice = ("雪糕一箱：共 10 份，价值 99.00 元，概率 0.1%。", LONG)
    view = DrawView(language, "0197", "夏日抽奖", "star-cream", "open", notice, DIGEST)
    mine = replace(view, is_member=True, may_play=True, chances=3, plays=plays, entropy="00" * 16, idempotency_key="k")
    made = {
        "draw-visitor": pages.draw(view),
        "draw-member": pages.draw(mine),
        "draw-lost": pages.draw(replace(mine, plays=plays[1:], may_play=False, chances=0)),
    }
    for state in get_args(DrawState):
        seed = DIGEST if state == "revealed" else None
        made[f"draw-{state}"] = pages.draw(replace(mine, state=state, seed=seed))
    return made


def _sharing(language: Language) -> dict[str, Html]:
    cash, points = PrizeView("fen", 1_000), PrizeView("points", 10)
    friend = InvitationView(language, "0123456789abcdef", "邀请有礼", "星河雪糕", "star-cream", points)
    opened = tuple(ShareOpened(number, PrizeView("fen", 17 * number), AT) for number in (1, 2))
    packet = PacketView(language, "0197", "分享红包", "star-cream", cash, 5, "open", AT, DIGEST, url=URL)
    shown: dict[str, Any] = {"opened": opened, "is_member": True}
    made = {
        "share": pages.share(ShareView(language, "邀请有礼", URL, qr.symbol(URL), 3)),
        "invitation": pages.invitation(friend),
        "invitation-member": pages.invitation(replace(friend, is_member=True)),
        "packet-visitor": pages.packet(packet),
        "packet-friend": pages.packet(replace(packet, **shown)),
        "packet-opened": pages.packet(replace(packet, **shown, own=PrizeView("fen", 17))),
        "packet-owner": pages.packet(replace(packet, **shown, is_owner=True, qr=qr.symbol(URL))),
    }
    for state in get_args(PacketState):
        made[f"packet-{state}"] = pages.packet(replace(packet, state=state, seed=DIGEST, **shown))
    return made


def _privacy(language: Language) -> dict[str, Html]:
    document = DocumentView("privacy", "2026-05", "隐私政策", "https://brand.example.cn/privacy", True)
    consents = (ConsentView(document, True, AT), ConsentView(document, False, AT), ConsentView(document))
    view = PrivacyView(language, "138****8000", consents, 2)
    made = {"privacy": pages.privacy(view), "privacy-no-documents": pages.privacy(replace(view, consents=(), merges=0))}
    for problem in get_args(PhoneProblem):
        made[f"privacy-{problem}"] = pages.privacy(replace(view, problem=problem, phone="13900139000"))
    for purpose in get_args(Purpose):
        other = "+8613900139000" if purpose == "merge" else None
        proof = ProofView(language, purpose, "138****8000", "key-1", other_phone=other)
        made[f"prove-{purpose}"] = pages.prove(replace(proof, development_own="123456", development_other="654321"))
        made[f"done-{purpose}"] = pages.done(DoneView(language, purpose, 1_280))
        for refused in get_args(OneTimeCodeProblem):
            made[f"prove-{purpose}-{refused}"] = pages.prove(
                replace(proof, problem=refused, asks_own=purpose == "erase")
            )
    return made


def faces(language: Language) -> dict[str, Html]:
    """A name and a document for each face that each of the pages can show."""
    made: dict[str, Html] = {}
    for some in (_me, _points, _benefits, _shop, _earn, _draw, _sharing, _privacy):
        made |= some(language)
    return made
