"""The history of a card's tier: a pure fold over experience entries, periods and rules, the same on every run.

A tier rises at once. It falls only when a period ends short of what it asks for, after the days of grace; or when a
refund takes back what it was reached by; or when a tier that was given reaches its date. What was decided depends on
when entries were recorded, never on when somebody looked, so deciding late and deciding anew give the same changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile, zip_longest

from loyalty.experience import Counted, Figures, Window, add_months, netted, period_end_after
from loyalty.tier_rules import RuleBook, Rules

_TURNS_MAX = 60


class Reason(StrEnum):
    """Why a tier changed, or why a change of it was announced or called off."""

    EARNED = "earned"
    GRANTED = "granted"
    RULES = "rules"
    WARNED = "warned"
    """A period ended short; the tier falls at `until` unless more is bought."""
    KEPT = "kept"
    LOWERED = "lowered"
    LAPSED = "lapsed"
    """A tier that was given reached its date."""
    REFUNDED = "refunded"


@dataclass(frozen=True)
class State:
    """Where a card stands after the entry `seq` and all that time brought until `moment`. `changes` is their number."""

    rank: int = 0
    since: datetime | None = None
    until: datetime | None = None
    granted_rank: int = 0
    granted_until: datetime | None = None
    moment: datetime | None = None
    seq: int = 0
    changes: int = 0
    version: int = 0


@dataclass(frozen=True)
class Change:
    """One change of a card's tier, with the figures in the window that explain it, by the rules of `version`."""

    number: int
    at: datetime
    from_rank: int
    to_rank: int
    reason: Reason
    version: int
    seq: int
    figures: Figures
    until: datetime | None


def advance(
    state: State, entries: Sequence[Counted], book: RuleBook, until: datetime
) -> tuple[State, tuple[Change, ...]]:
    """The state at a moment, and the changes since `state`.

    `entries` are those of the card by `seq`, at least the ones that `counts_since` and `recalls_since` ask for.
    """
    fold = _Fold(state, entries, book)
    due = [entry for entry in entries if entry.seq > state.seq and entry.recorded_at <= until]
    for entry, following in zip_longest(due, due[1:]):
        fold.take(entry, is_last=not _taken_back_together(entry, following))
    fold.pass_time(until, len(book.versions))
    return fold.state, tuple(fold.changes)


def _taken_back_together(entry: Counted, following: Counted | None) -> bool:
    # What one merge brought to a card is taken back as one thing, and decided on once.
    if following is None or entry.of_entry is None or following.of_entry is None:
        return False
    return entry.origin_id is not None and entry.origin_id == following.origin_id


def counts_since(state: State, book: RuleBook) -> datetime | None:
    """What happened by then has no weight in anything that is decided from `state` on; None: everything may have."""
    if state.moment is None:
        return None
    return add_months(state.moment, -max(rules.window_months for rules in (Rules(), *book.versions)))


def recalls_since(state: State, book: RuleBook, moment: datetime) -> datetime:
    """The same for a decision at `moment` on something that is taken back."""
    begin = _memory_begin(book, state.version, moment)
    return add_months(begin, -max(rules.window_months for rules in (Rules(), *book.versions)))


def _memory_begin(book: RuleBook, version: int, moment: datetime) -> datetime:
    """From when on a card's history makes what it is at a moment, whatever it was before.

    A rank that is not deserved falls after a period and its grace. So of two histories with the same entries the one of
    the higher rank falls to what is deserved within that time, or both are the same from then on; the higher of the two
    ranks has become lower, unless the rules changed meanwhile, and there are only so many.
    """
    held = (Rules(), *book.versions[:version])
    months, days = max(rules.period_months for rules in held), max(rules.grace_days for rules in held)
    turns = ranks = 1 + max(rules.top_rank for rules in held)
    while True:
        begin = add_months(moment, -turns * months) - timedelta(days=turns * days)
        changed = sum(rules.valid_from is not None and rules.valid_from > begin for rules in held)
        if ranks + changed <= turns or turns == _TURNS_MAX:
            return begin
        turns = min(ranks + changed, _TURNS_MAX)


def next_check(state: State, book: RuleBook) -> datetime | None:
    """When time alone may next change the state; None: never."""
    due = [moment for moment in (state.until, state.granted_until) if moment is not None]
    if state.rank and state.moment is not None:
        due.append(period_end_after(state.moment, book.version(state.version).period_months))
    return min(due, default=None)


