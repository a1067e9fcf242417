"""The terms of a draw: every limit holds, and what was published is read as it was meant."""

import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from loyalty.draws.fair import DECK_TICKETS_MAX, WEIGHT_TOTAL_MAX, DrawInvalid
from loyalty.draws.terms import (
    DURATION_MAX,
    LIMIT_MAX,
    NAME_CHARACTERS_MAX,
    STRIPES_MAX,
    VALUE_FEN_MAX,
    DrawPrize,
    Form,
    Limits,
    Made,
    Price,
    Terms,
    Tickets,
    Words,
    from_plan,
    parse,
)
from tests.loyalty.draws.published import DECK, ITEMS, ODDS, OPENS, prize

NOTHING = prize("none", Made.NOTHING, 0, 1)
PLAN = {
    name: value for name, value in ODDS.document().items() if name not in ("format", "draw_id", "seed_hash", "tickets")
}


def entry(**changes: Any) -> tuple[DrawPrize, ...]:
    return (replace(DECK.prizes[1], **changes),)


@pytest.mark.parametrize("terms", [DECK, ODDS, ITEMS], ids=["deck", "odds", "items"])
def test_terms_survive_their_json(terms: Terms) -> None:
    assert parse(terms.document()) == terms
    assert parse(terms.document()).commitment == terms.commitment


@pytest.mark.parametrize(
    ("terms", "changes"),
    [
        (DECK, {"title": Words("", "x")}),
        (DECK, {"title": Words("x", "x" * (NAME_CHARACTERS_MAX + 1))}),
        (DECK, {"closes_at": OPENS}),
        (DECK, {"closes_at": OPENS + DURATION_MAX + timedelta(seconds=1)}),
        (DECK, {"seed_hash": bytes(31)}),
        (DECK, {"stripes": 0}),
        (DECK, {"stripes": STRIPES_MAX + 1}),
        (DECK, {"stripes": 41}),
        (DECK, {"price_amount": 1}),
        (DECK, {"price": Price.POINTS}),
        (DECK, {"limits": Limits(member=0)}),
        (DECK, {"limits": Limits(device_day=LIMIT_MAX + 1)}),
        (DECK, {"tickets": Tickets.ITEMS}),
        (DECK, {"prizes": ()}),
        (DECK, {"prizes": (NOTHING,) * 101}),
        (DECK, {"prizes": entry(quantity=None)}),
        (DECK, {"prizes": entry(quantity=0)}),
        (DECK, {"prizes": entry(quantity=DECK_TICKETS_MAX + 1)}),
        (DECK, {"prizes": entry(weight=1)}),
        (DECK, {"consolation": 0}),
        (DECK, {"prizes": entry(amount=0)}),
        (DECK, {"prizes": entry(value_fen=VALUE_FEN_MAX + 1)}),
        (DECK, {"prizes": entry(kind=Made.CASH, amount=99)}),
        (DECK, {"prizes": entry(kind=Made.BENEFIT, amount=1)}),
        (DECK, {"prizes": entry(benefit_id=uuid.UUID(int=1))}),
        (DECK, {"prizes": (replace(NOTHING, value_fen=1),)}),
        (ODDS, {"consolation": None}),
        (ODDS, {"consolation": 0}),
        (ODDS, {"consolation": 3}),
        (ODDS, {"prizes": ODDS.prizes[1:]}),
        (ODDS, {"prizes": (replace(ODDS.prizes[0], weight=0), *ODDS.prizes[1:])}),
        (ODDS, {"prizes": (replace(ODDS.prizes[0], weight=WEIGHT_TOTAL_MAX), *ODDS.prizes[1:])}),
        (ODDS, {"prizes": (replace(ODDS.prizes[0], quantity=None), *ODDS.prizes[1:])}),
    ],
)  # fmt: skip
def test_what_is_no_draw_is_refused(terms: Terms, changes: dict[str, Any]) -> None:
    with pytest.raises(DrawInvalid):
        replace(terms, **changes).check()


@pytest.mark.parametrize(
    ("terms", "changes"),
    [
        (DECK, {"title": Words("一", "x" * NAME_CHARACTERS_MAX), "closes_at": OPENS + DURATION_MAX}),
        (DECK, {"stripes": 40, "limits": Limits(1, 1, LIMIT_MAX)}),
        (DECK, {"price": Price.CHANCES, "price_amount": 1}),
        (DECK, {"prizes": entry(quantity=DECK_TICKETS_MAX, value_fen=VALUE_FEN_MAX)}),
        (DECK, {"prizes": (NOTHING,) * 100}),
        (ODDS, {"prizes": (replace(ODDS.prizes[0], weight=WEIGHT_TOTAL_MAX - 9), *ODDS.prizes[1:])}),
        (ODDS, {"form": Form.ODDS, "prizes": ODDS.prizes[1:], "consolation": None}),
    ],
    ids=["words", "stripes", "price", "deck", "prizes", "weights", "unlimited"],
)
def test_limits_themselves_are_allowed(terms: Terms, changes: dict[str, Any]) -> None:
    replace(terms, **changes).check()


def test_a_plan_becomes_the_terms() -> None:
    assert from_plan(PLAN, ODDS.draw_id, ODDS.seed_hash) == ODDS


@pytest.mark.parametrize(
    "changes",
    [
        {"form": "lottery"},
        {"prizes": []},
        {"prizes": [1]},
        {"opens_at": "soon"},
        {"opens_at": "0001-01-01T00:00:00+14:00"},
        {"surprise": 1},
        {"stripes": True},
        {"price": {"kind": "points", "amount": 1.5}},
        {"limits": {"week": 1}},
        {"title": {"zh": ["x"], "en": "x"}},
    ],
    ids=str,
)
def test_a_plan_of_no_draw_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DrawInvalid):
        from_plan(PLAN | changes, ODDS.draw_id, ODDS.seed_hash)
