"""Both languages say everything, with the same blanks to fill in, and dates and amounts in local form."""

import re
from datetime import UTC, datetime
from string import Formatter
from typing import get_args

import pytest
from markupsafe import escape

from scan_api.web import member_views, views, wording
from scan_api.web.rendering import Html
from scan_api.web.views import Language

AT = datetime(2026, 12, 31, 16, 5, tzinfo=UTC)


def test_both_languages_have_the_same_keys() -> None:
    assert wording.ZH.keys() == wording.EN.keys()


def test_both_languages_fill_in_the_same_values() -> None:
    def blanks(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    assert {key: blanks(text) for key, text in wording.ZH.items()} == {
        key: blanks(text) for key, text in wording.EN.items()
    }


def test_no_wording_is_blank_or_left_in_the_other_language() -> None:
    assert all(text.strip() for text in (*wording.ZH.values(), *wording.EN.values()))
    assert not [key for key, text in wording.EN.items() if re.search(r"[\u3000-\u9fff\uff00-\uffef]", text)]


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("{}.title", views.ScanState),
        ("{}.lead", views.ScanState),
        ("warning.{}", views.ScanWarning),
        ("step.{}", views.Step),
        ("prize.{}.one", views.PrizeKind),
        ("prize.{}.many", views.PrizeKind),
        ("claimed.{}", views.PrizeKind),
        ("phone.problem.{}", views.PhoneProblem),
        ("otp.problem.{}", views.OneTimeCodeProblem),
        ("held.{}", member_views.HeldStatus),
        ("order.{}", member_views.OrderKind),
        ("order.{}", member_views.OrderStatus),
        ("reason.{}", member_views.Reason),
        ("task.{}", member_views.TaskPeriod),
        ("draw.{}", member_views.DrawState),
        ("packet.{}", member_views.PacketState),
        ("prove.{}.title", member_views.Purpose),
        ("done.{}.lead", member_views.Purpose),
        ("package.problem.{}", views.PackageProblem),
    ],
)
def test_every_value_of_a_view_has_a_wording(family: str, kind: object) -> None:
    assert {family.format(value) for value in get_args(kind)} <= wording.ZH.keys()


def test_every_wording_is_read_on_some_page(documents: dict[str, Html], language: Language) -> None:
    said = "\n".join(html for name, html in documents.items() if name.startswith(language))
    fragments = {
        key: [str(escape(fragment)) for fragment, *_ in Formatter().parse(text)]
        for key, text in wording.WORDS[language].items()
    }
    assert [key for key, parts in fragments.items() if not all(part in said for part in parts)] == []


def test_every_verdict_but_a_genuine_one_says_what_to_do(language: Language) -> None:
    for state in get_args(views.ScanState):
        assert bool(wording.todo(language, state)) == (state != "genuine")


def test_dates_stand_in_the_zone_of_the_language() -> None:
    assert "2027年1月1日 00:05" in wording.moment("zh", AT)
    assert "31 Dec 2026, 16:05" in wording.moment("en", AT)
    assert 'datetime="2026-12-31T16:05:00Z"' in wording.moment("zh", AT)


def test_a_benefit_is_called_by_its_own_name() -> None:
    assert wording.prize("en", "benefit", 1, "5 off <10>") == "<bdi>5 off &lt;10&gt;</bdi>"


@pytest.mark.parametrize(
    ("weight", "of", "percent"),
    [(1, 1, "100"), (1, 3, "33.33"), (1, 1_000, "0.1"), (1, 1_000_000, "0.0001"), (1, 1_000_001, "<0.0001")],
)
def test_odds_never_round_down_to_nothing(weight: int, of: int, percent: str) -> None:
    assert wording.odds(weight, of) == percent


def test_one_is_not_spoken_of_in_the_plural() -> None:
    assert wording.prize("en", "points", 1) == "1 point"
    assert wording.prize("en", "benefit", 2_000) == "2,000 benefits"
    assert wording.tries_left("en", 1) == "You have 1 try left."


def test_values_are_escaped_unless_they_are_markup() -> None:
    assert "<i>" not in wording.say("en", "recalled.lead", brand="<i>")
    assert "<bdi" in wording.say("en", "recalled.lead", brand=wording.named("A"))
