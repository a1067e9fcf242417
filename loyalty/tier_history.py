"""The history of a card's tier: a pure fold over experience entries, periods and rules, the same on every run.

A tier rises at once. It falls only when a period ends short of what it asks for, after the days of grace; or when a
refund takes back what it was reached by; or when a tier that was given reaches its date. What was decided depends on
when entries were recorded, never on when somebody looked, so deciding late and deciding anew give the same changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from loyalty.experience import Counted, Figures, figures_at, netted, period_end_after
from loyalty.tier_rules import RuleBook, Rules


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
    """The state at a moment, and the changes since `state`. `entries` are all those of the card, by `seq`."""
    fold = _Fold(state, entries, book)
    for entry in entries:
        if entry.seq > state.seq and entry.recorded_at <= until:
            fold.take(entry)
    fold.pass_time(until, len(book.versions))
    return fold.state, tuple(fold.changes)


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

    @property
    def _rules(self) -> Rules:
        return self._book.version(self.state.version)

    def take(self, entry: Counted) -> None:
        """Decide on the next entry, at the moment when it was recorded."""
        # Clocks differ between servers: time never runs backwards for one card.
        moment = max(entry.recorded_at, self.state.moment or entry.recorded_at)
        self.pass_time(moment, entry.rules_version)
        self.state = replace(self.state, seq=entry.seq, moment=moment)
        if entry.grant_rank and entry.granted_until is not None and entry.granted_until > moment:
            self._grant(entry.grant_rank, entry.granted_until, moment)
        honest = self._honest(entry, moment) if entry.of_entry is not None else None
        if honest is not None:
            self.state = replace(self.state, granted_rank=honest.granted_rank, granted_until=honest.granted_until)
        deserved = self._deserved(moment)
        if deserved > self.state.rank:
            self._change(deserved, Reason.EARNED, moment, None)
        elif deserved == self.state.rank:
            if self.state.until is not None:
                self._change(deserved, Reason.KEPT, moment, None)
        elif honest is not None and honest.rank < self.state.rank:
            self._change(honest.rank, Reason.REFUNDED, moment, honest.until)

    def _grant(self, rank: int, until: datetime, moment: datetime) -> None:
        held = (self.state.granted_rank, self.state.granted_until or moment)
        rank_now, until_now = max((rank, until), held)
        self.state = replace(self.state, granted_rank=rank_now, granted_until=until_now)
        given = min(rank, self._rules.top_rank)
        if given > self.state.rank:
            self._change(given, Reason.GRANTED, moment, None)

    def _honest(self, entry: Counted, moment: datetime) -> State:
        # What the card would be, had there never been more of the purchase than what is left of it: so a tier that was
        # bought and sent back is gone at once, while one that was reached otherwise keeps its period and its grace.
        known = netted([known for known in self._entries if known.seq <= entry.seq])
        fold = _Fold(State(), known, self._book)
        for past in known:
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
        known = (entry for entry in self._entries if entry.seq <= self.state.seq)
        return figures_at(known, moment, self._rules.window_months, self._rules.keep_permille)

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