class _Fold:
    def __init__(self, state: State, entries: Sequence[Counted], book: RuleBook) -> None:
        self.state = state
        self.changes: list[Change] = []
        self._entries = entries
        self._book = book
        self._window: Window | None = None

    @property
    def _rules(self) -> Rules:
        return self._book.version(self.state.version)

    def take(self, entry: Counted, *, is_last: bool = True) -> None:
        """Decide on the next entry, at the moment when it was recorded; or only count it, if it is not the last."""
        # Clocks differ between servers: time never runs backwards for one card.
        moment = max(entry.recorded_at, self.state.moment or entry.recorded_at)
        self.pass_time(moment, entry.rules_version)
        self.state = replace(self.state, seq=entry.seq, moment=moment)
        if self._window is not None:
            self._window.add(entry)
        if entry.grant_rank and entry.granted_until is not None and entry.granted_until > moment:
            self._grant(entry.grant_rank, entry.granted_until, moment)
        if not is_last:
            return
        left: list[Counted] = []
        if entry.of_entry is not None:
            left = netted([known for known in self._entries if known.seq <= entry.seq])
            rank, until = _granted(left, moment)
            self.state = replace(self.state, granted_rank=rank, granted_until=until)
        deserved = self._deserved(moment)
        if deserved > self.state.rank:
            self._change(deserved, Reason.EARNED, moment, None)
        elif deserved == self.state.rank:
            if self.state.until is not None:
                self._change(deserved, Reason.KEPT, moment, None)
        elif entry.of_entry is not None:
            honest = self._honest(left, moment)
            if honest.rank < self.state.rank:
                self._change(honest.rank, Reason.REFUNDED, moment, honest.until)

    def _grant(self, rank: int, until: datetime, moment: datetime) -> None:
        held = (self.state.granted_rank, self.state.granted_until or moment)
        rank_now, until_now = max((rank, until), held)
        self.state = replace(self.state, granted_rank=rank_now, granted_until=until_now)
        given = min(rank, self._rules.top_rank)
        if given > self.state.rank:
            self._change(given, Reason.GRANTED, moment, None)

    def _honest(self, left: Sequence[Counted], moment: datetime) -> State:
        # What the card would be, had there never been more of the purchase than what is left of it: so a tier that was
        # bought and sent back is gone at once, while one that was reached otherwise keeps its period and its grace.
        begin = _memory_begin(self._book, self.state.version, moment)
        earlier = list(takewhile(lambda past: past.recorded_at <= begin, left))
        rank, until = _granted(earlier, begin)
        seq = earlier[-1].seq if earlier else 0
        version = min(self._book.in_force(begin).version, self.state.version)
        begun = State(granted_rank=rank, granted_until=until, moment=begin, seq=seq, version=version)
        fold = _Fold(begun, left, self._book)
        fold.state = replace(begun, rank=fold._deserved(begin))
        for past in left[len(earlier) :]:
            fold.take(past)
        fold.pass_time(moment, self.state.version)
        return fold.state

    def pass_time(self, until: datetime, version_max: int) -> None:
        """Let everything happen that time alone brings up to and including a moment, in its order."""
        while True:
            due = self._next_due(version_max)
            if due is None or due[0] > until:
                return
            moment, _order, kind = due
            self.state = replace(self.state, moment=moment)
            if kind == "grant":
                self._grant_ends(moment)
            elif kind == "rules":
                self._rules_change(moment)
            elif kind == "grace":
                self._grace_ends(moment)
            else:
                self._period_ends(moment)

    def _next_due(self, version_max: int) -> tuple[datetime, int, str] | None:
        state, due = self.state, []
        if state.granted_until is not None:
            due.append((state.granted_until, 0, "grant"))
        if state.version < min(version_max, len(self._book.versions)):
            held_from = self._book.version(state.version + 1).valid_from
            assert held_from is not None
            due.append((max(held_from, state.moment or held_from), 1, "rules"))
        if state.until is not None:
            due.append((state.until, 2, "grace"))
        if state.rank and state.moment is not None:
            due.append((period_end_after(state.moment, self._rules.period_months), 3, "period"))
        return min(due, default=None)

    def _grant_ends(self, moment: datetime) -> None:
        given = self.state.granted_rank
        self.state = replace(self.state, granted_rank=0, granted_until=None)
        deserved = self._deserved(moment)
        if deserved < self.state.rank <= given:
            self._change(deserved, Reason.LAPSED, moment, None)

    def _rules_change(self, moment: datetime) -> None:
        self.state = replace(self.state, version=self.state.version + 1)
        self._window = None
        if self.state.rank > self._rules.top_rank:
            self._change(self._rules.top_rank, Reason.RULES, moment, None)
        deserved = self._deserved(moment)
        if deserved > self.state.rank:
            self._change(deserved, Reason.RULES, moment, None)

    def _grace_ends(self, moment: datetime) -> None:
        deserved = self._deserved(moment)
        kept = deserved >= self.state.rank
        self._change(min(deserved, self.state.rank), Reason.KEPT if kept else Reason.LOWERED, moment, None)

    def _period_ends(self, moment: datetime) -> None:
        deserved = self._deserved(moment)
        if deserved >= self.state.rank or self.state.until is not None:
            return
        grace = self._rules.grace_days
        if grace:
            self._change(self.state.rank, Reason.WARNED, moment, moment + timedelta(days=grace))
        else:
            self._change(deserved, Reason.LOWERED, moment, None)

    def _figures(self, moment: datetime) -> Figures:
        if self._window is None:
            self._window = Window(self._rules.window_months, self._rules.keep_permille)
            for entry in self._entries:
                if entry.seq <= self.state.seq:
                    self._window.add(entry)
        return self._window.figures(moment)

    def _deserved(self, moment: datetime) -> int:
        earned = self._rules.rank_for(self._figures(moment))
        given = self.state.granted_rank if self.state.granted_until and self.state.granted_until > moment else 0
        return max(earned, min(given, self._rules.top_rank))

    def _change(self, rank: int, reason: Reason, moment: datetime, until: datetime | None) -> None:
        before = self.state
        self.changes.append(
            Change(
                before.changes + 1,
                moment,
                before.rank,
                rank,
                reason,
                before.version,
                before.seq,
                self._figures(moment),
                until,
            )
        )
        since = before.since if rank == before.rank else moment
        self.state = replace(before, rank=rank, since=since, until=until, changes=before.changes + 1)


def _granted(left: Sequence[Counted], moment: datetime) -> tuple[int, datetime | None]:
    """The given tier that holds at a moment, and until when, by what is left of the entries so far."""
    rank, until, at = 0, None, None
    for entry in left:
        at = entry.recorded_at if at is None else max(at, entry.recorded_at)
        if until is not None and until <= at:
            rank, until = 0, None
        if entry.grant_rank and entry.granted_until is not None and entry.granted_until > at:
            rank, until = max((entry.grant_rank, entry.granted_until), (rank, until or at))
    return (0, None) if until is None or until <= moment else (rank, until)
