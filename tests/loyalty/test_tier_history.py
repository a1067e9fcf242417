"""The history of a card's tier: the same changes, whoever looks and when, and never a rank that was not deserved."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.experience import (
    Counted,
    Figures,
    add_months,
    figures_at,
    months_since,
    netted,
    period_end_after,
)
from loyalty.tier_history import Change, Reason, State, advance, counts_since, next_check, recalls_since
from loyalty.tier_rules import RuleBook, Rules
from tests.loyalty.tier_world import LADDER, RULES

START = datetime(2026, 1, 10, 4, 0, tzinfo=UTC)
BOOK = RuleBook(1, (replace(RULES, version=1, valid_from=START),))


def entry(seq: int, days: float, fen: int = 10_000, **changes: object) -> Counted:
    at = START + timedelta(days=days)
    plain = Counted(uuid.UUID(int=seq), seq, Figures(1, fen, 0), at, at, 1)
    return replace(plain, **changes)  # type: ignore[arg-type]


def back(seq: int, days: float, of: Counted, fen: int | None = None) -> Counted:
    """A refund of an entry, whole unless an amount is given."""
    taken = Figures(-1, -of.figures.fen, 0) if fen is None else Figures(0, -fen, 0)
    at = START + timedelta(days=days)
    return Counted(uuid.UUID(int=seq), seq, taken, of.at, at, 1, of_entry=of.entry_id)


def told(changes: tuple[Change, ...]) -> list[tuple[str, int, int, str]]:
    """Day in China, ranks, reason."""
    return [
        ((one.at + timedelta(hours=8)).date().isoformat(), one.from_rank, one.to_rank, str(one.reason))
        for one in changes
    ]


def whole(entries: list[Counted], days: float, book: RuleBook = BOOK) -> tuple[State, tuple[Change, ...]]:
    return advance(State(), entries, book, START + timedelta(days=days))


def test_a_tier_rises_at_once_and_falls_after_the_period_and_its_grace() -> None:
    state, changes = whole([entry(1, 0), entry(2, 20)], 500)
    assert told(changes) == [
        ("2026-01-30", 0, 1, "earned"),
        ("2027-02-01", 1, 1, "warned"),
        ("2027-03-03", 1, 0, "lowered"),
    ]
    assert changes[0].figures == Figures(2, 20_000, 0)
    assert changes[1].until == changes[2].at
    assert (state.rank, state.until, next_check(state, BOOK)) == (0, None, None)


def test_buying_enough_in_the_days_of_grace_keeps_the_tier() -> None:
    entries = [entry(1, 0), entry(2, 20), entry(3, 390), entry(4, 391)]
    _state, changes = whole(entries, 500)
    assert told(changes)[1:] == [("2027-02-01", 1, 1, "warned"), ("2027-02-05", 1, 1, "kept")]


def test_without_grace_a_tier_falls_when_the_period_ends() -> None:
    book = RuleBook(1, (replace(BOOK.versions[0], grace_days=0, period_months=12),))
    _state, changes = whole([entry(1, 0), entry(2, 20)], 1_000, book)
    assert told(changes)[1:] == [("2028-01-01", 1, 0, "lowered")]


def test_a_given_tier_holds_until_its_date_and_is_gone_then() -> None:
    given_tier = entry(1, 0, 0, figures=Figures(), grant_rank=2, granted_until=START + timedelta(days=100))
    _state, changes = whole([given_tier, entry(2, 5), entry(3, 6)], 200)
    assert told(changes) == [("2026-01-10", 0, 2, "granted"), ("2026-04-20", 2, 1, "lapsed")]


def test_a_refund_takes_the_tier_at_once_that_its_purchase_bought() -> None:
    entries = [entry(1, 0), entry(2, 20)]
    _state, changes = whole([*entries, back(3, 21, entries[0])], 25)
    assert told(changes)[1:] == [("2026-01-31", 1, 0, "refunded")]


def test_a_refund_in_part_that_leaves_enough_changes_nothing() -> None:
    entries = [entry(1, 0, 15_000), entry(2, 20)]
    _state, changes = whole([*entries, back(3, 21, entries[0], 5_000)], 25)
    assert [one.reason for one in changes] == [Reason.EARNED]
    _state, changes = whole([*entries, back(3, 21, entries[0], 5_001)], 25)
    assert [one.reason for one in changes] == [Reason.EARNED, Reason.REFUNDED]


def test_a_refund_does_not_take_a_tier_that_was_held_before_it() -> None:
    late = entry(3, 380)
    _state, changes = whole([entry(1, 0), entry(2, 20), late, back(4, 381, late)], 385)
    assert told(changes) == [("2026-01-30", 0, 1, "earned")]


def test_new_rules_raise_at_once_and_lower_only_what_is_no_longer_on_the_ladder() -> None:
    easier = (LADDER[0], replace(LADDER[1], needs=Figures(purchases=1)))
    two = replace(RULES, version=2, valid_from=START + timedelta(days=10), ladder=easier)
    three = replace(RULES, version=3, valid_from=START + timedelta(days=15), ladder=LADDER[:1])
    _state, changes = whole([entry(1, 0)], 20, RuleBook(1, (*BOOK.versions, two, three)))
    assert told(changes) == [("2026-01-20", 0, 1, "rules"), ("2026-01-25", 1, 0, "rules")]


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-01-31T00:00+08:00", 1, "2026-02-28T00:00+08:00"),
        ("2026-01-31T07:00+00:00", 1, "2026-02-28T07:00+00:00"),
        # The first of February in China is still January in UTC.
        ("2026-01-31T18:00+00:00", 1, "2026-02-28T18:00+00:00"),
        ("2028-02-29T00:00+08:00", 12, "2029-02-28T00:00+08:00"),
        ("2026-12-15T00:00+08:00", 1, "2027-01-15T00:00+08:00"),
    ],
    ids=str,
)
def test_months_are_those_of_the_calendar_in_china(start: str, months: int, end: str) -> None:
    begun, ended = datetime.fromisoformat(start), datetime.fromisoformat(end)
    assert add_months(begun, months) == ended
    assert months_since(begun, ended) == months
    assert months_since(begun, ended - timedelta(microseconds=1)) == months - 1


@pytest.mark.parametrize(
    ("period", "end"), [(1, "2026-06-01"), (3, "2026-07-01"), (6, "2026-07-01"), (12, "2027-01-01")]
)
def test_periods_end_at_midnight_in_china(period: int, end: str) -> None:
    ends = datetime.fromisoformat(f"{end}T00:00+08:00")
    assert period_end_after(datetime(2026, 5, 1, 8, tzinfo=UTC), period) == ends
    assert period_end_after(ends - timedelta(microseconds=1), period) == ends
    assert period_end_after(ends, period) > ends


def test_entries_lose_weight_by_the_month_and_leave_the_window_whole() -> None:
    entries = [entry(1, 0, 1_000)]
    expected = [(0, 1_000), (30, 1_000), (31, 900), (59, 810), (100, 729), (364, 313), (365, 0)]
    assert [(day, figures_at(entries, START + timedelta(days=day), 12, 900).fen) for day, _ in expected] == expected
    assert figures_at(entries, START + timedelta(days=364), 12, 1_000) == Figures(1, 1_000, 0)
    assert figures_at(entries, START - timedelta(microseconds=1), 12, 1_000) == Figures()


DAYS = st.integers(0, 900)


@st.composite
def histories(draw: st.DrawFn) -> list[Counted]:
    """Purchases, refunds of some, and given tiers, in the order of their days."""
    entries: list[Counted] = []
    for seq, day in enumerate(sorted(draw(st.lists(DAYS, max_size=14))), start=1):
        bought = [one for one in entries if one.of_entry is None and not one.grant_rank]
        kind = draw(st.sampled_from(["buy", "buy", "buy", "refund", "give"]))
        if kind == "refund" and bought:
            entries.append(back(seq, day, draw(st.sampled_from(bought)), draw(st.none() | st.integers(1, 5_000))))
        elif kind == "give":
            until = START + timedelta(days=day + draw(st.integers(1, 400)))
            rank = draw(st.integers(1, 3))
            entries.append(entry(seq, day, figures=Figures(), grant_rank=rank, granted_until=until))
        else:
            late = START + timedelta(days=max(0, day - draw(st.integers(0, 60))))
            entries.append(replace(entry(seq, day, draw(st.integers(1, 40_000))), at=late))
    return entries


@st.composite
def books(draw: st.DrawFn) -> RuleBook:
    def version(number: int, day: int) -> Rules:
        return replace(
            RULES,
            version=number,
            valid_from=START + timedelta(days=day),
            ladder=LADDER[: draw(st.integers(1, 3))],
            window_months=draw(st.integers(1, 14)),
            keep_permille=draw(st.sampled_from([1_000, 900, 500])),
            period_months=draw(st.sampled_from([1, 3, 12])),
            grace_days=draw(st.sampled_from([0, 10, 45])),
        )

    days = sorted(draw(st.sets(st.integers(1, 800), max_size=2)))
    return RuleBook(1, tuple(version(number, day) for number, day in enumerate([0, *days], start=1)))


@given(histories(), books(), st.lists(DAYS, max_size=10))
def test_deciding_as_it_happens_or_late_gives_what_deciding_anew_does(
    entries: list[Counted], book: RuleBook, looks: list[int]
) -> None:
    entries = [replace(one, rules_version=book.in_force(one.recorded_at).version) for one in entries]
    end = START + timedelta(days=1_000)
    state, found = State(), ()
    for moment in sorted([*(START + timedelta(days=day, hours=1) for day in looks), end]):
        known = [one for one in entries if one.recorded_at <= moment]
        state, changes = advance(state, known, book, moment)
        found = (*found, *changes)
    assert (state, found) == advance(State(), entries, book, end)


@given(histories(), books())
def test_a_refund_decides_as_though_all_that_was_taken_back_had_never_been(
    entries: list[Counted], book: RuleBook
) -> None:
    entries = [replace(one, rules_version=book.in_force(one.recorded_at).version) for one in entries]
    state = State()
    for number, one in enumerate(entries, start=1):
        state, _ = advance(state, entries[:number], book, one.recorded_at)
        if one.of_entry is None:
            continue
        # From the very start, where the decision itself goes back no farther than it has to.
        honest, _ = advance(State(), netted(entries[:number]), book, one.recorded_at)
        rules = book.version(state.version)
        figures = figures_at(entries[:number], one.recorded_at, rules.window_months, rules.keep_permille)
        deserved = max(rules.rank_for(figures), min(state.granted_rank, rules.top_rank))
        assert deserved <= state.rank <= max(deserved, honest.rank)
        assert (state.granted_rank, state.granted_until) == (honest.granted_rank, honest.granted_until)


@given(histories(), books())
def test_what_no_longer_matters_need_not_be_known(entries: list[Counted], book: RuleBook) -> None:
    entries = [replace(one, rules_version=book.in_force(one.recorded_at).version) for one in entries]
    state, found = State(), ()
    for number, one in enumerate(entries, start=1):
        since = counts_since(state, book)
        if since is not None and one.of_entry is not None:
            since = min(since, recalls_since(state, book, one.recorded_at))
        known = [
            past
            for past in entries[:number]
            if since is None or past.at > since or past.seq > state.seq or past.figures == Figures()
        ]
        state, changes = advance(state, known, book, one.recorded_at)
        found = (*found, *changes)
    assert not entries or (state, found) == advance(State(), entries, book, entries[-1].recorded_at)


@given(histories(), books())
def test_a_rank_is_never_above_what_was_deserved_when_it_rose(entries: list[Counted], book: RuleBook) -> None:
    entries = [replace(one, rules_version=book.in_force(one.recorded_at).version) for one in entries]
    _state, changes = advance(State(), entries, book, START + timedelta(days=1_000))
    rank = 0
    for number, change in enumerate(changes, start=1):
        assert (change.number, change.from_rank) == (number, rank)
        rank = change.to_rank
        if change.reason is Reason.EARNED:
            given_ranks = {one.grant_rank for one in entries}
            assert rank in given_ranks or book.version(change.version).rank_for(change.figures) == rank


@given(histories().filter(bool), books())
def test_what_was_wholly_refunded_leaves_no_tier(entries: list[Counted], book: RuleBook) -> None:
    bought = [
        replace(one, rules_version=book.in_force(one.recorded_at).version)
        for one in entries
        if one.of_entry is None and not one.grant_rank
    ]
    last = max((one.recorded_at for one in bought), default=START)
    refunds = [
        replace(back(100 + one.seq, 0, one), recorded_at=last, rules_version=book.in_force(last).version)
        for one in bought
    ]
    state, _ = advance(State(), [*bought, *refunds], book, last)
    assert state.rank == 0
