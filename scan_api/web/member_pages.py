"""Renders the member's own pages: one pure function a view, from frozen data to a whole HTML document."""

from scan_api.web.member_views import (
    ConfirmView,
    DoneView,
    DrawView,
    EarnView,
    HeldListView,
    HeldPageView,
    InvitationView,
    MeView,
    PacketView,
    PointsView,
    PrivacyView,
    ProofView,
    ShareView,
    ShopView,
)
from scan_api.web.rendering import Html, render


def me(view: MeView) -> Html:
    """The member's points, cards, benefits and orders."""
    return render("me.html", view, [standing.card.face for standing in view.cards])


def points(view: PointsView) -> Html:
    """The history of the points."""
    return render("points.html", view)


def benefits(view: HeldListView) -> Html:
    """The member's benefits."""
    return render("benefits.html", view)


def benefit(view: HeldPageView) -> Html:
    """One benefit, ready to be used."""
    return render("benefit.html", view)


def shop(view: ShopView) -> Html:
    """What points can buy at one brand."""
    return render("shop.html", view)


def confirm(view: ConfirmView) -> Html:
    """The question before points are spent."""
    return render("confirm.html", view)


def earn(view: EarnView) -> Html:
    """Check-ins, tasks, draws, and what can be shared."""
    return render("earn.html", view)


def draw(view: DrawView) -> Html:
    """A draw, and the member's plays of it."""
    return render("draw.html", view)


def share(view: ShareView) -> Html:
    """The member's own link."""
    return render("share.html", view)


def invitation(view: InvitationView) -> Html:
    """What a friend's link opens."""
    return render("invitation.html", view)


def packet(view: PacketView) -> Html:
    """A red packet, for its owner and for his friends."""
    return render("packet.html", view)


def privacy(view: PrivacyView) -> Html:
    """Consents, export, merging and erasure."""
    return render("privacy.html", view)


def prove(view: ProofView) -> Html:
    """The form that asks for the codes before something that cannot be undone."""
    return render("prove.html", view)


def done(view: DoneView) -> Html:
    """What cannot be undone is done."""
    return render("done.html", view)
