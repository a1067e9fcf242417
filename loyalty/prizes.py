"""Prizes: what campaigns, tasks and draws give, and the one way of giving it."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from kit.db import Session
from kit.errors import Invalid
from kit.vault import Vault
from loyalty import benefits, budgets, fulfilment, ledger, sandbox
from loyalty.benefits import BenefitLimitReached, BenefitNotOpen, BenefitOutOfStock, BenefitUnknown, HeldBenefit
from loyalty.budgets import Budget, BudgetUsedUp
from loyalty.fulfilment import NewOrder, OrderKind
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer

POINTS_MAX = 1_000_000
MEGABYTES_MAX = 10_240
VALUE_FEN_MAX = 5_000_000
"""¥50,000, the most that a prize may be worth in China."""


class PrizeKind(StrEnum):
    """What a prize is made of; the first three are the ledger's names of the assets."""

    POINTS = "points"
    MEGABYTES = "mb"
    CASH = "fen"
    BENEFIT = "benefit"
    NOTHING = "nothing"


AMOUNT_MAX = {
    PrizeKind.POINTS: POINTS_MAX,
    PrizeKind.MEGABYTES: MEGABYTES_MAX,
    PrizeKind.CASH: VALUE_FEN_MAX,
    PrizeKind.BENEFIT: 1,
    PrizeKind.NOTHING: 0,
}
ORDERED = {PrizeKind.MEGABYTES: OrderKind.DATA, PrizeKind.CASH: OrderKind.CASH}
"""Prizes that somebody else has to deliver."""
USED_UP = (BudgetUsedUp, BenefitOutOfStock)
"""Why a prize is not given to anybody any more."""
NOT_GIVEN = (*USED_UP, BenefitUnknown, BenefitNotOpen, BenefitLimitReached)
"""Why a prize is not given, to this member at least."""


class PrizeInvalid(Invalid):
    """Such a prize cannot be given; the message names the field."""

    code = "PrizeInvalid"


@dataclass(frozen=True)
class Prize:
    """What is given: `amount` in points, megabytes, fen or, always 1, benefits."""

    kind: PrizeKind
    amount: int
    benefit_id: uuid.UUID | None = None

    def check(self) -> None:
        """Raises PrizeInvalid."""
        highest = AMOUNT_MAX[self.kind]
        if not min(1, highest) <= self.amount <= highest:
            raise PrizeInvalid(f"amount: {min(1, highest)} to {highest} for a prize of {self.kind}")
        if (self.kind is PrizeKind.BENEFIT) != (self.benefit_id is not None):
            raise PrizeInvalid("benefit_id: the benefit that is given, and only for a prize of that kind")

    @property
    def is_ordered(self) -> bool:
        """Whether somebody else has to deliver it."""
        return self.kind in ORDERED

    @property
    def asset(self) -> str:
        """The ledger's name of what the prize is made of."""
        return f"benefit:{self.benefit_id}" if self.kind is PrizeKind.BENEFIT else self.kind.value


@dataclass(frozen=True)
class Given:
    """What a grant gave. `balance` is that of the member's account after it; None for benefits and nothing."""

    prize: Prize
    balance: int | None
    order_id: uuid.UUID | None
    held: HeldBenefit | None
    is_new: bool


async def give(
    session: Session,
    vault: Vault,
    *,
    grant_id: uuid.UUID,
    member_id: uuid.UUID,
    group_id: int,
    brand_id: int,
    prize: Prize,
    budget: Budget | None,
    reason: str,
    now: datetime,
    refund_to: AccountId | None = None,
    spread: uuid.UUID | None = None,
) -> Given:
    """Give a prize once: the same `grant_id` again changes nothing and answers as before.

    The value comes from the budget, or from the brand's issuance when there is none; a benefit comes from its stock.
    What cannot be delivered goes to `refund_to`, None: back to where it came from. `spread`, the member unless it is
    given, chooses which of the issuance's accounts pays: who gives several prizes in one transaction names one for all,
    or two such transactions may wait for each other. Raises NOT_GIVEN.
    """
    if prize.kind is PrizeKind.NOTHING:
        return Given(prize, None, None, None, is_new=True)
    if prize.kind is PrizeKind.BENEFIT:
        assert prize.benefit_id is not None
        held = await benefits.grant(
            session, vault, grant_id=grant_id, member_id=member_id, benefit_id=prize.benefit_id, why=reason, now=now
        )
        return Given(prize, None, None, held, is_new=held.is_new)
    order_kind = ORDERED.get(prize.kind)
    purpose = Purpose.AVAILABLE if order_kind is None else Purpose.PENDING
    account = AccountId(member_id, prize.asset, purpose)
    if budget is None:
        source = Leg(ledger.issuance(brand_id, prize.asset, spread or member_id), -prize.amount)
    else:
        source = budgets.debit(budget, prize.amount, grant_id.int)
    expiry = None
    if prize.kind is PrizeKind.POINTS:
        expiry = ledger.lot_expiry(await ledger.policy_of(session, group_id), now)
    transfer = Transfer(grant_id, reason, (source, Leg(account, prize.amount)), lots_expire_at=expiry)
    try:
        posted = await ledger.post(session, transfer, now)
    except InsufficientBalance:
        raise BudgetUsedUp("the budget of this prize is used up") from None
    if order_kind is None:
        return Given(prize, posted.balances[account], None, None, posted.is_new)
    if posted.is_new:
        paid = refund_to or next(paying for paying in posted.balances if paying != account)
        make_believe = await sandbox.is_sandbox(session, group_id)
        order = NewOrder(grant_id, member_id, order_kind, prize.amount, paid, brand_id, sandbox=make_believe)
        await fulfilment.place(session, order, now)
    return Given(prize, posted.balances[account], grant_id, None, posted.is_new)
