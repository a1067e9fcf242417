"""Budgets: value set aside beforehand, in stripes, so that those who draw on it do not queue for one row."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from kit.db import Session
from kit.errors import Conflict
from kit.ids import derived_id
from loyalty import ledger
from loyalty.ledger import AccountId, Leg, Purpose, Transfer

STRIPES_DEFAULT = 16
STRIPES_MAX = 64
_REMEMBERED_MAX = 10_000


class BudgetUsedUp(Conflict):
    """The budget has too little left for what is asked."""

    code = "BudgetUsedUp"


@dataclass(frozen=True)
class Budget:
    """Names a budget: its id, what it holds, and the number of accounts, 1..64, that it is spread over."""

    budget_id: uuid.UUID
    asset: str
    stripes: int = STRIPES_DEFAULT

    @property
    def accounts(self) -> tuple[AccountId, ...]:
        """The stripes, always in the same order."""
        return _accounts(self)

    def starting_at(self, spread: int) -> tuple[AccountId, ...]:
        """The stripes in the order in which a taker tries them; `spread` is any number that differs between takers."""
        first = spread % self.stripes
        return self.accounts[first:] + self.accounts[:first]


@lru_cache(_REMEMBERED_MAX)
def _accounts(budget: Budget) -> tuple[AccountId, ...]:
    # The first word is older than budgets of other things, and stored.
    return tuple(
        AccountId(derived_id("campaign-stripe", budget.budget_id, number), budget.asset, Purpose.BUDGET)
        for number in range(budget.stripes)
    )


async def fund(
    session: Session, budget: Budget, amount: int, source: AccountId, now: datetime, *, unit: int = 1
) -> None:
    """Move `amount` from `source` into the stripes, in whole multiples of `unit`; a second time changes nothing.

    Raises what `ledger.post` raises, and ValueError unless `amount` is a positive multiple of `unit`.
    """
    if amount <= 0 or amount % unit:
        raise ValueError("a budget is a positive multiple of its unit")
    each, more = divmod(amount // unit, budget.stripes)
    shares = [(each + (number < more)) * unit for number in range(budget.stripes)]
    legs = [Leg(source, -amount)]
    legs += [Leg(stripe, share) for stripe, share in zip(budget.accounts, shares, strict=True) if share]
    transfer = Transfer(derived_id("campaign-budget", budget.budget_id), "campaign budget", tuple(legs))
    await ledger.post(session, transfer, now)


def debit(budget: Budget, amount: int, spread: int) -> Leg:
    """The leg that takes `amount` from whichever stripe holds it, beginning at one that `spread` chooses."""
    first, *others = budget.starting_at(spread)
    return Leg(first, -amount, otherwise=tuple(others))


async def left(session: Session, budget: Budget) -> int:
    """What the budget still holds, over all stripes."""
    return sum((await ledger.balances_of(session, budget.accounts)).values())


def holds(held: Mapping[AccountId, int], accounts: Sequence[AccountId], amount: int) -> bool:
    """Whether one of the stripes can pay the amount, by balances that were read before."""
    return any(held.get(account, 0) >= amount for account in accounts)
