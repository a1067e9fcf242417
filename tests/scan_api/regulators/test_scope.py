"""What a scope sees: the whole table, one row a reason."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan_api.regulators import categories
from scan_api.regulators.categories import CategoryInvalid
from scan_api.regulators.scope import Facts, Scope, Sight

GTIN = "09506000134352"
HERE, THERE = "6101", "31"


@pytest.mark.parametrize(
    ("wide", "narrow", "inside"),
    [
        ("gpc:50000000", "gpc:50131700", True),
        ("gpc:50130000", "gpc:50131700", True),
        ("gpc:50130000", "gpc:50140000", False),
        ("gpc:50131700", "gpc:50130000", False),
        ("gpc:10000025", "gpc:10000025", True),
        ("gpc:10000000", "gpc:10000025", False),  # bricks are no tree
        ("own:food", "own:food/dairy", True),
        ("own:food", "own:foodstuff", False),
        ("own:food/dairy", "own:food", False),
        ("own:food", "gpc:50000000", False),
        ("gpc:50000000", "own:food", False),
    ],
)
def test_categories_lie_within_each_other(wide: str, narrow: str, inside: bool) -> None:
    assert categories.covers(categories.parse(wide), categories.parse(narrow)) is inside


@pytest.mark.parametrize(
    "text",
    ["", "gpc:", "gpc:5000000", "gpc:500000000", "gpc:00000000", "own:", "own:Food", "own:a//b", "own:a/", "x:1",
     "own:" + "/".join("a" * 40 for _ in range(3))],
)  # fmt: skip
def test_what_is_no_category_is_refused(text: str) -> None:
    with pytest.raises(CategoryInvalid):
        categories.parse(text)


@given(st.text(max_size=20).map(lambda text: f"own:{text}") | st.text(max_size=12))
def test_any_text_is_a_category_or_refused(text: str) -> None:
    try:
        assert categories.parse(text) == text
    except CategoryInvalid:
        return


def test_a_product_has_so_many_categories_at_most() -> None:
    some = [f"own:c{at}" for at in range(9)]
    assert len(categories.parse_all(some[:7], 8)) == 7
    assert len(categories.parse_all(some[:8], 8)) == 8
    with pytest.raises(CategoryInvalid, match="8"):
        categories.parse_all(some, 8)


@pytest.mark.parametrize(
    ("scope", "seats", "places", "of_product", "sight"),
    [
        (Scope(), (), (), (), Sight.EVERYWHERE),
        (Scope(categories=("own:food",)), (), (), ("own:food/dairy",), Sight.EVERYWHERE),
        (Scope(categories=("own:food",)), (), (), (), Sight.OUTSIDE_CATEGORIES),
        (Scope(categories=("own:food",)), (HERE,), (), ("own:toys",), Sight.OUTSIDE_CATEGORIES),
        (Scope(("61",)), (HERE,), (), (), Sight.BY_SEAT),
        (Scope(("61",)), (THERE,), (HERE,), (), Sight.BY_PLACE),
        (Scope(("61",)), (THERE,), (THERE,), (), Sight.OUTSIDE_JURISDICTION),
        (Scope(("61",)), (), (), (), Sight.OUTSIDE_JURISDICTION),
        (Scope(("610102",)), (HERE,), (HERE,), (), Sight.OUTSIDE_JURISDICTION),  # a county sees no prefecture
        (Scope(gtin_prefixes=("9506000134",)), (), (), (), Sight.EVERYWHERE),
        (Scope(gtin_prefixes=("9506000135",)), (HERE,), (), (), Sight.OUTSIDE_KEY),
        (Scope(brand_id=2), (HERE,), (), (), Sight.OUTSIDE_KEY),
        (Scope(brand_id=1), (HERE,), (), (), Sight.EVERYWHERE),
    ],
)
def test_what_a_scope_sees(
    scope: Scope, seats: tuple[str, ...], places: tuple[str, ...], of_product: tuple[str, ...], sight: Sight
) -> None:
    assert scope.sees(Facts(1, GTIN, of_product, seats, places)) is sight
    assert sight.is_seen is (sight in (Sight.EVERYWHERE, Sight.BY_SEAT, Sight.BY_PLACE))


@pytest.mark.parametrize(
    ("now", "then", "covers"),
    [
        (Scope(), Scope(), True),
        (Scope(), Scope(("61",), ("own:food",), ("9506000",), 1), True),
        (Scope(("61",), ("own:food",), ("9506000",), 1), Scope(("61",), ("own:food",), ("9506000",), 1), True),
        (Scope(("CN",)), Scope(("61", "3101")), True),
        (Scope(("61", "31")), Scope(("6101", "310101")), True),
        (Scope(("6101",)), Scope(("61",)), False),
        (Scope(("6101", "31")), Scope(("6101", "62")), False),
        (Scope(("61",)), Scope(), False),
        (Scope(categories=("own:food",)), Scope(categories=("own:food/dairy",)), True),
        (Scope(categories=("own:food/dairy",)), Scope(categories=("own:food",)), False),
        (Scope(categories=("own:food",)), Scope(categories=("own:food", "own:toys")), False),
        (Scope(categories=("own:food",)), Scope(("61",)), False),
        (Scope(gtin_prefixes=("9506",)), Scope(gtin_prefixes=("9506000", "9506")), True),
        (Scope(gtin_prefixes=("9506000",)), Scope(gtin_prefixes=("9506",)), False),
        (Scope(brand_id=1), Scope(brand_id=2), False),
        (Scope(brand_id=1), Scope(), False),
        (Scope(sandbox=True), Scope(), False),
        (Scope(), Scope(sandbox=True), False),
    ],
)
def test_whether_a_scope_covers_another(now: Scope, then: Scope, covers: bool) -> None:
    assert now.covers(then) is covers


_SCOPES = st.builds(
    Scope,
    st.sampled_from([(), ("61",), ("6101",), ("31", "61"), ("CN",)]),
    st.sampled_from([(), ("own:food",), ("own:food/dairy", "own:toys"), ("gpc:50000000",)]),
    st.sampled_from([(), (GTIN[1:8],), (GTIN[1:],), ("9507",)]),
    st.sampled_from([None, 1, 2]),
)
_FACTS = st.builds(
    Facts,
    st.just(1),
    st.just(GTIN),
    st.sampled_from([(), ("own:food",), ("own:food/dairy",), ("own:toys", "gpc:50131700")]),
    st.sampled_from([(), ("6101",), ("31",)]),
    st.sampled_from([(), ("610102",), ("DE",)]),
)


@given(_SCOPES, _SCOPES, _FACTS)
def test_what_is_covered_sees_nothing_that_the_other_does_not(now: Scope, then: Scope, facts: Facts) -> None:
    if now.covers(then) and then.sees(facts).is_seen:
        assert now.sees(facts).is_seen


def test_a_wider_scope_never_sees_less() -> None:
    lands, sorts = [(), ("61",), ("6101",)], [(), ("own:food",), ("own:food/dairy",)]
    for seats, places, kinds in product(
        [(), ("6101",), ("31",)], [(), ("610102",)], [(), ("own:food/dairy",), ("own:food",)]
    ):
        facts = Facts(1, GTIN, kinds, seats, places)
        for (wide, narrow), (broad, slim) in product(pairwise(lands), pairwise(sorts)):
            if Scope(narrow, slim).sees(facts).is_seen:
                assert Scope(wide, broad).sees(facts).is_seen
